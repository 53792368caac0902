//! `deploy`: what is asked, what is shown on a pipe and on a terminal, how it ends.

use std::time::Duration;

use super::super::{deploy, exit::Exit};
use super::{Shell, story};
use crate::admin::fake::Fake;
use crate::controller::handle::Refused;

fn web(tag: &str) -> deploy::Options {
    deploy::Options {
        service: Some("web".into()),
        tag: Some(tag.into()),
        ..deploy::Options::default()
    }
}

#[tokio::test]
async fn deploy_on_a_pipe_tells_a_line_per_event() {
    let mut shell = Shell::new().await;
    story(&shell.levers(), "promoted", None);
    assert_eq!(shell.deploy(web("v4")).await, Exit::Done);
    let (out, err) = shell.said();
    let expected = "\
2026-11-21T10:00:01.000Z  web           launching          starting 1 instance of revision 4
2026-11-21T10:00:02.000Z  web           instance           web-4-1 listens on 172.17.0.3:3000
2026-11-21T10:00:03.000Z  web           baking 5%          the canary takes 5% of traffic
2026-11-21T10:00:04.000Z  web           baking 25%         the canary takes 25% of traffic
2026-11-21T10:00:05.000Z  web           promoted           it ended
✔ web: revision 4 (ghcr.io/acme/web:v4) is stable after 1m41s
";
    assert_eq!(out, expected);
    assert_eq!(err, "web  revision 3 → 4 (web:v4)  canary 5% → 25% → 50% → 100%   rollout 12\n");
    assert_eq!(shell.levers().asked.lock().expect("unpoisoned")[0], r#"deploy web {"tag":"v4"}"#);
}

#[tokio::test]
async fn deploy_ends_as_the_rollout_does() {
    let worse = "errors 4.7 % of 2043 requests, at most 1 % (stable 0.02 %)";
    for (outcome, cause, exit, sentence) in [
        (
            "rolled_back",
            Some(worse),
            Exit::RolledBack,
            "web: revision 4 was rolled back at 25% after 1m41s: errors 4.7 % of 2043 requests, at most 1 % (stable 0.02 %)",
        ),
        (
            "aborted",
            Some("aborted by a person"),
            Exit::Aborted,
            "web: revision 4 was aborted by a person at 25% after 1m41s",
        ),
        (
            "never_healthy",
            Some("never became healthy: GET /up answered 500"),
            Exit::Unhealthy,
            "web: revision 4 was taken back at 25% after 1m41s: never became healthy: GET /up answered 500",
        ),
    ] {
        let mut shell = Shell::new().await;
        story(&shell.levers(), outcome, cause);
        assert_eq!(shell.deploy(web("v4")).await, exit);
        let (out, err) = shell.said();
        assert_eq!(out.lines().count(), 5, "{out}");
        let advice = "  5 of 18210 requests to revision 4 failed\n  all traffic is on revision 3\n  \
            why: switchback explain 12   output: switchback logs web --revision 4\n";
        let headline = err.lines().next().expect("a headline");
        assert_eq!(err, format!("{headline}\n✖ {sentence}\n{advice}"));
    }
}

#[tokio::test]
async fn deploy_as_json_is_an_object_per_line() {
    let mut shell = Shell::new().await;
    story(&shell.levers(), "rolled_back", Some("errors"));
    let options = deploy::Options { json: true, ..web("v4") };
    assert_eq!(shell.deploy(options).await, Exit::RolledBack);
    let (out, err) = shell.said();
    let lines: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let kinds: Vec<&str> = lines.iter().filter_map(|line| line["kind"].as_str()).collect();
    assert_eq!(kinds, ["accepted", "phase", "instance", "phase", "phase", "phase", "outcome"]);
    assert_eq!(lines[0]["rollout"], 12);
    assert_eq!((&lines[6]["exit"], &lines[6]["seconds"]), (&3.into(), &101.0.into()));
    assert_eq!(err, "");
}

#[tokio::test]
async fn deploy_on_a_terminal_draws_a_picture() {
    let mut shell = Shell::on_a_terminal().await;
    let (levers, err) = (shell.levers(), shell.err.clone());
    levers.happen("phase", Some(("baking", 25.0)), "the canary takes 25% of traffic");
    let person = async {
        err.until("Ctrl-C leaves it running").await;
        levers.end("promoted", "promoted", None, "revision 4 is stable");
    };
    let (exit, ()) = tokio::join!(shell.deploy(web("v4")), person);
    assert_eq!(exit, Exit::Done);
    let (out, err) = shell.said();
    assert_eq!(out, "✔ web: revision 4 (ghcr.io/acme/web:v4) is stable after 1m41s\n");
    assert!(err.contains(" ✔ baking 25%     the canary takes 25% of traffic\n"), "{err}");
    let picture = "\
 ▸ 25%   ━━━━━━━─────────────────────  baking, step 2 of 4, at most 2m10s left
         revision  set  actual  req/s  errors   p50   p95    p99  requests
 stable         3  75%   74.8%    411   0.03%  18ms  61ms  104ms     18210
 canary         4  25%   25.2%    138   0.03%  18ms  61ms  104ms     18210
 ✔ errors    errors 0.03 % of 18210, at most 1 %
 ◌ p95       p95 66 ms, stable 61 ms, at most 92 ms
 ◌ p95 needs about 400 more requests
   most errors  /checkout 4 (stable 1)
 Ctrl-C leaves it running
";
    assert!(err.contains(picture), "{err}");
    // The picture of nine lines is taken back before anything stays.
    assert!(err.contains("\x1b[9A\r\x1b[J ✔ "), "{err}");
    assert!(err.contains(" ✔ promoted       revision 4 is stable"), "{err}");
    assert!(!err.contains("\x1b[3"), "no colour was asked for: {err}");
}

#[tokio::test]
async fn a_pull_is_told_before_the_rollout_begins() {
    let mut shell = Shell::new().await;
    let options = deploy::Options { detach: true, ..web("pulled") };
    assert_eq!(shell.deploy(options).await, Exit::Done);
    let (out, err) = shell.said();
    assert_eq!(out, "12\n");
    assert_eq!(err, "pulling web:pulled\n`switchback status web -w` shows how it goes\n");
}

#[tokio::test]
async fn deploy_detached_prints_the_number() {
    let mut shell = Shell::new().await;
    let options = deploy::Options { detach: true, ..web("v4") };
    assert_eq!(shell.deploy(options).await, Exit::Done);
    let (out, err) = shell.said();
    assert_eq!(out, "12\n");
    assert_eq!(err, "`switchback status web -w` shows how it goes\n");
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let mut shell = Shell::new().await;
    let options = deploy::Options { dry_run: true, steps: "10% 100%".parse().ok(), ..web("v4") };
    assert_eq!(shell.deploy(options).await, Exit::Done);
    let (out, err) = shell.said();
    let expected = "\
web: revision 3 → a new one (web:v4)
canary 10% → 100%
  step  canary requests   time  catches errors from  catches slower from
   10%        about 890  2m58s                 1.2%                1.34x
  100%                –      –                    –                    –
at 100% there is no stable to compare with: it passes within the limits of `abort`
";
    assert_eq!(out, expected);
    let expected = "not now: a rollout of web is under way (baking); `switchback abort web` ends it\n\
        nothing was done\n";
    assert_eq!(err, expected);
    assert!(shell.levers().asked.lock().expect("unpoisoned").is_empty());
}

#[tokio::test]
async fn what_cannot_be_deployed_says_why() {
    let mut shell = Shell::new().await;
    let mut refused = async |options: deploy::Options, exit: Exit, sentence: &str| {
        assert_eq!(shell.deploy(options).await, exit);
        assert_eq!(shell.said(), (String::new(), format!("error: {sentence}\n")));
    };
    let named = |name: &str| deploy::Options { service: Some(name.into()), ..Default::default() };
    refused(deploy::Options::default(), Exit::Usage, "which service? There are web and api").await;
    let unknown = r#"there is no service "wbe": did you mean "web"?"#;
    refused(named("wbe"), Exit::Error, unknown).await;
    let not_a_name = "\"Web\" is not a service name: use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit";
    refused(named("Web"), Exit::Usage, not_a_name).await;
    let both = deploy::Options { image: Some("x".into()), ..web("v4") };
    let sentence = "SERVICE:TAG and --image cannot all say what runs: give one of them";
    refused(both, Exit::Usage, sentence).await;
    let options = deploy::Options {
        endpoints: Some(vec![([10, 0, 0, 7], 3000).into()]),
        steps: "1% 100%".parse().ok(),
        bake: Some(Duration::from_secs(90)),
        detach: true,
        ..named("web")
    };
    assert_eq!(shell.deploy(options).await, Exit::Done);
    shell.said();
    let asked = shell.levers().asked.lock().expect("unpoisoned")[0].clone();
    let expected = r#"deploy web {"endpoints":["10.0.0.7:3000"],"steps":"1% 100%","bake":"1m30s"}"#;
    assert_eq!(asked, expected);

    let sentence =
        "a rollout of web is under way: wait for it, or `switchback abort web`".to_owned();
    let conflict = Refused::Conflict { sentence: sentence.clone(), phase: "baking".into() };
    *shell.levers().refuse.lock().expect("unpoisoned") = Some(conflict);
    assert_eq!(shell.deploy(web("v4")).await, Exit::Error);
    assert_eq!(shell.said().1, format!("error: {sentence}\n"));
}

#[tokio::test]
async fn following_survives_a_restart_of_the_daemon() {
    let shell = Shell::new().await;
    let Shell { fake, client, out, err, mut console } = shell;
    fake.levers.happen("phase", Some(("baking", 5.0)), "before the restart");
    let socket = fake.socket.clone();
    let restart = async {
        out.until("before the restart").await;
        // The directory goes with the fake, so another takes its place at the same path.
        fake.stop().await;
        err.until("the daemon does not answer; trying for 30 s").await;
        let again = Fake::start().await;
        std::fs::create_dir_all(socket.parent().expect("a directory")).expect("made");
        std::os::unix::fs::symlink(&again.socket, &socket).expect("linked");
        story(&again.levers, "promoted", None);
        out.until("is stable").await;
        std::fs::remove_dir_all(socket.parent().expect("a directory")).expect("removed");
        again
    };
    let (exit, _again) = tokio::join!(deploy::run(&client, &mut console, web("v4")), restart);
    assert_eq!(exit, Exit::Done);
    assert!(err.text().contains("the daemon answers again\n"), "{}", err.text());
    assert!(out.text().contains("the canary takes 25% of traffic"), "{}", out.text());
}
