//! Passing a step: how many requests it needs, and how often it is wrong.

use crate::analysis::bernoulli::{Boundary, Tally};
use crate::analysis::criteria::{Criteria, Margins, QuantileMargin, RateMargin};
use crate::analysis::histogram::bucket_of;
use crate::analysis::mixture::AT_START;
use crate::analysis::promotion::Promotion;
use crate::analysis::rates::{Fading, RateStream};
use crate::analysis::reading::Reading;
use crate::latency::{MEDIAN, history, latency};
use crate::report::{Picture, Table};
use crate::simulation::{Dice, median_and_p95};
use crate::{Effort, mean};

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
        let mut stable = Reading { errors, news: errors, ..Reading::default() };
        let errors = Tally::of(u64::from(dice.roll() < canary_rate), 1);
        let mut canary = Reading { errors, news: errors, ..Reading::default() };
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
            promotion.end_slot();
            promotion.refresh(rate.stable_rate(), &baseline);
        }
        // From here it comes to 20 once in 20,000 (Ville).
        if evidence < 1e-3 {
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

const QUANTILES: [(f64, f64); 3] = [(0.5, 1.2), (0.9, 1.3), (0.99, 1.5)];

fn margins_of(quantile: f64, factor: f64) -> Margins {
    let mut margins = Criteria::default().margins();
    margins.latency.plus = 0.0;
    margins.promote_latency = [QuantileMargin { quantile, factor }; 3];
    margins
}

/// The fewest canary requests that could show a rate to be below a margin, on average.
fn bound(rate: f64, margins: &Margins) -> f64 {
    // Turned round: the canary is what the null would have, so that its rate is the alternative's.
    let null = margins.promote_errors.boundary().at(rate);
    let kl = |p: f64, q: f64| {
        let term = |a: f64, b: f64| if a > 0.0 { a * (a / b).ln() } else { 0.0 };
        term(p, q) + term(1.0 - p, 1.0 - q)
    };
    // Stable may have been lower than it seemed: the nearest point of the margin's line at a share of 5 %.
    let boundary = margins.promote_errors.boundary();
    let distance = |b: f64| kl(rate, boundary.at(b)) + 19.0 * kl(rate, b);
    let (mut low, mut high) = (0.0_f64, rate.max(1e-12));
    for _ in 0..200 {
        let (a, b) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
        if distance(a.max(1e-15)) < distance(b.max(1e-15)) { high = b } else { low = a }
    }
    20_f64.ln() / distance(high.max(1e-15)).min(kl(rate, null))
}

/// Canary requests until a step passes, when the canary equals stable.
pub fn requests_to_pass(effort: Effort) -> Table {
    let (mut rows, mut groups) = (Vec::new(), Vec::new());
    let mut add = |name: String, needed: &[f64], least: Option<f64>| {
        let (median, p95) = median_and_p95(needed.to_vec());
        let least_text = least.map_or("–".to_owned(), |least| format!("{least:.0}"));
        let numbers = [mean(needed), median, p95].map(|number| format!("{number:.0}"));
        rows.push([name.clone(), least_text].into_iter().chain(numbers).collect());
        groups.push((name, vec![Some(mean(needed)), Some(least.unwrap_or(f64::NAN))]));
    };
    let margins = [(1.1, 0.001), (1.25, 0.005), (1.5, 0.005), (1.5, 0.01), (2.0, 0.02)];
    let rates = [0.0, 0.0001, 0.001, 0.01];
    for ((ratio, plus), rate) in margins.iter().flat_map(|m| rates.map(|rate| (*m, rate))) {
        let mut margins = Criteria::default().margins();
        margins.promote_errors = RateMargin { ratio, plus };
        let pass =
            |seed| passes(&mut Promotion::new(&margins), seed, (rate, rate), 1.0, Which::Errors);
        let needed: Vec<f64> =
            (0..effort.runs(150)).filter_map(pass).map(|requests| requests as f64).collect();
        let name = format!("errors {} %, within {ratio}x + {} points", rate * 100.0, plus * 100.0);
        add(name, &needed, Some(bound(rate, &margins)));
    }
    let factors = [1.1, 1.2, 1.3, 1.5];
    for (quantile, factor) in [0.5, 0.9, 0.99].iter().flat_map(|q| factors.map(|by| (*q, by))) {
        let margins = margins_of(quantile, factor);
        let pass =
            |seed| passes(&mut Promotion::new(&margins), seed, (0.0, 0.0), 1.0, Which::Latency);
        let needed: Vec<f64> =
            (0..effort.runs(60)).filter_map(pass).map(|requests| requests as f64).collect();
        let percent = (factor - 1.0) * 100.0;
        add(format!("p{} within +{percent:.0} %", quantile * 100.0), &needed, None);
    }
    Table {
        name: "requests-to-pass",
        title: "A step passes: canary requests, when the canary equals stable",
        note: "At 5 %, one chance in twenty to pass what is on the margin. The default limits ask for all \
            of errors within 1.5x + 0.5 points, p50 within +20 %, p90 +30 % and p99 +50 %: about 900 canary \
            requests buy a step."
            .to_owned(),
        head: vec!["shown to be", "bound", "mean", "median", "p95"],
        rows,
        picture: Picture {
            axis: "canary requests (mean)",
            is_log: true,
            series: vec!["ours", "bound of theory"],
            groups,
            bound: None,
        },
    }
}

/// How often a step passes a canary that is exactly on the margin.
pub fn wrongly_passed(effort: Effort) -> Table {
    let (mut rows, mut groups) = (Vec::new(), Vec::new());
    let mut add = |name: String, wrong: usize, runs: u64| {
        let wrong = wrong as f64 / runs as f64;
        rows.push(vec![name.clone(), format!("{wrong:.3}"), runs.to_string()]);
        groups.push((name, vec![Some(wrong)]));
    };
    let margins = Criteria::default().margins();
    let boundary = margins.promote_errors.boundary();
    for rate in [0.001, 0.01] {
        let runs = effort.runs(1000);
        let rates = (rate, boundary.at(rate));
        let pass = |seed| passes(&mut Promotion::new(&margins), seed, rates, 1.0, Which::Errors);
        let wrong = (0..runs).filter(|seed| pass(*seed).is_some()).count();
        add(format!("errors {} %, canary on the margin", rate * 100.0), wrong, runs);
    }
    for (quantile, factor) in QUANTILES {
        let margins = margins_of(quantile, factor);
        let runs = effort.runs(200);
        let pass =
            |seed| passes(&mut Promotion::new(&margins), seed, (0.0, 0.0), factor, Which::Latency);
        let wrong = (0..runs).filter(|seed| pass(seed + 10_000).is_some()).count();
        add(format!("p{}, canary on the margin", quantile * 100.0), wrong, runs);
    }
    Table {
        name: "wrongly-passed",
        title: "A step passes although the canary is on the margin",
        note: "Each part by itself; a step asks for all of them, so that it passes more rarely."
            .to_owned(),
        head: vec!["canary", "passed", "runs"],
        rows,
        picture: Picture {
            axis: "part of steps passed",
            is_log: false,
            series: vec!["ours"],
            groups,
            bound: Some((0.05, "at most")),
        },
    }
}
