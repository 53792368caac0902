//! Services that belong together go through each step together, and back together.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::{Value, json};
use switchback::rollout::checkpoint::Checkpoint;
use switchback::rollout::phase::{Cause, Phase};
use switchback::store::records::{Placed, RolloutEntry, Warm};
use switchback::store::redb::RedbStore;
use switchback::store::{Change, Store};

use crate::support::daemon::{Daemon, LONG, PROGRAM, Runs};
use crate::support::http::get;

/// A daemon with `web` and `api` of one group, on two hosts.
fn shop(runs: Runs, plan: &str) -> Option<Daemon> {
    shop_with(runs, plan, |_, api| api)
}

/// The same with a change to the table of `api`.
fn shop_with(
    runs: Runs,
    plan: &str,
    change: impl FnOnce(&Daemon, String) -> String,
) -> Option<Daemon> {
    let mut daemon = Daemon::configured(runs, plan)?;
    let plan =
        format!("host = \"web.test\"\ngroup = \"shop\"\naffinity = \"header:x-user\"\n{plan}");
    let text = daemon.file(&plan);
    let (_, web) = text.split_once("[service.web]\n").unwrap();
    let api = change(&daemon, web.replace("web.test", "api.test"));
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

/// Carries both to their second revision, of which the name is `two`.
fn promoted(daemon: &Daemon) {
    let said = daemon.cli(&["deploy", "web", "api", "--env", "SAMPLE_NAME=two"]);
    assert_eq!(said.code, 0, "{said:?}");
    both(daemon, "promoted", 0.0);
    assert_eq!(pinned(daemon), 200);
}

fn revisions(daemon: &Daemon) -> [Value; 2] {
    ["web", "api"].map(|name| service(daemon, name)["stable"]["revision"].clone())
}

const QUICK: &str = "bake = \"100ms\"\nbake_max = \"1s\"\non_inconclusive = \"advance\"\n\
                     steps = \"50% 100%\"\n";

/// What is warm is returned to at once, by one verb.
fn return_together(runs: Runs) {
    let Some(daemon) = shop(runs, QUICK) else { return };
    promoted(&daemon);
    let said = daemon.cli(&["rollback", "web", "api"]);
    assert_eq!(said.code, 0, "{said:?}");
    for name in ["web", "api"] {
        assert!(said.stderr.contains(&format!("{name}: back to revision 1")), "{said:?}");
    }
    // The way back from there is said of both, and by one line.
    let last = said.stderr.lines().last().unwrap_or_default();
    let both = "`switchback rollback web api` returns to all of it at once";
    assert!(last.contains("stays warm for") && last.contains(both), "{said:?}");
    for one in ["`switchback rollback web`", "`switchback rollback api`"] {
        assert!(!said.stderr.contains(one), "{said:?}");
    }
    assert_eq!(revisions(&daemon), [1, 1]);
    assert_eq!(pinned(&daemon), 0);
    // The same way again, to the second.
    let said = daemon.cli(&["rollback", "api", "web"]);
    assert_eq!((said.code, revisions(&daemon)), (0, [2.into(), 2.into()]), "{said:?}");
    assert_eq!(pinned(&daemon), 200);
    // One alone may, and is told of the other.
    let said = daemon.cli(&["rollback", "web"]);
    assert_eq!((said.code, revisions(&daemon)), (0, [1.into(), 2.into()]), "{said:?}");
    assert!(said.stderr.contains("api of group shop stays as it is"), "{said:?}");
    // Said of both then, the other one follows.
    let said = daemon.cli(&["rollback", "web", "api"]);
    assert_eq!((said.code, revisions(&daemon)), (0, [1.into(), 1.into()]), "{said:?}");
    assert!(said.stderr.contains("web: has returned before, and stays"), "{said:?}");
    assert_eq!(pinned(&daemon), 0);
    let seen = daemon.cli(&["audit", "--verb", "rollback"]);
    assert!(seen.stdout.contains("web to revision 1"), "{seen:?}");
}

#[test]
fn processes_return_together() {
    return_together(Runs::Processes);
}

#[test]
fn containers_return_together() {
    return_together(Runs::Containers);
}

/// What has to be started is waited for: nobody meets the former revision of one beside the new one of
/// the other. And where one cannot come back, none does.
#[test]
fn a_return_waits_for_those_that_have_to_be_started() {
    let daemon = shop(Runs::Processes, &format!("{QUICK}keep_warm = \"0s\"\n")).unwrap();
    promoted(&daemon);
    daemon.until("the former ones are gone", || {
        ["web", "api"].iter().all(|name| service(&daemon, name).get("warm").is_none())
    });
    let said = daemon.cli(&["rollback", "web", "api"]);
    assert_eq!((said.code, revisions(&daemon)), (0, [1.into(), 1.into()]), "{said:?}");
    assert_eq!(pinned(&daemon), 0);
    let record = daemon.rollout(service(&daemon, "web")["rollout"].as_u64().unwrap());
    let waited = record["events"].as_array().unwrap().iter();
    let waited = waited.filter_map(|event| event["message"].as_str());
    let waited: Vec<&str> =
        waited.filter(|told| told.contains("the others of its group")).collect();
    assert_eq!(waited.len(), 1, "{record}");
}

#[test]
fn where_one_cannot_return_none_does() {
    let probe = "probe = { path = \"/up\", interval = \"200ms\", timeout = \"2s\", rise = 1, deadline = \"8s\" }\n";
    let plan = format!("{QUICK}{probe}keep_warm = \"0s\"\n");
    // One that starts as long as its first revision may.
    let daemon = shop_with(Runs::Processes, &plan, |daemon, api| {
        let (script, spoilt) = (daemon.home().join("api.sh"), daemon.home().join("spoilt"));
        let text = format!(
            "[ -e {spoilt:?} ] && [ -z \"$SAMPLE_NAME\" ] && exit 7\n\
             exec {PROGRAM:?} sample-app --port \"$1\"\n"
        );
        std::fs::write(&script, text).unwrap();
        let own = api.lines().map(|line| match line.starts_with("command = ") {
            true => format!("command = [\"sh\", {script:?}, \"{{port}}\"]"),
            false => line.to_owned(),
        });
        own.collect::<Vec<_>>().join("\n")
    });
    let daemon = daemon.unwrap();
    promoted(&daemon);
    daemon.until("the former ones are gone", || {
        ["web", "api"].iter().all(|name| service(&daemon, name).get("warm").is_none())
    });
    std::fs::write(daemon.home().join("spoilt"), "").unwrap();
    let said = daemon.cli(&["rollback", "web", "api"]);
    assert_ne!(said.code, 0, "{said:?}");
    both(&daemon, "rolled_back", 0.0);
    assert_eq!(revisions(&daemon), [2, 2]);
    assert_eq!(pinned(&daemon), 200);
    let web = daemon.rollout(service(&daemon, "web")["rollout"].as_u64().unwrap());
    let cause = web["cause"].as_str().unwrap();
    assert!(cause.starts_with("group shop: api went back: "), "{cause}");
}

#[test]
fn what_cannot_return_together_is_said() {
    let plan = format!("{LONG}steps = \"50% 100%\"\n");
    let daemon = shop(Runs::Processes, &plan).unwrap();
    for (verb, code, words) in [
        (&["rollback", "web", "api"][..], 1, "has no earlier revision to return to"),
        (&["rollback", "web", "nobody"], 1, "nobody"),
        (&["rollback", "web", "api", "--to", "1"], 2, "--to takes one service at a time"),
        (&["rollback"], 2, "SERVICE"),
    ] {
        let said = daemon.cli(verb);
        assert!(said.code == code && said.stderr.contains(words), "{verb:?}: {said:?}");
    }
    // While a deploy is under way it takes the canaries back.
    let _ = deploy(&daemon, "none", "none");
    both(&daemon, "baking", 50.0);
    let said = daemon.cli(&["rollback", "web", "api"]);
    assert_eq!(said.code, 4, "{said:?}");
    both(&daemon, "rolled_back", 0.0);
    let seen = daemon.cli(&["status", "web"]);
    assert!(seen.stdout.contains("group shop"), "{seen:?}");
    assert_eq!(service(&daemon, "web")["group"], "shop");
}

/// What is on the disk when the daemon dies after one has been promoted, and after the other one's
/// instances were lost at the same step.
fn promoted_and_lost(daemon: &Daemon) {
    let mut store = RedbStore::open(&daemon.state()).unwrap();
    let found = store.load().unwrap();
    let of = |name: &str| {
        let mut all = found.active.iter();
        all.find(|one| one.checkpoint.service.as_str() == name).unwrap().clone()
    };
    let (web, mut api) = (of("web"), of("api"));
    let name = web.checkpoint.service.clone();
    let mut all = found.services.iter();
    let mut record = all.find(|(one, _)| *one == name).unwrap().1.clone();
    let now =
        Placed { revision: web.checkpoint.canary, instances: web.checkpoint.instances.clone() };
    let former = record.stable.replace(now).unwrap();
    record.warm = Some(Warm { placed: former, until: u64::MAX / 4 });
    let ended = web.checkpoint.started + 1;
    let checkpoint = Checkpoint { phase: Phase::Promoted, ..web.checkpoint };
    let entry = RolloutEntry { checkpoint, events: web.events, verdict: None, ended };
    let cause = Cause::Lost { sentence: "it was killed".to_owned() };
    api.checkpoint.phase = Phase::RollingBack { cause, drained: false };
    let batch = [
        Change::DropActive(name.clone()),
        Change::History(Box::new(entry)),
        Change::Service(name, Box::new(record)),
        Change::Active(Box::new(api)),
    ];
    store.write(&batch).unwrap();
}

#[test]
fn who_was_promoted_a_moment_before_another_fails_comes_back() {
    let mut daemon = shop(Runs::Processes, &format!("{LONG}steps = \"50% 100%\"\n")).unwrap();
    let [first, _] = deploy(&daemon, "none", "none");
    both(&daemon, "baking", 50.0);
    daemon.kill();
    promoted_and_lost(&daemon);
    daemon.start();
    assert_eq!(daemon.rollout(first)["outcome"], "promoted");
    daemon.until("both have what they had", || {
        revisions(&daemon) == [1, 1]
            && ["web", "api"]
                .iter()
                .all(|name| service(&daemon, name).get("canary").is_none_or(Value::is_null))
    });
    daemon.until("visitors are served", || {
        ["web.test", "api.test"].iter().all(|host| {
            get(daemon.http, "/", &[("host", host)]).is_ok_and(|answer| answer.status == 200)
        })
    });
    assert_eq!(pinned(&daemon), 0);
    let record = daemon.rollout(service(&daemon, "web")["rollout"].as_u64().unwrap());
    let told = record["events"].to_string();
    assert!(
        told.contains("taken back with its group: group shop: api went back: it was killed"),
        "{told}"
    );
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
