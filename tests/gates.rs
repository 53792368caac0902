//! What a person decides: gates, confirmations, freezes; also over a restart of the daemon.

use crate::support::daemon::{Daemon, Runs, SHORT};

#[test]
fn a_gate_waits_for_a_person_and_survives_the_daemon() {
    let plan = format!("{SHORT}steps = \"50% 100%\"\ngates = [\"50%\"]\n");
    let mut daemon = Daemon::begin(Runs::Processes, &plan).unwrap();
    daemon.deploy_until("none", &[], "paused");
    let web = daemon.service();
    assert_eq!(web["weights"]["canary"], 50.0);
    assert!(web["notes"][0].as_str().unwrap().starts_with("a gate: "), "{web:#}");
    assert!(web["seconds_left"].as_f64().unwrap() > 80_000.0, "a day: {web:#}");
    daemon.kill();
    daemon.start();
    daemon
        .wait("the gate again", |web| web["phase"] == "paused" && web["weights"]["canary"] == 50.0);
    let said = daemon.cli(&["promote", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon
        .wait("the promotion", |web| web["phase"] == "promoted" && web["stable"]["revision"] == 2);
}

#[test]
fn a_gate_to_which_nobody_comes_closes() {
    let plan = format!("{SHORT}steps = \"50% 100%\"\ngates = [\"50%\"]\ngate_timeout = \"1s\"\n");
    let daemon = Daemon::begin(Runs::Processes, &plan).unwrap();
    let said = daemon.deploy("none", &[]);
    assert_eq!(said.code, 5, "{said:?}");
    let last = said.last();
    assert_eq!(last["cause"], "nobody let it pass the gate at 50% within 1s", "{said:?}");
    assert_eq!(daemon.service()["stable"]["revision"], 1);
}

#[test]
fn a_promotion_that_nobody_confirms_is_taken_back() {
    let within = |time: &str| format!("{SHORT}keep_warm = \"0s\"\nconfirm_within = \"{time}\"\n");
    let mut daemon = Daemon::begin(Runs::Processes, &within("1h")).unwrap();
    // Confirmed: it stays, whatever time passes. Who deployed is told that it has to be.
    let said = daemon.cli(&["deploy", "web", "--env", "SAMPLE_NAME=two"]);
    assert_eq!(said.code, 0, "{said:?}");
    let told = said.stderr.lines().find(|line| line.contains("`switchback confirm web` until "));
    assert!(told.is_some_and(|line| line.ends_with("or revision 1 comes back")), "{said:?}");
    let notes = daemon.service()["notes"].to_string();
    assert!(notes.contains("`switchback confirm web` until "), "{notes}");
    let refused = daemon.cli(&["deploy", "web"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("waits to be confirmed"), "{refused:?}");
    let said = daemon.cli(&["confirm", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(daemon.cli(&["confirm", "web"]).code, 1, "once is enough");
    daemon.configure(&daemon.file(&within("3s")));
    assert_eq!(daemon.cli(&["reload"]).code, 0);

    // Not confirmed, and the daemon dies meanwhile.
    assert_eq!(daemon.deploy("none", &["--env", "SAMPLE_NAME=three"]).code, 0);
    daemon.kill();
    daemon.start();
    daemon.wait("it is taken back", |web| {
        web["stable"]["revision"] == 2 && web["phase"] == "promoted"
    });
    let name = daemon.get("/").unwrap().field("x-sample-name").map(str::to_owned);
    assert_eq!(name.as_deref(), Some("two"));
}

#[test]
fn a_freeze_refuses_deploys_with_its_reason() {
    let mut daemon = Daemon::begin(Runs::Processes, SHORT).unwrap();
    let said = daemon.cli(&["freeze", "web", "--reason", "the fair of the year", "--until", "12h"]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.kill();
    daemon.start();
    daemon.wait("the daemon knows", |web| web["notes"].to_string().contains("is frozen"));
    let refused = daemon.deploy("none", &[]);
    assert_eq!(refused.code, 1, "{refused:?}");
    for part in ["web is frozen", "the fair of the year", "switchback unfreeze web", "--override"] {
        assert!(refused.stderr.contains(part), "{part:?} in {refused:?}");
    }
    // Past it, which is written down with who did.
    assert_eq!(daemon.deploy("none", &["--override"]).code, 0);
    let record = daemon.rollout(2).to_string();
    assert!(record.contains("past the freeze (the fair of the year)"), "{record}");
    assert!(record.contains("deployed by "), "{record}");
    // A rollback is always possible.
    assert_eq!(daemon.cli(&["rollback", "web"]).code, 0);
    assert_eq!(daemon.cli(&["unfreeze", "web"]).code, 0);
    assert_eq!(daemon.cli(&["unfreeze", "web"]).code, 1, "it is not frozen");
    // Where there is one service it need not be named.
    let said = daemon.cli(&["freeze", "--reason", "the fair", "--until", "12h"]);
    assert!(said.code == 0 && said.stdout.starts_with("web: no deploy begins"), "{said:?}");
    assert_eq!(daemon.cli(&["unfreeze"]).code, 0);
    assert_eq!(daemon.deploy("none", &[]).code, 0);
    for (until, part) in [("yesterday", "is neither a moment"), ("2020-01-01T00:00:00Z", "past")] {
        let said = daemon.cli(&["freeze", "web", "--reason", "x", "--until", until]);
        assert!(said.code == 1 && said.stderr.contains(part), "{said:?}");
    }
}
