//! What a disk that is slow, full or wrong does to a rollout.

use super::*;
use crate::rollout::command::Command;
use crate::rollout::plan::Steps;

fn promote(rollout: &mut Rollout, full: bool) -> Step {
    rollout.step(Event::Command(Command::Promote { full }), seconds(1))
}

fn full_disk() -> PauseReason {
    PauseReason::Unsaved { sentence: said("the disk is full") }
}

#[test]
fn nothing_is_launched_that_is_not_written() {
    let fresh = Checkpoint { instances: Vec::new(), ..checkpoint(Phase::Launching) };
    let (mut rollout, _) = Rollout::begin(fresh, seconds(0));
    let step = unsaved(&mut rollout, seconds(1));
    let cause = Cause::LaunchFailed { sentence: said("the disk is full") };
    assert_eq!((&rollout.phase, step.effects), (&going_back(cause), BACK.to_vec()));
}

#[test]
fn a_step_that_cannot_be_written_waits_at_the_weight_before() {
    let mut rollout = at(baking(1));
    let _ = promote(&mut rollout, false);
    assert_eq!((rollout.weight, rollout.settled), (percent(50), percent(25)));
    let step = unsaved(&mut rollout, seconds(2));
    assert_eq!(rollout.phase, paused(2, percent(25), full_disk()));
    assert_eq!((rollout.weight, rollout.settled), (percent(25), percent(25)));
    assert_eq!(step.effects, [MAY]);
    let step = rollout.step(Event::Command(Command::Resume), seconds(3));
    assert_eq!(step.effects, [MUST, Effect::Shift(percent(50))]);
}

#[test]
fn the_first_step_that_cannot_be_written_waits_at_nothing() {
    let mut rollout = at(Phase::Probing);
    let _ = rollout.step(Event::Ready { attempt: 1 }, seconds(1));
    let _ = unsaved(&mut rollout, seconds(2));
    assert_eq!(rollout.phase, paused(0, Weight::ZERO, full_disk()));
}

#[test]
fn two_steps_in_one_write_fall_back_to_what_is_in_force() {
    let mut rollout = at(baking(0));
    let _ = promote(&mut rollout, false);
    let _ = promote(&mut rollout, false);
    let _ = unsaved(&mut rollout, seconds(2));
    assert_eq!(rollout.phase, paused(2, percent(5), full_disk()));
}

#[test]
fn a_pause_stays_at_the_weight_in_force_and_drops_what_was_on_its_way() {
    let mut rollout = at(baking(0));
    let _ = promote(&mut rollout, false);
    let before = rollout.attempt;
    let _ = rollout.step(Event::Command(Command::Pause), seconds(2));
    assert_eq!(rollout.phase, paused(1, percent(5), PauseReason::Operator));
    // The write of the step arrives. Its shift must not be done any more.
    assert!(rollout.step(Event::Saved { attempt: before }, seconds(3)).ignored);
    assert_eq!(rollout.settled, percent(5));
}

#[test]
fn a_rollback_overtakes_a_shift_that_waits_for_the_disk() {
    let mut rollout = at(baking(0));
    let _ = promote(&mut rollout, false);
    let before = rollout.attempt;
    let step = rollout.step(sampled(Finding::Fail), seconds(2));
    assert_eq!(step.effects, BACK);
    assert!(rollout.step(Event::Saved { attempt: before }, seconds(3)).ignored);
    assert_eq!((rollout.weight, rollout.settled), (Weight::ZERO, Weight::ZERO));
}

#[test]
fn lowering_the_weight_works_on_a_full_disk() {
    let mut rollout = at(baking(1));
    let lower = Event::Command(Command::Weight(percent(10)));
    assert_eq!(rollout.step(lower, seconds(1)).effects, [MAY, Effect::Shift(percent(10))]);
    assert_eq!(rollout.settled, percent(10));
    assert!(unsaved(&mut rollout, seconds(2)).effects.is_empty());
    assert_eq!(rollout.phase, paused(1, percent(10), PauseReason::Operator));
}

#[test]
fn what_could_not_be_written_is_written_again() {
    let mut rollout = at(baking(1));
    let _ = rollout.step(Event::Command(Command::Abort), seconds(1));
    assert!(!unsaved(&mut rollout, seconds(2)).ignored);
    assert!(unsaved(&mut rollout, seconds(2)).ignored, "once");
    assert!(rollout.step(tick(), Moment(2_999)).effects.is_empty());
    assert_eq!(rollout.step(tick(), seconds(3)).effects, [MAY]);
    assert!(rollout.step(tick(), seconds(4)).effects.is_empty(), "one write at a time");
    assert!(!saved(&mut rollout).ignored);
    assert!(saved(&mut rollout).ignored, "what waits must not be done twice");
}

#[test]
fn an_end_is_written_until_it_is_written() {
    let mut rollout = at(Phase::Promoting);
    let _ = rollout.step(Event::Switched { attempt: rollout.attempt }, seconds(1));
    let _ = unsaved(&mut rollout, seconds(2));
    assert!(!rollout.is_done());
    assert_eq!(rollout.step(tick(), seconds(3)).effects, [MAY]);
    let _ = saved(&mut rollout);
    assert!(rollout.is_done());
}

#[test]
fn a_promotion_that_cannot_be_written_waits() {
    let mut rollout = at(baking(1));
    let _ = promote(&mut rollout, true);
    let step = unsaved(&mut rollout, seconds(2));
    assert_eq!(rollout.phase, paused(3, percent(25), full_disk()));
    assert_eq!(step.effects, [MAY]);
}

#[test]
fn a_direct_switch_that_cannot_be_written_is_tried_again() {
    let direct = Checkpoint { kind: Kind::Direct, ..checkpoint(Phase::Probing) };
    let mut rollout = Rollout::resume(direct, seconds(0)).0;
    let step = rollout.step(Event::Ready { attempt: 1 }, seconds(0));
    assert_eq!(step.effects, [MUST, Effect::Switch]);
    assert!(unsaved(&mut rollout, seconds(1)).effects.is_empty());
    assert_eq!(rollout.phase, Phase::Promoting);
    assert!(rollout.step(tick(), Moment(1_999)).effects.is_empty());
    assert_eq!(rollout.step(tick(), seconds(2)).effects, [MUST, Effect::Switch]);
    // A disk that never answers.
    assert_eq!(rollout.step(tick(), seconds(32)).effects, [MUST, Effect::Switch]);
}

#[test]
fn a_return_to_what_still_runs_works_on_a_full_disk() {
    let back = Checkpoint { kind: Kind::Direct, ..checkpoint(Phase::Promoting) };
    let (mut rollout, effects) = Rollout::begin(back, seconds(0));
    assert_eq!(effects, [Effect::Switch]);
    // Whatever is heard of it now, the traffic may be there.
    assert!(rollout.step(Event::Lost { sentence: said("gone") }, seconds(0)).ignored);
    assert!(rollout.step(Event::Command(Command::Abort), seconds(0)).ignored);
    // A switch that nobody heard of is done again, and again without a disk.
    assert_eq!(rollout.step(tick(), seconds(30)).effects, [Effect::Switch]);
    let step = rollout.step(Event::Switched { attempt: rollout.attempt }, seconds(31));
    assert_eq!((&rollout.phase, &step.effects[..]), (&Phase::Promoted, &[MAY][..]));
    assert_eq!(rollout.settled, Weight::FULL);
    let _ = unsaved(&mut rollout, seconds(32));
    assert!(!rollout.is_done(), "what was left must not be stopped yet");
    assert_eq!(rollout.step(tick(), seconds(33)).effects, [MAY]);
    let _ = saved(&mut rollout);
    assert!(rollout.is_done());
}

#[test]
fn a_switch_that_may_have_happened_is_never_unmade() {
    let mut rollout = at(baking(3));
    let _ = promote(&mut rollout, true);
    let _ = saved(&mut rollout);
    // The switch is slow; it is asked for again. An old write must not undo it.
    assert_eq!(rollout.step(tick(), seconds(60)).effects, [Effect::Switch]);
    assert!(unsaved(&mut rollout, seconds(61)).ignored);
    assert!(rollout.step(sampled(Finding::Fail), seconds(61)).ignored);
    assert_eq!(rollout.phase, Phase::Promoting);
}

#[test]
fn one_step_is_enough() {
    let mut checkpoint = checkpoint(Phase::Probing);
    checkpoint.plan.steps = Steps::new(vec![Weight::FULL]).expect("steps");
    let mut rollout = Rollout::resume(checkpoint, seconds(0)).0;
    let step = rollout.step(Event::Ready { attempt: 1 }, seconds(1));
    assert_eq!(step.effects, [MUST, Effect::Shift(Weight::FULL)]);
    let _ = saved(&mut rollout);
    let step = rollout.step(sampled(Finding::Pass), seconds(31));
    assert_eq!(step.effects, [MUST, Effect::Switch]);
}
