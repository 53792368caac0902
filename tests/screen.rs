//! `switchback top` in a terminal, with a daemon and a rollout behind it.

use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::daemon::{Daemon, LONG, PROGRAM, Runs, program, without_variables};
use crate::support::load::Load;
use crate::support::terminal::Terminal;

/// A daemon with `api` and `web`, both serving.
fn two_services() -> Daemon {
    let plan = format!("steps = \"25% 50% 100%\"\n{LONG}");
    let mut daemon = Daemon::configured(Runs::Processes, &plan).unwrap();
    let text = daemon.file(&plan);
    let (_, web) = text.split_once("[service.web]\n").unwrap();
    let api = web.replace("host = \"*\"", "host = \"api.test\"");
    daemon.configure(&format!("{text}\n[service.api]\n{api}"));
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    daemon.until("api too", || {
        daemon.read("/api/v1/services/api").is_some_and(|body| body.contains("\"promoted\""))
    });
    daemon
}

/// `top` after a shell has said something, which has to be there again afterwards.
fn top(daemon: &Daemon, columns: u16, rows: u16) -> Terminal {
    let mut shell = without_variables(Command::new("/bin/sh"));
    shell.env_remove("NO_COLOR");
    let script = "echo said before; exec \"$0\" top -c \"$1\"";
    shell.args(["-c", script, PROGRAM]).arg(daemon.config());
    let terminal = Terminal::begin(&shell, columns, rows);
    terminal.shows("SERVICE");
    assert_eq!(terminal.is_taken(), (true, true));
    terminal
}

/// It has ended well, and what was on the screen before is there again.
fn given_back(terminal: Terminal) {
    let (code, text) = terminal.ended();
    assert_eq!((code, text.trim()), (0, "said before"));
}

#[test]
fn a_rollout_is_seen_and_led_from_the_screen() {
    let daemon = two_services();
    let mut terminal = top(&daemon, 100, 40);
    terminal.shows("▸  api");
    assert!(terminal.line("p promote").contains("q leave"), "{}", terminal.text());
    daemon.deploy_until("", &[], "baking");
    terminal.press("j");
    terminal.shows("▸  web");
    terminal.until("the canary's weight", |text| {
        let row = text.lines().find(|line| line.starts_with("▸  web"));
        row.is_some_and(|row| row.contains(" 25% ") && row.contains("baking, step 1 of 3"))
    });
    assert!(terminal.line("steps ").contains("[25%] → 50% → 100%"), "{}", terminal.text());

    // Figures move by themselves.
    let load = Load::begin(daemon.http, 60);
    let requests = |terminal: &Terminal| {
        let row = terminal.line("stable  ");
        row.split_whitespace().last().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
    };
    terminal.until("requests", |_| requests(&terminal) > 0);
    let first = requests(&terminal);
    terminal.until("more of them", |_| requests(&terminal) > first);
    load.end_well();

    // What is not confirmed is not done.
    terminal.press(" ");
    terminal.shows("keep the canary of web where it is? y does it");
    terminal.press("n");
    terminal.hides("y does it");
    assert_eq!(daemon.service()["phase"], "baking");
    terminal.press(" ");
    terminal.shows("keep the canary of web where it is?");
    terminal.press("y");
    daemon.wait("it stays", |web| web["phase"] == "paused");
    terminal.shows("web: paused");
    terminal.press(" ");
    terminal.shows("let web bake again?");
    terminal.press("y");
    daemon.wait("it goes on", |web| web["phase"] == "baking");
    terminal.shows("web: baking, step 1 of 3");

    // What the daemon does not do is said with its reason.
    terminal.press("k");
    terminal.shows("▸  api");
    terminal.press("a");
    terminal.shows("take the canary of api back?");
    terminal.press("y");
    terminal.shows("no rollout is under way");
    terminal.press("\x1b[B");
    terminal.shows("▸  web");

    terminal.press("p");
    terminal.shows("let web go on to its next step?");
    terminal.press("y");
    daemon.wait("the next step", |web| web["weights"]["canary"] == 50.0);
    terminal.shows("5% → [50%] → 100%");
    terminal.press("a");
    terminal.shows("take the canary of web back?");
    terminal.press("y");
    daemon.wait("it is back", |web| web["phase"] == "rolled_back");
    terminal.until("it is back", |text| {
        let row = text.lines().find(|line| line.starts_with("▸  web"));
        row.is_some_and(|row| row.contains(" 0% ") && row.contains("rolled back"))
    });
    terminal.press("q");
    given_back(terminal);
}

#[test]
fn a_screen_of_any_size_is_drawn_anew() {
    let daemon = two_services();
    let mut terminal = top(&daemon, 100, 40);
    daemon.deploy_until("", &[], "baking");
    terminal.press("j");
    terminal.shows("▸  web");
    // Narrower: what was one line of keys becomes two, and nothing of the former picture is left.
    terminal.resize(60, 20);
    terminal.until("two lines of keys", |text| {
        text.lines().nth(2).is_some_and(|line| line.contains("q leave"))
    });
    let lines = terminal.lines();
    assert_eq!(lines.iter().filter(|line| line.contains("q leave")).count(), 1, "{lines:#?}");
    assert!(lines[0].starts_with("switchback ") && lines.len() <= 20, "{lines:#?}");
    // Too small to act by: said, and no key but `q` means anything.
    terminal.resize(32, 6);
    terminal.until("it is too small", |text| {
        text.split_whitespace().collect::<Vec<_>>().join(" ").contains("here are 32 and 6")
    });
    terminal.press("ay");
    terminal.resize(40, 6);
    terminal.until("it still is", |text| {
        text.split_whitespace().collect::<Vec<_>>().join(" ").contains("here are 40 and 6")
    });
    terminal.resize(110, 30);
    terminal.shows("▸  web");
    terminal.until("one line of keys", |text| {
        text.lines().nth(1).is_some_and(|line| line.contains("q leave"))
    });
    assert_eq!(daemon.service()["phase"], "baking", "nothing was confirmed");
    // Ctrl-Z would leave a picture that looks live; it means nothing.
    terminal.press("\x1a");
    terminal.press("k");
    terminal.shows("▸  api");
    terminal.press("\x03");
    given_back(terminal);
    daemon.cli(&["abort", "web"]);
    daemon.wait("it is back", |web| web["phase"] == "rolled_back");
}

#[test]
fn a_daemon_that_is_away_is_said_on_the_screen() {
    let mut daemon = two_services();
    let mut terminal = top(&daemon, 100, 30);
    // It hangs.
    daemon.signal(Signal::STOP);
    terminal.shows("the daemon does not answer");
    terminal.press("j");
    terminal.shows("▸  web");
    daemon.signal(Signal::CONT);
    terminal.hides("what is shown is");
    // It dies, and what runs runs on.
    daemon.kill();
    terminal.shows("what is shown is");
    terminal.shows("admin.sock");
    terminal.press("p");
    terminal.shows("let web go on to its next step?");
    terminal.press("y");
    terminal.until("that cannot be asked", |text| text.matches("admin.sock").count() == 2);
    daemon.start();
    terminal.hides("what is shown is");
    // Who ends it from outside gets the terminal back as well, and while the daemon hangs.
    daemon.signal(Signal::STOP);
    terminal.shows("the daemon does not answer");
    terminal.signal(Signal::TERM);
    given_back(terminal);
    daemon.signal(Signal::CONT);

    let mut terminal = top(&daemon, 80, 24);
    daemon.signal(Signal::STOP);
    terminal.shows("the daemon does not answer");
    terminal.press("q");
    given_back(terminal);
    daemon.signal(Signal::CONT);

    // Nobody there from the beginning: said on the screen that was.
    daemon.terminate();
    let mut verb = program();
    verb.args(["top", "-c"]).arg(daemon.config());
    let (code, text) = Terminal::begin(&verb, 100, 30).ended();
    assert_eq!(code, 6, "{text}");
    assert!(text.contains("error: ") && text.contains("admin.sock"), "{text}");
}

#[test]
fn without_keys_the_state_is_printed_once() {
    let daemon = Daemon::begin(Runs::Processes, LONG).unwrap();
    let mut shell = without_variables(Command::new("/bin/sh"));
    shell.args(["-c", "exec \"$0\" top -c \"$1\" < /dev/null", PROGRAM]).arg(daemon.config());
    let (code, text) = Terminal::begin(&shell, 100, 30).ended();
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("✔ web  promoted") && text.contains("revision 1"), "{text}");
    let mut verb = program();
    verb.args(["top", "-c"]).arg(daemon.config()).stdin(Stdio::null());
    let said = verb.output().unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    assert!(said.status.success() && text.contains("web  promoted"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
}
