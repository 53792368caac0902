//! What an operator sees: what instances take of the machine, how often they came back, what they have
//! written, and the figures of both sides.

use serde_json::Value;

use crate::kept_images::{configure, of_image};
use crate::support::daemon::{Daemon, LONG, PROGRAM, Runs, SHORT};
use crate::support::engine::{engine, import};
use crate::support::load::Load;

fn status(daemon: &Daemon) -> Value {
    let said = daemon.cli(&["status", "web", "-o", "json"]);
    assert_eq!(said.code, 0, "{said:?}");
    said.last()
}

fn what_an_instance_takes(runs: Runs) {
    let Some(daemon) = Daemon::begin(runs, SHORT) else { return };
    let load = Load::begin(daemon.http, 100);
    let mut instance = Value::Null;
    daemon.until("it uses a processor", || {
        instance = status(&daemon)["stable"]["instances"][0].clone();
        instance["cpu"].as_f64() > Some(0.0)
    });
    let (cpu, memory) = (instance["cpu"].as_f64().unwrap(), instance["memory"].as_u64().unwrap());
    // Of a few requests a second nothing takes sixteen processors, or a gigabyte.
    assert!(cpu < 16.0 && (100_000..1 << 30).contains(&memory), "{instance:#}");
    let said = daemon.cli(&["status"]).stdout;
    assert!(said.contains("% cpu, ") && said.contains("B\n"), "{said}");
    assert!(!said.contains("restarted"), "{said}");
    // Who does not ask for it does not wait for it.
    assert!(daemon.service()["stable"]["instances"][0]["cpu"].is_null());

    let mut side = Value::Null;
    daemon.until("requests in the last seconds", || {
        side = daemon.cli(&["stats", "-o", "json"]).last()[0].clone();
        side["requests_per_second"].as_f64() > Some(0.0)
    });
    assert_eq!((&side["service"], &side["side"]), (&"web".into(), &"stable".into()), "{side:#}");
    assert!(side["p99"].as_f64() >= side["p50"].as_f64() && side["memory"].is_u64(), "{side:#}");
    let said = daemon.cli(&["stats", "web"]).stdout;
    assert!(said.starts_with("service  side") && said.lines().count() == 2, "{said}");

    // All that the sheet says, for programs.
    let sheet = daemon.cli(&["status", "--sheet", "-o", "json"]).last();
    assert_eq!(sheet["services"][0]["service"], "web", "{sheet:#}");
    assert!(sheet["daemon"]["disk_free"].is_u64() && sheet["done"].is_array(), "{sheet:#}");
    drop(load);
}

#[test]
fn what_a_process_takes_is_seen() {
    what_an_instance_takes(Runs::Processes);
}

#[test]
fn what_a_container_takes_is_seen() {
    what_an_instance_takes(Runs::Containers);
}

#[test]
fn how_often_an_instance_came_back_is_seen() {
    let daemon = Daemon::begin(Runs::Processes, LONG).unwrap();
    for times in 1..=2 {
        let pid: i32 = daemon.running()[0].parse().unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        daemon.wait("it is back", |web| {
            let instance = &web["stable"]["instances"][0];
            instance["restarts"] == times && instance["healthy"] == true
        });
    }
    let said = daemon.cli(&["status", "web"]).stdout;
    assert!(said.contains("restarted 2 times"), "{said}");
    let sheet = daemon.cli(&["status", "--sheet", "-o", "json"]).last();
    assert!(sheet["lately"].to_string().contains("starting it again"), "{sheet:#}");
}

/// The lines of `logs -t`: time, what stands before the text, text.
fn timed(said: &str) -> Vec<(String, String)> {
    let line = |line: &str| {
        let (at, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?} in {said}"));
        assert!(at.parse::<jiff::Timestamp>().is_ok(), "{line:?} in {said}");
        (at.to_owned(), rest.trim().to_owned())
    };
    said.lines().map(line).collect()
}

/// Two instances that write a line now and then, and the canary beside them.
fn in_one_order(daemon: &Daemon, next: &[&str]) {
    let ticks = |instance: &Value| {
        let id = instance["id"].as_str().unwrap();
        let said = daemon.cli(&["logs", "web", "--instance", id, "--grep", "tick"]);
        said.stdout.lines().count()
    };
    let web = daemon.service();
    let all = web["stable"]["instances"].as_array().unwrap();
    assert_eq!(all.len(), 2, "{web:#}");
    daemon.until("a few lines of each", || all.iter().all(|one| ticks(one) >= 6));

    let said = daemon.cli(&["logs", "web", "-t", "--grep", "tick"]);
    assert_eq!(said.code, 0, "{said:?}");
    let lines = timed(&said.stdout);
    assert!(lines.is_sorted_by(|(a, _), (b, _)| a <= b), "{said:?}");
    let mut who: Vec<&str> =
        lines.iter().map(|(_, rest)| rest.split(' ').next().unwrap()).collect();
    let changes = who.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(changes >= 2, "they wrote in turn: {said:?}");
    who.sort_unstable();
    who.dedup();
    assert_eq!(who.len(), 2, "{said:?}");

    // From a moment on: the last line's.
    let since = lines.last().unwrap().0.clone();
    let said = daemon.cli(&["logs", "web", "-t", "--since", &since]);
    assert_eq!(said.code, 0, "{said:?}");
    let later = timed(&said.stdout);
    assert!(!later.is_empty() && later.iter().all(|(at, _)| *at >= since), "{said:?}");
    let said = daemon.cli(&["logs", "web", "--since", "yesterday"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("neither a moment"), "{said:?}");

    // Both revisions together.
    let mut words = vec!["deploy", "web", "--detach"];
    words.extend(next);
    let said = daemon.cli(&words);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.wait("baking", |web| web["phase"] == "baking");
    daemon.until("lines of both", || {
        let said = daemon.cli(&["logs", "web", "--all", "-o", "json"]);
        let has = |revision: u32| {
            let all = said.last().as_array().unwrap().clone();
            let of = |one: &&Value| one["revision"] == revision;
            all.iter().filter(of).any(|one| !one["lines"].as_array().unwrap().is_empty())
        };
        has(1) && has(2)
    });
    let said = daemon.cli(&["logs", "web", "--all", "-t"]);
    let lines = timed(&said.stdout);
    assert!(lines.is_sorted_by(|(a, _), (b, _)| a <= b), "{said:?}");
    let of = |revision: &str| lines.iter().any(|(_, rest)| rest.starts_with(revision));
    assert!(of("1 ") && of("2 "), "{said:?}");
    assert_eq!(daemon.cli(&["abort", "web"]).code, 0);
    daemon.wait("the end", |web| web["phase"] == "rolled_back");
}

#[test]
fn what_processes_write_comes_in_one_order() {
    let plan = format!("replicas = 2\nsteps = \"50% 100%\"\n{LONG}");
    let mut daemon = Daemon::configured(Runs::Processes, &plan).unwrap();
    let script = format!(
        "(while echo tick; do sleep 0.2; done) & exec {PROGRAM} sample-app --port {{port}}"
    );
    let text = daemon.file(&plan);
    let lines = text.lines().map(|line| match line.starts_with("command =") {
        true => format!("command = [\"/bin/sh\", \"-c\", {script:?}]"),
        false => line.to_owned(),
    });
    daemon.configure(&lines.collect::<Vec<_>>().join("\n"));
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    in_one_order(&daemon, &["--env", "SAMPLE_NAME=two"]);
}

#[test]
fn what_containers_write_comes_in_one_order() {
    let Some(host) = engine() else { return };
    let image = import(&host, &[]);
    let Some(mut daemon) = of_image(&image, "") else { return };
    configure(&daemon, &image, "replicas = 2\n");
    let script = "while echo tick; do sleep 0.2; done & exec httpd -f -p 3000 -h /www";
    let text = std::fs::read_to_string(daemon.config()).unwrap();
    let lines = text.lines().map(|line| match line {
        line if line.starts_with("args =") => format!("args = [\"sh\", \"-c\", {script:?}]"),
        line if line.starts_with("bake_max =") => "bake_max = \"60s\"".to_owned(),
        line => line.to_owned(),
    });
    daemon.configure(&lines.collect::<Vec<_>>().join("\n"));
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    in_one_order(&daemon, &["--env", "NEXT=1"]);
}
