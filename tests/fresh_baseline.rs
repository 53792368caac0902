//! `fresh_baseline`: what the canary is compared with, when that dies, and when the daemon does.

use serde_json::Value;

use crate::support::daemon::{Daemon, LONG, Runs};
use crate::support::load::Load;

fn a_fresh_instance_is_what_the_canary_is_compared_with(runs: Runs) {
    let plan = format!(
        "steps = \"30% 100%\"\nfresh_baseline = true\nrecord = true\nkeep_warm = \"0s\"\n{LONG}"
    );
    let Some(daemon) = Daemon::begin(runs, &plan) else { return };
    let load = Load::begin(daemon.http, 200);
    daemon.deploy_until("none", &[], "baking");
    assert_eq!(daemon.running().len(), 3, "stable, its fresh instance, the canary");
    let recording = daemon.state().join("recordings/web/2.jsonl");
    let mut compared = 0;
    daemon.until("comparisons", || {
        let text = std::fs::read_to_string(&recording).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let counts = |side: &Value| -> u64 {
            let rows = side.as_object().into_iter().flat_map(|rows| rows.values());
            rows.flat_map(|cells| cells.as_array().unwrap()).map(|c| c[1].as_u64().unwrap()).sum()
        };
        let records: Vec<Value> = lines.filter(|line| line["weight"] == 3_000).collect();
        assert!(records.first().is_none_or(|first| first["compared"] == 3_000), "{records:?}");
        let sum = |side: &str| records.iter().map(|record| counts(&record[side])).sum::<u64>();
        compared = sum("stable");
        // Seven of ten requests go to revision 1, three of them to its fresh instance.
        compared > 100 && sum("canary") > 100
    });
    let service = daemon.service();
    let stable = service["stable"]["traffic"]["requests"].as_u64().unwrap();
    assert!(stable > compared, "{stable} of revision 1, {compared} compared: {service:#}");
    let said = daemon.cli(&["promote", "web", "--full"]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.wait("the promotion", |web| web["phase"] == "promoted");
    daemon.until("only the canary is left", || daemon.running().len() == 1);

    // A rollout that goes back takes its fresh instance along.
    daemon.deploy_until("none", &[], "baking");
    let said = daemon.cli(&["abort", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.until("only stable is left", || daemon.running().len() == 1);
    load.end_well();
}

#[test]
fn a_canary_is_compared_with_a_fresh_process() {
    a_fresh_instance_is_what_the_canary_is_compared_with(Runs::Processes);
}

#[test]
fn a_canary_is_compared_with_a_fresh_container() {
    a_fresh_instance_is_what_the_canary_is_compared_with(Runs::Containers);
}

/// The process that is neither one of the first nor the canary, which is called two.
fn fresh_one(daemon: &Daemon, first: &[String]) -> String {
    let is_it = |pid: &String| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        !first.contains(pid) && !String::from_utf8_lossy(&environ).contains("SAMPLE_NAME=two")
    };
    daemon.running().into_iter().find(is_it).unwrap()
}

#[test]
fn a_fresh_instance_that_dies_is_not_waited_for() {
    let plan = format!("steps = \"30% 100%\"\nfresh_baseline = true\nrecord = true\n{LONG}");
    let daemon = Daemon::begin(Runs::Processes, &plan).unwrap();
    let load = Load::begin(daemon.http, 100);
    let first = daemon.running();
    let canary = daemon.deploy_until("none", &["--env", "SAMPLE_NAME=two"], "baking");
    let fresh = fresh_one(&daemon, &first);
    let rollout = canary["rollout"].as_u64().unwrap();
    let recording = daemon.state().join(format!("recordings/web/{rollout}.jsonl"));
    let begins = || -> Vec<Value> {
        let text = std::fs::read_to_string(&recording).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| !line["began"].is_null()).collect()
    };
    daemon.until("a comparison with it", || {
        begins().first().is_some_and(|begun| begun["compared"] == 3_000)
    });
    let pid = rustix::process::Pid::from_raw(fresh.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    daemon.until("it is said", || {
        daemon.rollout(rollout)["events"].to_string().contains("is compared with all of stable")
    });
    daemon.until("a comparison with all of stable", || {
        begins().get(1).is_some_and(|begun| begun["compared"].is_null())
    });
    assert_eq!(daemon.service()["phase"], "baking");
    load.end_well();
}

/// The lines of a recording that is being written.
fn lines(daemon: &Daemon, rollout: u64) -> Vec<Value> {
    let recording = daemon.state().join(format!("recordings/web/{rollout}.jsonl"));
    let text = std::fs::read_to_string(recording).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect()
}

fn a_fresh_instance_outlives_the_daemon(runs: Runs) {
    let plan = format!(
        "steps = \"30% 100%\"\nfresh_baseline = true\nrecord = true\nkeep_warm = \"0s\"\n{LONG}"
    );
    let Some(mut daemon) = Daemon::begin(runs, &plan) else { return };
    let load = Load::begin(daemon.http, 200);
    let canary = daemon.deploy_until("none", &[], "baking");
    let rollout = canary["rollout"].as_u64().unwrap();
    let before = daemon.running();
    assert_eq!(before.len(), 3, "stable, its fresh instance, the canary");
    daemon.until("slots that were written down", || lines(&daemon, rollout).len() > 30);
    daemon.kill();
    daemon.start();
    daemon.wait("the step that it was at", |web| {
        web["phase"] == "baking" && web["weights"]["canary"] == 30.0
    });
    assert_eq!(daemon.running(), before, "all three of them");
    let asked = |side: &Value| side.as_object().is_some_and(|rows| !rows.is_empty());
    daemon.until("a comparison that goes on", || {
        let lines = lines(&daemon, rollout);
        let again = lines.iter().rposition(|line| line["resumed"] == true);
        let Some(again) = again.map(|at| &lines[at..]) else { return false };
        assert_eq!(again[0]["compared"], 3_000, "{}", again[0]);
        assert_eq!(again[0]["epoch"], 1, "the step that was under way: {}", again[0]);
        again.iter().filter(|l| asked(&l["stable"]) && asked(&l["canary"])).count() > 10
    });
    let events = daemon.rollout(rollout)["events"].to_string();
    assert!(!events.contains("compared with all of stable"), "{events}");
    let said = daemon.cli(&["abort", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.until("only stable is left", || daemon.running().len() == 1);
    load.end();
}

#[test]
fn a_fresh_process_outlives_the_daemon() {
    a_fresh_instance_outlives_the_daemon(Runs::Processes);
}

#[test]
fn a_fresh_container_outlives_the_daemon() {
    a_fresh_instance_outlives_the_daemon(Runs::Containers);
}

#[test]
fn a_fresh_instance_that_is_gone_after_a_restart_is_said_to_be() {
    let plan = format!("steps = \"30% 100%\"\nfresh_baseline = true\nrecord = true\n{LONG}");
    let mut daemon = Daemon::begin(Runs::Processes, &plan).unwrap();
    let load = Load::begin(daemon.http, 100);
    let first = daemon.running();
    let canary = daemon.deploy_until("none", &["--env", "SAMPLE_NAME=two"], "baking");
    let rollout = canary["rollout"].as_u64().unwrap();
    daemon.until("slots that were written down", || lines(&daemon, rollout).len() > 30);
    let fresh = fresh_one(&daemon, &first);
    daemon.kill();
    let pid = rustix::process::Pid::from_raw(fresh.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    daemon.start();
    daemon.until("it is said", || {
        daemon.rollout(rollout)["events"].to_string().contains("gone since the restart")
    });
    daemon.until("a comparison with all of stable", || {
        let lines = lines(&daemon, rollout);
        let again = lines.iter().rfind(|line| line["resumed"] == true);
        again.is_some_and(|begun| begun["compared"].is_null())
    });
    assert_eq!(daemon.service()["phase"], "baking");
    load.end();
}
