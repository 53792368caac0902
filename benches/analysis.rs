//! The promises of the analysis, measured on simulated traffic, beside the bounds and the design's numbers.
//!
//! `cargo bench --bench analysis` takes a few minutes; `-- --quick` a tenth of the runs. Seeds are
//! fixed: the same build prints the same numbers.

use std::time::Instant;

use switchback::{analysis, model};

mod bounds;
#[path = "../src/analysis/simulation.rs"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod simulation;

use analysis::baseline::Baseline;
use analysis::bernoulli::{Boundary, Tally};
use analysis::criteria::{Criteria, QuantileMargin, RateMargin};
use analysis::histogram::{Histogram, bucket_of};
use analysis::judge::Judge;
use analysis::mixture::{AT_START, AT_STEP};
use analysis::normal::quantile;
use analysis::ordinal::{LatencyMargin, OrdinalStream};
use analysis::promotion::Promotion;
use analysis::rates::{Fading, RateStream};
use analysis::reading::Reading;
use bounds::{bound, z_test};
use model::moment::Moment;
use model::weight::Weight;
use simulation::{Behaviour, Dice, HEALTHY, Plan, median_and_p95};

/// How many runs of everything, relative to a full benchmark.
#[derive(Clone, Copy)]
struct Effort(f64);

impl Effort {
    fn runs(self, full: u64) -> u64 {
        ((full as f64 * self.0) as u64).max(10)
    }
}

fn main() {
    // `cargo bench` says `--bench`; without it somebody runs all targets as tests and is in a hurry.
    let asked = |word: &str| std::env::args().any(|arg| arg == word);
    let effort = Effort(if asked("--bench") && !asked("--quick") { 1.0 } else { 0.1 });
    let began = Instant::now();
    cost();
    false_rollback_errors(effort);
    requests_to_detect_errors(effort);
    requests_to_detect_latency(effort);
    false_rollback_latency(effort);
    promotion(effort);
    end_to_end(effort);
    println!("\n{:.0} s in all", began.elapsed().as_secs_f64());
}

fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len().max(1) as f64
}

/// A poll with ten services, of which each sees 1,000 requests a second.
fn cost() {
    let mut dice = Dice::new(1);
    let plan =
        Plan { rps: 1000.0, steps: &[], bake: 0.0, until: 0.0, criteria: Criteria::default() };
    let history = plan.history(&|_, _| HEALTHY, &mut dice);
    let small = Plan { rps: 1.6, ..plan };
    let (stable, canary) = (
        small.history(&|_, _| HEALTHY, &mut dice),
        Plan { rps: 0.08, ..small.clone() }.history(&|_, _| HEALTHY, &mut dice),
    );
    let mut judges: Vec<Judge> =
        (0..10).map(|_| Judge::new(Criteria::default(), &history, Moment(0))).collect();
    for judge in &mut judges {
        judge.begin_step(Weight::from_percent(5.0).unwrap_or_default(), Moment(0));
    }
    let mut times: Vec<f64> = (1..=300_u64)
        .map(|poll| {
            let began = Instant::now();
            for judge in &mut judges {
                judge.observe(&stable, &canary, Moment(poll * 100));
            }
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!(
        "poll of 10 services: median {:.2} ms, all ending a slot at once {:.2} ms (bound 2 ms)",
        times[150], times[285]
    );
}

/// Section 2.4: thirty minutes at 5, 25 and 50 %, margin 0, α = 1 %.
fn false_rollback_errors(effort: Effort) {
    println!("\nfalse rollbacks, errors, margin 0, alpha 0.01 (section 2.4)");
    println!(
        "{:44} {:>8} {:>8} {:>14}",
        "canary equal to stable", "ours", "design", "z-test, 10 s"
    );
    type Rate = fn(u64) -> f64;
    let incidents: Rate = |slot| {
        let day = 0.01 * (1.0 + 0.7 * (slot as f64 / 300.0).sin());
        if slot % 300 < 30 { 0.02 + 0.98 * ((slot / 300) as f64 * 0.37).fract() } else { day }
    };
    let rows: [(&str, f64, Rate, &str); 5] = [
        ("0.1 %, 1,000/s", 1000.0, |_| 0.001, ".0065"),
        ("1 %, 1,000/s", 1000.0, |_| 0.01, ".0035"),
        ("1 %, 50/s", 50.0, |_| 0.01, ".0055"),
        ("20 %, 200/s", 200.0, |_| 0.2, ".0040"),
        ("1 % by the hour, shared incidents, 200/s", 200.0, incidents, ".0050"),
    ];
    for (name, rps, rate, design) in rows {
        let runs = effort.runs(1000);
        let (mut ours, mut peeking) = (0, 0);
        for seed in 0..runs {
            let mut dice = Dice::new(seed + 1);
            let history = Tally::of(dice.poisson(60.0 * rps * rate(1)), (60.0 * rps) as u64);
            let boundary = Boundary { ratio: 1.0, plus: 0.0 };
            let mut stream = RateStream::new(boundary, Fading::from_history(history));
            let (mut canary, mut stable) = (Tally::default(), Tally::default());
            let (mut crossed, mut z_crossed) = (false, false);
            for slot in 0..1800_u64 {
                let share = [0.05, 0.25, 0.5][(slot / 600) as usize];
                if slot % 600 == 0 {
                    stream.begin(share, if slot == 0 { AT_START } else { AT_STEP });
                }
                let mut draw = |rps: f64| Tally {
                    events: dice.poisson(rps * rate(slot)),
                    others: dice.poisson(rps * (1.0 - rate(slot))),
                };
                let (c, b) = (draw(rps * share), draw(rps * (1.0 - share)));
                stream.count(c, b);
                stream.end_slot();
                crossed |= stream.evidence() >= 100.0;
                canary.add(c);
                stable.add(b);
                z_crossed |= slot % 10 == 9 && z_test(canary, stable);
            }
            ours += u64::from(crossed);
            peeking += u64::from(z_crossed);
        }
        let part = |count: u64| count as f64 / runs as f64;
        println!("{name:44} {:8.4} {design:>8} {:14.3}   ({runs} runs)", part(ours), part(peeking));
    }
}

/// Section 4: canary requests until 1/α, margin 0, no clip.
fn requests_to_detect_errors(effort: Effort) {
    println!("\ncanary requests to detect, errors, margin 0, alpha 0.01, no clip (section 4)");
    println!(
        "{:24} {:>5} {:>8} {:>8} {:>8} {:>6} {:>8}",
        "stable, canary", "share", "bound", "ours", "p95", "ratio", "design"
    );
    for (stable, canary, share, design) in [
        (0.001, 0.005, 0.05, 1993),
        (0.001, 0.01, 0.05, 598),
        (0.001, 0.02, 0.05, 219),
        (0.001, 0.05, 0.05, 72),
        (0.001, 0.1, 0.05, 32),
        (0.001, 0.5, 0.05, 5),
        (0.001, 1.0, 0.05, 2),
        (0.01, 0.02, 0.05, 1960),
        (0.01, 0.05, 0.05, 194),
        (0.01, 0.1, 0.05, 59),
        (0.0, 0.01, 0.05, 291),
        (0.0, 0.05, 0.05, 59),
        (0.001, 0.005, 0.25, 2727),
        (0.001, 0.005, 0.5, 4465),
    ] {
        let mut needed: Vec<f64> = Vec::new();
        for seed in 0..effort.runs(250) {
            let mut dice = Dice::new(seed + 1);
            let history = Tally::of(dice.poisson(60_000.0 * stable), 60_000);
            let boundary = Boundary { ratio: 1.0, plus: 0.0 };
            let mut stream =
                RateStream::new(boundary, Fading::from_history(history)).without_clip();
            stream.begin(share, AT_START);
            let per_slot = (1000.0 * share) as u64;
            let beside = (1.0 - share) / share;
            for request in 1..1_000_000_u64 {
                let b = Tally {
                    events: dice.poisson(beside * stable),
                    others: dice.poisson(beside * (1.0 - stable)),
                };
                stream.count(Tally::of(u64::from(dice.roll() < canary), 1), b);
                if stream.evidence() >= 100.0 {
                    needed.push(request as f64);
                    break;
                }
                if request % per_slot == 0 {
                    stream.end_slot();
                }
            }
        }
        let least = bound(canary, stable, share, 0.01);
        let ours = mean(&needed);
        let name = format!("{} %, {} %", stable * 100.0, canary * 100.0);
        let p95 = median_and_p95(needed).1;
        println!(
            "{name:24} {share:5} {least:8.1} {ours:8.0} {p95:8.0} {:6.2} {design:8}",
            ours / least
        );
    }
}

/// Microseconds; with a spread of 0.8 the p95 is 75 ms and the p99 129 ms.
const MEDIAN: f64 = 20_000.0;

fn latency(dice: &mut Dice, median: f64) -> f64 {
    median * (0.8 * quantile(dice.roll())).exp()
}

fn history(dice: &mut Dice, requests: u64) -> Baseline {
    let mut history = Histogram::default();
    for _ in 0..requests {
        history.record(latency(dice, MEDIAN) as u64);
    }
    Baseline::from_history(&history)
}

/// Section 3.2: canary requests until 1/α, log-normal latency, 5 %.
fn requests_to_detect_latency(effort: Effort) {
    println!("\ncanary requests to detect, latency, 5 %, alpha 0.01, no clip (section 3.2)");
    println!("{:32} {:>8} {:>8} {:>22}", "fault", "ours", "design", "bound, law known");
    type Fault = fn(f64, f64) -> f64;
    let rows: [(&str, f64, Fault, u32, &str); 8] = [
        ("x1.1, margin 0", 1.0, |x, _| x * 1.1, 1134, "683"),
        ("x1.25, margin 0", 1.0, |x, _| x * 1.25, 240, "125"),
        ("x1.5, margin 0", 1.0, |x, _| x * 1.5, 81, "38"),
        ("x2, margin 0", 1.0, |x, _| x * 2.0, 24, "13"),
        ("x1.5, margin 20 %", 1.2, |x, _| x * 1.5, 240, "125"),
        ("x2, margin 20 %", 1.2, |x, _| x * 2.0, 43, "24"),
        (
            "2 % + 500 ms, margin 20 %",
            1.2,
            |x, die| x + if die < 0.02 { 5e5 } else { 0.0 },
            270,
            "-",
        ),
        (
            "5 % + 200 ms, margin 20 %",
            1.2,
            |x, die| x + if die < 0.05 { 2e5 } else { 0.0 },
            222,
            "-",
        ),
    ];
    for (name, factor, fault, design, least) in rows {
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
        println!("{name:32} {:8.0} {design:8} {least:>22}", mean(&needed));
    }
}

/// Section 3.3: ten minutes at 100/s.
fn false_rollback_latency(effort: Effort) {
    println!("\nfalse rollbacks, latency, alpha 0.01 (section 3.3)");
    let rows: [(&str, f64, f64, bool, &str); 3] = [
        ("the same law, margin 0", 1.0, 1.0, false, ".0007"),
        ("shared drift (AR, 20 s), margin 0", 1.0, 1.0, true, ".0040"),
        ("canary on the margin, x1.2", 1.2, 1.2, false, ".0040"),
    ];
    for (name, margin, factor, drifts, design) in rows {
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
        println!("{name:36} {:.4} (design {design}, {runs} runs)", wrong as f64 / runs as f64);
    }
}

/// Canary requests until a step passes; `None` after 200,000.
fn passes(
    promotion: &mut Promotion,
    seed: u64,
    rates: (f64, f64),
    factor: f64,
    which: Which,
) -> Option<u64> {
    let mut dice = Dice::new(seed + 1);
    let mut baseline = history(&mut dice, 10_000);
    let (stable_rate, canary_rate) = rates;
    let past = Fading::from_history(Tally::of(dice.poisson(6e4 * stable_rate), 60_000));
    let mut rate = RateStream::new(Boundary { ratio: 1.0, plus: 0.0 }, past);
    rate.begin(0.05, AT_START);
    promotion.begin(0.05, rate.stable_rate(), &baseline);
    for request in 1..200_000_u64 {
        let other = dice.poisson(19.0 * (1.0 - stable_rate));
        let errors = Tally { events: dice.poisson(19.0 * stable_rate), others: other };
        let mut stable = Reading { errors, ..Reading::default() };
        let errors = Tally::of(u64::from(dice.roll() < canary_rate), 1);
        let mut canary = Reading { errors, ..Reading::default() };
        if which == Which::Latency {
            canary.latency.push((bucket_of((latency(&mut dice, MEDIAN) * factor) as u64), 1));
            for _ in 0..dice.poisson(19.0) {
                stable.latency.push((bucket_of(latency(&mut dice, MEDIAN) as u64), 1));
            }
        }
        promotion.count(&canary, &stable);
        rate.count(canary.errors, stable.errors);
        baseline.count(&stable.latency);
        let evidence = match which {
            Which::Errors => promotion.errors_evidence(),
            Which::Latency => promotion.latency_evidence(),
        };
        if evidence >= 20.0 {
            return Some(request);
        }
        if request % 50 == 0 {
            if which == Which::Latency {
                baseline.end_slot();
            }
            rate.end_slot();
            promotion.refresh(rate.stable_rate(), &baseline);
        }
        if evidence < 1e-9 {
            return None;
        }
    }
    None
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Errors,
    Latency,
}

/// Section 7.
fn promotion(effort: Effort) {
    println!("\ncanary requests to pass a step at 5 %, alpha 0.05 (section 7)");
    for (rate, wide, design) in [
        (0.0, false, "655"),
        (0.001, false, "890"),
        (0.01, false, "1110"),
        (0.0, true, "163"),
        (0.001, true, "185"),
    ] {
        let mut margins = Criteria::default().margins();
        if wide {
            margins.promote_errors = RateMargin { ratio: 2.0, plus: 0.02 };
        }
        let needed: Vec<f64> = (0..effort.runs(200))
            .filter_map(|seed| {
                passes(&mut Promotion::new(&margins), seed, (rate, rate), 1.0, Which::Errors)
            })
            .map(|requests| requests as f64)
            .collect();
        let name = if wide { "2x + 2 points" } else { "1.5x + 0.5 points" };
        println!(
            "errors {:4} %, {name:18} mean {:6.0} (design {design}), median and p95 {:?}",
            rate * 100.0,
            mean(&needed),
            median_and_p95(needed.clone())
        );
    }
    for (q, factor, design) in [(0.5, 1.2, "217"), (0.9, 1.3, "226"), (0.99, 1.5, "776")] {
        let mut margins = Criteria::default().margins();
        margins.latency.plus = 0.0;
        margins.promote_latency = [QuantileMargin { quantile: q, factor }; 3];
        let pass = |seed, factor| {
            passes(&mut Promotion::new(&margins), seed, (0.0, 0.0), factor, Which::Latency)
        };
        let runs = effort.runs(100);
        let needed: Vec<f64> =
            (0..runs).filter_map(|seed| pass(seed, 1.0)).map(|n| n as f64).collect();
        let wrong = (0..runs).filter(|seed| pass(seed + 10_000, factor).is_some()).count();
        println!(
            "p{:<4} +{:.0} % {:22} mean {:6.0} (design {design}); on the margin passed {:.3} of {runs} (at most 0.05)",
            q * 100.0,
            (factor - 1.0) * 100.0,
            "",
            mean(&needed),
            wrong as f64 / runs as f64
        );
    }
    let margins = Criteria::default().margins();
    let boundary = margins.promote_errors.boundary();
    let runs = effort.runs(1000);
    let on_margin = |seed| {
        passes(&mut Promotion::new(&margins), seed, (0.01, boundary.at(0.01)), 1.0, Which::Errors)
    };
    let wrong = (0..runs).filter(|seed| on_margin(*seed).is_some()).count();
    println!(
        "errors on the margin passed {:.3} of {runs} (at most 0.05)",
        wrong as f64 / runs as f64
    );
}

/// Section 5 and the speed targets: whole rollouts, all streams, breaker and guards together.
fn end_to_end(effort: Effort) {
    println!(
        "\nwhole rollouts with default limits, 5 25 50 100 %, fault from the start (section 5)"
    );
    println!(
        "{:28} {:>6} {:>9} {:>8} {:>8} {:>10}  design; peers",
        "fault", "rps", "rolled", "median", "p95", "failures"
    );
    let errors = |errors| Behaviour { errors, ..HEALTHY };
    let slow = |factor: f64| Behaviour { median: HEALTHY.median * factor, ..HEALTHY };
    let rows = [
        ("dead", 1000.0, errors(1.0), 60.0, "2.1 s without breaker; Argo 60 s, Flagger 360 s"),
        ("dead", 20.0, errors(1.0), 60.0, "-"),
        ("0.1 to 5 % errors", 1000.0, errors(0.05), 120.0, "3.1 s; Argo 60 s, Flagger 360 s"),
        ("0.1 to 1 % errors", 1000.0, errors(0.01), 300.0, "20 s; Argo 120 s, Flagger 660 s"),
        ("0.1 to 5 % errors", 100.0, errors(0.05), 300.0, "15 s; Argo 60 s, Flagger 360 s"),
        ("0.1 to 5 % errors", 20.0, errors(0.05), 600.0, "-"),
        ("x1.5 slower", 1000.0, slow(1.5), 120.0, "-"),
        ("x3 slower", 1000.0, slow(3.0), 60.0, "-"),
        ("x3 slower", 20.0, slow(3.0), 300.0, "-"),
        ("none", 1000.0, HEALTHY, 180.0, "2.3 min with 45 s a step"),
        ("none", 100.0, HEALTHY, 900.0, "4.8 min with 45 s a step"),
    ];
    for (name, rps, canary, until, design) in rows {
        let plan = Plan {
            rps,
            steps: &[5.0, 25.0, 50.0, 100.0],
            bake: 0.0,
            until,
            criteria: Criteria::default(),
        };
        let story = move |_: f64, is_canary: bool| if is_canary { canary } else { HEALTHY };
        let runs = effort.runs(60);
        let endings: Vec<_> = (0..runs).map(|seed| plan.play(&story, seed + 1)).collect();
        let failed = endings.iter().filter(|end| end.failed()).count();
        let done = endings.iter().filter(|end| end.failed() || end.passed.len() == 4);
        let (median, p95) = median_and_p95(done.map(|end| end.at).collect());
        let failures = mean(&endings.iter().map(|end| end.canary.1 as f64).collect::<Vec<_>>());
        println!(
            "{name:28} {rps:6} {:>9} {median:8.1} {p95:8.1} {failures:10.1}  {design}",
            format!("{failed}/{runs}")
        );
    }
    println!("\nhealthy rollouts through what both sides share: rolled back (bound 1 %)");
    for (name, rate, rps) in
        [("2 minutes of 10 % errors", 0.1, 100.0), ("6 minutes of 5 % errors", 0.05, 100.0)]
    {
        let plan = Plan {
            rps,
            steps: &[5.0, 25.0, 50.0],
            bake: 150.0,
            until: 500.0,
            criteria: Criteria::default(),
        };
        let lasts = if rate > 0.05 { 120.0 } else { 360.0 };
        let story = move |at: f64, _: bool| Behaviour {
            errors: if (60.0..60.0 + lasts).contains(&at) { rate } else { 0.001 },
            ..HEALTHY
        };
        let runs = effort.runs(60);
        let failed = (0..runs).filter(|seed| plan.play(&story, seed + 1).failed()).count();
        println!("{name:28} {failed}/{runs}");
    }
}
