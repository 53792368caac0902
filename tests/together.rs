//! Services that belong together go through each step together, and back together.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, LONG, Runs};
use crate::support::http::get;

/// A daemon with `web` and `api` of one group, on two hosts.
fn shop(runs: Runs, plan: &str) -> Option<Daemon> {
    let mut daemon = Daemon::configured(runs, plan)?;
    let plan =
        format!("host = \"web.test\"\ngroup = \"shop\"\naffinity = \"header:x-user\"\n{plan}");
    let text = daemon.file(&plan);
    let (_, web) = text.split_once("[service.web]\n").unwrap();
    let api = web.replace("web.test", "api.test");
    daemon.configure(&format!("{text}\n[service.api]\n{api}"));
    daemon.start();
    for name in ["web", "api"] {
        daemon.until("the first revisions", || service(&daemon, name)["phase"] == "promoted");
    }
    Some(daemon)
}

fn service(daemon: &Daemon, name: &str) -> Value {
    let read = daemon.read(&format!("/api/v1/services/{name}"));
    read.map_or(Value::Null, |body| serde_json::from_str(&body).unwrap())
}

fn deploy(daemon: &Daemon, web: &str, api: &str) -> [u64; 2] {
    let env = |fault: &str| json!({ "env": { "SAMPLE_FAULT": fault, "SAMPLE_NAME": "two" } });
    let body = json!({ "services": { "web": env(web), "api": env(api) } }).to_string();
    let answer = daemon.admin("POST", "/api/v1/deploy", &body).unwrap();
    assert_eq!(answer.status, 202, "{}", answer.body);
    let accepted: Value = serde_json::from_str(&answer.body).unwrap();
    ["web", "api"].map(|name| accepted["services"][name]["rollout"].as_u64().unwrap())
}

/// Both services, once both are in this phase with this weight.
fn both(daemon: &Daemon, phase: &str, weight: f64) {
    for name in ["web", "api"] {
        daemon.until(&format!("{name} {phase} at {weight}"), || {
            let service = service(daemon, name);
            service["phase"] == phase && service["weights"]["canary"] == weight
        });
    }
}

fn is_new(to: SocketAddr, host: &str, user: u32) -> bool {
    let user = format!("user-{user}");
    let answer = get(to, "/", &[("host", host), ("x-user", &user)]).unwrap();
    assert_eq!(answer.status, 200);
    answer.field("x-sample-name") == Some("two")
}

/// Who of 200 visitors is on the canaries.
fn on_canaries(daemon: &Daemon) -> [BTreeSet<u32>; 2] {
    ["web.test", "api.test"]
        .map(|host| (0..200).filter(|user| is_new(daemon.http, host, *user)).collect())
}

/// Whoever is on the canary of one is on that of the other. How many of 200 visitors that are.
fn pinned(daemon: &Daemon) -> usize {
    let [web, api] = on_canaries(daemon);
    assert_eq!(web, api, "somebody meets two versions");
    web.len()
}

fn promote(daemon: &Daemon, name: &str) {
    let said = daemon.cli(&["promote", name]);
    assert_eq!(said.code, 0, "{said:?}");
}

fn step_by_step(runs: Runs) {
    let plan = format!("{LONG}steps = \"20% 50% 100%\"\n");
    let Some(mut daemon) = shop(runs, &plan) else { return };
    let rollouts = deploy(&daemon, "none", "none");
    both(&daemon, "baking", 20.0);
    let first = pinned(&daemon);
    assert!((10..80).contains(&first), "{first} of 200");
    // One that is ready waits for the other.
    promote(&daemon, "web");
    daemon.until("web waits", || service(&daemon, "web")["phase"] == "paused");
    assert_eq!(service(&daemon, "api")["phase"], "baking");
    let refused = daemon.cli(&["promote", "web"]);
    assert!(refused.stderr.contains("the others of its group"), "{refused:?}");
    let refused = daemon.cli(&["promote", "api", "--full"]);
    assert!(refused.stderr.contains("step by step with its group"), "{refused:?}");
    // Also over the death of the daemon.
    daemon.kill();
    daemon.start();
    daemon.until("web waits", || service(&daemon, "web")["phase"] == "paused");
    daemon.until("api bakes", || service(&daemon, "api")["phase"] == "baking");
    // Right after its start a daemon has nobody who is known to be well.
    daemon.until("visitors are served", || {
        ["web.test", "api.test"].iter().all(|host| {
            let of = |user: u32| format!("user-{user}");
            (0..20).all(|user| {
                get(daemon.http, "/", &[("host", host), ("x-user", &of(user))])
                    .is_ok_and(|answer| answer.status == 200)
            })
        })
    });
    // A canary that is not known to be well yet has stable answer for it.
    daemon.until("as before", || {
        let [web, api] = on_canaries(&daemon);
        web == api && web.len() == first
    });
    promote(&daemon, "api");
    both(&daemon, "baking", 50.0);
    assert!(pinned(&daemon) > first);
    for weight in [50.0, 100.0] {
        both(&daemon, "baking", weight);
        promote(&daemon, "api");
        promote(&daemon, "web");
    }
    both(&daemon, "promoted", 0.0);
    assert_eq!(pinned(&daemon), 200);
    for rollout in rollouts {
        assert_eq!(daemon.rollout(rollout)["outcome"], "promoted");
    }
}

#[test]
fn processes_go_step_by_step() {
    step_by_step(Runs::Processes);
}

#[test]
fn containers_go_step_by_step() {
    step_by_step(Runs::Containers);
}

fn back_together(runs: Runs) {
    let plan = format!("{LONG}steps = \"50% 100%\"\nshield = \"off\"\n");
    let Some(daemon) = shop(runs, &plan) else { return };
    let [web, api] = deploy(&daemon, "none", "crash:1");
    both(&daemon, "baking", 50.0);
    // Its first visitor ends it.
    daemon.until("a visitor", || {
        let user = format!("user-{}", std::process::id());
        let _answer = get(daemon.http, "/", &[("host", "api.test"), ("x-user", &user)]);
        let visited = (0..20).any(|user| {
            get(daemon.http, "/", &[("host", "api.test"), ("x-user", &format!("{user}"))])
                .is_ok_and(|answer| answer.field("x-sample-name") == Some("two"))
        });
        visited || service(&daemon, "api")["phase"] != "baking"
    });
    both(&daemon, "rolled_back", 0.0);
    assert_eq!(pinned(&daemon), 0);
    let [web, api] = [web, api].map(|rollout| daemon.rollout(rollout));
    assert_eq!((&web["outcome"], &api["outcome"]), (&"rolled_back".into(), &"rolled_back".into()));
    let cause = web["cause"].as_str().unwrap();
    assert!(cause.starts_with("group shop: api went back: "), "{cause}");
}

#[test]
fn processes_go_back_together() {
    back_together(Runs::Processes);
}

#[test]
fn containers_go_back_together() {
    back_together(Runs::Containers);
}

/// One that never becomes healthy: the other waits for it without a visitor, and goes back with it.
/// Killed in between, it ends the same.
#[test]
fn one_that_does_not_come_takes_the_other_back() {
    let probe = "probe = { path = \"/up\", interval = \"200ms\", timeout = \"2s\", rise = 1, deadline = \"8s\" }\n";
    let mut daemon = shop(Runs::Processes, &format!("{LONG}{probe}")).unwrap();
    let [web, api] = deploy(&daemon, "none", "mute");
    daemon.until("web waits", || service(&daemon, "web")["phase"] == "paused");
    assert_eq!(service(&daemon, "web")["weights"]["canary"], 0.0);
    daemon.kill();
    daemon.start();
    both(&daemon, "rolled_back", 0.0);
    assert_eq!(daemon.rollout(api)["outcome"], "never_healthy");
    assert_eq!(daemon.rollout(web)["outcome"], "rolled_back");
    assert_eq!(pinned(&daemon), 0);
}

#[test]
fn the_verb_deploys_both_and_what_cannot_be_is_said() {
    let daemon = shop(
        Runs::Processes,
        "bake = \"100ms\"\nbake_max = \"1s\"\non_inconclusive = \"advance\"\nsteps = \"50% 100%\"\n",
    )
    .unwrap();
    let said = daemon.cli(&["deploy", "web", "api", "-o", "json", "--env", "SAMPLE_NAME=two"]);
    assert_eq!(said.code, 0, "{said:?}");
    let ends: Vec<String> = said
        .lines()
        .iter()
        .filter(|line| line["kind"] == "outcome")
        .map(|line| format!("{} {}", line["service"], line["outcome"]))
        .collect();
    assert_eq!(ends, ["\"api\" \"promoted\"", "\"web\" \"promoted\""]);
    assert_eq!(pinned(&daemon), 200);
    let refused = daemon.cli(&["deploy", "web", "web"]);
    assert!(refused.code == 2 && refused.stderr.contains("stands there twice"), "{refused:?}");
    let answer = daemon.admin("POST", "/api/v1/deploy", "{\"services\":{\"shop\":{}}}").unwrap();
    assert_eq!(answer.status, 404, "{}", answer.body);
}
