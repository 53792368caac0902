//! The analysis against code that nobody here wrote: savvi, ville and SciPy compute the same cases.
//!
//! They come from PyPI into a virtual environment of the test's own, with pinned versions.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use switchback::analysis::bernoulli::{Boundary, Payoffs, Tally};
use switchback::analysis::interval;
use switchback::analysis::share::{CENTRED, Share};

use crate::support::python::python;

/// Numbers that look like chance and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.below(1_000_000) as f64 / 1e6
    }
}

fn shares(numbers: &mut Numbers) -> Value {
    let cases = [0.05, 0.25, 0.5, 0.01].into_iter().flat_map(|null| [(null, 1.0), (null, 1.6)]);
    let case = |(configured, off): (f64, f64)| {
        let mut share = Share::default();
        let (mut batches, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..75 {
            let all = 20 + numbers.below(400);
            let canary = (all as f64 * configured * off) as u64 + numbers.below(3);
            share.count(canary, all - canary.min(all));
            batches.push([canary, all - canary.min(all)]);
            ours.push(share.ln_evidence(configured));
        }
        json!({ "configured": configured, "concentration": CENTRED, "batches": batches, "ln_evidence": ours })
    };
    cases.map(case).collect()
}

fn errors_only(numbers: &mut Numbers) -> Value {
    let mut case = |configured: f64| {
        let (canary, stable) = (numbers.below(30), numbers.below(120));
        // Far out the prior has nothing: within these ends all but 1e-12 of it lies.
        let believed: Vec<f64> = (1..40_000).map(|n| f64::from(n) / 40_000.0).collect();
        let gain = |believed: &f64| {
            let odds = believed / (1.0 - believed) / (configured / (1.0 - configured));
            let payoffs = Payoffs::events_only(odds, configured, 1.0);
            payoffs.gain(Tally::of(canary, canary + 1_000), Tally::of(stable, stable + 9_000))
        };
        let gains: Vec<f64> = believed.iter().map(gain).collect();
        json!({
            "configured": configured, "concentration": 60.0, "batches": [[canary, stable]],
            "believed": believed, "gains": gains,
        })
    };
    [0.05, 0.25, 0.5].into_iter().flat_map(|null| [case(null), case(null), case(null)]).collect()
}

fn one_sample(numbers: &mut Numbers) -> Value {
    let seen = [(0, 1), (0, 500), (3, 3), (11, 312), (1, 10_000), (2_500, 5_000)];
    let more = (0..20).map(|_| {
        let all = 1 + numbers.below(5_000);
        (numbers.below(all), all)
    });
    let more: Vec<(u64, u64)> = more.collect();
    let case = |(events, all): (u64, u64)| {
        let tally = Tally::of(events, all);
        let (low, high) = interval::rate(tally, interval::ALPHA);
        json!({
            "alpha": interval::ALPHA, "events": events, "others": all - events, "low": low, "high": high,
        })
    };
    seen.into_iter().chain(more).map(case).collect()
}

fn projections(numbers: &mut Numbers) -> Value {
    let mut case = |_| {
        let (share, stable) = (numbers.between(0.01, 0.99), numbers.between(1e-5, 0.4));
        let (ratio, plus) = (numbers.between(1.0, 1.5), numbers.between(0.0, 0.02));
        let canary = (ratio * stable + plus + numbers.between(1e-4, 0.4)).min(0.98);
        let payoffs = Payoffs::new(canary, stable, share, Boundary { ratio, plus });
        json!({
            "share": share, "canary": canary, "stable": stable, "ratio": ratio, "plus": plus,
            "null_canary": canary / payoffs.canary_event.exp(),
            "null_stable": stable / payoffs.stable_event.exp(),
        })
    };
    (0..500).map(&mut case).collect()
}

#[test]
fn others_come_to_the_same_numbers() {
    let Some(python) = python("independent") else { return };
    let mut numbers = Numbers(7);
    let cases = json!({
        "share": shares(&mut numbers),
        "errors_only": errors_only(&mut numbers),
        "one_sample": one_sample(&mut numbers),
        "projection": projections(&mut numbers),
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/independent/compare.py");
    let mut compare = Command::new(python);
    compare.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut compare = compare.spawn().unwrap();
    compare.stdin.take().unwrap().write_all(cases.to_string().as_bytes()).unwrap();
    let output = compare.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    eprintln!("{said}");
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.matches("agrees").count(), 4, "{said}");
}
