//! The configuration is read again while it serves; and who goes to which side: cookies and testers.

use std::collections::HashMap;

use rustix::process::Signal;

use crate::support::app::{App, file_over};
use crate::support::daemon::{Daemon, LONG, Runs, SHORT};
use crate::support::http::get;
use crate::support::load::Load;

fn status_of(daemon: &Daemon, host: &str) -> u16 {
    get(daemon.http, "/", &[("host", host)]).unwrap().status
}

fn metric(daemon: &Daemon, name: &str) -> Option<String> {
    let page = daemon.read("/metrics")?;
    let line = page.lines().find(|line| line.starts_with(&format!("switchback_{name}")))?;
    line.rsplit(' ').next().map(str::to_owned)
}

#[test]
fn routes_change_and_a_bad_file_changes_nothing() {
    let plan = |hosts: &str| format!("{LONG}host = [{hosts}]\n");
    let mut daemon = Daemon::begin(Runs::Processes, &plan("\"story\", \"old.test\"")).unwrap();
    daemon.expect_error("not reloaded");
    let running = daemon.running();
    let load = Load::begin(daemon.http, 50);
    assert_eq!(status_of(&daemon, "old.test"), 200);
    assert_eq!(status_of(&daemon, "new.test"), 404);
    assert_eq!(metric(&daemon, "config_last_reload_success ").as_deref(), Some("1"));

    daemon.configure(&daemon.file(&plan("\"story\", \"new.test\"")));
    daemon.signal(Signal::HUP);
    daemon.until("the new route", || status_of(&daemon, "new.test") == 200);
    assert_eq!(status_of(&daemon, "old.test"), 404);

    let good = daemon.file(&plan("\"story\", \"new.test\""));
    daemon.configure(&good.replace("drain =", "drian ="));
    daemon.signal(Signal::HUP);
    daemon.until("it is said in the status", || {
        let notes = daemon.status()["notes"].to_string();
        notes.contains("not reloaded") && notes.contains("drian")
    });
    assert_eq!(metric(&daemon, "config_last_reload_success ").as_deref(), Some("0"));
    assert_eq!(status_of(&daemon, "new.test"), 200, "the running one stays");
    let said = crate::support::daemon::program()
        .args(["reload", "--host"])
        .arg(format!("unix://{}", daemon.socket().display()))
        .output()
        .unwrap();
    assert_eq!(said.status.code(), Some(7), "{said:?}");

    daemon.configure(&good);
    daemon.signal(Signal::HUP);
    daemon.until("the note goes", || daemon.status()["notes"].as_array().unwrap().is_empty());
    assert_eq!(metric(&daemon, "config_last_reload_success ").as_deref(), Some("1"));
    assert_eq!(daemon.running(), running, "nothing was started or stopped");
    load.end_well();
}

#[test]
fn a_service_that_is_added_starts_and_one_that_is_removed_stops() {
    let daemon = Daemon::begin(Runs::Processes, LONG).unwrap();
    let load = Load::begin(daemon.http, 50);
    let file = daemon.file(LONG);
    let table = &file[file.find("[service.web]").unwrap()..];
    let other =
        table.replace("[service.web]", "[service.other]").replace("\"*\"", "\"other.test\"");
    daemon.configure(&format!("{file}{other}"));
    daemon.signal(Signal::HUP);
    daemon.until("it serves", || {
        daemon.read("/api/v1/services/other").is_some_and(|text| text.contains("\"promoted\""))
            && status_of(&daemon, "other.test") == 200
    });
    assert_eq!(daemon.running().len(), 2);
    daemon.configure(&file);
    daemon.signal(Signal::HUP);
    daemon.until("it has stopped", || daemon.running().len() == 1);
    // And back, with the same number going on.
    daemon.configure(&format!("{file}{other}"));
    daemon.signal(Signal::HUP);
    daemon.until("it serves again", || status_of(&daemon, "other.test") == 200);
    load.end_well();
}

#[test]
fn a_cookie_keeps_its_holder_on_a_side() {
    let plan = format!("{LONG}affinity = \"cookie\"\n");
    let daemon = Daemon::begin(Runs::Processes, &plan).unwrap();
    let canary = ["--env", "SAMPLE_NAME=canary", "--steps", "20% 50% 80% 100%"];
    daemon.deploy_until("none", &canary, "baking");
    let side = |cookie: &str| {
        let answer = get(daemon.http, "/", &[("cookie", cookie)]).unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.field("set-cookie").is_none(), "a known user gets no new cookie");
        answer.field("x-sample-name") == Some("canary")
    };
    let mut users = HashMap::new();
    for _ in 0..120 {
        let answer = get(daemon.http, "/", &[]).unwrap();
        let cookie = answer.field("set-cookie").expect("a cookie").split(';').next().unwrap();
        users.insert(cookie.to_owned(), answer.field("x-sample-name") == Some("canary"));
    }
    assert_eq!(users.len(), 120);
    let share = |users: &HashMap<String, bool>| users.values().filter(|is| **is).count();
    assert!((5..=50).contains(&share(&users)), "about 20 %: {}", share(&users));
    for weight in [20.0, 50.0, 80.0] {
        daemon.wait("the step", |web| web["weights"]["canary"] == weight);
        let before = share(&users);
        for (cookie, was_canary) in &mut users {
            let is_canary = side(cookie);
            assert!(is_canary || !*was_canary, "nobody goes back while the weight rises");
            assert_eq!(side(cookie), is_canary, "nobody drifts at {weight} %");
            *was_canary = is_canary;
        }
        assert!(share(&users) >= before);
        assert_eq!(daemon.cli(&["promote", "web"]).code, 0);
    }
    assert!((72..=115).contains(&share(&users)), "about 80 %: {}", share(&users));
}

#[test]
fn a_tester_chooses_a_side() {
    let secret = "a-long-random-text-of-ours";
    let plan = format!("{LONG}tester_secret = \"{secret}\"\n");
    let daemon = Daemon::begin(Runs::Processes, &plan).unwrap();
    daemon.deploy_until("none", &["--env", "SAMPLE_NAME=canary"], "baking");
    assert_eq!(daemon.cli(&["weight", "web", "0"]).code, 0);
    daemon.wait("no weight", |web| web["weights"]["canary"] == 0.0);
    let who = |fields: &[(&str, &str)]| {
        let answer = get(daemon.http, "/", fields).unwrap();
        assert_eq!(answer.status, 200);
        answer.field("x-sample-name").unwrap_or("stable").to_owned()
    };
    let force = ("x-switchback-force", "canary");
    for _ in 0..10 {
        assert_eq!(who(&[force, ("x-switchback-secret", secret)]), "canary");
        assert_eq!(who(&[force, ("x-switchback-secret", "not-our-secret-at-all")]), "stable");
        assert_eq!(who(&[force]), "stable");
        assert_eq!(who(&[]), "stable");
    }
    let said = daemon.cli(&["tester-cookie", "web", "canary"]);
    assert_eq!(said.code, 0, "{said:?}");
    let cookie = said.stdout.trim();
    assert_eq!(who(&[("cookie", cookie)]), "canary");
    assert_eq!(who(&[("cookie", &cookie.replace("canary", "stable"))]), "stable");
}

#[test]
fn a_service_may_change_what_runs_it() {
    let plan = format!("{SHORT}keep_warm = \"0s\"\n");
    let daemon = Daemon::begin(Runs::Processes, &plan).unwrap();
    let load = Load::begin(daemon.http, 100);
    let name = || daemon.get("/").unwrap().field("x-sample-name").unwrap_or_default().to_owned();
    let mut app = App::begin("elsewhere", "none");
    let elsewhere = file_over(&daemon, &[app.address], &plan);
    daemon.configure(&elsewhere);
    let said = daemon.cli(&["reload"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stdout.contains("what it runs changes with `switchback deploy web`"), "{said:?}");
    assert_eq!((daemon.running().len(), name().as_str()), (1, ""));

    // What somebody else runs takes the place of our process, which ends.
    let said = daemon.cli(&["deploy", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(name(), "elsewhere");
    daemon.until("the process is stopped", || daemon.running().is_empty());

    // And back: what was a process is one again, and is kept like one.
    let said = daemon.cli(&["rollback", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!((daemon.running().len(), name().as_str()), (1, ""));
    assert!(app.runs(), "somebody else's app was ended");
    load.end_well();
    let before = daemon.running();
    let pid = rustix::process::Pid::from_raw(before[0].parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    daemon.until("another one serves", || {
        let now = daemon.running();
        now.len() == 1 && now != before && daemon.get("/").is_ok_and(|a| a.status == 200)
    });

    // A service that goes takes along what it launched, by whatever it is configured now.
    daemon.configure(&elsewhere.replace("[service.web]", "[service.other]"));
    let said = daemon.cli(&["reload"]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.until("the process is stopped", || daemon.running().is_empty());
}
