//! `kill -USR2`: a new process of the same path and arguments takes everything over, and nobody notices;
//! where it cannot, nothing changes.

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::carried::{chat, open, say};
use crate::support::app::over;
use crate::support::clients::{Wrk, curl, http2};
use crate::support::daemon::{Daemon, PROGRAM, Runs, free_address};
use crate::support::http::Connection;
use crate::support::load::Load;

/// A step that a person ends.
const STAYS: &str = "bake = \"10m\"\nbake_max = \"20m\"\n";

/// The same rollout at the same step with the same instances.
fn standing(daemon: &Daemon) -> Value {
    let web = daemon.wait("an answer", |web| web["phase"].is_string());
    let id = |side: &str| web[side]["instances"][0]["id"].clone();
    serde_json::json!([
        web["phase"],
        web["rollout"],
        web["step"],
        web["weights"],
        id("stable"),
        id("canary"),
        daemon.running(),
    ])
}

#[test]
fn no_visitor_notices_an_upgrade_in_the_middle_of_a_rollout() {
    let mut daemon = Daemon::begin(Runs::Processes, STAYS).unwrap();
    let kept = Wrk::begin(&daemon, "kept", &[]);
    let new = Wrk::begin(&daemon, "new", &["Connection: close"]);
    let visitors = Load::begin(daemon.http, 100);
    let (to, stop) = (daemon.http, AtomicBool::new(false));
    let told = std::thread::scope(|scope| {
        // h2load opens no new connection after a GOAWAY and counts the rest of its run as failed, and
        // curl 7.88 goes on using the old one.
        let two = scope.spawn(|| http2(to, &stop));
        let one = scope.spawn(|| curl(to, &["--http1.1"], &stop));
        let upgraded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            daemon.deploy_until("none", &["--steps", "50% 100%"], "baking");
            let before = standing(&daemon);
            assert_eq!(before[0], "baking");
            for _ in 0..4 {
                // So that there is load on each of them.
                std::thread::sleep(std::time::Duration::from_millis(500));
                daemon.hand_over();
                daemon.until("as before", || standing(&daemon) == before);
            }
            assert_eq!(daemon.cli(&["promote", "web", "--full"]).code, 0);
            daemon.wait("its end", |w| w["phase"] == "promoted" && w["stable"]["revision"] == 2);
            daemon.hand_over();
        }));
        stop.store(true, Ordering::Relaxed);
        let told = [
            ("kept connections", kept.map(Wrk::end)),
            ("new connections", new.map(Wrk::end)),
            ("visitors", Some(visitors.end())),
            ("HTTP/2", two.join().ok()),
            ("HTTP/1.1", one.join().ok()),
        ];
        if let Err(panic) = upgraded {
            std::panic::resume_unwind(panic);
        }
        told
    });
    for (name, all) in told.iter().filter_map(|(name, all)| Some((name, all.as_ref()?))) {
        eprintln!("{name}: {} requests, failed: {:?}", all.0, all.1);
    }
    for (name, all) in told {
        let failed = all.map(|(_, failed)| failed).unwrap_or_default();
        assert!(failed.is_empty(), "{name}: {failed:?}");
    }
    assert_eq!(daemon.service()["warm"]["revision"], 1);
}

#[test]
fn no_visitor_over_tls_notices_an_upgrade_with_containers() {
    let Some(mut daemon) = Daemon::configured(Runs::Containers, STAYS) else { return };
    let https = daemon.secure(STAYS);
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    let all = [
        ("kept connections", Wrk::secure(https, &daemon, "kept", &[])),
        ("new connections", Wrk::secure(https, &daemon, "new", &["Connection: close"])),
        ("cleartext", Wrk::begin(&daemon, "clear", &[])),
    ];
    let upgraded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        daemon.deploy_until("none", &["--steps", "50% 100%"], "baking");
        let before = standing(&daemon);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(500));
            daemon.hand_over();
            daemon.until("as before", || standing(&daemon) == before);
        }
        assert_eq!(daemon.cli(&["abort", "web"]).code, 0);
        daemon.wait("its end", |web| web["phase"] == "rolled_back");
        daemon.until("only stable runs", || daemon.running().len() == 1);
    }));
    let told = all.map(|(name, wrk)| (name, wrk.map(Wrk::end)));
    if let Err(panic) = upgraded {
        std::panic::resume_unwind(panic);
    }
    for (name, all) in told {
        let Some((requests, failed)) = all else { continue };
        assert!(requests > 0 && failed.is_empty(), "{name}: {requests} requests: {failed:?}");
    }
}

#[test]
fn a_websocket_goes_on_in_the_former_process_until_it_is_done() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut daemon = over(&[chat(&runtime, "one")], "");
    let (to, log) = (daemon.http, daemon.home().join("log"));
    let mut socket = runtime.block_on(open(to));
    std::thread::scope(|scope| {
        let talks = scope.spawn(|| {
            while !std::fs::read_to_string(&log).unwrap().contains("serves; open connections") {
                let back = runtime.block_on(say(&mut socket, "still"));
                assert_eq!(back.as_deref(), Some("one: still"));
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            let mut new = runtime.block_on(open(to));
            let back = runtime.block_on(say(&mut new, "hello"));
            assert_eq!(back.as_deref(), Some("one: hello"), "the new process takes new ones");
            let back = runtime.block_on(say(&mut socket, "there?"));
            assert_eq!(back.as_deref(), Some("one: there?"), "the former one carries its own");
            runtime.block_on(socket.close(None)).unwrap();
            new
        });
        daemon.hand_over();
        let mut new = talks.join().unwrap();
        let back = runtime.block_on(say(&mut new, "still"));
        assert_eq!(back.as_deref(), Some("one: still"), "whoever is gone");
    });
}

#[test]
fn an_idle_connection_is_answered_once_more_and_told_to_go() {
    let mut daemon = Daemon::begin(Runs::Processes, STAYS).unwrap();
    let patience = crate::support::daemon::PATIENCE;
    let mut idle = Connection::open(daemon.http, patience).unwrap();
    assert!(idle.ask("GET", "/", &[], "").unwrap().1, "it stays open");
    let mut silent = Connection::open(daemon.http, patience).unwrap();
    let asks = std::thread::scope(|scope| {
        let log = daemon.home().join("log");
        let asks = scope.spawn(move || {
            while !std::fs::read_to_string(&log).unwrap().contains("serves; open connections") {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            let (idle, again) = idle.ask("GET", "/", &[], "").unwrap();
            assert_eq!((idle.status, again), (200, false), "answered, and told to go");
            let (silent, again) = silent.ask("GET", "/", &[], "").unwrap();
            assert_eq!((silent.status, again), (200, false), "its first request, too");
        });
        daemon.hand_over();
        asks.join()
    });
    asks.unwrap();
}

/// Replaces what the path leads to, at once.
fn lead(path: &Path, to: &Path) {
    let staged = path.with_extension("new");
    symlink(to, &staged).unwrap();
    std::fs::rename(staged, path).unwrap();
}

#[test]
fn a_binary_that_fails_changes_nothing() {
    let mut daemon = Daemon::configured(Runs::Processes, STAYS).unwrap();
    daemon.program = daemon.home().join("switchback");
    lead(&daemon.program, Path::new(PROGRAM));
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    daemon.deploy_until("none", &["--steps", "50% 100%"], "baking");
    let before = standing(&daemon);
    let load = Load::begin(daemon.http, 100);
    daemon.expect_error("not handed over");

    let bad = daemon.home().join("bad");
    let refuses = |daemon: &Daemon, why: &str| {
        let from = daemon.log().len();
        daemon.signal(rustix::process::Signal::USR2);
        daemon.until(why, || daemon.log()[from..].contains("not handed over"));
        let log = daemon.log();
        assert!(log[from..].contains(why), "{}", &log[from..]);
        assert_eq!(standing(daemon), before);
    };
    std::fs::write(&bad, "#!/bin/sh\nexit 3\n").unwrap();
    std::fs::set_permissions(&bad, PermissionsExt::from_mode(0o755)).unwrap();
    lead(&daemon.program, &bad);
    refuses(&daemon, "exit status: 3");
    std::fs::remove_file(&bad).unwrap();
    refuses(&daemon, "cannot be started");
    lead(&daemon.program, Path::new(PROGRAM));
    let good = std::fs::read_to_string(daemon.config()).unwrap();
    daemon.configure(&format!("{good}nonsense = 1\n"));
    refuses(&daemon, "exit status: 7");
    daemon.configure(&good);

    daemon.hand_over();
    daemon.until("as before", || standing(&daemon) == before);
    load.end_well();
}

#[test]
fn what_a_new_process_cannot_hold_is_taken_back() {
    let mut daemon = Daemon::begin(Runs::Processes, STAYS).unwrap();
    daemon.deploy_until("none", &["--steps", "50% 100%"], "baking");
    let before = standing(&daemon);
    let load = Load::begin(daemon.http, 100);
    // Its configuration is right, and yet it cannot listen: found out when the state is its own.
    let taken = free_address();
    let somebody = TcpListener::bind(taken).unwrap();
    let good = std::fs::read_to_string(daemon.config()).unwrap();
    let both = format!("http = [\"{}\", \"{taken}\"]", daemon.http);
    daemon.configure(&good.replacen(&format!("http = \"{}\"", daemon.http), &both, 1));
    daemon.expect_error("not handed over");
    daemon.signal(rustix::process::Signal::USR2);
    daemon.until("it says so", || daemon.log().contains("not handed over, this process serves on"));
    assert!(daemon.log().contains("in use by another program"), "{}", daemon.log());
    daemon.until("as before", || standing(&daemon) == before);

    // And now it can.
    drop(somebody);
    daemon.hand_over();
    daemon.until("as before", || standing(&daemon) == before);
    load.end_well();
    assert_eq!(crate::support::http::get(taken, "/", &[]).unwrap().status, 200);
    assert_eq!(daemon.cli(&["abort", "web"]).code, 0);
    daemon.wait("its end", |web| web["phase"] == "rolled_back");
    daemon.until("only stable runs", || daemon.running().len() == 1);
}

#[test]
fn systemd_is_told_who_serves() {
    let mut daemon = Daemon::configured(Runs::Processes, STAYS).unwrap();
    let path = daemon.home().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(crate::support::daemon::PATIENCE)).unwrap();
    let told = || {
        let mut text = [0; 256];
        let length = systemd.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).trim().to_owned()
    };
    daemon.variables.push(("NOTIFY_SOCKET".to_owned(), path.display().to_string()));
    daemon.start();
    assert_eq!(told(), "READY=1");
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    daemon.hand_over();
    let mut both = [told(), told()];
    both.sort();
    assert!(both[0].starts_with("MAINPID="), "{both:?}");
    assert_eq!(both[1], "READY=1");
    let main: i32 = both[0]["MAINPID=".len()..].parse().unwrap();
    assert_eq!(Some(main), daemon.pid().map(|pid| pid.as_raw_nonzero().get()));
}
