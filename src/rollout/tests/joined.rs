//! Rollouts that wait for each other.

use super::*;
use crate::rollout::command::Command;
use crate::rollout::joined::Joined;

fn begun(kind: Kind, stable: Option<RevisionId>, phase: Phase) -> Rollout {
    let name = |text| ServiceName::new(text).expect("a name");
    let members = vec![name("api"), name("web")];
    let joined = Joined { group: name("shop"), number: 7, members };
    let plan = Plan { joined: Some(joined), ..Plan::default() };
    let (rollout, _) =
        Rollout::resume(Checkpoint { kind, stable, plan, ..checkpoint(phase) }, Moment(0));
    rollout
}

fn canary(phase: Phase) -> Rollout {
    begun(Kind::Canary, Some(RevisionId(3)), phase)
}

fn waits(step: usize, weight: Weight) -> Phase {
    paused(step, weight, PauseReason::Others)
}

#[test]
fn nobody_takes_a_step_alone() {
    let mut rollout = canary(Phase::Probing);
    let step = rollout.step(Event::Ready { attempt: 1 }, seconds(1));
    assert_eq!((&rollout.phase, step.effects), (&waits(0, Weight::ZERO), vec![MAY]));
    assert_eq!((rollout.waits_at(), rollout.reached()), (Some(0), Some(0)));
    // Nothing but the others lets it go on.
    for event in [tick(), sampled(Finding::Pass), sampled(Finding::Inconclusive)] {
        assert_eq!(rollout.step(event, seconds(100_000)).effects, []);
    }
    for command in [Command::Promote { full: false }, Command::Resume, Command::Pause] {
        let said = rollout.admit(command).expect_err("others are not as far").to_string();
        assert!(said.contains("the others of its group are not as far"), "{said}");
    }
    let step = rollout.step(Event::Together, seconds(2));
    assert_eq!((&rollout.phase, step.effects), (&baking(0), vec![MUST, Effect::Shift(percent(5))]));
    assert!(!saved(&mut rollout).ignored);
    assert_eq!((rollout.waits_at(), rollout.reached()), (None, Some(0)));
    // It has passed its step, and keeps its weight.
    let step = rollout.step(sampled(Finding::Pass), seconds(60));
    assert_eq!((&rollout.phase, step.effects), (&waits(0, percent(5)), vec![MAY]));
    assert_eq!((rollout.waits_at(), rollout.reached()), (Some(1), Some(1)));
    let step = rollout.step(Event::Together, seconds(61));
    assert_eq!(
        (&rollout.phase, step.effects),
        (&baking(1), vec![MUST, Effect::Shift(percent(25))])
    );
    // Said by a person, a step ends as if it had passed.
    assert!(!saved(&mut rollout).ignored);
    let _ = rollout.step(Event::Command(Command::Promote { full: false }), seconds(62));
    assert_eq!(rollout.phase, waits(1, percent(25)));
}

#[test]
fn the_promotion_waits_too() {
    let mut rollout = canary(baking(3));
    let _ = rollout.step(sampled(Finding::Pass), seconds(60));
    assert_eq!((&rollout.phase, rollout.reached()), (&waits(3, Weight::FULL), Some(4)));
    let step = rollout.step(Event::Together, seconds(61));
    assert_eq!((&rollout.phase, step.effects), (&Phase::Promoting, vec![MUST, Effect::Switch]));
    assert_eq!(rollout.reached(), Some(usize::MAX));
}

#[test]
fn who_waits_is_taken_back_like_anybody() {
    let failures = [
        (sampled(Finding::Fail), Cause::Regression { sentence: said("errors 5% > 1%") }),
        (Event::Lost { sentence: said("gone") }, Cause::Lost { sentence: said("gone") }),
        (Event::Vetoed { sentence: said("api") }, Cause::Vetoed { sentence: said("api") }),
        (Event::Command(Command::Abort), Cause::Aborted),
    ];
    for (event, cause) in failures {
        let mut rollout = canary(waits(1, percent(25)));
        assert_eq!(rollout.step(event, seconds(1)).effects, BACK);
        assert_eq!(rollout.phase, going_back(cause));
    }
    let mut probing = canary(Phase::Probing);
    let vetoed = Event::Vetoed { sentence: said("api") };
    assert_eq!(probing.step(vetoed, seconds(1)).effects, BACK);
}

#[test]
fn some_things_are_not_for_one_of_them() {
    let rollout = canary(baking(1));
    for command in [Command::Promote { full: true }, Command::Weight(percent(30))] {
        let said = rollout.admit(command).expect_err("it goes with its group").to_string();
        assert!(said.contains("step by step with its group"), "{said}");
    }
    assert!(rollout.admit(Command::Pause).is_ok());
    // Where nobody was split, nobody is waited for.
    let mut first = begun(Kind::Canary, None, Phase::Probing);
    let _ = first.step(Event::Ready { attempt: 1 }, seconds(1));
    assert_eq!(first.phase, Phase::Promoting);
    assert!(canary(baking(0)).step(Event::Together, seconds(1)).ignored);
}

#[test]
fn a_return_waits_until_all_are_ready() {
    let returning = |phase| begun(Kind::Direct, Some(RevisionId(3)), phase);
    let mut rollout = returning(Phase::Probing);
    let step = rollout.step(Event::Ready { attempt: 1 }, seconds(1));
    assert_eq!((&rollout.phase, step.effects), (&waits(0, Weight::ZERO), vec![MAY]));
    assert_eq!((rollout.waits_at(), rollout.reached()), (Some(0), Some(0)));
    for command in [Command::Promote { full: true }, Command::Resume, Command::Pause] {
        assert!(rollout.admit(command).is_err(), "{command:?}");
    }
    assert_eq!(rollout.step(tick(), seconds(100_000)).effects, []);
    let step = rollout.step(Event::Together, seconds(2));
    assert_eq!((&rollout.phase, step.effects), (&Phase::Promoting, vec![MUST, Effect::Switch]));
    // One that cannot come keeps the others where they are.
    let mut rollout = returning(waits(0, Weight::ZERO));
    let vetoed = Event::Vetoed { sentence: said("api") };
    assert_eq!(rollout.step(vetoed, seconds(1)).effects, BACK);
}

#[test]
fn who_waits_waits_again_after_a_restart() {
    let rollout = canary(waits(1, percent(25)));
    assert_eq!((rollout.waits_at(), rollout.weight), (Some(2), percent(25)));
}
