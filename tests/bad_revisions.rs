//! Revisions that misbehave are taken back by themselves, and those that do not are not.

use serde_json::Value;

use crate::support::daemon::{Daemon, Runs, Said};
use crate::support::load::Load;

const STEPS: &str =
    "steps = \"50% 100%\"\nbake = \"10s\"\nbake_max = \"60s\"\non_inconclusive = \"hold\"\n";

/// The exit code of a rollout that the analysis took back.
const ROLLED_BACK: i32 = 3;

fn stable_is_untouched(daemon: &Daemon, before: &Value, running: &[String]) {
    let after = daemon.service();
    assert_eq!(after["phase"], "rolled_back");
    assert_eq!(after["weights"]["stable"], 100.0);
    assert_eq!(after["stable"]["revision"], before["stable"]["revision"]);
    assert_eq!(after["stable"]["instances"][0]["id"], before["stable"]["instances"][0]["id"]);
    daemon.until("only what ran before runs", || daemon.running() == running);
    assert_eq!(daemon.get("/").unwrap().status, 200);
}

fn is_taken_back(runs: Runs, fault: &str, expected: &[&str]) -> Option<Said> {
    let daemon = Daemon::begin(runs, STEPS)?;
    let (before, running) = (daemon.service(), daemon.running());
    let load = Load::begin(daemon.http, 200);
    daemon.until("some history", || load.asked() > 200);
    let said = daemon.deploy(fault, &[]);
    assert_eq!(said.code, ROLLED_BACK, "{said:?}");
    let last = said.last();
    assert_eq!(last["outcome"], "rolled_back");
    let cause = last["cause"].as_str().unwrap();
    assert!(expected.iter().any(|part| cause.contains(part)), "{cause}");
    let failed_before = load.failed().len();
    stable_is_untouched(&daemon, &before, &running);
    daemon.until("more visitors", {
        let enough = load.asked() + 100;
        let load = &load;
        move || load.asked() > enough
    });
    let (_, failed) = load.end();
    assert_eq!(failed.len(), failed_before, "nothing fails once it is taken back: {failed:?}");
    Some(said)
}

#[test]
fn errors_take_a_process_back() {
    is_taken_back(Runs::Processes, "errors:0.3", &["errors"]);
}

#[test]
fn slowness_takes_a_process_back() {
    is_taken_back(Runs::Processes, "slow:8", &["slow", "p50", "p90", "p95", "p99"]);
}

#[test]
fn a_crash_takes_a_process_back() {
    let said = is_taken_back(Runs::Processes, "crash:1", &["101", "connect", "errors"]);
    let text = said.unwrap().stdout;
    assert!(text.contains("index out of range [3] with length 3"), "its last words: {text}");
}

#[test]
fn a_hang_takes_a_process_back() {
    is_taken_back(Runs::Processes, "hang:1", &["answer", "healthy", "slow", "errors", "p9"]);
}

#[test]
fn errors_take_a_container_back() {
    is_taken_back(Runs::Containers, "errors:0.3", &["errors"]);
}

#[test]
fn a_crash_takes_a_container_back() {
    if let Some(said) = is_taken_back(Runs::Containers, "crash:1", &["101", "connect", "errors"]) {
        let text = said.stdout;
        assert!(text.contains("index out of range [3] with length 3"), "its last words: {text}");
    }
}

#[test]
fn a_hang_takes_a_container_back() {
    is_taken_back(Runs::Containers, "hang:1", &["answer", "healthy", "slow", "errors", "p9"]);
}

#[test]
fn twenty_healthy_rollouts_are_never_taken_back() {
    let plan = "steps = \"50% 100%\"\nbake = \"200ms\"\nbake_max = \"600ms\"\n\
                on_inconclusive = \"advance\"\nkeep_warm = \"1s\"\n";
    let daemon = Daemon::begin(Runs::Processes, plan).unwrap();
    let load = Load::begin(daemon.http, 200);
    for rollout in 0..20 {
        let said = daemon.deploy("none", &[]);
        assert_eq!(said.code, 0, "rollout {rollout}: {said:?}");
    }
    load.end_well();
    assert_eq!(daemon.service()["stable"]["revision"], 21);
}
