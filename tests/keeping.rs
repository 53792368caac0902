//! Between releases: an instance that ends is started again, and while another one lives nobody
//! notices.

use rustix::process::{Pid, Signal, kill_process};

use crate::support::daemon::{Daemon, LONG, Runs, SHORT};
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

#[test]
fn one_of_two_that_ends_while_it_is_warm_is_back_with_its_revision() {
    let plan = format!("{SHORT}replicas = 2\n");
    let mut daemon = Daemon::begin(Runs::Processes, &plan).unwrap();
    let first = daemon.running();
    let said = daemon.deploy("none", &["--steps", "100%"]);
    assert_eq!(said.code, 0, "{said:?}");
    let load = Load::begin(daemon.http, 100);
    for restarted in [false, true] {
        let warm = daemon.service()["warm"]["revision"].as_u64().unwrap();
        let before = daemon.running();
        assert_eq!(before.len(), 4);
        // The oldest is of the revision that is warm, at first; later any of them will do.
        let victim = if restarted {
            let stable = daemon.service()["stable"]["instances"].to_string();
            before.iter().find(|pid| !listens(pid, &stable)).unwrap().clone()
        } else {
            first[0].clone()
        };
        kill(&victim);
        daemon.until("it is told", || {
            daemon.running().len() == 3 && told(&daemon) > usize::from(restarted)
        });
        let said = daemon.cli(&["rollback", "web"]);
        assert_eq!(said.code, 0, "{said:?}");
        let web = daemon.wait("both of it serve", |web| {
            let all = web["stable"]["instances"].as_array().cloned().unwrap_or_default();
            all.len() == 2 && all.iter().all(|instance| instance["healthy"] == true)
        });
        assert_eq!(web["stable"]["revision"], warm);
        daemon.until("four run", || daemon.running().len() == 4);
    }
    load.end_well();
    // Ended while nobody was there to see it.
    let stable = daemon.service()["stable"]["instances"].to_string();
    let before = daemon.running();
    let victim = before.iter().find(|pid| !listens(pid, &stable)).unwrap().clone();
    daemon.kill();
    kill(&victim);
    daemon.start();
    daemon.until("the other is known to be healthy", || {
        daemon.log().matches("is healthy").count() > 0
            && daemon.get("/").is_ok_and(|a| a.status == 200)
    });
    let said = daemon.cli(&["rollback", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.wait("both of it serve", |web| {
        let all = web["stable"]["instances"].as_array().cloned().unwrap_or_default();
        all.len() == 2 && all.iter().all(|instance| instance["healthy"] == true)
    });
    daemon.until("four run", || daemon.running().len() == 4);
}

fn told(daemon: &Daemon) -> usize {
    daemon.log().matches("it was warm and is not started again").count()
}

/// Whether a process was started for one of these addresses.
fn listens(pid: &str, instances: &str) -> bool {
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let port = line.split('\0').skip_while(|word| *word != "--port").nth(1).unwrap_or("none");
    instances.contains(&format!(":{port}\""))
}
