//! The phase before the first step, in which copies of requests are compared.

use super::*;
use crate::rollout::command::Command;
use crate::rollout::strategy::Strategy;

#[test]
fn copies_come_before_the_first_visitor() {
    let plan = Plan { mirror: Some(super::chance::mirror()), ..Plan::default() };
    let begin = |kind, stable, phase| {
        let checkpoint = Checkpoint { kind, stable, plan: plan.clone(), ..checkpoint(phase) };
        Rollout::resume(checkpoint, Moment(0))
    };
    let three = Some(RevisionId(3));
    let mirroring = || begin(Kind::Canary, three, Phase::Mirroring).0;
    let mut rollout = begin(Kind::Canary, three, Phase::Probing).0;
    let step = rollout.step(Event::Ready { attempt: 1 }, seconds(1));
    assert_eq!(step.effects, [MAY, Effect::Mirror]);
    assert_eq!((rollout.phase.as_str(), rollout.weight), ("mirroring", Weight::ZERO));
    // It ends with its time, and with nothing else that speaks for the canary.
    for event in [sampled(Finding::Pass), sampled(Finding::Inconclusive), tick()] {
        assert_eq!(rollout.step(event, seconds(20)).effects, []);
    }
    let step = rollout.step(tick(), seconds(21));
    assert_eq!((rollout.phase, step.effects), (baking(0), vec![MUST, Effect::Shift(percent(5))]));
    // A kept revision served before, and the first one has nobody to be compared with.
    assert_eq!(begin(Kind::Direct, three, Phase::Probing).0.plan.mirror, plan.mirror);
    for (kind, stable) in [(Kind::Direct, three), (Kind::Canary, None)] {
        let mut rollout = begin(kind, stable, Phase::Probing).0;
        let _ = rollout.step(Event::Ready { attempt: 1 }, seconds(1));
        assert_eq!(rollout.phase, Phase::Promoting);
    }
    let failures = [
        (sampled(Finding::Fail), Cause::Regression { sentence: said("errors 5% > 1%") }),
        (Event::Lost { sentence: said("gone") }, Cause::Lost { sentence: said("gone") }),
        (Event::Vetoed { sentence: said("qa") }, Cause::Vetoed { sentence: said("qa") }),
        (Event::Command(Command::Abort), Cause::Aborted),
    ];
    for (event, cause) in failures {
        let mut rollout = mirroring();
        assert_eq!(rollout.step(event, seconds(1)).effects, BACK);
        assert_eq!(rollout.phase, going_back(cause));
    }
    // A person may skip it, and do nothing else that belongs to a weight.
    let mut rollout = mirroring();
    let step = rollout.step(Event::Command(Command::Promote { full: false }), seconds(1));
    assert_eq!((rollout.phase, step.ignored), (baking(0), false));
    let mut rollout = mirroring();
    let _ = rollout.step(Event::Command(Command::Promote { full: true }), seconds(1));
    assert_eq!(rollout.phase, Phase::Promoting);
    for command in [Command::Pause, Command::Resume, Command::Weight(percent(5))] {
        let said = mirroring().admit(command).expect_err("there is no weight yet").to_string();
        assert!(said.contains("`switchback promote` skips it"), "{said}");
    }
    // Where instances are exchanged one by one, the others are missing.
    for (instances, is_whole) in [(4, false), (1, true)] {
        let plan = Plan { strategy: Strategy::Rolling, ..plan.clone() }.carried_out(instances);
        let checkpoint = Checkpoint { stable: three, plan, ..checkpoint(Phase::Mirroring) };
        let rollout = Rollout::resume(checkpoint, Moment(0)).0;
        let admitted = rollout.admit(Command::Promote { full: true });
        assert_eq!(admitted.is_ok(), is_whole, "{instances}: {admitted:?}");
    }
    // A disk that does not take it is no reason to wait with copies.
    let mut rollout = begin(Kind::Canary, three, Phase::Probing).0;
    let _ = rollout.step(Event::Ready { attempt: 1 }, seconds(1));
    assert!(!unsaved(&mut rollout, seconds(1)).ignored);
    assert_eq!(rollout.step(tick(), seconds(3)).effects, [MAY]);
    // After a restart they are sent again, for their whole time.
    let (rollout, effects) = begin(Kind::Canary, three, Phase::Mirroring);
    assert_eq!((rollout.phase, effects), (Phase::Mirroring, vec![Effect::Mirror]));
}
