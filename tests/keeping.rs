//! Between releases: an instance that ends is started again, and while another one lives nobody
//! notices.

use rustix::process::{Pid, Signal, kill_process};

use crate::support::daemon::{Daemon, LONG, Runs};
use crate::support::load::Load;

fn kill(pid: &str) {
    kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn a_process_that_ends_is_started_again() {
    let daemon = Daemon::begin(Runs::Processes, LONG).unwrap();
    for _ in 0..3 {
        let before = daemon.running();
        kill(&before[0]);
        daemon.until("another one serves", || {
            let now = daemon.running();
            now.len() == 1 && now != before && daemon.get("/").is_ok_and(|a| a.status == 200)
        });
    }
    assert_eq!(daemon.service()["stable"]["revision"], 1);
    // And a release goes as ever.
    let said = daemon.deploy("none", &["--steps", "100%", "--bake", "0s", "--detach"]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.wait("the canary", |web| web["weights"]["canary"] == 100.0);
    assert_eq!(daemon.cli(&["promote", "web", "--full"]).code, 0);
    daemon.wait("its end", |web| web["phase"] == "promoted" && web["stable"]["revision"] == 2);
}

#[test]
fn one_of_two_that_ends_is_noticed_by_nobody() {
    let daemon = Daemon::begin(Runs::Processes, &format!("{LONG}replicas = 2\n")).unwrap();
    let load = Load::begin(daemon.http, 150);
    for _ in 0..3 {
        let before = daemon.running();
        assert_eq!(before.len(), 2);
        kill(&before[0]);
        daemon.until("there are two again", || {
            let now = daemon.running();
            now.len() == 2 && now != before
        });
        daemon.wait("both are healthy", |web| {
            let all = web["stable"]["instances"].as_array().cloned().unwrap_or_default();
            all.len() == 2 && all.iter().all(|instance| instance["healthy"] == true)
        });
    }
    load.end_well();
}

#[test]
fn a_process_that_ends_while_the_daemon_is_away_is_started_with_it() {
    let mut daemon = Daemon::begin(Runs::Processes, LONG).unwrap();
    let before = daemon.running();
    daemon.kill();
    kill(&before[0]);
    daemon.start();
    daemon.until("another one serves", || {
        daemon.running().len() == 1 && daemon.get("/").is_ok_and(|a| a.status == 200)
    });
}
