//! Rules of other tools on the same faults, in a world that is kind to them: their metrics are perfect
//! and come without delay.
//!
//! Flagger asks once a minute whether the last minute's success rate was 99 % at least, counts failed
//! checks over the whole rollout, and goes back with the check after the one that reached its
//! threshold (5 in its documentation, 1 in its code). Argo Rollouts measures once a minute, and fails
//! at the first measurement below 99 % where `failureLimit` is 0, its default; its documentation's
//! example asks for 95 % every five minutes and goes back at the fourth failure. Kayenta takes the error
//! rates of each minute, of the canary and of a baseline of the same size, and calls the canary worse when
//! the 98 % confidence interval of the shift between them (Mann-Whitney, Hodges-Lehmann) lies above a
//! quarter of the estimate; it is asked once, after half an hour, or every ten minutes.

use crate::Effort;
use crate::analysis::criteria::Criteria;
use crate::report::{Picture, Table};
use crate::simulation::{Behaviour, Dice, HEALTHY, Plan, median_and_p95};

const MINUTES: usize = 30;

/// A rate, minute by minute.
type Rate = fn(usize) -> f64;

/// Requests and errors of one side in a minute.
type Minute = (u64, u64);

/// What a canary had, minute by minute, at 5, 25 and 50 % for ten minutes each, and beside it a baseline of
/// the same size.
fn minutes(rps: f64, rates: [Rate; 2], dice: &mut Dice) -> Vec<[Minute; 2]> {
    let minute = |minute: usize| {
        let mean = rps * 60.0 * [0.05, 0.25, 0.5][minute / 10];
        rates.map(|rate| {
            let errors = dice.poisson(mean * rate(minute));
            (errors + dice.poisson(mean * (1.0 - rate(minute))), errors)
        })
    };
    (0..MINUTES).map(minute).collect()
}

/// Whether Kayenta calls the canary's error rate high.
fn is_high(minutes: &[[Minute; 2]]) -> bool {
    let rates = |side: usize| -> Vec<f64> {
        let asked = minutes.iter().map(|minute| minute[side]).filter(|(requests, _)| *requests > 0);
        asked.map(|(requests, errors)| errors as f64 / requests as f64).collect()
    };
    let (stable, canary) = (rates(0), rates(1));
    let mut shifts: Vec<f64> =
        canary.iter().flat_map(|c| stable.iter().map(move |b| c - b)).collect();
    shifts.sort_by(f64::total_cmp);
    let (n, m) = (canary.len() as f64, stable.len() as f64);
    // The ends of the interval are order statistics of the shifts: normal approximation, 2.326 for 98 %.
    let end = n * m / 2.0 - 2.326 * (n * m * (n + m + 1.0) / 12.0).sqrt();
    let lower = (end >= 0.0).then(|| shifts.get(end as usize).copied()).flatten();
    let middle = shifts.get(shifts.len() / 2).copied().unwrap_or(0.0);
    lower.is_some_and(|lower| lower > 0.25 * middle.abs())
}

/// Seconds until Kayenta calls it so, asked every so many minutes.
fn kayenta(minutes: &[[Minute; 2]], every: usize) -> Option<f64> {
    let looks = (every..=MINUTES).step_by(every);
    let mut high = looks.filter(|until| is_high(&minutes[..*until]));
    high.next().map(|until| (until * 60) as f64)
}

fn is_below(success: f64, requests: u64, errors: u64) -> bool {
    requests > 0 && errors as f64 > (1.0 - success) * requests as f64
}

/// Seconds until the rule goes back: so many failed checks, one every so many minutes, and whether it
/// waits for the check after.
fn rule(
    minutes: &[[Minute; 2]],
    success: f64,
    every: usize,
    failures: usize,
    waits: bool,
) -> Option<f64> {
    let windows = minutes.chunks(every).map(|window| {
        window.iter().fold((0, 0), |sum, [_, (all, bad)]| (sum.0 + all, sum.1 + bad))
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

/// Whose rules, after ours.
const PEERS: [&str; 7] = [
    "ours",
    "Flagger 99 %, 5 checks",
    "Flagger 99 %, 1 check",
    "Argo 99 %, limit 0",
    "Argo 95 %, as documented",
    "Kayenta, once",
    "Kayenta, every 10 min",
];

/// When each goes back, rollout by rollout; ours first.
fn all(
    effort: Effort,
    rps: f64,
    rates: [Rate; 2],
    until: f64,
    ours: u64,
) -> [Vec<Option<f64>>; PEERS.len()] {
    let mut dice = Dice::new(17);
    let rollouts: Vec<_> = (0..effort.runs(400)).map(|_| minutes(rps, rates, &mut dice)).collect();
    let by = |success, every, failures, waits| -> Vec<Option<f64>> {
        rollouts.iter().map(|minutes| rule(minutes, success, every, failures, waits)).collect()
    };
    let judged = |every| rollouts.iter().map(|minutes| kayenta(minutes, every)).collect();
    let story = move |at: f64, is_canary: bool| {
        let rate = rates[usize::from(is_canary)];
        // History is of the time before the first minute.
        let minute = if at < 0.0 { MINUTES - 1 } else { (at / 60.0) as usize };
        Behaviour { errors: rate(minute.min(MINUTES - 1)), ..HEALTHY }
    };
    let plan = Plan { rps, steps: &[5.0], bake: 1e9, until, criteria: Criteria::default() };
    let ours = (0..effort.runs(ours))
        .map(|seed| plan.play(&story, seed + 1))
        .map(|end| end.failed().then_some(end.at))
        .collect();
    [
        ours,
        by(0.99, 1, 5, true),
        by(0.99, 1, 1, true),
        by(0.99, 1, 1, false),
        by(0.95, 5, 4, false),
        judged(30),
        judged(10),
    ]
}

fn picture(groups: Vec<(String, Vec<Option<f64>>)>, axis: &'static str, is_log: bool) -> Picture {
    let bound = (!is_log).then_some((0.01, "α"));
    Picture { axis, is_log, series: PEERS.to_vec(), groups, bound }
}

fn head(first: &'static str) -> Vec<&'static str> {
    std::iter::once(first).chain(PEERS).collect()
}

/// How long until a fault is seen, by whose rules.
pub fn times_to_detect(effort: Effort) -> Table {
    let (mut rows, mut groups) = (Vec::new(), Vec::new());
    let low: Rate = |_| 0.001;
    let cases: [(f64, Rate, f64, u64); 16] = [
        (100.0, |_| 0.005, 1_800.0, 60),
        (100.0, |_| 0.01, 900.0, 60),
        (100.0, |_| 0.02, 400.0, 60),
        (100.0, |_| 0.05, 200.0, 100),
        (100.0, |_| 0.5, 60.0, 100),
        (100.0, |_| 1.0, 60.0, 100),
        (1_000.0, |_| 0.003, 1_200.0, 20),
        (1_000.0, |_| 0.005, 400.0, 40),
        (1_000.0, |_| 0.01, 200.0, 40),
        (1_000.0, |_| 0.02, 100.0, 40),
        (1_000.0, |_| 0.05, 60.0, 60),
        (1_000.0, |_| 1.0, 60.0, 60),
        (10_000.0, |_| 0.003, 300.0, 16),
        (10_000.0, |_| 0.005, 100.0, 20),
        (10_000.0, |_| 0.01, 60.0, 20),
        (10_000.0, |_| 0.05, 60.0, 20),
    ];
    for (rps, canary, until, ours) in cases {
        let times = all(effort, rps, [low, canary], until, ours);
        let what = format!("0.1 → {:.1} %, {rps}/s", canary(0) * 100.0);
        rows.push(std::iter::once(what.clone()).chain(times.iter().map(|t| told(t))).collect());
        groups.push((what, times.iter().map(|times| median(times)).collect()));
    }
    Table {
        name: "peers",
        title: "Errors: how long until the canary is taken back, by whose rules",
        note: "At 5 % (theirs: 5, 25 and 50 %, ten minutes each), median. In brackets the part of rollouts \
            in which it happens at all, where that is less than half. Their metrics are taken to be perfect and \
            without delay. Where a rule that looks once a minute is sooner, the next table says at what price."
            .to_owned(),
        head: head("stable → canary"),
        rows,
        picture: picture(groups, "seconds (median)", true),
    }
}

/// How often a canary that equals stable is taken back within half an hour, by whose rules.
pub fn false_alarms(effort: Effort) -> Table {
    let (mut rows, mut groups) = (Vec::new(), Vec::new());
    let cases: [(&str, f64, Rate, u64); 7] = [
        ("0.1 %, 100/s", 100.0, |_| 0.001, 100),
        ("0.5 %, 100/s", 100.0, |_| 0.005, 100),
        ("0.8 %, 100/s", 100.0, |_| 0.008, 100),
        ("0.8 %, 1000/s", 1_000.0, |_| 0.008, 20),
        ("1.2 %, 100/s", 100.0, |_| 0.012, 100),
        (
            "0.1 %, 2 minutes of 10 % on both, 100/s",
            100.0,
            |minute| if (12..14).contains(&minute) { 0.1 } else { 0.001 },
            100,
        ),
        (
            "0.1 %, 6 minutes of 5 % on both, 100/s",
            100.0,
            |minute| if (12..18).contains(&minute) { 0.05 } else { 0.001 },
            100,
        ),
    ];
    for (what, rps, rate, ours) in cases {
        let times = all(effort, rps, [rate, rate], 1_800.0, ours);
        let parts = times.map(|t| t.iter().flatten().count() as f64 / t.len() as f64);
        let told = parts.iter().map(|part| format!("{part:.3}"));
        rows.push(std::iter::once(what.to_owned()).chain(told).collect());
        groups.push((what.to_owned(), parts.map(Some).to_vec()));
    }
    Table {
        name: "peers-false-alarms",
        title: "Errors: how often an equal canary is taken back within half an hour, by whose rules",
        note: "As above; ours at 5 % for all of the time, with the default limits.".to_owned(),
        head: head("both sides"),
        rows,
        picture: picture(groups, "part of rollouts taken back", false),
    }
}
