//! Releases as they should go: the first one, a good one, back to what is warm and to what is not.

use std::time::{Duration, Instant};

use crate::support::daemon::{Daemon, Runs, SHORT};
use crate::support::load::Load;

/// A return to a warm revision is one publish; three times the second that is promised, for a busy
/// machine.
const AT_ONCE: Duration = Duration::from_secs(3);

fn a_good_revision_goes_up_and_back(runs: Runs) {
    let Some(daemon) = Daemon::begin(runs, SHORT) else { return };
    let first = daemon.service();
    assert_eq!(first["stable"]["revision"], 1);
    assert_eq!(first["weights"]["stable"], 100.0);

    let load = Load::begin(daemon.http, 150);
    let said = daemon.deploy("none", &["--env", "SAMPLE_NAME=two"]);
    assert_eq!(said.code, 0, "{said:?}");
    let lines = said.lines();
    let weights: Vec<f64> = lines
        .iter()
        .filter(|line| line["phase"] == "baking")
        .map(|line| line["weight"].as_f64().unwrap())
        .collect();
    assert_eq!(weights, [5.0, 25.0, 50.0, 100.0], "{said:?}");
    assert_eq!(said.last()["outcome"], "promoted");
    assert_eq!(name(&daemon), "two");

    // Back to the first, which is warm, and forward again.
    for (revision, expected) in [(1, ""), (2, "two")] {
        let running = daemon.running();
        let begun = Instant::now();
        let said = daemon.cli(&["rollback", "web"]);
        assert_eq!(said.code, 0, "{said:?}");
        let took = begun.elapsed();
        eprintln!("back to revision {revision} in {took:?}");
        assert!(took < AT_ONCE, "{took:?}");
        assert_eq!(daemon.service()["stable"]["revision"], revision);
        assert_eq!(name(&daemon), expected);
        assert_eq!(daemon.running(), running, "nothing was started or stopped");
    }
    load.end_well();
}

fn name(daemon: &Daemon) -> String {
    daemon.get("/").unwrap().field("x-sample-name").unwrap_or_default().to_owned()
}

#[test]
fn a_good_process_goes_up_and_back() {
    a_good_revision_goes_up_and_back(Runs::Processes);
}

#[test]
fn a_good_container_goes_up_and_back() {
    a_good_revision_goes_up_and_back(Runs::Containers);
}

fn back_to_a_revision_that_was_stopped(runs: Runs) {
    let plan = "steps = \"100%\"\nbake = \"0s\"\nbake_max = \"200ms\"\non_inconclusive = \"advance\"\nkeep_warm = \"0s\"\n";
    let Some(daemon) = Daemon::begin(runs, plan) else { return };
    let load = Load::begin(daemon.http, 100);
    for revision in ["two", "three"] {
        let said = daemon.deploy("none", &["--env", &format!("SAMPLE_NAME={revision}")]);
        assert_eq!(said.code, 0, "{said:?}");
    }
    daemon.until("only the third runs", || daemon.running().len() == 1);
    assert_eq!(daemon.service()["warm"], serde_json::Value::Null);
    let said = daemon.cli(&["rollback", "web", "--to", "2"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(name(&daemon), "two");
    let said = daemon.cli(&["rollback", "web", "--to", "9"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("revision 9 of web is not kept; kept are: 1, 2, 3"), "{said:?}");
    let said = daemon.cli(&["rollback", "web", "--to", "2"]);
    assert!(said.stderr.contains("holds the traffic already"), "{said:?}");
    load.end_well();
}

#[test]
fn back_to_a_process_that_was_stopped() {
    back_to_a_revision_that_was_stopped(Runs::Processes);
}

#[test]
fn back_to_a_container_that_was_stopped() {
    back_to_a_revision_that_was_stopped(Runs::Containers);
}

#[test]
fn curl_is_served_throughout() {
    let Some(curl) = crate::support::client("curl") else { return };
    let Some(daemon) = Daemon::begin(Runs::Processes, SHORT) else { return };
    daemon.deploy_until("none", &[], "baking");
    for flag in ["--http1.1", "--http2-prior-knowledge", "--http1.0"] {
        let url = format!("http://{}/", daemon.http);
        let output = std::process::Command::new(&curl)
            .args(["--silent", "--show-error", "--fail", "--max-time", "20", flag, &url])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("hello from the sample app"), "{flag}: {output:?}");
    }
}
