//! Rules of other tools on the same faults, in a world that is kind to them: their metrics are perfect
//! and come without delay.
//!
//! Flagger asks once a minute whether the last minute's success rate was 99 % at least, counts failed
//! checks over the whole rollout, and goes back with the check after the one that reached its
//! threshold (5 in its documentation, 1 in its code). Argo Rollouts measures once a minute, and fails
//! at the first measurement below 99 % where `failureLimit` is 0, its default; its documentation's
//! example asks for 95 % every five minutes and goes back at the fourth failure.

use crate::Effort;
use crate::analysis::criteria::Criteria;
use crate::report::{Picture, Table};
use crate::simulation::{Behaviour, Dice, HEALTHY, Plan, median_and_p95};

const MINUTES: usize = 30;

/// Requests and errors of the canary, minute by minute, at 5, 25 and 50 % for ten minutes each.
fn minutes(rps: f64, rate: f64, dice: &mut Dice) -> Vec<(u64, u64)> {
    let minute = |minute: usize| {
        let mean = rps * 60.0 * [0.05, 0.25, 0.5][minute / 10];
        let errors = dice.poisson(mean * rate);
        (errors + dice.poisson(mean * (1.0 - rate)), errors)
    };
    (0..MINUTES).map(minute).collect()
}

fn is_below(success: f64, requests: u64, errors: u64) -> bool {
    requests > 0 && errors as f64 > (1.0 - success) * requests as f64
}

/// Seconds until the rule goes back: so many failed checks, one every so many minutes, and whether it
/// waits for the check after.
fn rule(
    minutes: &[(u64, u64)],
    success: f64,
    every: usize,
    failures: usize,
    waits: bool,
) -> Option<f64> {
    let windows = minutes.chunks(every).map(|window| {
        window.iter().fold((0, 0), |sum, minute| (sum.0 + minute.0, sum.1 + minute.1))
    });
    let mut failed = 0;
    for (index, (requests, errors)) in windows.enumerate() {
        failed += usize::from(is_below(success, requests, errors));
        if failed >= failures {
            let checks = index + 1 + usize::from(waits);
            return Some((checks * every * 60) as f64).filter(|at| *at <= 1_800.0);
        }
    }
    None
}

/// The median of what was seen in more than half of all runs.
fn median(times: &[Option<f64>]) -> Option<f64> {
    let seen: Vec<f64> = times.iter().map(|time| time.unwrap_or(f64::INFINITY)).collect();
    Some(median_and_p95(seen).0).filter(|median| median.is_finite())
}

fn told(times: &[Option<f64>]) -> String {
    let seen = times.iter().flatten().count() as f64 / times.len() as f64;
    match median(times) {
        Some(median) => format!("{median:.0} s"),
        None if seen > 0.0 => format!("({:.0} %)", seen * 100.0),
        None => "never".to_owned(),
    }
}

/// How long until a fault is seen, and how often a healthy canary is taken back, by whose rules.
pub fn times_to_detect(effort: Effort) -> Table {
    let (mut rows, mut groups) = (Vec::new(), Vec::new());
    let cases = [
        (100.0, 0.001, 0.02),
        (100.0, 0.001, 0.05),
        (100.0, 0.001, 1.0),
        (1000.0, 0.001, 0.005),
        (1000.0, 0.001, 0.01),
        (1000.0, 0.001, 0.05),
        (1000.0, 0.001, 1.0),
        (100.0, 0.008, 0.008),
        (1000.0, 0.012, 0.012),
    ];
    for (rps, stable, canary) in cases {
        let mut dice = Dice::new(17);
        let runs = effort.runs(400);
        let all: Vec<Vec<(u64, u64)>> =
            (0..runs).map(|_| minutes(rps, canary, &mut dice)).collect();
        let by = |success, every, failures, waits| -> Vec<Option<f64>> {
            all.iter().map(|minutes| rule(minutes, success, every, failures, waits)).collect()
        };
        let peers = [
            by(0.99, 1, 5, true),
            by(0.99, 1, 1, true),
            by(0.99, 1, 1, false),
            by(0.95, 5, 4, false),
        ];
        let story = move |_: f64, is_canary: bool| Behaviour {
            errors: if is_canary { canary } else { stable },
            ..HEALTHY
        };
        // Long enough for every fault here; a healthy canary needs no more to show that it stays.
        let until = if rps > 500.0 { 300.0 } else { 400.0 };
        let plan = Plan { rps, steps: &[5.0], bake: 1e9, until, criteria: Criteria::default() };
        let ours: Vec<Option<f64>> = (0..effort.runs(if rps > 500.0 { 40 } else { 100 }))
            .map(|seed| plan.play(&story, seed + 1))
            .map(|end| end.failed().then_some(end.at))
            .collect();
        let what = if stable < canary {
            format!("{:.1} → {:.1} %, {rps}/s", stable * 100.0, canary * 100.0)
        } else {
            format!("healthy at {:.1} %, {rps}/s", stable * 100.0)
        };
        let cells = std::iter::once(&ours).chain(&peers).map(|times| told(times));
        rows.push(std::iter::once(what.clone()).chain(cells).collect());
        groups.push((
            what,
            std::iter::once(&ours).chain(&peers).map(|times| median(times)).collect(),
        ));
    }
    Table {
        name: "peers",
        title: "Errors: how long until the canary is taken back, by whose rules",
        note: "At 5 % (theirs: 5, 25 and 50 %, ten minutes each), median. In brackets the part of rollouts \
            in which it happens at all, where that is less than half. The last two rows are healthy: to take \
            those back is a false alarm. Their metrics are taken to be perfect and without delay."
            .to_owned(),
        head: vec![
            "stable → canary",
            "ours",
            "Flagger 99 %, 5 checks",
            "Flagger 99 %, 1 check",
            "Argo 99 %, limit 0",
            "Argo 95 %, as documented",
        ],
        rows,
        picture: Picture {
            axis: "seconds (median)",
            is_log: true,
            series: vec!["ours", "Flagger, 5 checks", "Flagger, 1 check", "Argo, limit 0", "Argo, documented"],
            groups,
            bound: None,
        },
    }
}
