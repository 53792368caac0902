//! What a person may say in which phase, and the sentence that refuses it.

use super::*;
use crate::rollout::command::Command;

const COMMANDS: [Command; 6] = [
    Command::Promote { full: false },
    Command::Promote { full: true },
    Command::Abort,
    Command::Pause,
    Command::Resume,
    Command::Weight(Weight::ZERO),
];

/// The sentence for each command in [`COMMANDS`], `None` where it is admitted.
fn answers(phase: &Phase) -> Vec<Option<String>> {
    COMMANDS
        .iter()
        .map(|command| {
            let refusal = command.admit(phase).err()?;
            assert_eq!((refusal.verb, refusal.phase), (command.verb(), phase.as_str()));
            Some(refusal.to_string())
        })
        .collect()
}

/// All of them refused, with the verb put in.
fn all_refused(rest: &str) -> Vec<Option<String>> {
    let verbs = ["promote", "promote", "abort", "pause", "resume", "set the weight"];
    verbs.iter().map(|verb| Some(format!("cannot {verb} while {rest}"))).collect()
}

#[test]
fn an_ended_rollout_takes_nothing() {
    let rest = "no rollout is under way: begin one with `switchback deploy`";
    for phase in [Phase::Promoted, Phase::RolledBack { cause: Cause::Aborted }] {
        assert_eq!(answers(&phase), all_refused(rest));
    }
}

#[test]
fn a_rollback_takes_nothing() {
    let rest = "rolling back: wait until the rollback is done, then deploy again";
    for drained in [false, true] {
        let phase = Phase::RollingBack { cause: Cause::Aborted, drained };
        assert_eq!(answers(&phase), all_refused(rest));
    }
}

#[test]
fn a_promotion_takes_nothing() {
    let rest = "promoting: wait a moment, then `switchback rollback` takes it back";
    assert_eq!(answers(&Phase::Promoting), all_refused(rest));
}

#[test]
fn before_it_is_healthy_it_can_only_be_aborted() {
    let rest = "the canary is not healthy yet: wait for it, or `switchback abort`";
    let mut expected = all_refused(rest);
    expected[2] = None;
    for phase in [Phase::Launching, Phase::Probing] {
        assert_eq!(answers(&phase), expected);
    }
}

#[test]
fn while_it_is_smoked_it_can_only_be_aborted() {
    let rest = "its smoke tests run: wait for them, or `switchback abort`";
    let mut expected = all_refused(rest);
    expected[2] = None;
    assert_eq!(answers(&Phase::Smoke), expected);
}

#[test]
fn baking_takes_all_but_resume() {
    let mut expected = vec![None; 6];
    expected[4] = Some(said(
        "cannot resume while baking: it is not paused; `switchback promote` skips the step",
    ));
    assert_eq!(answers(&baking(0)), expected);
    assert_eq!(answers(&baking(3)), expected);
}

#[test]
fn paused_takes_all_but_pause() {
    let mut expected = vec![None; 6];
    expected[3] = Some(said("cannot pause while paused already: `switchback resume` goes on"));
    let reasons = [
        PauseReason::Operator,
        PauseReason::Inconclusive,
        PauseReason::Hold { sentence: said("both sides are worse") },
        PauseReason::Unsaved { sentence: said("the disk is full") },
    ];
    for reason in reasons {
        assert_eq!(answers(&paused(1, percent(25), reason)), expected);
    }
}
