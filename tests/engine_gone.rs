//! The Docker Engine is missing, refuses or hangs: at the start and in the middle of a rollout. What
//! serves goes on serving, and one sentence says what is the matter.

use std::time::{Duration, Instant};

use crate::support::daemon::{Daemon, LONG, Runs};
use crate::support::line::Line;
use crate::support::load::Load;

/// With a line to the engine between it and its daemon.
fn with_a_line(plan: &str) -> Option<(Daemon, Line)> {
    let mut daemon = Daemon::configured(Runs::Containers, plan)?;
    let line = Line::to(&daemon.engine()?.url)?;
    daemon.configure(&daemon.file_with(&line.url(), plan));
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    Some((daemon, line))
}

fn note(daemon: &Daemon) -> String {
    daemon.status()["notes"].to_string()
}

#[test]
fn an_engine_that_is_missing_at_the_start_is_named() {
    let Some(mut daemon) = Daemon::configured(Runs::Containers, LONG) else { return };
    let missing = daemon.home().join("none.sock");
    let host = format!("unix://{}", missing.display());
    daemon.configure(&daemon.file_with(&host, LONG));
    daemon.start();
    daemon.until("it is said", || note(&daemon).contains("none.sock"));
    assert_eq!(daemon.status()["docker"], false);
    let said = daemon.cli(&["deploy", "web"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("none.sock"), "{said:?}");
    eprintln!("{}", said.stderr);
    assert_eq!(daemon.get("/").unwrap().status, 503);

    // When it comes, what was configured starts by itself.
    let line = Line::to(&daemon.engine().unwrap().url).unwrap();
    std::os::unix::fs::symlink(line.url().trim_start_matches("unix://"), &missing).unwrap();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    assert_eq!(daemon.status()["docker"], true);
    assert_eq!(daemon.get("/").unwrap().status, 200);
}

#[test]
fn an_engine_that_refuses_at_the_start_is_named() {
    let Some(mut daemon) = Daemon::configured(Runs::Containers, LONG) else { return };
    let socket = daemon.home().join("refuses.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let host = format!("unix://{}", socket.display());
    daemon.configure(&daemon.file_with(&host, LONG));
    daemon.start();
    daemon.until("it is said", || note(&daemon).contains("refuses.sock"));
    let said = daemon.cli(&["deploy", "web"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("refuses.sock"), "{said:?}");
    eprintln!("{}", said.stderr);
}

#[test]
fn what_served_is_served_although_the_engine_hangs_at_the_start() {
    let Some((mut daemon, line)) = with_a_line(LONG) else { return };
    let said = daemon.deploy_until("none", &["--steps", "50% 100%"], "baking");
    let running = daemon.running();
    daemon.kill();
    line.fall_silent();
    let begun = Instant::now();
    daemon.start();
    daemon.until("the last good routes", || daemon.get("/").is_ok_and(|a| a.status == 200));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert_eq!(daemon.service()["service"], "web", "it is known at once");
    let load = Load::begin(daemon.http, 50);
    daemon.until("it is said", || note(&daemon).contains("did not answer within"));
    daemon.wait("the rollout goes on", |web| {
        web["phase"] == "baking"
            && web["weights"]["canary"] == 50.0
            && web["rollout"] == said["rollout"]
    });
    line.mend();
    daemon.until("it is back", || daemon.status()["docker"] == true);
    daemon.until("only what ran before runs", || daemon.running() == running);
    assert_eq!(daemon.cli(&["promote", "web", "--full"]).code, 0);
    daemon.wait("its end", |web| web["phase"] == "promoted" && web["stable"]["revision"] == 2);
    load.end_well();
}

#[test]
fn a_rollout_is_finished_without_the_engine() {
    let plan = format!("{LONG}keep_warm = \"0s\"\n");
    let Some((daemon, line)) = with_a_line(&plan) else { return };
    let load = Load::begin(daemon.http, 100);
    daemon.deploy_until("none", &["--steps", "50% 100%"], "baking");
    line.cut();
    daemon.until("it is said", || daemon.status()["docker"] == false);
    assert!(note(&daemon).contains("what serves goes on serving"), "{}", note(&daemon));
    let said = daemon.cli(&["promote", "web", "--full"]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.wait("its end", |web| web["phase"] == "promoted" && web["stable"]["revision"] == 2);
    let said = daemon.cli(&["deploy", "web"]);
    assert_eq!(said.code, 1, "{said:?}");
    eprintln!("{}", said.stderr);
    line.mend();
    daemon.until("it is back", || daemon.status()["docker"] == true);
    daemon.until("the former one is gone", || daemon.running().len() == 1);
    load.end_well();
}

fn a_canary_is_taken_back_without_the_engine(silence: impl Fn(&Line)) {
    let Some((daemon, line)) = with_a_line(LONG) else { return };
    let running = daemon.running();
    let load = Load::begin(daemon.http, 100);
    daemon.deploy_until("none", &["--steps", "50% 100%"], "baking");
    silence(&line);
    let begun = Instant::now();
    let said = daemon.cli(&["abort", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.wait("no visitor on the canary", |web| web["weights"]["stable"] == 100.0);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    daemon.wait("its end", |web| web["phase"] == "rolled_back");
    line.mend();
    daemon.until("the canary is gone after all", || daemon.running() == running);
    load.end_well();
}

#[test]
fn a_canary_is_taken_back_although_the_engine_is_gone() {
    a_canary_is_taken_back_without_the_engine(Line::cut);
}

#[test]
fn a_canary_is_taken_back_although_the_engine_hangs() {
    a_canary_is_taken_back_without_the_engine(Line::fall_silent);
}

#[test]
fn a_container_that_ends_while_the_engine_is_away_is_started_again() {
    let Some((daemon, line)) = with_a_line(LONG) else { return };
    let before = daemon.running();
    line.cut();
    daemon.until("it is noticed", || daemon.status()["docker"] == false);
    let (client, id) = (daemon.engine().unwrap().client(), before[0].clone());
    crate::support::engine::on_a_runtime(async move { client.kill_container(&id, None).await })
        .unwrap();
    line.mend();
    daemon.until("another one serves", || {
        let now = daemon.running();
        now.len() == 1 && now != before && daemon.get("/").is_ok_and(|a| a.status == 200)
    });
}
