//! The verdict on the running daemon: how soon a bad canary is taken back, that a healthy one never is,
//! what it is compared with, and that a recording judges as the daemon did.
//!
//! Each story asks for little, because machines are busy. `SWITCHBACK_MEASURE=20` takes as many
//! rollouts of each fault and prints medians; `SWITCHBACK_ROLLOUTS=100` is the number of healthy ones.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::daemon::{Daemon, LONG, Runs};
use crate::support::load::Load;

fn number(variable: &str, otherwise: usize) -> usize {
    let set = std::env::var(variable).ok();
    set.map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Waits for a service's history, deploys a fault, and takes the seconds from the first bad answer, or
/// from the step's beginning where slowness is no bad answer, until the canary has no weight.
fn seconds_to_zero(daemon: &Daemon, load: &Load, fault: &str, name: &str) -> f64 {
    let number = daemon.service()["rollout"].as_u64().unwrap_or(0) + 1;
    let failed = load.failed().len();
    let said = daemon.deploy(fault, &["--detach", "--env", name]);
    assert_eq!(said.code, 0, "{said:?}");
    let weight = |web: &Value| web["weights"]["canary"].as_f64() > Some(0.0);
    daemon.wait("the first step", |web| web["rollout"] == number && weight(web));
    let begun = Instant::now();
    let web = daemon.wait("its end", |web| !weight(web));
    let ended = Instant::now();
    assert_eq!(web["rollout"], number);
    daemon.wait("the rollback", |web| web["phase"] == "rolled_back");
    let record = daemon.rollout(number);
    assert_eq!(record["outcome"], "rolled_back", "{record:#}");
    let first = load.failed().get(failed).map_or(begun, |(at, _)| *at);
    ended.saturating_duration_since(first).as_secs_f64()
}

/// Rollouts of a fault: none but these are promised any speed, and only in the median.
fn is_taken_back_soon(runs: Runs, fault: &str, rate: u32, generous: f64) {
    let plan = "bake = \"60s\"\nbake_max = \"120s\"\n";
    let Some(daemon) = Daemon::begin(runs, plan) else { return };
    let load = Load::begin(daemon.http, rate);
    let history = u64::from(rate) * 6;
    daemon.until("some history", || load.asked() > history);
    let times = number("SWITCHBACK_MEASURE", 1);
    let mut seconds: Vec<f64> = (0..times)
        .map(|attempt| {
            // Each with a name of its own: the same again would begin with less evidence.
            seconds_to_zero(&daemon, &load, fault, &format!("SAMPLE_NAME={attempt}"))
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    let at = |q: f64| seconds[((seconds.len() as f64 * q) as usize).min(seconds.len() - 1)];
    eprintln!(
        "{fault} at {rate}/s of {runs:?}: median {:.2} s, p95 {:.2} s, of {times}",
        at(0.5),
        at(0.95)
    );
    assert!(at(0.5) < generous, "{seconds:?}");
}

#[test]
fn a_dead_process_is_taken_back() {
    is_taken_back_soon(Runs::Processes, "errors:1", 500, 20.0);
}

#[test]
fn a_dead_process_with_few_visitors_is_taken_back() {
    is_taken_back_soon(Runs::Processes, "errors:1", 20, 40.0);
}

#[test]
fn a_dead_container_is_taken_back() {
    is_taken_back_soon(Runs::Containers, "errors:1", 200, 20.0);
}

#[test]
fn a_process_that_fails_now_and_then_is_taken_back() {
    is_taken_back_soon(Runs::Processes, "errors:0.05", 500, 50.0);
}

#[test]
fn a_process_that_takes_half_as_long_again_is_taken_back() {
    is_taken_back_soon(Runs::Processes, "slow:1.5", 500, 60.0);
}

/// Healthy rollouts while, again and again, one request in ten fails on both sides.
fn nothing_is_taken_back_through_incidents(runs: Runs, rollouts: usize) {
    let plan = "steps = \"20% 50% 100%\"\nbake = \"400ms\"\nbake_max = \"900ms\"\n\
                on_inconclusive = \"advance\"\nkeep_warm = \"1s\"\n";
    let Some(daemon) = Daemon::begin(runs, plan) else { return };
    let load = Load::begin(daemon.http, 200);
    daemon.until("some history", || load.asked() > 600);
    let over = AtomicBool::new(false);
    let (mut promoted, mut held) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for lasts in [true, false] {
                    load.incident(lasts);
                    std::thread::sleep(Duration::from_millis(1_500));
                }
            }
            load.incident(false);
        });
        for number in 2..rollouts as u64 + 2 {
            let (status, answer) = daemon.post("deploy", "{}");
            assert_eq!(status, 202, "{answer}");
            loop {
                let web = daemon.wait("an end or a pause", |web| {
                    web["rollout"] == number
                        && ["promoted", "rolled_back", "paused"].iter().any(|p| web["phase"] == *p)
                });
                if web["phase"] != "paused" {
                    break;
                }
                // Both sides fail together: it holds and asks, and a person says to go on.
                held += 1;
                let _perhaps_it_went_on = daemon.post("promote", "{}");
            }
            let record = daemon.rollout(number);
            assert_eq!(record["outcome"], "promoted", "rollout {number}: {record:#}");
            promoted += 1;
        }
        over.store(true, Ordering::Relaxed);
    });
    let (asked, failed) = load.end();
    eprintln!(
        "{promoted} healthy rollouts of {runs:?} promoted, {held} holds, {} of {asked} requests failed \
         in incidents",
        failed.len()
    );
    assert!(failed.len() as u64 > asked / 100, "there was an incident");
}

#[test]
fn healthy_processes_go_up_through_incidents() {
    nothing_is_taken_back_through_incidents(Runs::Processes, number("SWITCHBACK_ROLLOUTS", 6));
}

#[test]
fn healthy_containers_go_up_through_incidents() {
    let rollouts = number("SWITCHBACK_ROLLOUTS", 6).div_ceil(3);
    nothing_is_taken_back_through_incidents(Runs::Containers, rollouts);
}

#[test]
fn a_recording_is_judged_as_the_rollout_was() {
    let plan = format!("steps = \"50% 100%\"\nrecord = true\n{LONG}");
    let daemon = Daemon::begin(Runs::Processes, &plan).unwrap();
    let load = Load::begin(daemon.http, 200);
    daemon.until("some history", || load.asked() > 300);
    let said = daemon.deploy("errors:0.3", &[]);
    assert_eq!(said.code, 3, "{said:?}");
    let cause = said.last()["cause"].as_str().unwrap().to_owned();
    let recording = daemon.state().join("recordings/web/2.jsonl");
    daemon.until("the last line", || {
        std::fs::read_to_string(&recording).is_ok_and(|text| text.contains("\"ended\""))
    });
    let analyze = |words: &[&str]| {
        let mut verb = crate::support::daemon::program();
        let output = verb.arg("analyze").arg(&recording).args(words).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, err) = analyze(&[]);
    assert_eq!(code, Some(3), "{err}");
    assert!(err.contains(&cause), "live: {cause}\nreplayed: {err}");
    assert!(out.starts_with("TIME") && out.contains("fail"), "{out}");
    let (code, out, _) = analyze(&["-o", "json"]);
    let last: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!((code, last["verdict"]["result"].as_str()), (Some(3), Some("fail")));
    assert_eq!(last["verdict"]["sentence"], cause);
    // By limits that ask for latency alone, nothing is wrong with it.
    let (code, _, err) = analyze(&["--plan", "p95 > 3x"]);
    assert_eq!(code, Some(0), "{err}");

    // The same revision again begins with half of the evidence.
    let said = daemon.deploy("errors:0.3", &[]);
    assert_eq!(said.code, 3, "{said:?}");
    let first = std::fs::read_to_string(daemon.state().join("recordings/web/3.jsonl")).unwrap();
    let first: Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
    assert_eq!(first["attempt"], 1, "{first}");
    load.end();
}

#[test]
fn stable_keeps_a_part_at_the_last_step() {
    let plan = format!("steps = \"50% 100%\"\nhold_back = \"10%\"\n{LONG}");
    let daemon = Daemon::begin(Runs::Processes, &plan).unwrap();
    let load = Load::begin(daemon.http, 100);
    daemon.deploy_until("none", &[], "baking");
    assert_eq!(daemon.cli(&["promote", "web"]).code, 0);
    let web = daemon.wait("the last step", |web| web["step"] == 2);
    assert_eq!(web["weights"]["canary"], 90.0, "{web:#}");
    daemon.wait("answers of both", |web| {
        ["stable", "canary"].iter().all(|s| web[*s]["traffic"]["requests"].as_u64() > Some(5))
    });
    assert_eq!(daemon.cli(&["promote", "web"]).code, 0);
    daemon.wait("the promotion", |web| {
        web["phase"] == "promoted" && web["weights"]["stable"] == 100.0
    });
    load.end_well();
}

#[test]
fn a_dry_run_says_what_steps_take() {
    let daemon = Daemon::begin(Runs::Processes, LONG).unwrap();
    let load = Load::begin(daemon.http, 200);
    daemon.until("some history", || load.asked() > 600);
    let said = daemon.cli(&["deploy", "web", "--dry-run"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stdout.contains("catches errors from"), "{said:?}");
    let said = daemon.cli(&["deploy", "web", "--dry-run", "-o", "json"]);
    let forecast = said.last()["forecast"].clone();
    assert_eq!(forecast.as_array().map(Vec::len), Some(4), "{said:?}");
    let requests = forecast[0]["requests"].as_u64().unwrap();
    assert!((300..20_000).contains(&requests), "{forecast}");
    assert!(forecast[0]["catches_slower"].as_f64() > Some(1.2), "{forecast}");
    assert!(forecast[3]["requests"].is_null(), "{forecast}");
    assert_eq!(daemon.service()["rollout"], 1, "nothing was done");
    load.end_well();
}
