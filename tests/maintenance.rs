//! A service is worked on: its visitors are told so, or wait.

use std::time::{Duration, Instant};

use crate::support::daemon::{Daemon, LONG, Runs};
use crate::support::http::get;

#[test]
fn visitors_are_told_and_it_outlives_a_restart() {
    let plan = format!("{LONG}error_pages = {{ 503 = \"busy.html\" }}\n");
    let mut daemon = Daemon::configured(Runs::Processes, &plan).unwrap();
    std::fs::write(daemon.home().join("busy.html"), "<p>back soon</p>").unwrap();
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    daemon.until("the first answer", || daemon.get("/").is_ok_and(|a| a.status == 200));
    let said = daemon.cli(&["maintenance", "web", "on"]);
    assert_eq!(
        (said.code, said.stdout.trim()),
        (
            0,
            "web: in maintenance, visitors are answered 503; `switchback maintenance web off` ends it"
        )
    );
    let answer = get(daemon.http, "/", &[]).unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (503, "<p>back soon</p>"));
    assert_eq!(answer.field("retry-after"), Some("10"));
    let status = daemon.cli(&["status", "web", "-o", "json"]).last();
    assert_eq!(status["maintenance"]["queue_seconds"], 0.0, "{status}");
    daemon.kill();
    daemon.start();
    assert_eq!(get(daemon.http, "/", &[]).unwrap().status, 503, "it is remembered");
    let said = daemon.cli(&["maintenance", "web", "off"]);
    assert_eq!((said.code, said.stdout.trim()), (0, "web: visitors are served again"));
    daemon.until("it serves", || daemon.get("/").is_ok_and(|a| a.status == 200));
    for bad in
        [vec!["off", "--queue", "1s"], vec!["on", "--queue", "1h"], vec!["on", "--queue", "x"]]
    {
        let said = daemon.cli(&[&["maintenance", "web"], bad.as_slice()].concat());
        assert_ne!(said.code, 0, "{bad:?}: {said:?}");
    }
    assert_eq!(daemon.get("/").unwrap().status, 200);
}

#[test]
fn visitors_wait_and_are_served_when_it_is_over() {
    let daemon = Daemon::begin(Runs::Processes, LONG).unwrap();
    let said = daemon.cli(&["maintenance", "web", "on", "--queue", "1m"]);
    assert_eq!(said.code, 0, "{said:?}");
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let http = daemon.http;
            std::thread::spawn(move || get(http, "/", &[]).map(|answer| answer.status))
        })
        .collect();
    std::thread::sleep(Duration::from_millis(700));
    assert!(waiting.iter().all(|visitor| !visitor.is_finished()), "all wait");
    assert_eq!(daemon.cli(&["maintenance", "web", "off"]).code, 0);
    for visitor in waiting {
        assert_eq!(visitor.join().unwrap().unwrap(), 200, "nobody noticed");
    }
    // Who waits for too long is told.
    assert_eq!(daemon.cli(&["maintenance", "web", "on", "--queue", "300ms"]).code, 0);
    let begun = Instant::now();
    assert_eq!(get(daemon.http, "/", &[]).unwrap().status, 503);
    assert!(begun.elapsed() >= Duration::from_millis(300));
}
