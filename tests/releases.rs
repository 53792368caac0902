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
    // What is stopped is told a moment later than it is done.
    daemon.until("only the third runs", || {
        daemon.running().len() == 1 && daemon.service()["warm"].is_null()
    });
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

fn what_is_warm_is_returned_to_right_after_a_restart(runs: Runs) {
    let Some(mut daemon) = Daemon::begin(runs, SHORT) else { return };
    let said = daemon.deploy("none", &["--env", "SAMPLE_NAME=two", "--steps", "100%"]);
    assert_eq!(said.code, 0, "{said:?}");
    for expected in ["", "two", ""] {
        let running = daemon.running();
        assert_eq!(running.len(), 2);
        daemon.kill();
        daemon.start();
        // At once, before anybody can know whether it is healthy.
        let said = daemon.cli(&["rollback", "web"]);
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(name(&daemon), expected);
        assert_eq!(daemon.running(), running, "nothing was started or stopped");
    }
}

#[test]
fn a_warm_process_is_returned_to_right_after_a_restart() {
    what_is_warm_is_returned_to_right_after_a_restart(Runs::Processes);
}

#[test]
fn a_warm_container_is_returned_to_right_after_a_restart() {
    what_is_warm_is_returned_to_right_after_a_restart(Runs::Containers);
}

#[test]
fn what_is_warm_and_sick_is_started_anew() {
    let plan = format!(
        "{SHORT}probe = {{ path = \"/up\", interval = \"200ms\", timeout = \"500ms\", rise = 1, fall = 2 }}\n"
    );
    let daemon = Daemon::begin(Runs::Processes, &plan).unwrap();
    let first = daemon.running();
    let said = daemon.deploy("none", &["--env", "SAMPLE_NAME=two", "--steps", "100%"]);
    assert_eq!(said.code, 0, "{said:?}");
    let second: Vec<String> =
        daemon.running().into_iter().filter(|pid| !first.contains(pid)).collect();
    // It is there and answers nobody.
    let pid = rustix::process::Pid::from_raw(first[0].parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    daemon.until("it is given up", || daemon.log().contains("is not healthy"));
    let load = Load::begin(daemon.http, 100);
    let said = daemon.cli(&["rollback", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(daemon.service()["stable"]["revision"], 1);
    assert_eq!(name(&daemon), "", "the traffic went with it");
    daemon.until("the sick one is gone", || !daemon.running().contains(&first[0]));
    let now = daemon.running();
    assert!(now.len() == 2 && second.iter().all(|pid| now.contains(pid)), "{now:?}");
    // What was stopped in the end took nothing along that serves by now.
    daemon.until("it is told", || daemon.log().contains("revision 1 is stopped"));
    assert_eq!(name(&daemon), "");
    // And forward again, to what is warm.
    assert_eq!(daemon.cli(&["rollback", "web"]).code, 0);
    assert_eq!(name(&daemon), "two");
    daemon.until("only what ran before runs", || daemon.running() == now);
    load.end_well();
}

#[test]
fn what_still_drains_is_returned_to_anew() {
    let plan = format!("{SHORT}keep_warm = \"0s\"\n");
    let daemon = Daemon::begin(Runs::Processes, &plan).unwrap();
    let to = daemon.http;
    let said = daemon.deploy("slow:500", &["--env", "SAMPLE_NAME=two", "--steps", "100%"]);
    assert_eq!(said.code, 0, "{said:?}");
    // Visitors who wait for the second hold it up while the third takes its place.
    let visitors: Vec<_> = (0..3)
        .map(|_| {
            std::thread::spawn(move || crate::support::http::get(to, "/", &[]).map(|a| a.status))
        })
        .collect();
    daemon.until("they wait", || {
        daemon.service()["stable"]["instances"][0]["in_flight"].as_u64() == Some(3)
    });
    let said =
        daemon.deploy("none", &["--env", "SAMPLE_NAME=three", "--steps", "100%", "--detach"]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.wait("the third", |web| {
        web["weights"]["canary"] == 100.0 || web["stable"]["revision"] == 3
    });
    let _perhaps_promoted_already = daemon.post("promote", "{\"full\": true}");
    daemon.wait("promoted", |web| web["phase"] == "promoted" && web["stable"]["revision"] == 3);
    let said = daemon.cli(&["rollback", "web", "--to", "2"]);
    assert_eq!(said.code, 0, "{said:?}");
    for visitor in visitors {
        assert_eq!(visitor.join().unwrap().unwrap(), 200);
    }
    daemon.until("the former ones are stopped", || daemon.running().len() == 1);
    assert_eq!(name(&daemon), "two", "the traffic went with it, and stays");
}
