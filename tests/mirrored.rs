//! Copies of visitors' requests go to a canary before it has a visitor, and tell what it is.

use serde_json::Value;

use crate::support::daemon::{Daemon, Runs, SHORT, Said};
use crate::support::load::Load;

/// Copies of everything, for long enough that a busy machine sends some; steps that nobody waits for.
fn plan(mirror: &str) -> String {
    format!("{SHORT}shield = \"off\"\n[service.web.mirror]\nshare = \"100%\"\n{mirror}\n")
}

fn messages(record: &Value) -> Vec<&str> {
    let events = record["events"].as_array().unwrap();
    events.iter().filter_map(|event| event["message"].as_str()).collect()
}

/// What the metrics say of copies with this result.
fn counted(daemon: &Daemon, result: &str) -> u64 {
    let page = daemon.metrics();
    let is_it = |line: &&str| {
        line.starts_with("switchback_mirrored_requests_total{")
            && line.contains(&format!("result=\"{result}\""))
            && line.contains("service=\"web\"")
    };
    let line = page.lines().find(is_it);
    line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

fn phases(said: &Said) -> Vec<String> {
    let lines = said.lines();
    let phases = lines.iter().filter_map(|line| line["phase"].as_str().map(str::to_owned));
    phases.collect()
}

/// A canary that fails what is asked of it goes back without having had one visitor: no request
/// failed, though nothing shields them.
fn taken_back_before_any_visitor(runs: Runs, fault: &str, why: &str) {
    let Some(daemon) = Daemon::begin(runs, &plan("for = \"45s\"")) else { return };
    let load = Load::begin(daemon.http, 100);
    daemon.until("some history", || load.asked() > 100);
    let said = daemon.deploy(fault, &[]);
    assert_eq!(said.code, 3, "{said:?}");
    load.end_well();
    let phases = phases(&said);
    assert!(phases.contains(&"mirroring".to_owned()), "{phases:?}");
    assert!(!phases.contains(&"baking".to_owned()), "{phases:?}");
    let record = daemon.rollout(said.last()["rollout"].as_u64().unwrap());
    assert_eq!(record["outcome"], "rolled_back");
    let cause = record["cause"].as_str().unwrap();
    assert!(cause.starts_with("mirror, before any visitor: ") && cause.contains(why), "{cause}");
    let told = messages(&record);
    assert!(told.iter().any(|told| told.starts_with("mirror: ")), "{told:?}");
    // What was weighed stays with the record, and people are told.
    let checks = record["verdict"]["checks"].as_array().unwrap();
    assert!(checks.iter().any(|check| check["result"] == "fail"), "{checks:?}");
    let explained = daemon.cli(&["explain", &record["rollout"].to_string()]);
    assert!(explained.stdout.contains("mirror, before any visitor"), "{explained:?}");
    assert_eq!(daemon.service().get("mirror"), None, "it is over");
}

#[test]
fn a_process_that_fails_is_found_before_any_visitor() {
    taken_back_before_any_visitor(Runs::Processes, "errors:1", "failed on the canary, 0 on stable");
}

#[test]
fn a_container_that_fails_is_found_before_any_visitor() {
    taken_back_before_any_visitor(
        Runs::Containers,
        "errors:1",
        "failed on the canary, 0 on stable",
    );
}

#[test]
fn a_process_that_is_slow_is_found_before_any_visitor() {
    taken_back_before_any_visitor(Runs::Processes, "slow:6", "took more than 1.5x as long");
}

/// A healthy one goes on, and what was compared is told.
fn a_healthy_one_goes_on(runs: Runs) {
    let Some(daemon) = Daemon::begin(runs, &plan("for = \"3s\"\ncompare_body = true")) else {
        return;
    };
    let load = Load::begin(daemon.http, 100);
    daemon.deploy_until("none", &[], "mirroring");
    let web = daemon.wait("twins", |web| web["mirror"]["compared"].as_u64() > Some(5));
    assert_eq!(web["weights"]["canary"], 0.0);
    assert_eq!((&web["mirror"]["share"], &web["mirror"]["different"]), (&100.0.into(), &0.into()));
    let seen = daemon.cli(&["status", "web"]);
    assert!(seen.stdout.contains("mirroring") && seen.stdout.contains("compared"), "{seen:?}");
    assert!(daemon.metrics().contains("phase=\"mirroring\"} 1"));
    // Counted while it is under way.
    daemon.until("copies in the metrics", || counted(&daemon, "compared") > 5);
    // More are sent meanwhile.
    let compared = counted(&daemon, "compared");
    assert!(counted(&daemon, "sent") >= compared);
    let web = daemon.wait("its end", |web| web["phase"] == "promoted");
    assert_eq!(web["stable"]["revision"], 2);
    load.end_well();
    let record = daemon.rollout(2);
    let told = messages(&record);
    let compared = told.iter().find(|told| told.starts_with("mirror: "));
    let compared = compared.unwrap_or_else(|| panic!("nothing of the mirror in {told:?}"));
    assert!(compared.contains("0 failed on the canary"), "{compared}");
    assert!(compared.contains("0 of ") && compared.contains("bodies differ"), "{compared}");
    assert_eq!([counted(&daemon, "failed"), counted(&daemon, "different")], [0; 2]);
}

#[test]
fn a_healthy_process_goes_on() {
    a_healthy_one_goes_on(Runs::Processes);
}

#[test]
fn a_healthy_container_goes_on() {
    a_healthy_one_goes_on(Runs::Containers);
}

#[test]
fn without_visitors_nothing_is_shown_and_it_goes_on() {
    let daemon = Daemon::begin(Runs::Processes, &plan("for = \"1s\"")).unwrap();
    let said = daemon.deploy("none", &[]);
    assert_eq!(said.code, 0, "{said:?}");
    let record = daemon.rollout(2);
    let told = messages(&record);
    assert!(told.contains(&"mirror: no request was mirrored: nothing is shown by it"), "{told:?}");
}

/// A canary that answers nothing holds up nobody, and gets no more than it may.
#[test]
fn a_canary_that_hangs_hurts_nobody() {
    let mirror = "for = \"45s\"\nmax_in_flight = 2\nmax_rate = \"20/s\"";
    let daemon = Daemon::begin(Runs::Processes, &plan(mirror)).unwrap();
    let load = Load::begin(daemon.http, 100);
    daemon.until("some history", || load.asked() > 100);
    let said = daemon.deploy("hang:0", &[]);
    assert_eq!(said.code, 3, "{said:?}");
    load.end_well();
    assert!(!phases(&said).contains(&"baking".to_owned()), "{said:?}");
    let record = daemon.rollout(2);
    let told = messages(&record);
    let left_out = told.iter().any(|told| told.contains("were left out by `max_rate`"));
    assert!(left_out, "{told:?}");
    assert!(counted(&daemon, "failed") > 0 && counted(&daemon, "left_out") > 0);
}

/// It is killed while copies are sent: they are sent again, and the end is the same.
fn killed_while_mirroring(runs: Runs) {
    let Some(mut daemon) = Daemon::begin(runs, &plan("for = \"20s\"")) else { return };
    daemon.deploy_until("errors:1", &[], "mirroring");
    let running = daemon.running();
    daemon.kill();
    daemon.start();
    let web = daemon.wait("the same phase", |web| web["phase"] == "mirroring");
    assert_eq!((&web["rollout"], &web["weights"]["canary"]), (&2.into(), &0.0.into()));
    assert_eq!(daemon.running(), running, "the same instances");
    let load = Load::begin(daemon.http, 100);
    daemon.wait("its end", |web| web["phase"] == "rolled_back");
    load.end_well();
    let record = daemon.rollout(2);
    let cause = record["cause"].as_str().unwrap();
    assert!(cause.starts_with("mirror, before any visitor: "), "{cause}");
}

#[test]
fn processes_are_mirrored_further() {
    killed_while_mirroring(Runs::Processes);
}

#[test]
fn containers_are_mirrored_further() {
    killed_while_mirroring(Runs::Containers);
}

#[test]
fn a_person_may_skip_it() {
    // Said in one line, with what else is written by default.
    let daemon = Daemon::begin(Runs::Processes, &format!("{SHORT}mirror = \"5%\"\n")).unwrap();
    daemon.deploy_until("none", &[], "mirroring");
    assert_eq!(daemon.service()["mirror"]["share"], 5.0);
    let said = daemon.cli(&["pause", "web"]);
    assert!(said.code == 1 && said.stderr.contains("`switchback promote` skips it"), "{said:?}");
    assert_eq!(daemon.cli(&["promote", "web"]).code, 0);
    daemon.wait("its end", |web| web["phase"] == "promoted" && web["stable"]["revision"] == 2);
}
