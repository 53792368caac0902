//! Promotion after promotion under constant load from clients that others wrote, over connections
//! that are kept and connections that are new, in HTTP/1.1 and HTTP/2: no request fails.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::clients::{Wrk, h2load};
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

fn no_promotion_is_noticed(runs: Runs, count: u32) {
    let Some(daemon) = Daemon::begin(runs, PLAN) else { return };
    let kept = Wrk::begin(&daemon, "kept", &[]);
    let new = Wrk::begin(&daemon, "new", &["Connection: close"]);
    let stop = AtomicBool::new(false);
    let begun = Instant::now();
    let told = std::thread::scope(|scope| {
        let two = scope.spawn(|| h2load(daemon.http, &[], &stop));
        let one = scope.spawn(|| h2load(daemon.http, &["--h1"], &stop));
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
