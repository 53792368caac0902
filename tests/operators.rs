//! What operators say to a rollout, what is refused in which phase, and what they are told then.

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, LONG, Runs, SHORT};
use crate::support::load::Load;

/// The exit code of a rollout that a person aborted.
const ABORTED: i32 = 4;

fn problem(answer: &(u16, Value)) -> (u16, &str, &str) {
    let text = |name: &str| answer.1[name].as_str().unwrap_or_default();
    (answer.0, text("phase"), text("detail"))
}

/// Every change that is asked of a service, with what a change of the rollout must be refused with.
fn refused(daemon: &Daemon, phase: &str, verbs: &[(&str, &str)]) {
    for (verb, expected) in verbs {
        let body = match *verb {
            "weight" => json!({"canary": 10}).to_string(),
            "deploy" | "promote" | "abort" | "pause" | "resume" | "rollback" => "{}".to_owned(),
            other => panic!("{other}"),
        };
        let answer = daemon.post(verb, &body);
        let (status, told, detail) = problem(&answer);
        assert_eq!(status, 409, "{verb} in {phase}: {answer:?}");
        assert_eq!(told, phase, "{verb}: {answer:?}");
        assert!(detail.contains(expected), "{verb} in {phase}: {detail}");
    }
}

#[test]
fn a_rollout_is_paused_resumed_stepped_and_finished() {
    let daemon = Daemon::begin(Runs::Processes, LONG).unwrap();
    let load = Load::begin(daemon.http, 100);
    let web = daemon.deploy_until("none", &[], "baking");
    assert_eq!((&web["step"], &web["weights"]["canary"]), (&json!(1), &json!(5.0)));
    refused(
        &daemon,
        "baking",
        &[
            ("deploy", "rollout 2 of web is baking at 5%"),
            ("deploy", "`switchback abort web`"),
            ("deploy", "`switchback promote web --full`"),
            ("resume", "cannot resume while baking: it is not paused"),
        ],
    );
    let said = daemon.cli(&["deploy", "web"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("rollout 2 of web is baking at 5%: wait for its end"), "{said:?}");

    let said = daemon.cli(&["pause", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stdout.contains("paused at 5%"), "{said:?}");
    daemon.wait("paused", |web| web["phase"] == "paused" && web["weights"]["canary"] == 5.0);
    refused(&daemon, "paused", &[("pause", "paused already"), ("deploy", "is paused at 5%")]);

    let said = daemon.cli(&["weight", "web", "12.5%"]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.wait("12.5 %", |web| web["phase"] == "paused" && web["weights"]["canary"] == 12.5);

    assert_eq!(daemon.cli(&["resume", "web"]).code, 0);
    daemon.wait("the step", |web| web["phase"] == "baking" && web["weights"]["canary"] == 5.0);
    for weight in [25.0, 50.0, 100.0] {
        let said = daemon.cli(&["promote", "web"]);
        assert_eq!(said.code, 0, "{said:?}");
        daemon.wait("the next step", |web| web["weights"]["canary"] == weight);
    }
    assert_eq!(daemon.cli(&["promote", "web"]).code, 0);
    let web = daemon.wait("its end", |web| web["phase"] == "promoted");
    assert_eq!(web["stable"]["revision"], 2);
    assert_eq!(daemon.rollout(2)["outcome"], "promoted");
    load.end_well();
}

#[test]
fn a_rollout_is_finished_at_once() {
    let daemon = Daemon::begin(Runs::Processes, LONG).unwrap();
    let load = Load::begin(daemon.http, 100);
    daemon.deploy_until("none", &[], "baking");
    let said = daemon.cli(&["promote", "web", "--full"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stdout.contains("revision 2 becomes stable now"), "{said:?}");
    daemon.wait("its end", |web| web["phase"] == "promoted" && web["stable"]["revision"] == 2);
    load.end_well();
}

#[test]
fn a_rollout_is_aborted_and_its_follower_is_told() {
    let daemon = Daemon::begin(Runs::Processes, LONG).unwrap();
    let running = daemon.running();
    let load = Load::begin(daemon.http, 100);
    let said = std::thread::scope(|scope| {
        let following = scope.spawn(|| daemon.deploy("none", &[]));
        daemon.wait("baking", |web| web["phase"] == "baking");
        let said = daemon.cli(&["abort", "web"]);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.stdout.contains("is taken back, all traffic goes to revision 1"), "{said:?}");
        following.join().unwrap()
    });
    assert_eq!(said.code, ABORTED, "{said:?}");
    assert_eq!(said.last()["outcome"], "aborted");
    daemon.until("only what ran before runs", || daemon.running() == running);
    let said = daemon.cli(&["status", "web"]);
    assert_eq!(said.code, ABORTED, "{said:?}");
    load.end_well();
}

#[test]
fn a_rollback_during_a_rollout_takes_the_canary_back() {
    let daemon = Daemon::begin(Runs::Processes, LONG).unwrap();
    let load = Load::begin(daemon.http, 100);
    daemon.deploy_until("none", &[], "baking");
    let said = daemon.cli(&["rollback", "web"]);
    assert_eq!(said.code, ABORTED, "{said:?}");
    assert_eq!(daemon.service()["stable"]["revision"], 1);
    load.end_well();
}

#[test]
fn what_cannot_be_done_in_a_phase_is_refused_with_a_way_out() {
    let daemon = Daemon::begin(Runs::Processes, LONG).unwrap();
    let nothing = "no rollout is under way";
    // After the end of one.
    refused(
        &daemon,
        "idle",
        &[
            ("promote", nothing),
            ("abort", nothing),
            ("pause", nothing),
            ("resume", nothing),
            ("weight", nothing),
            ("rollback", "has no earlier revision"),
        ],
    );
    // While it is not healthy.
    let early = "the canary is not healthy yet: wait for it, or `switchback abort`";
    daemon.deploy_until("mute", &[], "probing");
    refused(
        &daemon,
        "probing",
        &[
            ("promote", early),
            ("pause", early),
            ("resume", early),
            ("weight", early),
            ("deploy", "is probing: wait for its end, or take it back with `switchback abort web`"),
        ],
    );
    // What would be refused too is no advice.
    let (_, answer) = daemon.post("deploy", "{}");
    assert!(!answer["detail"].as_str().unwrap().contains("promote"), "{answer}");
    let said = daemon.cli(&["abort", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.wait("the end", |web| web["phase"] == "rolled_back");
}

#[test]
fn a_rollback_under_way_is_left_alone() {
    let daemon = Daemon::begin(Runs::Processes, LONG).unwrap();
    daemon.deploy_until("slow:250", &["--steps", "50% 100%"], "baking");
    // Visitors who wait for the canary hold its drain up.
    let to = daemon.http;
    let visitors: Vec<_> = (0..20)
        .map(|_| std::thread::spawn(move || crate::support::http::get(to, "/", &[])))
        .collect();
    daemon.until("a visitor waits", || {
        daemon.service()["canary"]["instances"][0]["in_flight"].as_u64() > Some(2)
    });
    assert_eq!(daemon.post("abort", "{}").0, 200);
    let way_out = "wait until the rollback is done";
    refused(
        &daemon,
        "rolling_back",
        &[
            ("promote", way_out),
            ("abort", way_out),
            ("pause", way_out),
            ("resume", way_out),
            ("weight", way_out),
            ("rollback", way_out),
            ("deploy", "is rolling back"),
        ],
    );
    daemon.wait("the end", |web| web["phase"] == "rolled_back");
    for visitor in visitors {
        let answer = visitor.join().unwrap().unwrap();
        assert_eq!(answer.status, 200, "a drain lets visitors finish");
    }
}

#[test]
fn slips_are_answered_with_the_nearest_thing() {
    let daemon = Daemon::begin(Runs::Processes, SHORT).unwrap();
    let said = daemon.cli(&["deploy", "wbe"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("did you mean \"web\"?"), "{said:?}");
    let said = daemon.cli(&["deploy", "web", "--steps", "50% 20%"]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stderr.contains("steps must rise"), "{said:?}");
    let said = daemon.cli(&["weight", "web", "120%"]);
    assert_eq!(said.code, 2, "{said:?}");
    let (status, problem) = daemon.post("deploy", "{\"imag\": \"x\"}");
    assert_eq!(status, 422, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("image"), "{problem}");
    assert_eq!(daemon.service()["rollout"], 1, "nothing was begun");
}
