//! Every other verb: what it says, and how it ends.

use super::super::client::Client;
use super::super::console::Console;
use super::super::exit::Exit;
use super::super::{act, events, history, logs, reload, status};
use super::{Shell, story};
use crate::admin::fake::{Fake, record};
use crate::controller::handle::Refused;

#[tokio::test]
async fn a_daemon_that_is_not_there_is_exit_6() {
    let mut shell = Shell::new().await;
    shell.client = Client::new("unix:///nowhere/admin.sock", None).expect("a client");
    let (exit, out, err) = shell.status(None, false).await;
    assert_eq!((exit as u8, out.as_str()), (6, ""));
    let expected = "error: no daemon at unix:///nowhere/admin.sock (no such socket): is `switchback run` up? \
        If it is elsewhere, say where with SWITCHBACK_HOST\n";
    assert_eq!(err, expected);
    shell.client = Client::new("http://127.0.0.1:1", None).expect("a client");
    let (exit, _, err) = shell.status(None, false).await;
    assert_eq!(exit, Exit::Unreachable);
    assert!(err.contains("(connection refused)"), "{err}");
    for bad in ["ftp://x", "https://example.com", "http://", "web"] {
        assert_eq!(Client::new(bad, None).expect_err(bad).exit, Exit::Usage);
    }
}

#[tokio::test]
async fn verbs_work_over_tcp_with_a_token() {
    let mut shell = Shell::with(Fake::with_token(Some("s3cret")).await, false);
    let host = format!("http://{}", shell.fake.admin.listen().expect("an address"));
    shell.client = Client::new(&host, Some("s3cret\n".to_owned())).expect("a client");
    assert_eq!(shell.act(act::Act::Pause).await.0, Exit::Done);
    shell.client = Client::new(&host, None).expect("a client");
    let (exit, _, err) = shell.act(act::Act::Pause).await;
    assert_eq!(exit, Exit::Error);
    assert!(err.contains("needs a token") && err.contains("SWITCHBACK_TOKEN"), "{err}");
}

#[tokio::test]
async fn acts_say_in_one_sentence_what_came_of_them() {
    use act::Act;
    let mut shell = Shell::new().await;
    let weight = "12.5%".parse().expect("a weight");
    for (act, sentence) in [
        (Act::Promote { full: false }, "web: revision 4 goes on to step 3 of 4, 25% of traffic"),
        (Act::Abort, "web: revision 4 is taken back, all traffic goes to revision 3"),
        (
            Act::Pause,
            "web: paused at 25%; `switchback resume web` goes on, `switchback abort web` takes it back",
        ),
        (Act::Resume, "web: goes on at step 2 of 4, 25% of traffic"),
        (
            Act::Weight(weight),
            "web: revision 4 gets 12.5% of traffic and stays there; `switchback resume web` goes on",
        ),
    ] {
        assert_eq!(shell.act(act).await, (Exit::Done, format!("{sentence}\n"), String::new()));
    }
    let refused = "cannot pause while paused already: `switchback resume` goes on".to_owned();
    let conflict = Refused::Conflict { sentence: refused.clone(), phase: "paused".into() };
    *shell.levers().refuse.lock().expect("unpoisoned") = Some(conflict);
    let said = shell.act(Act::Pause).await;
    assert_eq!(said, (Exit::Error, String::new(), format!("error: {refused}\n")));
}

#[tokio::test]
async fn rollback_follows_to_the_end() {
    let mut shell = Shell::new().await;
    shell.levers().end("promoted", "promoted", None, "revision 4 is stable");
    let options = act::Rollback { service: Some("web".into()), to: Some(4), ..Default::default() };
    assert_eq!(act::rollback(&shell.client, &mut shell.console, options).await, Exit::Done);
    let (out, err) = shell.said();
    assert!(
        out.ends_with("✔ web: revision 4 (ghcr.io/acme/web:v4) is stable after 1m41s\n"),
        "{out}"
    );
    assert_eq!(err, "web: back to revision 4   rollout 12\n");
}

/// Ages depend on the day of the test.
fn ageless(text: &str) -> String {
    let lines = text.lines().map(|line| match line.split_once("   for ") {
        Some((before, after)) => {
            let rest = after.split_once("   ").map_or("", |(_, rest)| rest);
            format!("{before}   for AGE   {rest}\n")
        }
        None => format!("{line}\n"),
    });
    lines.collect()
}

#[tokio::test]
async fn status_shows_sides_instances_verdict_and_notes() {
    let mut shell = Shell::new().await;
    shell.levers().set(|services| services[0].notes.push("the split is set by hand".to_owned()));
    let (exit, out, err) = shell.status(None, false).await;
    let expected = "\
▸ web  baking, step 2 of 4, at most 2m10s left   for AGE   rollout 12
  from     app.example.com
  steps    5% → [25%] → 50% → 100%
          revision  set  actual  req/s  errors   p50   p95    p99  requests
  stable         3  75%   74.8%    411   0.03%  18ms  61ms  104ms     18210
  canary         4  25%   25.2%    138   0.03%  18ms  61ms  104ms     18210
  ├─ stable revision 3  ghcr.io/acme/web:v3
  │  └─ ✔ web-3-1  172.17.0.2:3000  healthy, 4 in flight, 12.5% cpu, 85 MB
  └─ canary revision 4  ghcr.io/acme/web:v4
     └─ ✔ web-4-1  172.17.0.2:3000  healthy, 4 in flight
  ✔ errors    errors 0.03 % of 18210, at most 1 %
  ◌ p95       p95 66 ms, stable 61 ms, at most 92 ms
  ◌ p95 needs about 400 more requests
    most errors  /checkout 4 (stable 1)
  ! the split is set by hand

✔ api  idle   for AGE   rollout 11
  from     api.example.com
          revision   set  actual  req/s  errors   p50   p95    p99  requests
  stable         9  100%    100%    549   0.03%  18ms  61ms  104ms     18210
  ├─ stable revision 9  ghcr.io/acme/api:9
  │  └─ ✔ web-9-1  172.17.0.2:3000  healthy, 4 in flight
  └─ warm   revision 8  ghcr.io/acme/api:8  for 7m00s
";
    let (services, daemon) = ageless(&out).split_once("\ndaemon ").map_or_else(
        || panic!("no foot: {out}"),
        |(services, daemon)| (services.to_owned(), daemon.to_owned()),
    );
    assert_eq!(services, expected);
    assert!(daemon.contains("on 0.0.0.0:80; the Docker engine answers"), "{daemon}");
    assert_eq!((exit, err.as_str()), (Exit::Done, ""));

    shell.console =
        Console::over(Box::new(shell.out.clone()), Box::new(shell.err.clone()), false).ascii();
    shell.levers().set(|services| {
        let canary = services[0].canary.as_mut().expect("a canary");
        canary.instances[0].healthy = false;
        canary.instances[0].id = "df4dd3448657".to_owned() + &"0".repeat(52);
        canary.instances[0].diagnosis = Some("GET /up answered 500\n\u{1b}[2J".to_owned());
    });
    let (exit, out, _) = shell.status(Some("web"), false).await;
    assert_eq!(exit, Exit::Error);
    assert!(
        out.contains(
            "     `- x df4dd3448657  172.17.0.2:3000  not healthy, 4 in flight: GET /up answered 500 \n"
        ),
        "{out}"
    );
    assert!(out.contains("  x web: no healthy instance of the canary revision 4\n"), "{out}");
    assert!(out.replace("◌", "").is_ascii(), "{out}");
}

#[tokio::test]
async fn status_as_json_is_what_the_api_says() {
    let mut shell = Shell::new().await;
    let all: serde_json::Value =
        serde_json::from_str(&shell.status(None, true).await.1).expect("JSON");
    assert_eq!(all[1]["service"], "api");
    let one: serde_json::Value =
        serde_json::from_str(&shell.status(Some("web"), true).await.1).expect("JSON");
    assert_eq!(one["phase"], "baking");
}

#[tokio::test]
async fn status_of_nothing_says_how_to_begin() {
    let mut shell = Shell::new().await;
    shell.levers().set(Vec::clear);
    shell
        .levers()
        .set_daemon(|daemon| daemon.notes.push("the configuration is bad: line 3".into()));
    let (_, out, _) = shell.status(None, false).await;
    let expected = "! the configuration is bad: line 3\nno service is configured: add a [service.NAME] to \
        the configuration, then `switchback reload`\n";
    assert!(out.starts_with(expected), "{out}");
    let mut service = crate::admin::fake::idle();
    service.stable = None;
    service.warm = None;
    service.rollout = None;
    shell.levers().set(|services| services.push(service));
    let (exit, out, _) = shell.status(Some("api"), false).await;
    assert_eq!(exit, Exit::Done);
    assert!(
        out.ends_with("  never deployed: `switchback deploy api` begins its first rollout\n"),
        "{out}"
    );
}

#[tokio::test]
async fn status_watched_on_a_pipe_tells_changes_only() {
    let shell = Shell::new().await;
    let Shell { fake, client, out, mut console, .. } = shell;
    let options =
        status::Options { service: Some("web".into()), watch: true, ..Default::default() };
    let watching = tokio::spawn(async move { status::run(&client, &mut console, options).await });
    out.until("web  baking step 2 of 4  stable 75% canary 25%\n").await;
    fake.levers.set(|services| services[0].step = Some(3));
    out.until("web  baking step 3 of 4  stable 75% canary 25%\n").await;
    watching.abort();
    assert_eq!(out.text().lines().count(), 2);
}

#[tokio::test]
async fn status_watched_ends_with_the_rollout() {
    let shell = Shell::new().await;
    let Shell { fake, client, out, mut console, .. } = shell;
    let options =
        status::Options { service: Some("web".into()), watch: true, ..Default::default() };
    let person = async {
        out.until("baking step 2 of 4").await;
        fake.levers.end("rolled_back", "rolled_back", Some("errors"), "it ended");
        fake.levers.set(|services| {
            services[0].canary = None;
            services[0].step = None;
            services[0].weights.canary = 0.0;
            services[0].weights.stable = 100.0;
            "rolled_back".clone_into(&mut services[0].phase);
        });
    };
    let (exit, ()) = tokio::join!(status::run(&client, &mut console, options.clone()), person);
    assert_eq!(exit, Exit::RolledBack);
    assert!(out.text().ends_with("web  rolled back  stable 100% canary 0%\n"), "{}", out.text());
    let options = status::Options { watch: false, ..options };
    assert_eq!(status::run(&client, &mut console, options).await, Exit::RolledBack);
}

#[tokio::test]
async fn history_and_explain_tell_what_happened_and_why() {
    let mut shell = Shell::new().await;
    let mut first = record(9, Some("promoted"));
    first.from = None;
    first.to = 3;
    first.ended = Some("2026-11-21T10:00:04Z".to_owned());
    shell.levers().records.lock().expect("unpoisoned").push(first);
    story(&shell.levers(), "rolled_back", Some("errors 4.7 % of 2043, at most 1 %"));
    let options = history::Options { service: Some("web".into()), json: false };
    assert_eq!(history::run(&shell.client, &mut shell.console, options).await, Exit::Done);
    let expected = "\
ROLLOUT  REVISION  OUTCOME  BEGAN  TOOK  RUNS  WHY
     12  3 → 4     rolled back  2026-11-21 10:00:00  1m41s  ghcr.io/acme/web:v4  errors 4.7 % of 2043, at most 1 %
";
    let (out, _) = shell.said();
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(squeezed(&out).starts_with(&squeezed(expected)), "{out}");
    assert_eq!(out.lines().count(), 3);

    assert_eq!(history::explain(&shell.client, &mut shell.console, 12, false).await, Exit::Done);
    let expected = "\
rollout 12 of web: revision 3 → 4 (ghcr.io/acme/web:v4), canary
✖ web: revision 4 was rolled back at 25% after 1m41s: errors 4.7 % of 2043, at most 1 %

what happened, from 2026-11-21 10:00:00 UTC
  10:00:01  +1.0s  launching    starting 1 instance of revision 4
  10:00:02  +2.0s  instance     web-4-1 listens on 172.17.0.3:3000
  10:00:03  +3.0s  baking 5%    the canary takes 5% of traffic
  10:00:04  +4.0s  baking 25%   the canary takes 25% of traffic
  10:00:05  +5.0s  rolled_back  it ended

what the evidence said at last: nothing shown yet
  ✔ errors    errors 0.03 % of 18210, at most 1 %
  ◌ p95       p95 66 ms, stable 61 ms, at most 92 ms
  ◌ p95 needs about 400 more requests
    most errors  /checkout 4 (stable 1)

          canary  stable  limit  requests
  errors   0.03%   0.02%     1%     18210
  p95       66ms    61ms   92ms     18210
";
    assert_eq!(shell.said().0, expected);
    let exit = history::explain(&shell.client, &mut shell.console, 99, false).await;
    assert_eq!((exit, shell.said().1.as_str()), (Exit::Error, "error: there is no rollout 99\n"));
}

#[tokio::test]
async fn what_is_frozen_is_named_where_there_are_several() {
    use crate::cli::gates::{Which, freeze, unfreeze};
    let mut shell = Shell::new().await;
    let which = Which::of(None, false);
    let exit = freeze(&shell.client, &mut shell.console, which.clone(), "the fair", None).await;
    assert_eq!(exit, Exit::Usage);
    let said = shell.said().1;
    assert_eq!(said, "error: which service? There are web and api; --all takes all of them\n");
    assert_eq!(unfreeze(&shell.client, &mut shell.console, which).await, Exit::Usage);
    assert_eq!(shell.said().1, said);
    assert!(shell.levers().asked.lock().expect("unpoisoned").is_empty());
}

#[tokio::test]
async fn events_logs_and_reload() {
    let mut shell = Shell::new().await;
    story(&shell.levers(), "promoted", None);
    let options = events::Options { json: true, ..Default::default() };
    assert_eq!(events::run(&shell.client, &mut shell.console, options).await, Exit::Done);
    assert_eq!(shell.said().0.lines().count(), 5);
    let options = events::Options { service: Some("api".into()), ..Default::default() };
    assert_eq!(events::run(&shell.client, &mut shell.console, options).await, Exit::Done);
    assert_eq!(shell.said(), Default::default());

    let options =
        logs::Options { service: Some("web".into()), lines: Some(2), ..Default::default() };
    assert_eq!(logs::run(&shell.client, &mut shell.console, options).await, Exit::Done);
    // Escape sequences of the app do not reach the terminal.
    assert_eq!(shell.said().0, "GET / 200\nred\n");

    assert_eq!(reload::run(&shell.client, &mut shell.console).await, Exit::Done);
    assert_eq!(shell.said().0, "configuration read again: web changed\n");
    let bad = "switchback.toml:3:1: unknown key `hosst`: did you mean `host`?".to_owned();
    *shell.levers().refuse.lock().expect("unpoisoned") = Some(Refused::Invalid(bad.clone()));
    assert_eq!(reload::run(&shell.client, &mut shell.console).await, Exit::Invalid);
    assert_eq!(shell.said().1, format!("error: {bad}\n"));
}
