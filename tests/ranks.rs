//! Who steps back behind requests where they share a core, and who does not.

use std::fs;

use crate::support::daemon::{Daemon, Runs, SHORT};

/// The name of a thread, and how nice it is (proc(5): the nineteenth field of `stat`).
fn rank(stat: &str) -> (String, i32) {
    let (first, rest) = stat.rsplit_once(") ").unwrap();
    let name = first.split_once('(').unwrap().1.to_owned();
    (name, rest.split(' ').nth(16).unwrap().parse().unwrap())
}

#[test]
fn requests_go_before_decisions_and_what_is_started_is_as_the_daemon() {
    let told = tempfile::NamedTempFile::new().unwrap();
    let script = format!("nice > {}", told.path().display());
    let plan =
        format!("{SHORT}[[service.web.smoke]]\ncommand = [\"/bin/sh\", \"-c\", {script:?}]\n");
    let daemon = Daemon::begin(Runs::Processes, &plan).unwrap();
    assert_eq!(daemon.deploy("none", &[]).code, 0);

    let daemon_id = daemon.pid().unwrap().as_raw_nonzero();
    let (_, ours) = rank(&fs::read_to_string(format!("/proc/{daemon_id}/stat")).unwrap());
    let threads = fs::read_dir(format!("/proc/{daemon_id}/task")).unwrap().flatten();
    // Who helps for a moment may be gone.
    let ranks: Vec<(String, i32)> = threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok())
        .map(|stat| rank(&stat))
        .collect();
    for (name, expected) in [
        ("worker-0", ours),
        ("worker-1", ours),
        ("driver", ours + 10),
        ("api", ours + 10),
        ("store", ours + 10),
    ] {
        let mut named = ranks.iter().filter(|(of, _)| of == name).peekable();
        assert!(named.peek().is_some(), "no thread is called {name}: {ranks:?}");
        assert!(named.all(|(_, rank)| *rank == expected.min(19)), "{name}: {ranks:?}");
    }

    let apps = daemon.running();
    assert!(!apps.is_empty());
    for app in apps {
        assert_eq!(rank(&fs::read_to_string(format!("/proc/{app}/stat")).unwrap()).1, ours);
    }
    assert_eq!(fs::read_to_string(told.path()).unwrap().trim(), ours.to_string(), "a hook's");
}
