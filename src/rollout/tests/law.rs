//! Each row of the table: a phase, an event, the next phase and the effects in order.

use super::*;
use crate::rollout::command::Command;
use crate::rollout::plan::OnInconclusive;

/// Steps a rollout in `from` at `now` and says where that leads, and whether it was heeded.
fn leads(from: Phase, event: Event, now: Moment) -> (Phase, Vec<Effect>, bool) {
    let mut rollout = at(from);
    let step = rollout.step(event, now);
    (rollout.phase, step.effects, !step.ignored)
}

#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "rows read better without references")]
fn row(from: &Phase, event: Event, now: Moment, next: Phase, effects: &[Effect]) {
    let (phase, done, heeded) = leads(from.clone(), event.clone(), now);
    assert!(heeded, "{from:?} ignored {event:?}");
    assert_eq!(phase, next, "{from:?} on {event:?}");
    assert_eq!(done, effects, "{from:?} on {event:?}");
}

#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "rows read better without references")]
fn row_ignored(from: &Phase, event: Event) {
    let (phase, done, heeded) = leads(from.clone(), event.clone(), seconds(1));
    let stays = phase == at(from.clone()).phase;
    assert!(!heeded && done.is_empty() && stays, "{from:?} heeded {event:?}: {phase:?}");
}

fn every_phase() -> Vec<Phase> {
    vec![
        Phase::Launching,
        Phase::Probing,
        Phase::Mirroring,
        baking(0),
        baking(3),
        paused(1, percent(25), PauseReason::Operator),
        paused(1, percent(25), PauseReason::Inconclusive),
        Phase::Promoting,
        going_back(Cause::Aborted),
        Phase::RollingBack { cause: Cause::Aborted, drained: true },
        Phase::Promoted,
        Phase::RolledBack { cause: Cause::Aborted },
    ]
}

#[test]
fn launching() {
    let from = Phase::Launching;
    let launched = Event::Launched { attempt: 1, instances: vec![instance(1), instance(2)] };
    row(&from, launched.clone(), seconds(1), Phase::Probing, &[MAY, Effect::Probe]);
    let failed = Event::LaunchFailed { attempt: 1, sentence: said("no such image") };
    let cause = Cause::LaunchFailed { sentence: said("no such image") };
    row(&from, failed, seconds(1), going_back(cause), &BACK);
    row(&from, tick(), seconds(119), from.clone(), &[]);
    let cause = Cause::LaunchFailed { sentence: said("not started within 120s") };
    row(&from, tick(), seconds(120), going_back(cause), &BACK);
    let diagnosis = Event::Tick { diagnosis: Some(said("still pulling")) };
    let cause = Cause::LaunchFailed { sentence: said("not started within 120s: still pulling") };
    row(&from, diagnosis, seconds(120), going_back(cause), &BACK);
    row(&from, Event::Command(Command::Abort), seconds(1), going_back(Cause::Aborted), &BACK);
    row_ignored(&from, sampled(Finding::Pass));
    row_ignored(&from, Event::Lost { sentence: said("gone") });

    let mut rollout = at(from);
    let _ = rollout.step(launched, seconds(1));
    assert_eq!(rollout.instances, [instance(1), instance(2)]);
}

#[test]
fn probing() {
    let from = Phase::Probing;
    let ready = Event::Ready { attempt: 1 };
    row(&from, ready, seconds(1), baking(0), &[MUST, Effect::Shift(percent(5))]);
    row(&from, tick(), seconds(59), from.clone(), &[]);
    let cause = Cause::NeverHealthy { sentence: said("not healthy within 60s") };
    row(&from, tick(), seconds(60), going_back(cause), &BACK);
    let diagnosis = Event::Tick { diagnosis: Some(said("GET / answered 500")) };
    let cause =
        Cause::NeverHealthy { sentence: said("not healthy within 60s: GET / answered 500") };
    row(&from, diagnosis, seconds(60), going_back(cause), &BACK);
    let lost = Event::Lost { sentence: said("exited with code 1") };
    let cause = Cause::NeverHealthy { sentence: said("exited with code 1") };
    row(&from, lost, seconds(1), going_back(cause), &BACK);
    row(&from, Event::Command(Command::Abort), seconds(1), going_back(Cause::Aborted), &BACK);
}

#[test]
fn smoke_comes_before_the_first_visitor() {
    let mut plan = Plan { smoke: vec![super::chance::smoke()], ..Plan::default() };
    let begin = |plan: &Plan, kind, stable| {
        let checkpoint =
            Checkpoint { kind, stable, plan: plan.clone(), ..checkpoint(Phase::Probing) };
        let mut rollout = Rollout::resume(checkpoint, Moment(0)).0;
        let step = rollout.step(Event::Ready { attempt: 1 }, seconds(1));
        (rollout, step)
    };
    let three = Some(RevisionId(3));
    let well = || Event::Smoked { attempt: 2, failure: None };
    let (mut rollout, step) = begin(&plan, Kind::Canary, three);
    assert_eq!((rollout.phase.as_str(), rollout.weight), ("smoke", Weight::ZERO));
    assert_eq!(step.effects, [MAY, Effect::Smoke]);
    assert!(rollout.step(sampled(Finding::Pass), seconds(1)).ignored);
    assert!(rollout.step(Event::Smoked { attempt: 1, failure: None }, seconds(1)).ignored);
    assert_eq!(rollout.step(well(), seconds(2)).effects, [MUST, Effect::Shift(percent(5))]);
    // The first revision too, before it takes everything; a kept one served before.
    let (mut rollout, _) = begin(&plan, Kind::Direct, None);
    assert_eq!(rollout.step(well(), seconds(2)).effects, [MUST, Effect::Switch]);
    assert_eq!(begin(&plan, Kind::Direct, three).0.phase, Phase::Promoting);

    let failures = [
        (
            Event::Smoked { attempt: 2, failure: Some(said("GET / answered 500")) },
            Cause::SmokeFailed { sentence: said("GET / answered 500") },
        ),
        (Event::Lost { sentence: said("gone") }, Cause::Lost { sentence: said("gone") }),
        (Event::Command(Command::Abort), Cause::Aborted),
    ];
    for (event, cause) in failures {
        let (mut rollout, _) = begin(&plan, Kind::Canary, three);
        assert_eq!(rollout.step(event, seconds(2)).effects, BACK);
        assert_eq!(rollout.phase, going_back(cause));
    }
    // Two tries of 5 s with a second behind each, and 10 s for a busy machine.
    let (mut rollout, _) = begin(&plan, Kind::Canary, three);
    assert!(rollout.step(tick(), seconds(22)).effects.is_empty());
    assert_eq!(rollout.step(tick(), seconds(23)).effects, BACK);
    plan.smoke.clear();
    assert_eq!(begin(&plan, Kind::Canary, three).0.phase, baking(0));
}

#[test]
fn a_gate_waits_for_a_person() {
    let gated = |on_gate_timeout| Plan {
        gates: vec![percent(25), percent(100)],
        gate_timeout: std::time::Duration::from_secs(600),
        on_gate_timeout,
        ..Plan::default()
    };
    let at_gate = |on_gate_timeout, step| {
        let checkpoint = Checkpoint { plan: gated(on_gate_timeout), ..checkpoint(baking(step)) };
        let mut rollout = Rollout::resume(checkpoint, Moment(0)).0;
        let effects = rollout.step(sampled(Finding::Pass), seconds(30)).effects;
        (rollout, effects)
    };
    let back = OnInconclusive::Rollback;
    // No gate at 5 %.
    assert_eq!(at_gate(back, 0).1, [MUST, Effect::Shift(percent(25))]);
    for (step, next) in [(1, Effect::Shift(percent(50))), (3, Effect::Switch)] {
        let (mut rollout, effects) = at_gate(back, step);
        assert_eq!(effects, [MAY]);
        assert_eq!(rollout.phase, paused(step, rollout.weight, PauseReason::Gate));
        // More evidence opens no gate, a person does.
        assert!(rollout.step(sampled(Finding::Pass), seconds(40)).effects.is_empty());
        for command in [Command::Promote { full: false }, Command::Resume] {
            let mut rollout = rollout.clone();
            let step = rollout.step(Event::Command(command), seconds(50));
            assert_eq!(step.effects, [MUST, next.clone()], "{command:?}");
        }
        assert_eq!(rollout.step(sampled(Finding::Fail), seconds(50)).effects, BACK);
    }
    let (mut rollout, _) = at_gate(back, 1);
    assert!(rollout.step(tick(), seconds(629)).effects.is_empty());
    assert_eq!(rollout.step(tick(), seconds(630)).effects, BACK);
    let sentence = said("nobody let it pass the gate at 25% within 600s");
    assert_eq!(rollout.phase, going_back(Cause::GateClosed { sentence }));
    let (mut rollout, _) = at_gate(OnInconclusive::Advance, 1);
    let effects = rollout.step(tick(), seconds(630)).effects;
    assert_eq!(effects, [MUST, Effect::Shift(percent(50))]);
    let (mut rollout, _) = at_gate(OnInconclusive::Hold, 1);
    assert_eq!(rollout.deadline(), None);
    assert!(rollout.step(tick(), seconds(9_000)).effects.is_empty());
}

#[test]
fn all_at_once_when_healthy() {
    for (kind, stable) in [
        (Kind::Direct, Some(RevisionId(3))),
        (Kind::Direct, None),
        // A part of the traffic would go to nobody.
        (Kind::Canary, None),
    ] {
        let checkpoint = Checkpoint { kind, stable, ..checkpoint(Phase::Probing) };
        let mut rollout = Rollout::resume(checkpoint, Moment(0)).0;
        let step = rollout.step(Event::Ready { attempt: 1 }, seconds(1));
        assert_eq!(rollout.phase, Phase::Promoting, "{kind:?} after {stable:?}");
        assert_eq!(step.effects, [MUST, Effect::Switch]);
    }
}

#[test]
fn baking_is_judged() {
    let next = [MUST, Effect::Shift(percent(50))];
    let pass = || sampled(Finding::Pass);
    row(&baking(1), pass(), seconds(29), baking(1), &[]);
    row(&baking(1), pass(), seconds(30), baking(2), &next);
    row(&baking(3), pass(), seconds(30), Phase::Promoting, &[MUST, Effect::Switch]);
    let cause = Cause::Regression { sentence: said("errors 5% > 1%") };
    row(&baking(1), sampled(Finding::Fail), seconds(0), going_back(cause), &BACK);
    row(&baking(1), sampled(Finding::Inconclusive), seconds(899), baking(1), &[]);
    row(&baking(1), held(Finding::Pass), seconds(899), baking(1), &[]);
    let cause = Cause::Lost { sentence: said("OOM") };
    row(&baking(1), Event::Lost { sentence: said("OOM") }, seconds(1), going_back(cause), &BACK);
}

#[test]
fn a_step_that_shows_nothing_ends_as_the_plan_says() {
    let end = |on_inconclusive, event: Event, now| {
        let mut checkpoint = checkpoint(baking(1));
        checkpoint.plan.on_inconclusive = on_inconclusive;
        let mut rollout = Rollout::resume(checkpoint, Moment(0)).0;
        let effects = rollout.step(event, now).effects;
        (rollout.phase, effects)
    };
    use OnInconclusive::{Advance, Hold, Rollback};
    let nothing = || sampled(Finding::Inconclusive);
    let hold = paused(1, percent(25), PauseReason::Inconclusive);
    assert_eq!(end(Hold, nothing(), seconds(900)), (hold, vec![MAY]));
    let next = vec![MUST, Effect::Shift(percent(50))];
    assert_eq!(end(Advance, nothing(), seconds(900)), (baking(2), next));
    let back = going_back(Cause::Inconclusive { sentence: said("errors 5% > 1%") });
    assert_eq!(end(Rollback, nothing(), seconds(900)), (back, BACK.to_vec()));

    // What a person should look at holds, whatever the plan says.
    let sentence = said("both sides are worse");
    let hold = paused(1, percent(25), PauseReason::Hold { sentence });
    for plan in [Hold, Advance, Rollback] {
        for finding in [Finding::Pass, Finding::Inconclusive] {
            assert_eq!(end(plan, held(finding), seconds(900)), (hold.clone(), vec![MAY]));
        }
    }

    // What looks bad gets a moment more, in which the judge can tell.
    let bad = || {
        let verdict = Verdict::unknown("errors 5% > 1%");
        Event::Sampled(Verdict { failing: true, ..verdict })
    };
    assert_eq!(end(Advance, bad(), Moment(903_999)), (baking(1), vec![]));
    assert_eq!(end(Advance, bad(), seconds(904)).0, baking(2));

    // A judge that says nothing at all is no reason to go on.
    let sentence = said("the evidence was not weighed within 900s");
    let hold = paused(1, percent(25), PauseReason::Hold { sentence: sentence.clone() });
    for plan in [Hold, Advance] {
        assert_eq!(end(plan, tick(), seconds(904)), (baking(1), vec![]));
        assert_eq!(end(plan, tick(), seconds(905)), (hold.clone(), vec![MAY]));
    }
    let back = going_back(Cause::Inconclusive { sentence });
    assert_eq!(end(Rollback, tick(), seconds(905)), (back, BACK.to_vec()));
}

#[test]
fn baking_is_commanded() {
    let say = |command| Event::Command(command);
    let from = baking(1);
    let stays = paused(1, percent(25), PauseReason::Operator);
    row(&from, say(Command::Pause), seconds(1), stays, &[MAY]);
    row(&from, say(Command::Abort), seconds(1), going_back(Cause::Aborted), &BACK);
    let next = [MUST, Effect::Shift(percent(50))];
    row(&from, say(Command::Promote { full: false }), seconds(1), baking(2), &next);
    let full = Command::Promote { full: true };
    row(&from, say(full), seconds(1), Phase::Promoting, &[MUST, Effect::Switch]);
    let last = say(Command::Promote { full: false });
    row(&baking(3), last, seconds(1), Phase::Promoting, &[MUST, Effect::Switch]);
    row_ignored(&from, say(Command::Resume));
}

#[test]
fn a_weight_by_hand_waits_for_the_disk_only_upwards() {
    let say = |weight| Event::Command(Command::Weight(weight));
    for from in [baking(1), paused(1, percent(25), PauseReason::Inconclusive)] {
        for (weight, first) in
            [(percent(60), MUST), (percent(25), MAY), (percent(7), MAY), (Weight::ZERO, MAY)]
        {
            let next = paused(1, weight, PauseReason::Operator);
            row(&from, say(weight), seconds(1), next, &[first, Effect::Shift(weight)]);
        }
    }
}

#[test]
fn a_pause_waits_and_is_still_judged() {
    let say = |command| Event::Command(command);
    let by_hand = paused(1, percent(40), PauseReason::Operator);
    let again = [MUST, Effect::Shift(percent(25))];
    row(&by_hand, say(Command::Resume), seconds(1), baking(1), &again);
    row(&by_hand, say(Command::Abort), seconds(1), going_back(Cause::Aborted), &BACK);
    let next = [MUST, Effect::Shift(percent(50))];
    row(&by_hand, say(Command::Promote { full: false }), seconds(1), baking(2), &next);
    row_ignored(&by_hand, say(Command::Pause));

    let reasons = [
        PauseReason::Operator,
        PauseReason::Inconclusive,
        PauseReason::Hold { sentence: said("both sides are worse") },
        PauseReason::Unsaved { sentence: said("the disk is full") },
    ];
    for reason in reasons {
        let shows_nothing = reason == PauseReason::Inconclusive;
        let from = paused(1, percent(25), reason);
        // Weight is weight: a regression takes it back.
        let cause = Cause::Regression { sentence: said("errors 5% > 1%") };
        row(&from, sampled(Finding::Fail), seconds(1), going_back(cause), &BACK);
        let cause = Cause::Lost { sentence: said("OOM") };
        let lost = Event::Lost { sentence: said("OOM") };
        row(&from, lost, seconds(1), going_back(cause), &BACK);
        row(&from, sampled(Finding::Inconclusive), seconds(9_000), from.clone(), &[]);
        row(&from, held(Finding::Pass), seconds(9_000), from.clone(), &[]);
        row(&from, tick(), seconds(90_000), from.clone(), &[]);
        // Only what waited for evidence goes on by itself, and asks nobody twice.
        if shows_nothing {
            row(&from, sampled(Finding::Pass), seconds(1), baking(2), &next);
            row(&from, say(Command::Resume), seconds(1), baking(2), &next);
        } else {
            row(&from, sampled(Finding::Pass), seconds(9_000), from.clone(), &[]);
            row(&from, say(Command::Resume), seconds(1), baking(1), &again);
        }
    }
}

#[test]
fn promoting_has_no_way_back_once_it_is_written() {
    let from = Phase::Promoting;
    row(&from, Event::Switched { attempt: 2 }, seconds(1), Phase::Promoted, &[MAY]);
    row(&from, tick(), seconds(29), from.clone(), &[]);
    // The switch is asked for again; it is on disk already.
    row(&from, tick(), seconds(30), from.clone(), &[Effect::Switch]);
    row_ignored(&from, sampled(Finding::Fail));
    row_ignored(&from, Event::Lost { sentence: said("OOM") });
    for command in [Command::Abort, Command::Pause, Command::Weight(Weight::ZERO)] {
        row_ignored(&from, Event::Command(command));
    }
}

#[test]
fn until_it_is_written_a_promotion_can_be_taken_back() {
    let promoting = || {
        let mut rollout = at(baking(3));
        let _ = rollout.step(sampled(Finding::Pass), seconds(30));
        assert_eq!(rollout.phase, Phase::Promoting);
        rollout
    };
    let mut rollout = promoting();
    let step = rollout.step(Event::Lost { sentence: said("OOM") }, seconds(31));
    assert_eq!(rollout.phase, going_back(Cause::Lost { sentence: said("OOM") }));
    assert_eq!(step.effects, BACK);
    let mut rollout = promoting();
    let step = rollout.step(sampled(Finding::Fail), seconds(31));
    assert_eq!(step.effects, BACK);
    let mut rollout = promoting();
    assert!(rollout.step(sampled(Finding::Pass), seconds(31)).ignored);
    assert_eq!(rollout.phase, Phase::Promoting);
}

#[test]
fn rolling_back() {
    let from = going_back(Cause::Aborted);
    let drained = Phase::RollingBack { cause: Cause::Aborted, drained: true };
    let over = Phase::RolledBack { cause: Cause::Aborted };
    let stop = [MAY, Effect::Stop];
    row(&from, Event::Drained { attempt: 1 }, seconds(1), drained.clone(), &stop);
    row(&from, tick(), seconds(89), from.clone(), &[]);
    row(&from, tick(), seconds(90), drained.clone(), &stop);
    row_ignored(&from, Event::Stopped { attempt: 1 });
    row_ignored(&from, sampled(Finding::Pass));
    row_ignored(&from, Event::Lost { sentence: said("gone") });
    row_ignored(&from, Event::Command(Command::Resume));

    let stopping = || {
        let mut rollout = at(from.clone());
        let _ = rollout.step(Event::Drained { attempt: 1 }, seconds(1));
        rollout
    };
    let mut rollout = stopping();
    let step = rollout.step(Event::Stopped { attempt: 2 }, seconds(2));
    assert_eq!((&rollout.phase, step.effects), (&over, vec![MAY]));
    // An engine that does not answer holds nobody up for ever.
    let mut rollout = stopping();
    let step = rollout.step(tick(), seconds(91));
    assert_eq!((&rollout.phase, step.effects), (&over, vec![MAY]));
}

#[test]
fn the_ends_are_ends() {
    for from in [Phase::Promoted, Phase::RolledBack { cause: Cause::Aborted }] {
        row_ignored(&from, sampled(Finding::Fail));
        row_ignored(&from, Event::Lost { sentence: said("gone") });
        row_ignored(&from, Event::Command(Command::Abort));
        row_ignored(&from, Event::Stopped { attempt: 1 });
        row(&from, tick(), seconds(90_000), from.clone(), &[]);
    }
}

#[test]
fn what_belongs_to_another_attempt_is_ignored() {
    for phase in every_phase() {
        let current = at(phase.clone()).attempt;
        for attempt in [current - 1, current + 1] {
            let sentence = said("late");
            let completions = [
                Event::Launched { attempt, instances: Vec::new() },
                Event::LaunchFailed { attempt, sentence: sentence.clone() },
                Event::Ready { attempt },
                Event::Drained { attempt },
                Event::Stopped { attempt },
                Event::Switched { attempt },
                Event::Saved { attempt },
                Event::Unsaved { attempt, sentence },
            ];
            for event in completions {
                row_ignored(&phase, event);
            }
        }
    }
}

#[test]
fn everything_but_a_pause_and_an_end_has_a_deadline() {
    for phase in every_phase() {
        let timeless = phase.is_over() || matches!(phase, Phase::Paused { .. });
        assert_eq!(at(phase.clone()).deadline().is_none(), timeless, "{phase:?}");
    }
}

#[test]
fn a_good_revision_goes_all_the_way() {
    let (mut rollout, effects) = Rollout::begin(
        Checkpoint { instances: Vec::new(), ..checkpoint(Phase::Probing) },
        seconds(0),
    );
    assert_eq!(effects, [MUST, Effect::Launch]);
    let mut weights = Vec::new();
    let mut now = 0;
    let _ = saved(&mut rollout);
    let _ = rollout.step(Event::Launched { attempt: 1, instances: vec![instance(1)] }, seconds(0));
    let mut step = rollout.step(Event::Ready { attempt: 2 }, seconds(0));
    while rollout.phase != Phase::Promoting {
        let Some(Effect::Shift(weight)) = step.effects.last() else { panic!("{step:?}") };
        weights.push(*weight);
        assert!(!saved(&mut rollout).ignored);
        assert_eq!(rollout.settled, *weight);
        now += 30;
        step = rollout.step(sampled(Finding::Pass), seconds(now));
    }
    assert_eq!(weights, Plan::default().steps.weights());
    assert!(!saved(&mut rollout).ignored);
    let _ = rollout.step(Event::Switched { attempt: rollout.attempt }, seconds(now));
    assert_eq!(rollout.phase, Phase::Promoted);
    assert!(!rollout.is_done(), "the disk does not know yet");
    let _ = saved(&mut rollout);
    assert!(rollout.is_done());
}
