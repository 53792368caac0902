//! The verdict on the running daemon: how soon a bad canary is taken back, that a healthy one never is,
//! what it is compared with, and that a recording judges as the daemon did.
//!
//! Each story asks for little, because machines are busy: that the canary goes back, for the right reason, and
//! in time by a generous measure. `SWITCHBACK_MEASURE=20` takes as many rollouts of each fault at the rate that
//! the promise is for, and prints medians; `SWITCHBACK_ROLLOUTS=100` is the number of healthy ones.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::daemon::{Daemon, LONG, Runs};
use crate::support::load::Load;

fn number(variable: &str, otherwise: usize) -> usize {
    let set = std::env::var(variable).ok();
    set.map_or(otherwise, |text| text.parse().expect("a number"))
}

/// A canary that is to be taken back.
struct Bad {
    fault: &'static str,
    /// What stable does.
    stable: &'static str,
    /// Requests a second: those of the story, and those that the promise is for.
    rates: [u32; 2],
    /// Part of the sentence that says why.
    because: &'static str,
    /// Seconds, on a machine that has other things to do.
    generous: f64,
}

const DEAD: Bad = Bad {
    fault: "errors:1",
    stable: "none",
    rates: [300, 1_000],
    because: "the canary is dead",
    generous: 20.0,
};
const DEAD_FOR_FEW: Bad = Bad {
    fault: "errors:1",
    stable: "none",
    rates: [20, 20],
    because: "the canary is dead",
    generous: 40.0,
};
const FAILS_NOW_AND_THEN: Bad = Bad {
    fault: "errors:0.05",
    stable: "errors:0.001",
    rates: [500, 1_000],
    because: "errors",
    generous: 50.0,
};
const SLOWER_BY_HALF: Bad =
    Bad { fault: "slow:1.5", stable: "none", rates: [500, 1_000], because: "p95", generous: 60.0 };

/// Deploys a fault, and takes the seconds from the first bad answer, or from the step's beginning where
/// slowness is no bad answer or stable fails as well, until the canary has no weight.
fn seconds_to_zero(daemon: &Daemon, load: &Load, bad: &Bad, name: &str) -> f64 {
    let number = daemon.service()["rollout"].as_u64().unwrap_or(0) + 1;
    let failed = load.failed().len();
    let said = daemon.deploy(bad.fault, &["--detach", "--env", name]);
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
    let cause = record["cause"].as_str().unwrap_or_default();
    assert!(cause.contains(bad.because), "{record:#}");
    let failed = load.failed().get(failed).filter(|_| bad.stable == "none").map(|(at, _)| *at);
    let first = failed.unwrap_or(begun);
    ended.saturating_duration_since(first).as_secs_f64()
}

/// Rollouts of a fault: none but these are promised any speed, and only in the median.
fn is_taken_back_soon(runs: Runs, bad: &Bad) {
    // The shield would spare visitors the failures that are counted here.
    let plan = "bake = \"60s\"\nbake_max = \"120s\"\nshield = \"off\"\nkeep_warm = \"0s\"\n";
    let Some(daemon) = Daemon::begin(runs, plan) else { return };
    if bad.stable != "none" {
        daemon.deploy_until(bad.stable, &[], "baking");
        assert_eq!(daemon.cli(&["promote", "web", "--full"]).code, 0);
        daemon.wait("a stable that fails", |web| web["phase"] == "promoted");
    }
    let times = number("SWITCHBACK_MEASURE", 1);
    let rate = bad.rates[usize::from(times > 1)];
    let load = Load::begin(daemon.http, rate);
    let history = u64::from(rate) * 6;
    daemon.until("some history", || load.asked() > history);
    let begun = (Instant::now(), load.asked());
    let mut seconds: Vec<f64> = (0..times)
        .map(|attempt| {
            // Each with a name of its own: the same again would begin with less evidence.
            seconds_to_zero(&daemon, &load, bad, &format!("SAMPLE_NAME={attempt}"))
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    let at = |q: f64| seconds[((seconds.len() as f64 * q) as usize).min(seconds.len() - 1)];
    let asked = (load.asked() - begun.1) as f64 / begun.0.elapsed().as_secs_f64();
    eprintln!(
        "{} at {asked:.0}/s of {runs:?}: median {:.2} s, p95 {:.2} s, most {:.2} s, of {times}",
        bad.fault,
        at(0.5),
        at(0.95),
        at(1.0)
    );
    assert!(at(0.5) < bad.generous, "{seconds:?}");
}

#[test]
fn a_dead_process_is_taken_back() {
    is_taken_back_soon(Runs::Processes, &DEAD);
}

#[test]
fn a_dead_process_with_few_visitors_is_taken_back() {
    is_taken_back_soon(Runs::Processes, &DEAD_FOR_FEW);
}

#[test]
fn a_process_that_fails_now_and_then_is_taken_back() {
    is_taken_back_soon(Runs::Processes, &FAILS_NOW_AND_THEN);
}

#[test]
fn a_process_that_takes_half_as_long_again_is_taken_back() {
    is_taken_back_soon(Runs::Processes, &SLOWER_BY_HALF);
}

#[test]
fn a_dead_container_is_taken_back() {
    is_taken_back_soon(Runs::Containers, &DEAD);
}

#[test]
#[ignore = "for the numbers: what containers add to processes is seen with the first"]
fn a_container_that_is_measured_is_taken_back() {
    for bad in [DEAD_FOR_FEW, FAILS_NOW_AND_THEN, SLOWER_BY_HALF] {
        is_taken_back_soon(Runs::Containers, &bad);
    }
}

/// The default plan and limits, and a canary that is as good as stable.
fn a_healthy_one_goes_up(runs: Runs) {
    let Some(daemon) = Daemon::begin(runs, "keep_warm = \"0s\"\n") else { return };
    let load = Load::begin(daemon.http, 1_000);
    daemon.until("some history", || load.asked() > 10_000);
    for attempt in 0..3 {
        let begun = Instant::now();
        daemon.deploy_until("none", &["--env", &format!("SAMPLE_NAME={attempt}")], "baking");
        let mut steps = Vec::new();
        while daemon.service()["phase"] == "baking" {
            let web = daemon.service();
            let sentence = web["verdict"]["sentence"].as_str().unwrap_or_default().to_owned();
            assert!(begun.elapsed() < Duration::from_secs(400), "it stays: {sentence}");
            if web["step"].as_u64() != steps.last().map(|(step, _): &(u64, f64)| *step) {
                steps.push((web["step"].as_u64().unwrap_or(0), begun.elapsed().as_secs_f64()));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        daemon.wait("the promotion", |web| web["phase"] == "promoted");
        let took = begun.elapsed().as_secs_f64();
        eprintln!("healthy, 1,000/s, {runs:?}: promoted after {took:.1} s; steps from {steps:.1?}");
    }
    load.end_well();
}

#[test]
#[ignore = "takes seven minutes of a quiet machine"]
fn a_healthy_process_goes_up_in_minutes() {
    a_healthy_one_goes_up(Runs::Processes);
}

#[test]
#[ignore = "takes seven minutes of a quiet machine"]
fn a_healthy_container_goes_up_in_minutes() {
    a_healthy_one_goes_up(Runs::Containers);
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
    nothing_is_taken_back_through_incidents(Runs::Containers, number("SWITCHBACK_ROLLOUTS", 2));
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
