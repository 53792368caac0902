//! The latency stream: how often it is wrong, and how many requests it needs.

use crate::analysis::baseline::Baseline;
use crate::analysis::histogram::{Histogram, bucket_of};
use crate::analysis::mixture::AT_START;
use crate::analysis::normal::quantile;
use crate::analysis::ordinal::{LatencyMargin, OrdinalStream};
use crate::report::{Picture, Table};
use crate::simulation::Dice;
use crate::{Effort, mean};

/// Microseconds; with a spread of 0.8 the p95 is 75 ms and the p99 129 ms.
pub const MEDIAN: f64 = 20_000.0;

pub fn latency(dice: &mut Dice, median: f64) -> f64 {
    median * (0.8 * quantile(dice.roll())).exp()
}

pub fn history(dice: &mut Dice, requests: u64) -> Baseline {
    let mut history = Histogram::default();
    for _ in 0..requests {
        history.record(latency(dice, MEDIAN) as u64);
    }
    Baseline::from_history(&history)
}

/// Canary requests until 1/α, log-normal latency, 5 %.
pub fn requests_to_detect(effort: Effort) -> Table {
    let (mut rows, mut groups) = (Vec::new(), Vec::new());
    type Fault = fn(f64, f64) -> f64;
    let cases: [(&str, f64, Fault, Option<f64>); 8] = [
        ("x1.1, margin 0", 1.0, |x, _| x * 1.1, Some(683.0)),
        ("x1.25, margin 0", 1.0, |x, _| x * 1.25, Some(125.0)),
        ("x1.5, margin 0", 1.0, |x, _| x * 1.5, Some(38.0)),
        ("x2, margin 0", 1.0, |x, _| x * 2.0, Some(13.0)),
        ("x1.5, margin 20 %", 1.2, |x, _| x * 1.5, Some(125.0)),
        ("x2, margin 20 %", 1.2, |x, _| x * 2.0, Some(24.0)),
        ("2 % + 500 ms, margin 20 %", 1.2, |x, die| x + if die < 0.02 { 5e5 } else { 0.0 }, None),
        ("5 % + 200 ms, margin 20 %", 1.2, |x, die| x + if die < 0.05 { 2e5 } else { 0.0 }, None),
    ];
    for (name, factor, fault, least) in cases {
        let mut needed: Vec<f64> = Vec::new();
        for seed in 0..effort.runs(100) {
            let mut dice = Dice::new(seed + 1);
            let mut baseline = history(&mut dice, 60_000);
            let mut stream = OrdinalStream::new(LatencyMargin { factor, plus: 0.0 }).without_clip();
            stream.begin(0.05, AT_START, &baseline);
            for request in 1..20_000_u64 {
                let die = dice.roll();
                let canary = [(bucket_of(fault(latency(&mut dice, MEDIAN), die) as u64), 1)];
                let beside: Vec<(usize, u64)> = (0..dice.poisson(19.0))
                    .map(|_| (bucket_of(latency(&mut dice, MEDIAN) as u64), 1))
                    .collect();
                stream.count(&canary, &beside);
                baseline.count(&beside);
                if stream.evidence() >= 100.0 {
                    needed.push(request as f64);
                    break;
                }
                if request % 50 == 0 {
                    baseline.end_slot();
                    stream.end_slot(&baseline);
                }
            }
        }
        let ours = mean(&needed);
        let (bound, ratio) = least.map_or(("–".to_owned(), "–".to_owned()), |least| {
            (format!("{least:.0}"), format!("{:.2}", ours / least))
        });
        rows.push(vec![name.to_owned(), bound, format!("{ours:.0}"), ratio]);
        groups.push((name.to_owned(), vec![Some(ours), Some(least.unwrap_or(f64::NAN))]));
    }
    Table {
        name: "requests-latency",
        title: "Latency: canary requests until a regression is shown",
        note: "At 5 %, α = 1 %, no clip; stable is log-normal with a spread of 0.8 (p50 20 ms, p99 129 ms). \
            The bound is for a test that knows both laws, and no valid test knows them."
            .to_owned(),
        head: vec!["canary", "bound, laws known", "ours, mean", "ratio"],
        rows,
        picture: Picture {
            axis: "canary requests (mean)",
            is_log: true,
            series: vec!["ours", "bound, laws known"],
            groups,
            bound: None,
        },
    }
}

/// Ten minutes at 100/s.
pub fn false_rollbacks(effort: Effort) -> Table {
    let (mut rows, mut groups) = (Vec::new(), Vec::new());
    let cases: [(&str, f64, f64, bool); 3] = [
        ("the same law, margin 0", 1.0, 1.0, false),
        ("shared drift (AR, 20 s), margin 0", 1.0, 1.0, true),
        ("canary on the margin, x1.2", 1.2, 1.2, false),
    ];
    for (name, margin, factor, drifts) in cases {
        let runs = effort.runs(300);
        let mut wrong = 0;
        for seed in 0..runs {
            let mut dice = Dice::new(seed + 1);
            let mut baseline = history(&mut dice, 6_000);
            let mut stream = OrdinalStream::new(LatencyMargin { factor: margin, plus: 0.0 });
            stream.begin(0.25, AT_START, &baseline);
            let mut level = 0.0_f64;
            for _ in 0..600 {
                // AR(1) with a time constant of 20 s and a standard deviation of 0.3.
                level = level * 0.951 + if drifts { 0.0926 * quantile(dice.roll()) } else { 0.0 };
                let median = MEDIAN * level.exp();
                let mut draw = |rps: f64, factor: f64| -> Vec<(usize, u64)> {
                    let count = dice.poisson(rps);
                    (0..count)
                        .map(|_| (bucket_of((latency(&mut dice, median) * factor) as u64), 1))
                        .collect()
                };
                let (canary, stable) = (draw(25.0, factor), draw(75.0, 1.0));
                stream.count(&canary, &stable);
                baseline.count(&stable);
                baseline.end_slot();
                stream.end_slot(&baseline);
                if stream.evidence() >= 100.0 {
                    wrong += 1;
                    break;
                }
            }
        }
        let wrong = f64::from(wrong) / runs as f64;
        rows.push(vec![name.to_owned(), format!("{wrong:.4}"), runs.to_string()]);
        groups.push((name.to_owned(), vec![Some(wrong)]));
    }
    Table {
        name: "false-rollbacks-latency",
        title: "Latency: how often an equal canary would be taken back",
        note: "Ten minutes at 25 % of 100 requests a second, α = 1 %.".to_owned(),
        head: vec!["canary", "ours", "runs"],
        rows,
        picture: Picture {
            axis: "part of rollouts taken back",
            is_log: false,
            series: vec!["ours"],
            groups,
            bound: Some((0.01, "α")),
        },
    }
}
