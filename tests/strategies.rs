//! How a new revision takes the place of the old one: all at once, instance by instance, or after it.
//! Visitors come all the while, and none may notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::daemon::{Daemon, LONG, Runs, SHORT};
use crate::support::http::get;
use crate::support::load::Load;

/// Watches how many instances run at a time.
fn most_running(daemon: &Daemon, during: impl FnOnce()) -> usize {
    let (most, stop) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)));
    std::thread::scope(|scope| {
        let (watched, most) = (Arc::clone(&stop), &most);
        scope.spawn(move || {
            while !watched.load(Ordering::Relaxed) {
                most.fetch_max(daemon.running().len(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(30));
            }
        });
        let ends = Ends(stop);
        during();
        drop(ends);
    });
    most.into_inner()
}

/// Ends the watch, also when what is watched fails.
struct Ends(Arc<AtomicBool>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn weights(lines: &[serde_json::Value]) -> Vec<f64> {
    let baking = lines.iter().filter(|line| line["phase"] == "baking");
    baking.map(|line| line["weight"].as_f64().unwrap()).collect()
}

fn name(daemon: &Daemon) -> String {
    daemon.get("/").unwrap().field("x-sample-name").unwrap_or_default().to_owned()
}

fn all_at_once_and_taken_back(runs: Runs) {
    // Alone, a canary is told from a pause by a second and a half of failures.
    let plan = "strategy = \"blue-green\"\nbake = \"400ms\"\nbake_max = \"8s\"\n\
                on_inconclusive = \"advance\"\n";
    let Some(daemon) = Daemon::begin(runs, plan) else { return };
    let said = daemon.cli(&["deploy", "web", "--dry-run"]);
    assert!(said.stdout.contains("blue-green: all at once when it is healthy"), "{said:?}");
    let load = Load::begin(daemon.http, 100);
    let said = daemon.deploy("none", &["--env", "SAMPLE_NAME=two"]);
    assert_eq!((said.code, weights(&said.lines())), (0, vec![100.0]), "{said:?}");
    assert_eq!(name(&daemon), "two");
    // All of it is the bad one's, and all of it comes back; the shield spares visitors.
    let said = daemon.deploy("errors:0.9", &[]);
    assert_eq!(said.code, 3, "{said:?}");
    assert_eq!(
        (daemon.service()["stable"]["revision"].clone(), name(&daemon)),
        (2.into(), "two".into())
    );
    load.end();
}

#[test]
fn what_fails_all_at_once_is_taken_back_however_short_the_step() {
    let plan = format!("strategy = \"blue-green\"\n{SHORT}");
    let daemon = Daemon::begin(Runs::Processes, &plan).unwrap();
    let load = Load::begin(daemon.http, 100);
    let said = daemon.deploy("errors:1", &[]);
    assert_eq!(said.code, 3, "{said:?}");
    assert_eq!(daemon.service()["stable"]["revision"], 1);
    // One that fails half of the time needs a second or two more to be told from chance.
    let said = daemon.deploy("errors:0.5", &[]);
    assert_eq!(said.code, 3, "{said:?}");
    load.end();
}

#[test]
fn a_process_takes_over_all_at_once() {
    all_at_once_and_taken_back(Runs::Processes);
}

#[test]
fn a_container_takes_over_all_at_once() {
    all_at_once_and_taken_back(Runs::Containers);
}

fn instance_by_instance(runs: Runs) {
    let plan = format!("strategy = \"rolling\"\nreplicas = 3\n{SHORT}");
    let Some(daemon) = Daemon::begin(runs, &plan) else { return };
    assert_eq!(daemon.running().len(), 3);
    let load = Load::begin(daemon.http, 100);
    let most = most_running(&daemon, || {
        let said = daemon.deploy("none", &["--env", "SAMPLE_NAME=two"]);
        assert_eq!((said.code, weights(&said.lines())), (0, vec![33.33, 66.66, 100.0]), "{said:?}");
    });
    assert!(most <= 4, "{most} instances ran at a time");
    daemon.until("three again", || daemon.running().len() == 3);
    assert_eq!(
        (daemon.service()["stable"]["revision"].clone(), name(&daemon)),
        (2.into(), "two".into())
    );

    // The way back is the same, without waiting for evidence.
    let most = most_running(&daemon, || {
        let said = daemon.cli(&["rollback", "web"]);
        assert_eq!(said.code, 0, "{said:?}");
    });
    assert!(most <= 4, "{most} instances ran at a time");
    daemon.until("three again", || daemon.running().len() == 3);
    assert_eq!(
        (daemon.service()["stable"]["revision"].clone(), name(&daemon)),
        (1.into(), String::new())
    );
    load.end_well();
}

#[test]
fn processes_are_exchanged_one_by_one() {
    instance_by_instance(Runs::Processes);
}

#[test]
fn containers_are_exchanged_one_by_one() {
    instance_by_instance(Runs::Containers);
}

fn the_first_bad_instance_ends_it(runs: Runs) {
    let plan = format!("strategy = \"rolling\"\nreplicas = 2\n{LONG}");
    let Some(daemon) = Daemon::begin(runs, &plan) else { return };
    let before = daemon.running();
    let load = Load::begin(daemon.http, 100);
    daemon.deploy_until("none", &[], "baking");
    // One of two is not all of them.
    let said = daemon.cli(&["promote", "web", "--full"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("not all of its instances run"), "{said:?}");
    assert_eq!(daemon.cli(&["promote", "web"]).code, 0);
    // The second one is there, and one of stable's has gone.
    let half = daemon.wait("the second instance", |web| web["weights"]["canary"] == 100.0);
    assert_eq!(half["stable"]["instances"].as_array().unwrap().len(), 1, "{half}");
    daemon.until("one of stable's stopped", || daemon.running().len() == 3);
    assert_eq!(daemon.cli(&["abort", "web"]).code, 0);
    let back = daemon.wait("stable is whole again", |web| {
        let instances = web["stable"]["instances"].as_array();
        web["phase"] == "rolled_back"
            && instances
                .is_some_and(|all| all.len() == 2 && all.iter().all(|i| i["healthy"] == true))
    });
    assert_eq!(back["stable"]["revision"], 1);
    daemon.until("two again", || daemon.running().len() == 2);
    assert!(daemon.running().iter().any(|id| before.contains(id)), "one was never stopped");

    // One that does not start is the end of it, and nothing of stable was given up.
    let said = daemon.deploy("start", &[]);
    assert_eq!(said.code, 5, "{said:?}");
    assert_eq!(daemon.running().len(), 2);
    load.end_well();
}

#[test]
fn a_bad_process_ends_a_rolling_deploy() {
    the_first_bad_instance_ends_it(Runs::Processes);
}

#[test]
fn a_bad_container_ends_a_rolling_deploy() {
    the_first_bad_instance_ends_it(Runs::Containers);
}

fn one_after_the_other(runs: Runs) {
    let plan = format!("strategy = \"recreate\"\n{SHORT}");
    let Some(daemon) = Daemon::begin(runs, &plan) else { return };
    let load = Load::begin(daemon.http, 60);
    let most = most_running(&daemon, || {
        let said = daemon.deploy("none", &["--env", "SAMPLE_NAME=two"]);
        assert_eq!((said.code, weights(&said.lines())), (0, vec![100.0]), "{said:?}");
        assert_eq!(name(&daemon), "two");
        // One that never starts, and one that is bad: the former starts again, and visitors wait.
        let said = daemon.deploy("start", &[]);
        assert_eq!(said.code, 5, "{said:?}");
        assert_eq!(name(&daemon), "two");
        // And back to what does not run any more.
        let said = daemon.cli(&["rollback", "web", "--to", "1"]);
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(name(&daemon), "");
    });
    assert_eq!(most, 1, "two ran at a time");
    load.end_well();
    let said = daemon.deploy("none", &["--strategy", "recreate", "--dry-run"]);
    assert_eq!(said.last()["strategy"], "recreate", "{said:?}");
}

#[test]
fn a_process_stops_before_the_next_one_starts() {
    one_after_the_other(Runs::Processes);
}

#[test]
fn a_container_stops_before_the_next_one_starts() {
    one_after_the_other(Runs::Containers);
}

#[test]
fn a_bad_one_that_was_alone_is_taken_back() {
    let plan = format!("strategy = \"recreate\"\n{LONG}");
    let daemon = Daemon::begin(Runs::Processes, &plan).unwrap();
    let load = Load::begin(daemon.http, 100);
    let said = daemon.deploy("errors:0.9", &[]);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(daemon.get("/").unwrap().status == 200, "the former one serves");
    assert_eq!(daemon.running().len(), 1);
    assert_eq!(daemon.service()["stable"]["revision"], 1);
    load.end();
}

#[test]
fn visitors_wait_no_longer_than_they_should() {
    let plan = format!(
        "strategy = \"recreate\"\nqueue = \"300ms\"\nqueue_limit = 1\n\
         before_deploy = {{ command = [\"sleep\", \"3\"] }}\n{SHORT}"
    );
    let daemon = Daemon::begin(Runs::Processes, &plan).unwrap();
    let said = daemon.deploy("none", &["--detach"]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.until("nobody serves", || daemon.get("/").is_ok_and(|answer| answer.status == 503));
    let waiting: Vec<_> = (0..12)
        .map(|_| {
            let http = daemon.http;
            std::thread::spawn(move || {
                let begun = std::time::Instant::now();
                get(http, "/", &[]).map(|answer| (answer.status, begun.elapsed()))
            })
        })
        .collect();
    let told: Vec<_> = waiting.into_iter().map(|one| one.join().unwrap().unwrap()).collect();
    assert!(told.iter().all(|(status, _)| *status == 503), "{told:?}");
    // Two workers with a place each; who finds none is told at once.
    let waited = told.iter().filter(|(_, took)| *took >= Duration::from_millis(300)).count();
    assert!((1..=2).contains(&waited), "{told:?}");
    daemon.wait("the end", |web| web["phase"] == "promoted");
    assert_eq!(daemon.get("/").unwrap().status, 200);
}

#[test]
fn a_daemon_that_dies_midway_goes_on() {
    let plan = format!(
        "strategy = \"recreate\"\nbefore_deploy = {{ command = [\"sleep\", \"2\"] }}\n{SHORT}"
    );
    let mut daemon = Daemon::begin(Runs::Processes, &plan).unwrap();
    let said = daemon.deploy("none", &["--detach", "--env", "SAMPLE_NAME=two"]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.until("stable stopped", || daemon.running().is_empty());
    daemon.kill();
    daemon.start();
    // Visitors come at once, while nothing runs yet, and wait.
    let load = Load::begin(daemon.http, 60);
    daemon.wait("the end", |web| web["phase"] == "promoted");
    assert_eq!(name(&daemon), "two");
    load.end_well();

    // Instance by instance, in the middle of it.
    let plan = format!("strategy = \"rolling\"\nreplicas = 3\n{LONG}");
    let mut daemon = Daemon::begin(Runs::Containers, &plan)
        .unwrap_or_else(|| Daemon::begin(Runs::Processes, &plan).unwrap());
    daemon.deploy_until("none", &[], "baking");
    assert_eq!(daemon.cli(&["promote", "web"]).code, 0);
    daemon.wait("the second", |web| web["weights"]["canary"] == 66.66);
    daemon.kill();
    daemon.start();
    daemon.wait("as it was", |web| web["weights"]["canary"] == 66.66);
    let load = Load::begin(daemon.http, 60);
    assert_eq!(daemon.cli(&["promote", "web"]).code, 0);
    daemon.wait("the third", |web| web["weights"]["canary"] == 100.0);
    assert_eq!(daemon.cli(&["abort", "web"]).code, 0);
    daemon.until("three again", || {
        let web = daemon.service();
        web["phase"] == "rolled_back" && daemon.running().len() == 3
    });
    load.end_well();
}

#[test]
fn what_cannot_be_is_said() {
    let daemon = Daemon::begin(Runs::Processes, "strategy = \"rolling\"\n").unwrap();
    for (words, says) in [
        (vec!["--strategy", "green-blue"], "canary, blue-green, rolling, recreate"),
        (vec!["--steps", "5% 100%"], "steps belong to the strategy canary"),
        (vec!["--strategy", "recreate", "--endpoints", "127.0.0.1:9"], "somebody else's to stop"),
    ] {
        let said = daemon.cli(&[&["deploy", "web"], words.as_slice()].concat());
        assert_ne!(said.code, 0, "{said:?}");
        assert!(said.stderr.contains(says), "{said:?}");
    }
    assert_eq!(daemon.service()["stable"]["revision"], 1);
}
