//! Promotion after promotion under constant load from clients that others wrote, over connections
//! that are kept and connections that are new, in HTTP/1.1 and HTTP/2: no request fails.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::client;
use crate::support::daemon::{Daemon, Runs};

/// How many promotions, unless `SWITCHBACK_PROMOTIONS` says otherwise.
const PROMOTIONS: u32 = 20;
/// Every revision that is replaced is drained and stopped at once.
const PLAN: &str = "steps = \"50% 100%\"\nbake = \"100ms\"\nbake_max = \"150ms\"\n\
                    on_inconclusive = \"advance\"\nkeep_warm = \"0s\"\n";

fn promotions() -> u32 {
    let set = std::env::var("SWITCHBACK_PROMOTIONS").ok();
    set.map_or(PROMOTIONS, |text| text.parse().expect("SWITCHBACK_PROMOTIONS is a number"))
}

/// wrk, slowed down to a bounded rate, until it is ended.
pub(crate) struct Wrk(Child);

impl Wrk {
    pub(crate) fn begin(daemon: &Daemon, name: &str, fields: &[&str]) -> Option<Self> {
        let script = daemon.home().join(format!("{name}.lua"));
        // Each of 4 connections waits 25 ms before it asks: 160 requests/s at most.
        std::fs::write(&script, "function delay() return 25 end\n").unwrap();
        let mut wrk = Command::new(client("wrk")?);
        wrk.args(["-t1", "-c4", "-d2h", "--timeout", "20s", "-s"]).arg(script);
        for field in fields {
            wrk.args(["-H", field]);
        }
        wrk.arg(format!("http://{}/", daemon.http));
        let child = wrk.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Some(Self(child))
    }

    /// How many requests there were, and what failed.
    pub(crate) fn end(self) -> (u64, Vec<String>) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let output = self.0.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let requests = text.lines().find_map(|line| line.trim().split_once(" requests in"));
        let requests = requests.and_then(|(count, _)| count.parse().ok());
        let failed = |line: &&str| line.contains("Socket errors") || line.contains("Non-2xx");
        let failed = text.lines().filter(failed).map(str::to_owned).collect();
        (requests.unwrap_or_else(|| panic!("wrk said: {output:?}")), failed)
    }
}

/// h2load in short runs, until it is told to end: each run is a set of new connections.
fn h2load(daemon: &Daemon, protocol: &[&str], stop: &AtomicBool) -> (u64, Vec<String>) {
    let (mut requests, mut failed) = (0, Vec::new());
    let Some(program) = client("h2load") else { return (0, failed) };
    while !stop.load(Ordering::Relaxed) {
        let output = Command::new(&program)
            .args(["-n300", "-c2", "-m4", "--rps=75"])
            .args(protocol)
            .arg(format!("http://{}/", daemon.http))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find(|line| line.starts_with("requests:"));
        let line = line.unwrap_or_else(|| panic!("h2load said: {output:?}"));
        let statuses = text.lines().find(|line| line.starts_with("status codes:"));
        requests += 300;
        let well = line.contains("300 succeeded, 0 failed, 0 errored, 0 timeout");
        if !(well && statuses.is_some_and(|codes| codes.contains("300 2xx"))) {
            failed.push(format!("{line}; {statuses:?}"));
        }
    }
    (requests, failed)
}

fn no_promotion_is_noticed(runs: Runs, count: u32) {
    let Some(daemon) = Daemon::begin(runs, PLAN) else { return };
    let kept = Wrk::begin(&daemon, "kept", &[]);
    let new = Wrk::begin(&daemon, "new", &["Connection: close"]);
    let stop = AtomicBool::new(false);
    let begun = Instant::now();
    let told = std::thread::scope(|scope| {
        let two = scope.spawn(|| h2load(&daemon, &[], &stop));
        let one = scope.spawn(|| h2load(&daemon, &["--h1"], &stop));
        let promoted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            std::thread::sleep(Duration::from_millis(500));
            for number in 2..count + 2 {
                let (status, answer) = daemon.post("deploy", "{}");
                assert_eq!(status, 202, "{answer}");
                daemon.wait("the canary", |web| {
                    web["rollout"] == number && web["weights"]["canary"].as_f64() > Some(0.0)
                        || web["stable"]["revision"] == number
                });
                if number % 2 == 0 {
                    // Every other one at once, from whatever step it is at.
                    let _perhaps_promoted_already = daemon.post("promote", "{\"full\": true}");
                }
                daemon.wait("the promotion", |web| {
                    web["phase"] == "promoted" && web["stable"]["revision"] == number
                });
            }
        }));
        stop.store(true, Ordering::Relaxed);
        let told = [
            ("kept connections", kept.map(Wrk::end)),
            ("new connections", new.map(Wrk::end)),
            ("HTTP/2", two.join().ok()),
            ("HTTP/1.1", one.join().ok()),
        ];
        if let Err(panic) = promoted {
            std::panic::resume_unwind(panic);
        }
        told
    });
    eprintln!("{count} promotions of {runs:?} in {:?}", begun.elapsed());
    for (name, (requests, failed)) in
        told.iter().filter_map(|(name, all)| Some((name, all.as_ref()?)))
    {
        eprintln!("{name}: {requests} requests, failed: {failed:?}");
    }
    for (name, all) in told {
        let failed = all.map(|(_, failed)| failed).unwrap_or_default();
        assert!(failed.is_empty(), "{name}: {failed:?}");
    }
    daemon.until("only the last one runs", || daemon.running().len() == 1);
}

#[test]
fn no_promotion_of_processes_is_noticed() {
    no_promotion_is_noticed(Runs::Processes, promotions());
}

#[test]
fn no_promotion_of_containers_is_noticed() {
    no_promotion_is_noticed(Runs::Containers, promotions().div_ceil(4));
}
