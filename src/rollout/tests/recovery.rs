//! How a rollout begins and how it comes back.

use super::*;
use crate::rollout::plan::OnInconclusive;

#[test]
fn a_rollout_begins() {
    let with = |kind, instances, phase| Checkpoint { kind, instances, ..checkpoint(phase) };
    let launch = (Phase::Launching, vec![MUST, Effect::Launch]);
    let probe = (Phase::Probing, vec![MUST, Effect::Probe]);
    let rows = [
        (Kind::Canary, vec![], Phase::Launching, launch.clone()),
        (Kind::Direct, vec![], Phase::Launching, launch.clone()),
        (Kind::Direct, vec![], Phase::Promoting, launch),
        // A return to what is warm needs nothing but the switch.
        (
            Kind::Direct,
            vec![instance(1)],
            Phase::Promoting,
            (Phase::Promoting, vec![Effect::Switch]),
        ),
        // Unless nobody knows how it is.
        (Kind::Direct, vec![instance(1)], Phase::Probing, probe.clone()),
        // Running is not good enough.
        (Kind::Canary, vec![instance(1)], Phase::Probing, probe.clone()),
        (Kind::Canary, vec![instance(1)], Phase::Promoting, probe),
    ];
    for (kind, instances, from, (phase, effects)) in rows {
        let (rollout, done) = Rollout::begin(with(kind, instances, from), seconds(5));
        assert_eq!((&rollout.phase, &done), (&phase, &effects));
        assert_eq!((rollout.attempt, rollout.since), (1, seconds(5)));
        assert_eq!(rollout.settled, Weight::ZERO);
    }
}

#[test]
fn a_rollout_comes_back() {
    let drained = Phase::RollingBack { cause: Cause::Aborted, drained: true };
    let by_hand = paused(1, percent(40), PauseReason::Operator);
    let back = [Effect::Shift(Weight::ZERO), Effect::Drain];
    let rows = [
        (Phase::Launching, vec![Effect::Launch], Weight::ZERO),
        (Phase::Probing, vec![Effect::Probe], Weight::ZERO),
        (baking(2), vec![Effect::Shift(percent(50))], percent(50)),
        (by_hand, vec![Effect::Shift(percent(40))], percent(40)),
        (Phase::Promoting, vec![MUST, Effect::Switch], Weight::ZERO),
        (going_back(Cause::Aborted), back.to_vec(), Weight::ZERO),
        (drained, back.to_vec(), Weight::ZERO),
        (Phase::Promoted, vec![], Weight::ZERO),
        (Phase::RolledBack { cause: Cause::Aborted }, vec![], Weight::ZERO),
    ];
    for (phase, effects, settled) in rows {
        let (rollout, done) = Rollout::resume(checkpoint(phase.clone()), seconds(7));
        assert_eq!((&done, rollout.settled), (&effects, settled), "{phase:?}");
        assert_eq!(rollout.since, seconds(7), "a phase begins its time anew");
        assert_eq!(rollout.phase.as_str(), phase.as_str());
    }
}

#[test]
fn what_was_being_smoked_is_probed_first() {
    let (rollout, effects) = Rollout::resume(checkpoint(Phase::Smoke), seconds(0));
    assert_eq!((rollout.phase, effects), (Phase::Probing, vec![Effect::Probe]));
}

#[test]
fn what_was_drained_by_another_process_is_drained_again() {
    let drained = Phase::RollingBack { cause: Cause::Aborted, drained: true };
    let (mut rollout, _) = Rollout::resume(checkpoint(drained), seconds(0));
    let step = rollout.step(Event::Drained { attempt: 1 }, seconds(1));
    assert_eq!(step.effects, [MAY, Effect::Stop]);
}

#[test]
fn a_canary_that_is_gone_after_a_restart_gets_nothing() {
    let phases = [Phase::Probing, baking(2), paused(0, percent(5), PauseReason::Operator)];
    for phase in phases.into_iter().chain([Phase::Promoting]) {
        let (mut rollout, _) = Rollout::resume(checkpoint(phase.clone()), seconds(0));
        let step = rollout.step(Event::Lost { sentence: said("gone") }, seconds(0));
        assert_eq!(step.effects, BACK, "{phase:?}");
    }
}

#[test]
fn a_checkpoint_is_read_as_it_was_written() {
    let sentence = || said("errors 5% > 1% of 1,210 \"requests\"");
    let causes = [
        Cause::Regression { sentence: sentence() },
        Cause::Lost { sentence: sentence() },
        Cause::LaunchFailed { sentence: sentence() },
        Cause::NeverHealthy { sentence: sentence() },
        Cause::Aborted,
        Cause::Inconclusive { sentence: sentence() },
    ];
    let reasons = [
        PauseReason::Operator,
        PauseReason::Inconclusive,
        PauseReason::Hold { sentence: sentence() },
        PauseReason::Unsaved { sentence: sentence() },
    ];
    let mut phases = vec![
        Phase::Launching,
        Phase::Probing,
        baking(0),
        baking(3),
        Phase::Promoting,
        Phase::Promoted,
    ];
    phases.extend(reasons.map(|reason| paused(1, percent(40), reason)));
    for cause in causes {
        phases.push(Phase::RolledBack { cause: cause.clone() });
        phases.push(Phase::RollingBack { cause: cause.clone(), drained: true });
        phases.push(going_back(cause));
    }
    for phase in phases {
        let mut written = checkpoint(phase);
        written.plan.on_inconclusive = OnInconclusive::Advance;
        let text = serde_json::to_string(&written).expect("it is written");
        let read: Checkpoint = serde_json::from_str(&text).expect("it is read");
        assert_eq!(read, written, "{text}");
        let none = Checkpoint { kind: Kind::Direct, stable: None, instances: vec![], ..written };
        let text = serde_json::to_string(&none).expect("it is written");
        assert_eq!(serde_json::from_str::<Checkpoint>(&text).expect("it is read"), none);
    }
}

#[test]
fn a_checkpoint_of_a_rollout_brings_the_same_rollout_back() {
    let written = checkpoint(baking(2));
    let (rollout, _) = Rollout::resume(written.clone(), seconds(3));
    assert_eq!(Checkpoint::of(&rollout, None, written.started), written);
}
