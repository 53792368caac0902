//! Services over addresses that somebody else runs: released like all others, and never touched.

use crate::support::app::{self, App};
use crate::support::daemon::{Daemon, LONG, SHORT, free_address};
use crate::support::load::Load;

/// The exit codes of a rollout that was taken back, and of one that never became healthy.
const ROLLED_BACK: i32 = 3;
const UNHEALTHY: i32 = 5;

fn over(apps: &[&App], plan: &str) -> Daemon {
    let addresses: Vec<_> = apps.iter().map(|app| app.address).collect();
    app::over(&addresses, plan)
}

fn name(daemon: &Daemon) -> String {
    daemon.get("/").unwrap().field("x-sample-name").unwrap_or_default().to_owned()
}

/// Deploys addresses and follows the rollout to its end.
fn deploy(daemon: &Daemon, to: &[&App], more: &[&str]) -> crate::support::daemon::Said {
    let mut words = vec!["deploy", "web", "-o", "json"];
    let addresses: Vec<String> = to.iter().map(|app| app.address.to_string()).collect();
    let joined = addresses.join(",");
    words.extend(["--endpoints", &joined]);
    words.extend(more);
    daemon.cli(&words)
}

#[test]
fn addresses_are_promoted_and_returned_to() {
    let mut one = [App::begin("one", "none"), App::begin("one", "none")];
    let mut two = [App::begin("two", "none"), App::begin("two", "none")];
    let daemon = over(&[&one[0], &one[1]], SHORT);
    assert_eq!(daemon.service()["stable"]["instances"].as_array().unwrap().len(), 2);
    let load = Load::begin(daemon.http, 150);
    let said = deploy(&daemon, &[&two[0], &two[1]], &[]);
    assert_eq!(said.code, 0, "{said:?}");
    let weights: Vec<f64> = said
        .lines()
        .iter()
        .filter(|line| line["phase"] == "baking")
        .map(|line| line["weight"].as_f64().unwrap())
        .collect();
    assert_eq!(weights, [5.0, 25.0, 50.0, 100.0], "{said:?}");
    assert_eq!(name(&daemon), "two");
    // The same addresses once more, with something new behind them: two revisions over one address
    // do not get into each other's way.
    let said = deploy(&daemon, &[&two[1]], &[]);
    assert_eq!(said.code, 0, "{said:?}");
    let said = daemon.cli(&["rollback", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(daemon.service()["stable"]["revision"], 2);
    daemon.wait("both are healthy", |web| {
        let all = web["stable"]["instances"].as_array().cloned().unwrap_or_default();
        all.len() == 2 && all.iter().all(|instance| instance["healthy"] == true)
    });
    let said = daemon.cli(&["rollback", "web", "--to", "1"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(name(&daemon), "one");
    load.end_well();
    assert!(one.iter_mut().chain(&mut two).all(App::runs), "somebody else's app was ended");
}

#[test]
fn two_services_may_have_one_address() {
    let (mut one, two) = (App::begin("one", "none"), App::begin("two", "none"));
    let other = format!(
        "{SHORT}[service.other]\nhost = \"other.example\"\nendpoints = [\"{}\"]\n{SHORT}",
        one.address
    );
    let daemon = over(&[&one], &other);
    let of_other = || {
        let said = daemon.cli(&["status", "other", "-o", "json"]);
        serde_json::from_str::<serde_json::Value>(&said.stdout).unwrap()
    };
    daemon.until("the other's first revision", || of_other()["phase"] == "promoted");
    // One leaves the address, and the other stays.
    let said = deploy(&daemon, &[&two], &[]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(name(&daemon), "two");
    let stable = &of_other()["stable"];
    assert_eq!(
        (&stable["revision"], &stable["instances"][0]["healthy"]),
        (&1.into(), &true.into())
    );
    assert!(one.runs());
}

#[test]
fn a_bad_address_is_taken_back() {
    let (one, mut bad) = (App::begin("one", "none"), App::begin("bad", "errors:0.5"));
    let daemon = over(&[&one], LONG);
    let load = Load::begin(daemon.http, 150);
    let said = deploy(&daemon, &[&bad], &["--steps", "50% 100%"]);
    assert_eq!(said.code, ROLLED_BACK, "{said:?}");
    let cause = said.last()["cause"].as_str().unwrap().to_owned();
    assert!(cause.contains("errors"), "{cause}");
    assert_eq!(daemon.service()["stable"]["revision"], 1);
    assert_eq!(name(&daemon), "one");
    let (asked, failed) = load.end();
    assert!(failed.iter().all(|why| why.starts_with("500")), "of {asked}: {failed:?}");
    assert!(bad.runs(), "somebody else's app was ended");
}

#[test]
fn an_address_where_nobody_listens_never_becomes_healthy() {
    let one = App::begin("one", "none");
    let probe = "probe = { path = \"/up\", interval = \"200ms\", rise = 1, deadline = \"3s\" }\n";
    let daemon = over(&[&one], &format!("{LONG}{probe}"));
    let load = Load::begin(daemon.http, 50);
    let nobody = free_address().to_string();
    let said = daemon.cli(&["deploy", "web", "-o", "json", "--endpoints", &nobody]);
    assert_eq!(said.code, UNHEALTHY, "{said:?}");
    let cause = said.last()["cause"].as_str().unwrap().to_owned();
    assert!(cause.contains("not healthy within 3s") && cause.contains(&nobody), "{cause}");
    load.end_well();
    let said = daemon.cli(&["deploy", "web", "--endpoints", "nowhere"]);
    assert_eq!(said.code, 2, "{said:?}");
}

#[test]
fn addresses_outlast_the_daemon() {
    let (one, two) = (App::begin("one", "none"), App::begin("two", "none"));
    let mut daemon = over(&[&one], LONG);
    let said = deploy(&daemon, &[&two], &["--detach"]);
    assert_eq!(said.code, 0, "{said:?}");
    for weight in [5.0, 25.0, 50.0] {
        let before = daemon
            .wait("the step", |web| web["phase"] == "baking" && web["weights"]["canary"] == weight);
        daemon.kill();
        daemon.start();
        let after = daemon.wait("the same step", |web| web["weights"]["canary"] == weight);
        for field in ["rollout", "phase", "step"] {
            assert_eq!(after[field], before[field], "at {weight} %");
        }
        assert_eq!(after["canary"]["instances"][0]["id"], before["canary"]["instances"][0]["id"]);
        daemon.until("visitors are served", || daemon.get("/").is_ok_and(|a| a.status == 200));
        assert_eq!(daemon.cli(&["promote", "web"]).code, 0);
    }
    let load = Load::begin(daemon.http, 100);
    assert_eq!(daemon.cli(&["promote", "web", "--full"]).code, 0);
    daemon.wait("its end", |web| web["phase"] == "promoted" && web["stable"]["revision"] == 2);
    assert_eq!(name(&daemon), "two");
    daemon.until("some visitors", || load.asked() > 20);
    load.end_well();
    daemon.kill();
    daemon.start();
    let said = daemon.cli(&["rollback", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(name(&daemon), "one");
}
