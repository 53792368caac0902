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

/// Whether the bands around both distributions, α = 1 % for the two together, part anywhere: the radius of
/// each is 0.85 √((ln ln (e n) + 0.8 ln (1612 / α)) / n).
fn bands_part([stable, canary]: &[Histogram; 2]) -> bool {
    let (of_stable, of_canary) = (stable.total() as f64, canary.total() as f64);
    let radius = |n: f64| 0.85 * ((n.ln().ln_1p() + 0.8 * (1612.0_f64 / 0.005).ln()) / n).sqrt();
    let apart = radius(of_stable) + radius(of_canary);
    if apart >= 1.0 {
        return false;
    }
    let (mut below_stable, mut below_canary) = (0, 0);
    stable.counts().iter().zip(canary.counts()).any(|(b, c)| {
        below_stable += b;
        below_canary += c;
        below_stable as f64 / of_stable - below_canary as f64 / of_canary > apart
    })
}

/// Whether the canary is slower by a Mann–Whitney test, one-sided at 1 %.
fn ranks_differ([stable, canary]: &[Histogram; 2]) -> bool {
    let (n, m) = (stable.total() as f64, canary.total() as f64);
    let (mut below, mut wins, mut ties) = (0.0, 0.0, 0.0);
    for (b, c) in stable.counts().iter().zip(canary.counts()) {
        let (b, c) = (*b as f64, *c as f64);
        wins += c * (below + b / 2.0);
        below += b;
        let both = b + c;
        ties += both * (both * both - 1.0);
    }
    let all = n + m;
    let variance = n * m / 12.0 * (all + 1.0 - ties / (all * (all - 1.0)));
    variance > 0.0 && (wins - n * m / 2.0) / variance.sqrt() > 2.326
}

/// Canary requests until 1/α, log-normal latency, 5 %.
pub fn requests_to_detect(effort: Effort) -> Table {
    let (mut rows, mut groups) = (Vec::new(), Vec::new());
    type Fault = fn(f64, f64) -> f64;
    let cases: [(&str, f64, Fault, Option<f64>); 10] = [
        ("x1.1, margin 0", 1.0, |x, _| x * 1.1, Some(683.0)),
        ("x1.25, margin 0", 1.0, |x, _| x * 1.25, Some(125.0)),
        ("x1.5, margin 0", 1.0, |x, _| x * 1.5, Some(38.0)),
        ("x2, margin 0", 1.0, |x, _| x * 2.0, Some(13.0)),
        ("x5, margin 0", 1.0, |x, _| x * 5.0, Some(3.0)),
        ("x1.5, margin 20 %", 1.2, |x, _| x * 1.5, Some(125.0)),
        ("x2, margin 20 %", 1.2, |x, _| x * 2.0, Some(24.0)),
        ("2 % + 500 ms, margin 20 %", 1.2, |x, die| x + if die < 0.02 { 5e5 } else { 0.0 }, None),
        ("20 % + 50 ms, margin 20 %", 1.2, |x, die| x + if die < 0.2 { 5e4 } else { 0.0 }, None),
        ("5 % + 200 ms, margin 20 %", 1.2, |x, die| x + if die < 0.05 { 2e5 } else { 0.0 }, None),
    ];
    for (name, factor, fault, least) in cases {
        let mut needed: [Vec<f64>; 2] = Default::default();
        for seed in 0..effort.runs(100) {
            let mut dice = Dice::new(seed + 1);
            let mut baseline = history(&mut dice, 60_000);
            let mut stream = OrdinalStream::new(LatencyMargin { factor, plus: 0.0 }).without_clip();
            stream.begin(0.05, AT_START, &baseline);
            let (mut seen, mut done) = ([Histogram::default(), Histogram::default()], [false; 2]);
            for request in 1..20_000_u64 {
                let die = dice.roll();
                let canary = [(bucket_of(fault(latency(&mut dice, MEDIAN), die) as u64), 1)];
                let beside: Vec<(usize, u64)> = (0..dice.poisson(19.0))
                    .map(|_| (bucket_of(latency(&mut dice, MEDIAN) as u64), 1))
                    .collect();
                seen[1].add(canary[0].0, 1);
                beside.iter().for_each(|(bucket, _)| seen[0].add(*bucket, 1));
                if !done[0] {
                    stream.count(&canary, &beside);
                    baseline.count(&beside);
                    if stream.evidence() >= 100.0 {
                        needed[0].push(request as f64);
                        done[0] = true;
                    }
                }
                // One look in three is enough for a mean of hundreds, and three is what one needs at least.
                if !done[1] && request % 3 == 0 && bands_part(&seen) {
                    needed[1].push(request as f64);
                    done[1] = true;
                }
                if done[0] && (done[1] || request > 3_000) {
                    break;
                }
                if request % 50 == 0 {
                    baseline.end_slot();
                    stream.end_slot(&baseline);
                }
            }
        }
        let [needed, of_bands] = needed;
        let bands = (of_bands.len() == needed.len()).then(|| mean(&of_bands));
        let ours = mean(&needed);
        let (bound, ratio) = least.map_or(("–".to_owned(), "–".to_owned()), |least| {
            (format!("{least:.0}"), format!("{:.2}", ours / least))
        });
        let told = bands.map_or("not in 3,000".to_owned(), |bands| format!("{bands:.0}"));
        rows.push(vec![name.to_owned(), bound, format!("{ours:.0}"), ratio, told]);
        groups.push((name.to_owned(), vec![Some(ours), Some(least.unwrap_or(f64::NAN)), bands]));
    }
    Table {
        name: "requests-latency",
        title: "Latency: canary requests until a regression is shown",
        note: "At 5 %, α = 1 %, no clip; stable is log-normal with a spread of 0.8 (p50 20 ms, p99 129 ms). \
            The bound is for a test that knows both laws, and no valid test knows them. Beside it confidence \
            bands around both distributions that hold at any time (Howard & Ramdas 2022), which know no margin \
            and want answers that do not drift."
            .to_owned(),
        head: vec!["canary", "bound, laws known", "ours, mean", "ratio", "bands, mean"],
        rows,
        picture: Picture {
            axis: "canary requests (mean)",
            is_log: true,
            series: vec!["ours", "bound, laws known", "bands"],
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
        let (mut wrong, mut peeking) = (0, [0, 0]);
        for seed in 0..runs {
            let mut dice = Dice::new(seed + 1);
            let mut baseline = history(&mut dice, 6_000);
            let mut stream = OrdinalStream::new(LatencyMargin { factor: margin, plus: 0.0 });
            stream.begin(0.25, AT_START, &baseline);
            let mut level = 0.0_f64;
            let (mut seen, mut over) = ([Histogram::default(), Histogram::default()], [false; 3]);
            for second in 1..=600 {
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
                for (seen, drawn) in seen.iter_mut().zip([&stable, &canary]) {
                    drawn.iter().for_each(|(bucket, _)| seen.add(*bucket, 1));
                }
                over[0] |= stream.evidence() >= 100.0;
                over[1] |= second % 10 == 0 && ranks_differ(&seen);
                over[2] |= second % 60 == 0 && ranks_differ(&seen);
            }
            wrong += u32::from(over[0]);
            peeking[0] += u32::from(over[1]);
            peeking[1] += u32::from(over[2]);
        }
        let part = |count: u32| f64::from(count) / runs as f64;
        let (wrong, peeking) = (part(wrong), peeking.map(part));
        let numbers = [wrong, peeking[0], peeking[1]];
        let told = numbers.iter().map(|number| format!("{number:.4}"));
        rows.push(std::iter::once(name.to_owned()).chain(told).chain([runs.to_string()]).collect());
        groups.push((name.to_owned(), numbers.map(Some).to_vec()));
    }
    Table {
        name: "false-rollbacks-latency",
        title: "Latency: how often an equal canary would be taken back",
        note: "Ten minutes at 25 % of 100 requests a second, α = 1 %. A Mann-Whitney test at 1 % that is looked \
            at every ten seconds or every minute, for comparison; it knows no margin, so that the last row is \
            no false alarm of it."
            .to_owned(),
        head: vec!["canary", "ours", "Mann-Whitney every 10 s", "every 60 s", "runs"],
        rows,
        picture: Picture {
            axis: "part of rollouts taken back",
            is_log: false,
            series: vec!["ours", "Mann-Whitney every 10 s", "every 60 s"],
            groups,
            bound: Some((0.01, "α")),
        },
    }
}
