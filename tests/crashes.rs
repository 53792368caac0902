//! `kill -9` of the daemon in each phase, and a stop: what comes back is the same rollout with the
//! same instances, it ends as it should, and nothing is left behind.

use serde_json::Value;

use crate::support::daemon::{Daemon, Runs};
use crate::support::load::Load;

const STEPS: [f64; 4] = [5.0, 25.0, 50.0, 100.0];
/// Steps that a person finishes.
const LONG: &str = "bake = \"30s\"\nbake_max = \"60s\"\n";

/// Kills the daemon, starts it again and checks that it goes on with the same things.
fn die_and_come_back(daemon: &mut Daemon, phase: &str) -> Value {
    let before = daemon.service();
    let running = daemon.running();
    daemon.kill();
    assert_eq!(daemon.running(), running, "{phase}: what ran goes on without a daemon");
    daemon.start();
    let after = daemon.wait("the same phase", |web| {
        web["phase"] == before["phase"] && web["weights"] == before["weights"]
    });
    for field in ["rollout", "step"] {
        assert_eq!(after[field], before[field], "{phase}");
    }
    for side in ["stable", "canary"] {
        assert_eq!(after[side]["revision"], before[side]["revision"], "{phase}");
        assert_eq!(ids(&after[side]), ids(&before[side]), "{phase}");
    }
    assert_eq!(daemon.running(), running, "{phase}: the same instances");
    daemon.until("visitors are served", || daemon.get("/").is_ok_and(|a| a.status == 200));
    after
}

fn ids(side: &Value) -> Vec<String> {
    let all = side["instances"].as_array().cloned().unwrap_or_default();
    all.iter().map(|i| i["id"].as_str().unwrap_or_default().to_owned()).collect()
}

fn killed_at_every_step(runs: Runs) {
    let Some(mut daemon) = Daemon::begin(runs, LONG) else { return };
    daemon.deploy_until("none", &[], "baking");
    for (step, weight) in STEPS.into_iter().enumerate() {
        let web = daemon.wait("the step", |web| web["weights"]["canary"] == weight);
        assert_eq!(web["step"], step + 1);
        let after = die_and_come_back(&mut daemon, &format!("baking at {weight} %"));
        assert_eq!(after["weights"]["canary"], weight);
        if weight == 25.0 {
            assert_eq!(daemon.cli(&["pause", "web"]).code, 0);
            daemon.wait("paused", |web| web["phase"] == "paused");
            die_and_come_back(&mut daemon, "paused");
            assert_eq!(daemon.cli(&["weight", "web", "12.5%"]).code, 0);
            daemon.wait("a weight by hand", |web| web["weights"]["canary"] == 12.5);
            let after = die_and_come_back(&mut daemon, "paused at a weight by hand");
            assert_eq!(after["weights"]["canary"], 12.5);
        }
        let said = daemon.cli(&["promote", "web"]);
        assert_eq!(said.code, 0, "{said:?}");
    }
    daemon.wait("its end", |web| web["phase"] == "promoted" && web["stable"]["revision"] == 2);
    let after = die_and_come_back(&mut daemon, "promoted and warm");
    assert_eq!(after["warm"]["revision"], 1);
    // What is warm can be returned to after all that.
    let running_before = daemon.running();
    let (status, answer) = daemon.post("rollback", "{}");
    assert_eq!(status, 202, "{answer}");
    daemon.wait("back", |web| web["phase"] == "promoted" && web["stable"]["revision"] == 1);
    assert_eq!(daemon.running(), running_before, "what is warm is used, not started anew");
    assert!(daemon.rollout(2)["outcome"] == "promoted");
}

#[test]
fn processes_go_on_at_every_step() {
    killed_at_every_step(Runs::Processes);
}

#[test]
fn containers_go_on_at_every_step() {
    killed_at_every_step(Runs::Containers);
}

fn killed_while_probing(runs: Runs) {
    let plan = format!(
        "{LONG}probe = {{ path = \"/up\", interval = \"200ms\", timeout = \"2s\", rise = 1, deadline = \"6s\" }}\n"
    );
    let Some(mut daemon) = Daemon::begin(runs, &plan) else { return };
    let running = daemon.running();
    daemon.deploy_until("mute", &[], "probing");
    die_and_come_back(&mut daemon, "probing");
    daemon.wait("its end", |web| web["phase"] == "rolled_back");
    assert_eq!(daemon.rollout(2)["outcome"], "never_healthy");
    daemon.until("only what ran before runs", || daemon.running() == running);
}

#[test]
fn processes_are_probed_further() {
    killed_while_probing(Runs::Processes);
}

#[test]
fn containers_are_probed_further() {
    killed_while_probing(Runs::Containers);
}

/// Kills at moments spread over a whole rollout, so that those which last a few milliseconds are hit
/// now and then, and always comes to the right end.
fn killed_at_any_moment(runs: Runs, fault: &str, expected: &str) {
    let plan = "steps = \"50% 100%\"\nbake = \"100ms\"\nbake_max = \"300ms\"\n\
                on_inconclusive = \"advance\"\nkeep_warm = \"0s\"\n";
    let Some(mut daemon) = Daemon::begin(runs, plan) else { return };
    for (n, millis) in [0, 15, 40, 80, 150, 300, 500, 700, 900, 1_100].into_iter().enumerate() {
        let before = daemon.service();
        let said = daemon.deploy(fault, &["--detach"]);
        assert_eq!(said.code, 0, "{said:?}");
        let rollout = said.last()["rollout"].as_u64().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(millis));
        if expected == "aborted" && n % 2 == 1 {
            let _perhaps_too_late = daemon.post("abort", "{}");
        }
        let phase = daemon.service()["phase"].clone();
        daemon.kill();
        daemon.start();
        eprintln!("killed after {millis} ms, {phase}");
        daemon.until("its end", || daemon.rollout(rollout)["outcome"].is_string());
        let record = daemon.rollout(rollout);
        let outcome = record["outcome"].as_str().unwrap();
        let fine = outcome == expected || (expected == "aborted" && outcome == "promoted");
        assert!(fine, "killed after {millis} ms in {phase}: {record:#}");
        let after = daemon.service();
        assert_eq!(after["rollout"], rollout);
        if outcome == "promoted" {
            assert_eq!(after["stable"]["revision"], record["to"]);
        } else {
            assert_eq!(after["stable"]["revision"], before["stable"]["revision"]);
        }
        assert_eq!(daemon.get("/").unwrap().status, 200);
        daemon.until("only stable runs", || daemon.running().len() == 1);
    }
}

#[test]
fn good_processes_are_promoted_whenever_the_daemon_dies() {
    killed_at_any_moment(Runs::Processes, "none", "promoted");
}

#[test]
fn good_containers_are_promoted_whenever_the_daemon_dies() {
    killed_at_any_moment(Runs::Containers, "none", "promoted");
}

#[test]
fn aborted_processes_are_gone_whenever_the_daemon_dies() {
    killed_at_any_moment(Runs::Processes, "none", "aborted");
}

#[test]
fn aborted_containers_are_gone_whenever_the_daemon_dies() {
    killed_at_any_moment(Runs::Containers, "none", "aborted");
}

fn killed_while_rolling_back(runs: Runs) {
    let Some(mut daemon) = Daemon::begin(runs, LONG) else { return };
    let running = daemon.running();
    daemon.deploy_until("slow:250", &["--steps", "50% 100%"], "baking");
    let to = daemon.http;
    let visitors: Vec<_> = (0..20)
        .map(|_| std::thread::spawn(move || crate::support::http::get(to, "/", &[]).is_ok()))
        .collect();
    daemon.until("a visitor waits for the canary", || {
        daemon.service()["canary"]["instances"][0]["in_flight"].as_u64() > Some(0)
    });
    assert_eq!(daemon.post("abort", "{}").0, 200);
    assert_eq!(daemon.service()["phase"], "rolling_back");
    daemon.kill();
    daemon.start();
    daemon.wait("its end", |web| web["phase"] == "rolled_back");
    assert_eq!(daemon.rollout(2)["outcome"], "aborted");
    daemon.until("only stable runs", || daemon.running() == running);
    assert_eq!(daemon.get("/").unwrap().status, 200);
    for visitor in visitors {
        let _cut_by_the_kill = visitor.join();
    }
}

#[test]
fn a_rollback_of_processes_goes_on() {
    killed_while_rolling_back(Runs::Processes);
}

#[test]
fn a_rollback_of_containers_goes_on() {
    killed_while_rolling_back(Runs::Containers);
}

#[test]
fn a_canary_that_died_with_the_daemon_gets_no_visitor() {
    let mut daemon = Daemon::begin(Runs::Processes, LONG).unwrap();
    let running = daemon.running();
    daemon.deploy_until("none", &["--steps", "50% 100%"], "baking");
    daemon.kill();
    for pid in daemon.running() {
        if !running.contains(&pid) {
            let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
    }
    daemon.start();
    daemon.until("an answer", || daemon.get("/").is_ok());
    let load = Load::begin(daemon.http, 100);
    daemon.wait("its end", |web| web["phase"] == "rolled_back");
    daemon.until("some visitors", || load.asked() > 50);
    load.end_well();
    daemon.until("only what ran before runs", || daemon.running() == running);
}

#[test]
fn containers_stay_through_a_stop() {
    let Some(mut daemon) = Daemon::begin(Runs::Containers, LONG) else { return };
    daemon.deploy_until("none", &[], "baking");
    let (before, running) = (daemon.service(), daemon.running());
    daemon.terminate();
    assert_eq!(daemon.running(), running, "containers outlive the daemon");
    daemon.start();
    let after = daemon.wait("the same phase", |web| web["phase"] == "baking");
    assert_eq!(after["rollout"], before["rollout"]);
    assert_eq!(ids(&after["canary"]), ids(&before["canary"]));
    assert_eq!(daemon.cli(&["promote", "web", "--full"]).code, 0);
    daemon.wait("its end", |web| web["phase"] == "promoted" && web["stable"]["revision"] == 2);
}

#[test]
fn processes_stop_with_the_daemon_and_start_with_it() {
    let mut daemon = Daemon::begin(Runs::Processes, LONG).unwrap();
    daemon.deploy_until("none", &[], "baking");
    daemon.terminate();
    assert!(daemon.running().is_empty(), "a stop leaves no process: {:?}", daemon.running());
    daemon.start();
    daemon.until("stable is back", || daemon.get("/").is_ok_and(|a| a.status == 200));
    daemon.wait("the rollout went back", |web| web["phase"] == "rolled_back");
    assert_eq!(daemon.service()["stable"]["revision"], 1);
    daemon.until("one instance", || daemon.running().len() == 1);
}

#[test]
fn a_stop_lets_visitors_finish() {
    let mut daemon = Daemon::begin(Runs::Processes, LONG).unwrap();
    let said = daemon.deploy("slow:400", &["--detach"]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.wait("baking", |web| web["phase"] == "baking");
    assert_eq!(daemon.cli(&["promote", "web", "--full"]).code, 0);
    daemon.wait("promoted", |web| web["stable"]["revision"] == 2);
    let to = daemon.http;
    let visitors: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                crate::support::http::get(to, "/", &[]).map(|answer| answer.status)
            })
        })
        .collect();
    daemon.until("they wait", || {
        daemon.service()["stable"]["instances"][0]["in_flight"].as_u64() == Some(8)
    });
    daemon.terminate();
    for visitor in visitors {
        assert_eq!(visitor.join().unwrap().unwrap(), 200);
    }
}

#[test]
fn a_state_that_is_let_go_of_late_is_waited_for() {
    let mut daemon = Daemon::begin(Runs::Processes, LONG).unwrap();
    daemon.kill();
    // As the fork of a daemon that died while it started a process.
    let state = std::fs::File::open(daemon.state().join("state.redb")).unwrap();
    state.try_lock().unwrap();
    daemon.launch();
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(daemon.get("/").is_err(), "it waits");
    drop(state);
    daemon.until("an answer", || daemon.get("/").is_ok_and(|answer| answer.status == 200));
}

#[test]
fn a_stop_in_the_middle_of_a_launch_leaves_no_process() {
    let mut daemon = Daemon::begin(Runs::Processes, "replicas = 2\n").unwrap();
    for millis in [0, 2, 5, 10, 20, 40, 80, 160] {
        daemon.post("deploy", "{}");
        std::thread::sleep(std::time::Duration::from_millis(millis));
        daemon.terminate();
        let left = daemon.running();
        assert!(left.is_empty(), "stopped after {millis} ms: {left:?}");
        daemon.start();
        daemon.post("abort", "{}");
        daemon.until("only stable runs", || daemon.running().len() == 2);
        daemon.wait("its end", |web| !web["outcome"].is_null() || web["phase"] != "rolling_back");
    }
}
