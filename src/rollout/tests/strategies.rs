//! What each strategy makes of the law.

use super::*;
use crate::rollout::command::Command;
use crate::rollout::phase::Stage;
use crate::rollout::strategy::Strategy;

fn by(strategy: Strategy, instances: u32, phase: Phase) -> Checkpoint {
    let plan = Plan { strategy, ..Plan::default() }.carried_out(instances);
    Checkpoint { plan, instances: Vec::new(), ..checkpoint(phase) }
}

fn launched(rollout: &Rollout, number: u32) -> Event {
    Event::Launched { attempt: rollout.attempt, instances: vec![instance(number)] }
}

fn ready(rollout: &Rollout) -> Event {
    Event::Ready { attempt: rollout.attempt }
}

fn growing(step: usize, weight: u16, stage: Stage) -> Phase {
    let weight = Weight::from_basis_points(weight).expect("a weight");
    Phase::Growing { step, weight, stage }
}

#[test]
fn blue_green_is_one_watched_step() {
    let (mut rollout, effects) =
        Rollout::begin(by(Strategy::BlueGreen, 2, Phase::Launching), seconds(0));
    assert_eq!(effects, [MUST, Effect::Launch]);
    let _ = saved(&mut rollout);
    let _ = rollout.step(launched(&rollout, 1), seconds(1));
    let step = rollout.step(ready(&rollout), seconds(2));
    assert_eq!(step.effects, [MUST, Effect::Shift(Weight::FULL)]);
    let _ = saved(&mut rollout);
    assert_eq!(rollout.clone().step(sampled(Finding::Fail), seconds(3)).effects, BACK);
    let step = rollout.step(sampled(Finding::Pass), seconds(32));
    assert_eq!(step.effects, [MUST, Effect::Switch]);
}

#[test]
fn rolling_exchanges_one_instance_after_the_other() {
    let (mut rollout, effects) =
        Rollout::begin(by(Strategy::Rolling, 3, Phase::Launching), seconds(0));
    assert_eq!((effects, rollout.wanted()), (vec![MUST, Effect::Launch], 1));
    let _ = saved(&mut rollout);
    let _ = rollout.step(launched(&rollout, 1), seconds(1));
    let _ = rollout.step(ready(&rollout), seconds(1));
    let _ = saved(&mut rollout);
    assert_eq!((rollout.phase.clone(), rollout.settled.basis_points()), (baking(0), 3_333));
    // A third of the traffic is well: one of stable's goes, one comes.
    let step = rollout.step(sampled(Finding::Pass), seconds(31));
    assert_eq!(rollout.phase, growing(1, 3_333, Stage::Launching));
    let one = Effect::Release { taken: 1, of: 3 };
    assert_eq!((step.effects, rollout.wanted()), (vec![MUST, one, Effect::Launch], 2));
    let _ = saved(&mut rollout);
    let step = rollout.step(launched(&rollout, 2), seconds(32));
    assert_eq!(rollout.phase, growing(1, 3_333, Stage::Probing));
    assert_eq!(step.effects, [MAY, Effect::Probe]);
    assert_eq!(rollout.instances, [instance(1), instance(2)]);
    let step = rollout.step(ready(&rollout), seconds(33));
    let two = Weight::from_basis_points(6_666).expect("a weight");
    assert_eq!(step.effects, [MUST, Effect::Shift(two)]);
    let _ = saved(&mut rollout);
    let step = rollout.step(sampled(Finding::Pass), seconds(64));
    let two = Effect::Release { taken: 2, of: 3 };
    assert_eq!(step.effects, [MUST, two, Effect::Launch]);
    let _ = saved(&mut rollout);
    let _ = rollout.step(launched(&rollout, 3), seconds(65));
    let _ = rollout.step(ready(&rollout), seconds(65));
    let _ = saved(&mut rollout);
    assert_eq!(rollout.settled, Weight::FULL);
    let step = rollout.step(sampled(Finding::Pass), seconds(99));
    assert_eq!(step.effects, [MUST, Effect::Switch]);
}

#[test]
fn rolling_goes_back_at_the_first_failure() {
    let failures = [
        (Stage::Launching, Event::LaunchFailed { attempt: 1, sentence: said("no such image") }),
        (Stage::Launching, tick()),
        (Stage::Launching, sampled(Finding::Fail)),
        (Stage::Probing, Event::Lost { sentence: said("exited with code 1") }),
        (Stage::Probing, tick()),
        (Stage::Probing, Event::Command(Command::Abort)),
    ];
    for (stage, event) in failures {
        let from = by(Strategy::Rolling, 4, growing(2, 5_000, stage));
        let mut rollout = Rollout::resume(from, seconds(0)).0;
        let step = rollout.step(event.clone(), seconds(200));
        assert_eq!(step.effects, BACK, "{stage:?} on {event:?}");
    }
    // While nothing is shown, the time goes by.
    let from = by(Strategy::Rolling, 4, growing(2, 5_000, Stage::Launching));
    let mut rollout = Rollout::resume(from, seconds(0)).0;
    for event in [sampled(Finding::Pass), sampled(Finding::Inconclusive), tick()] {
        assert_eq!(rollout.step(event, seconds(1)), Step { effects: vec![], ignored: false });
    }
    for command in [Command::Pause, Command::Promote { full: false }, Command::Resume] {
        assert!(rollout.admit(command).is_err(), "{command:?}");
    }
}

#[test]
fn rolling_is_taken_up_again_where_it_was() {
    let resume = |phase| Rollout::resume(by(Strategy::Rolling, 4, phase), seconds(0));
    let half = percent(50);
    let two = Effect::Release { taken: 2, of: 4 };
    let (rollout, effects) = resume(growing(2, 5_000, Stage::Launching));
    assert_eq!(effects, [Effect::Shift(half), two.clone(), Effect::Launch]);
    assert_eq!(rollout.settled, half);
    let (rollout, effects) = resume(growing(2, 5_000, Stage::Smoke));
    assert_eq!(effects, [Effect::Shift(half), two.clone(), Effect::Probe]);
    assert_eq!(rollout.phase, growing(2, 5_000, Stage::Probing));
    assert_eq!(resume(baking(2)).1, [Effect::Shift(percent(75)), two]);
    assert_eq!(resume(baking(0)).1, [Effect::Shift(percent(25))]);
}

#[test]
fn not_all_at_once_while_not_all_run() {
    let rollout = Rollout::resume(by(Strategy::Rolling, 4, baking(1)), seconds(0)).0;
    assert!(rollout.admit(Command::Promote { full: true }).is_err());
    assert!(rollout.admit(Command::Promote { full: false }).is_ok());
    let rollout = Rollout::resume(by(Strategy::Rolling, 4, baking(3)), seconds(0)).0;
    assert!(rollout.admit(Command::Promote { full: true }).is_ok());
}

#[test]
fn what_cannot_be_written_gives_nothing_up() {
    let mut rollout = Rollout::resume(by(Strategy::Rolling, 2, baking(0)), seconds(0)).0;
    let _ = rollout.step(sampled(Finding::Pass), seconds(31));
    assert_eq!(rollout.phase, growing(1, 5_000, Stage::Launching));
    let step = unsaved(&mut rollout, seconds(32));
    let reason = PauseReason::Unsaved { sentence: said("the disk is full") };
    assert_eq!((rollout.phase, step.effects), (paused(0, percent(50), reason), vec![MAY]));
}

#[test]
fn a_kept_revision_returns_instance_by_instance_without_being_judged() {
    let back = Checkpoint { kind: Kind::Direct, ..by(Strategy::Rolling, 2, Phase::Probing) };
    let mut rollout = Rollout::resume(back, seconds(0)).0;
    let step = rollout.step(ready(&rollout), seconds(1));
    assert_eq!(step.effects, [MUST, Effect::Shift(percent(50))]);
    assert_eq!(rollout.step(tick(), seconds(1)).effects, [], "it is being written");
    let _ = saved(&mut rollout);
    let step = rollout.step(tick(), seconds(1));
    assert_eq!(step.effects, [MUST, Effect::Release { taken: 1, of: 2 }, Effect::Launch]);
    let _ = saved(&mut rollout);
    let _ = rollout.step(launched(&rollout, 2), seconds(2));
    let _ = rollout.step(ready(&rollout), seconds(2));
    let _ = saved(&mut rollout);
    assert_eq!(rollout.step(tick(), seconds(3)).effects, [MUST, Effect::Switch]);
}

#[test]
fn recreate_stops_first_and_lets_visitors_in_with_the_traffic() {
    let (mut rollout, effects) =
        Rollout::begin(by(Strategy::Recreate, 1, Phase::Launching), seconds(0));
    assert_eq!(effects, [MUST, Effect::Queue(true), Effect::Clear]);
    let _ = saved(&mut rollout);
    let cleared = Event::Cleared { attempt: rollout.attempt };
    let step = rollout.step(cleared, seconds(1));
    assert_eq!((&rollout.phase, step.effects), (&Phase::Launching, vec![MAY, Effect::Launch]));
    let _ = rollout.step(launched(&rollout, 1), seconds(2));
    let step = rollout.step(ready(&rollout), seconds(3));
    assert_eq!(step.effects, [MUST, Effect::Queue(false), Effect::Shift(Weight::FULL)]);
    assert!(rollout.admit(Command::Pause).is_err(), "visitors still wait");
    let _ = saved(&mut rollout);
    assert!(rollout.admit(Command::Pause).is_ok());
    assert!(rollout.admit(Command::Weight(percent(50))).is_err(), "there is no other half");
    let step = rollout.step(sampled(Finding::Pass), seconds(40));
    assert_eq!(step.effects, [MUST, Effect::Queue(false), Effect::Switch]);
}

#[test]
fn recreate_starts_stable_again_when_it_goes_back() {
    let back = [MAY, Effect::Queue(true), Effect::Shift(Weight::ZERO), Effect::Drain];
    let phases = [Phase::Clearing, Phase::Launching, Phase::Probing, baking(0)];
    for phase in phases {
        let mut rollout = Rollout::resume(by(Strategy::Recreate, 1, phase.clone()), seconds(0)).0;
        let step = rollout.step(Event::Command(Command::Abort), seconds(1));
        assert_eq!(step.effects, back, "{phase:?}");
        let _ = rollout.step(Event::Drained { attempt: rollout.attempt }, seconds(2));
        let step = rollout.step(Event::Stopped { attempt: rollout.attempt }, seconds(3));
        let restoring = Phase::Restoring { cause: Cause::Aborted };
        assert_eq!((&rollout.phase, step.effects), (&restoring, vec![MAY, Effect::Restore]));
        assert!(rollout.admit(Command::Abort).is_err());
        let mut late = rollout.clone();
        let step = rollout.step(Event::Restored { attempt: rollout.attempt }, seconds(4));
        assert_eq!(step.effects, [Effect::Queue(false), MAY]);
        assert_eq!(rollout.phase, Phase::RolledBack { cause: Cause::Aborted });
        // It is not waited for forever; the keeper goes on.
        let step = late.step(tick(), seconds(3 + 120 + 60));
        assert_eq!(step.effects, [Effect::Queue(false), MAY]);
    }
}

#[test]
fn recreate_goes_back_when_what_serves_does_not_stop() {
    let mut rollout = Rollout::resume(by(Strategy::Recreate, 1, Phase::Clearing), seconds(0)).0;
    assert_eq!(rollout.step(tick(), seconds(89)).effects, []);
    let _ = rollout.step(tick(), seconds(90));
    let cause = Cause::LaunchFailed { sentence: said("the instances of stable do not stop") };
    assert_eq!(rollout.phase, going_back(cause));
}

#[test]
fn visitors_wait_wherever_recreate_is_taken_up_again() {
    let resume = |phase| Rollout::resume(by(Strategy::Recreate, 1, phase), seconds(0)).1;
    let hold = Effect::Queue(true);
    assert_eq!(resume(Phase::Clearing), [hold.clone(), Effect::Clear]);
    assert_eq!(resume(Phase::Launching), [hold.clone(), Effect::Launch]);
    assert_eq!(resume(Phase::Smoke), [hold.clone(), Effect::Probe]);
    assert_eq!(resume(baking(0)), [Effect::Queue(false), Effect::Shift(Weight::FULL)]);
    let restoring = Phase::Restoring { cause: Cause::Aborted };
    assert_eq!(resume(restoring), [hold, Effect::Shift(Weight::ZERO), Effect::Drain]);
    assert_eq!(resume(Phase::Promoting), [MUST, Effect::Queue(false), Effect::Switch]);
}

#[test]
fn recreate_does_not_wait_at_nothing_for_a_disk() {
    let mut rollout = Rollout::resume(by(Strategy::Recreate, 1, Phase::Probing), seconds(0)).0;
    let _ = rollout.step(ready(&rollout), seconds(1));
    let _ = unsaved(&mut rollout, seconds(2));
    let cause = Cause::LaunchFailed { sentence: said("the disk is full") };
    assert_eq!(rollout.phase, going_back(cause));
}

#[test]
fn the_first_revision_has_nothing_to_exchange() {
    for strategy in [Strategy::BlueGreen, Strategy::Rolling, Strategy::Recreate] {
        let first = by(strategy, 2, Phase::Launching);
        let first = Checkpoint { kind: Kind::Direct, stable: None, ..first };
        let (mut rollout, effects) = Rollout::begin(first, seconds(0));
        assert_eq!(effects, [MUST, Effect::Launch], "{strategy}");
        let _ = saved(&mut rollout);
        let _ = rollout.step(launched(&rollout, 1), seconds(1));
        let step = rollout.step(ready(&rollout), seconds(2));
        assert_eq!(step.effects, [MUST, Effect::Switch], "{strategy}");
    }
}
