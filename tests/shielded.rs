//! A canary that fails is taken back, and no visitor who only reads sees it fail.

use crate::support::clients::Wrk;
use crate::support::daemon::{Daemon, Runs, Said};
use crate::support::load::Load;

/// The default steps, for a verdict on a machine that has other things to do.
const STEPS: &str = "bake = \"10s\"\nbake_max = \"60s\"\n";

/// Deploys it under load. Says how many visitors asked, and what the verb said.
fn no_read_fails(runs: Runs, fault: &str) -> Option<(Daemon, u64, Said)> {
    let daemon = Daemon::begin(runs, STEPS)?;
    let load = Load::begin(daemon.http, 200);
    let wrk = Wrk::begin(&daemon, "shielded", &[]);
    daemon.until("some history", || load.asked() > 200);
    let said = daemon.deploy(fault, &[]);
    assert_eq!(said.code, 3, "{said:?}");
    let asked = load.end_well();
    if let Some(wrk) = wrk {
        let (requests, failed) = wrk.end();
        assert!(requests > 0 && failed.is_empty(), "{failed:?} of {requests}");
    }
    Some((daemon, asked, said))
}

fn no_read_fails_and_that_is_told(runs: Runs) {
    let Some((daemon, asked, said)) = no_read_fails(runs, "errors:1") else { return };
    // The failures count and are told, with what was done about them.
    let last = said.last();
    let rollout = last["rollout"].as_u64().unwrap();
    let record = daemon.rollout(rollout);
    let told = record["events"].as_array().unwrap().iter().find_map(|event| {
        event["message"].as_str().filter(|message| message.starts_with("shield: "))
    });
    let told = told.unwrap_or_else(|| panic!("nothing of the shield in {record:#}"));
    assert!(told.contains("that revision 2 failed went to stable"), "{told}");
    assert!(!told.contains("beyond"), "{told}");
    let shield = &daemon.service()["shield"];
    let spared = shield["shielded_total"].as_u64().unwrap();
    assert!(spared > 0 && spared < asked, "{shield}");
    assert_eq!(shield["refused_total"], 0);
    let metrics = daemon.read("/metrics").unwrap();
    let line =
        format!("switchback_shielded_requests_total{{service=\"web\",result=\"sent\"}} {spared}");
    assert!(metrics.lines().any(|found| found == line), "{line}");
}

#[test]
fn a_process_that_fails_every_request_costs_no_get() {
    no_read_fails_and_that_is_told(Runs::Processes);
}

#[test]
fn a_container_that_fails_every_request_costs_no_get() {
    no_read_fails_and_that_is_told(Runs::Containers);
}

#[test]
fn a_process_that_ends_costs_no_get() {
    no_read_fails(Runs::Processes, "crash:1").unwrap();
}

#[test]
fn with_the_shield_off_visitors_see_it() {
    let plan = format!("{STEPS}shield = \"off\"\n");
    let daemon = Daemon::begin(Runs::Processes, &plan).unwrap();
    let load = Load::begin(daemon.http, 200);
    daemon.until("some history", || load.asked() > 200);
    assert_eq!(daemon.deploy("errors:1", &[]).code, 3);
    let (_, failed) = load.end();
    assert!(!failed.is_empty(), "who turns it off wants to see failures");
    assert_eq!(daemon.service().get("shield"), None);
}
