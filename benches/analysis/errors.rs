//! The error stream: how often it is wrong, and how many requests it needs.

use crate::analysis::bernoulli::{Boundary, Tally};
use crate::analysis::mixture::{AT_START, AT_STEP};
use crate::analysis::normal::ln_gamma;
use crate::analysis::rates::{Fading, RateStream};
use crate::bounds::{bound, z_test};
use crate::report::{Picture, Table};
use crate::simulation::{Dice, median_and_p95};
use crate::{Effort, mean};

/// Thirty minutes at 5, 25 and 50 %, margin 0, α = 1 %.
pub fn false_rollbacks(effort: Effort) -> Table {
    let (mut rows, mut groups) = (Vec::new(), Vec::new());
    type Rate = fn(u64) -> f64;
    let incidents: Rate = |slot| {
        let day = 0.01 * (1.0 + 0.7 * (slot as f64 / 300.0).sin());
        if slot % 300 < 30 { 0.02 + 0.98 * ((slot / 300) as f64 * 0.37).fract() } else { day }
    };
    let blips: Rate = |slot| {
        let hour = 0.01 * (1.0 + 0.7 * (slot as f64 / 300.0).sin());
        // Half a minute in five minutes, and a second of nothing but errors now and then.
        let is_blip = (slot * 2_654_435_761) % 97 == 0;
        if is_blip { 1.0 } else { hour }
    };
    let cases: [(&str, f64, Rate, Way); 8] = [
        ("0.1 %, 1,000/s", 1000.0, |_| 0.001, Way::Coin),
        ("1 %, 1,000/s", 1000.0, |_| 0.01, Way::Coin),
        ("1 %, 50/s", 50.0, |_| 0.01, Way::Coin),
        ("20 %, 200/s", 200.0, |_| 0.2, Way::Coin),
        ("1 % by the hour, shared incidents, 200/s", 200.0, incidents, Way::Coin),
        ("the same, by turns instead of by a coin", 200.0, incidents, Way::Turns),
        ("the same, looked at ten times a second", 200.0, incidents, Way::Polls),
        ("1 % by the hour, seconds of nothing but errors, 200/s", 200.0, blips, Way::Coin),
    ];
    for (name, rps, rate, way) in cases {
        let runs = effort.runs(1000);
        let (mut ours, mut peeking) = (0, [0, 0]);
        for seed in 0..runs {
            let mut dice = Dice::new(seed + 1);
            let history = Tally::of(dice.poisson(60.0 * rps * rate(1)), (60.0 * rps) as u64);
            let boundary = Boundary { ratio: 1.0, plus: 0.0 };
            let mut stream = RateStream::new(boundary, Fading::from_history(history));
            let (mut canary, mut stable) = (Tally::default(), Tally::default());
            let (mut crossed, mut z_crossed) = (false, [false; 2]);
            for slot in 0..1800_u64 {
                let share = [0.05, 0.25, 0.5][(slot / 600) as usize];
                if slot % 600 == 0 {
                    stream.begin(share, if slot == 0 { AT_START } else { AT_STEP });
                }
                let polls = if way == Way::Polls { 10 } else { 1 };
                for _ in 0..polls {
                    let rps = rps / polls as f64;
                    let mut draw = |share: f64| {
                        let events = dice.poisson(rps * share * rate(slot));
                        let others = match way {
                            Way::Turns => (rps * share).round() as u64,
                            _ => events + dice.poisson(rps * share * (1.0 - rate(slot))),
                        };
                        Tally::of(events.min(others), others)
                    };
                    let (c, b) = (draw(share), draw(1.0 - share));
                    stream.count(c, b);
                    crossed |= stream.evidence() >= 100.0;
                    canary.add(c);
                    stable.add(b);
                }
                stream.end_slot();
                for (crossed, every) in z_crossed.iter_mut().zip([10, 60]) {
                    *crossed |= slot % every == every - 1 && z_test(canary, stable);
                }
            }
            ours += u64::from(crossed);
            for (count, crossed) in peeking.iter_mut().zip(z_crossed) {
                *count += u64::from(crossed);
            }
        }
        let part = |count: u64| count as f64 / runs as f64;
        let (ours, peeking) = (part(ours), peeking.map(part));
        rows.push(vec![
            name.to_owned(),
            format!("{ours:.4}"),
            format!("{:.3}", peeking[0]),
            format!("{:.3}", peeking[1]),
            runs.to_string(),
        ]);
        groups.push((name.to_owned(), vec![Some(ours), Some(peeking[0]), Some(peeking[1])]));
    }
    Table {
        name: "false-rollbacks-errors",
        title: "Errors: how often an equal canary would be taken back",
        note: "Thirty minutes at 5, 25 and 50 %, the canary equal to stable, margin 0 (the worst case), \
            α = 1 %. A z-test at 1 % that is looked at every ten seconds or every minute, as on a dashboard, \
            for comparison."
            .to_owned(),
        head: vec!["both sides", "ours", "z-test every 10 s", "every 60 s", "runs"],
        rows,
        picture: Picture {
            axis: "part of rollouts taken back",
            is_log: false,
            series: vec!["ours", "z-test every 10 s", "every 60 s"],
            groups,
            bound: Some((0.01, "α")),
        },
    }
}

/// How requests are divided and looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Coin,
    Turns,
    Polls,
}

/// The evidence of a test on errors alone, given that there is one: whose is it? A Dirichlet–multinomial
/// mixture around the configured share (Lindon & Malek 2022, as Netflix uses it), as closely as 20 errors.
fn of_errors_alone(canary: u64, stable: u64, share: f64) -> f64 {
    let (c, b) = (canary as f64, stable as f64);
    let (x, y) = (20.0 * share, 20.0 * (1.0 - share));
    let ln_beta = |x: f64, y: f64| ln_gamma(x) + ln_gamma(y) - ln_gamma(x + y);
    (ln_beta(x + c, y + b) - ln_beta(x, y) - c * share.ln() - b * (1.0 - share).ln()).exp()
}

/// Canary requests until 1/α, margin 0, no clip.
pub fn requests_to_detect(effort: Effort) -> Table {
    let (mut rows, mut groups) = (Vec::new(), Vec::new());
    for (stable, canary, share) in [
        (0.001, 0.002, 0.05),
        (0.001, 0.005, 0.05),
        (0.001, 0.01, 0.05),
        (0.001, 0.02, 0.05),
        (0.001, 0.05, 0.05),
        (0.001, 0.1, 0.05),
        (0.001, 0.5, 0.05),
        (0.001, 1.0, 0.05),
        (0.01, 0.02, 0.05),
        (0.01, 0.05, 0.05),
        (0.01, 0.1, 0.05),
        (0.01, 0.5, 0.05),
        (0.01, 1.0, 0.05),
        (0.0, 0.01, 0.05),
        (0.0, 0.05, 0.05),
        (0.0, 1.0, 0.05),
        (0.001, 0.005, 0.25),
        (0.001, 1.0, 0.25),
        (0.001, 0.005, 0.5),
        (0.001, 1.0, 0.5),
    ] {
        let mut needed: [Vec<f64>; 2] = Default::default();
        for seed in 0..effort.runs(250) {
            let mut dice = Dice::new(seed + 1);
            let history = Tally::of(dice.poisson(60_000.0 * stable), 60_000);
            let boundary = Boundary { ratio: 1.0, plus: 0.0 };
            let mut stream =
                RateStream::new(boundary, Fading::from_history(history)).without_clip();
            stream.begin(share, AT_START);
            let per_slot = (1000.0 * share) as u64;
            let beside = (1.0 - share) / share;
            let (mut errors, mut done) = ([0, 0], [false; 2]);
            for request in 1..1_000_000_u64 {
                let b = Tally {
                    events: dice.poisson(beside * stable),
                    others: dice.poisson(beside * (1.0 - stable)),
                };
                let is_error = u64::from(dice.roll() < canary);
                errors = [errors[0] + is_error, errors[1] + b.events];
                let reached = [
                    !done[0] && {
                        stream.count(Tally::of(is_error, 1), b);
                        stream.evidence() >= 100.0
                    },
                    !done[1]
                        && is_error == 1
                        && of_errors_alone(errors[0], errors[1], share) >= 100.0,
                ];
                for ((reached, done), needed) in reached.iter().zip(&mut done).zip(&mut needed) {
                    if *reached {
                        *done = true;
                        needed.push(request as f64);
                    }
                }
                if done == [true; 2] {
                    break;
                }
                if request % per_slot == 0 {
                    stream.end_slot();
                }
            }
        }
        let least = bound(canary, stable, share, 0.01);
        // Where every canary request fails there is no mean of many: requests come whole.
        let whole = if canary >= 1.0 { least.ceil() } else { least };
        let [ours, alone] = needed.each_ref().map(|needed| mean(needed));
        let name =
            format!("{} % → {} %, {} % share", stable * 100.0, canary * 100.0, share * 100.0);
        let [ours_needed, _] = needed;
        let p95 = median_and_p95(ours_needed).1;
        rows.push(vec![
            name.clone(),
            format!("{least:.1}"),
            format!("{ours:.0}"),
            format!("{p95:.0}"),
            format!("{:.2}", ours / whole),
            format!("{alone:.0}"),
        ]);
        groups.push((name, vec![Some(ours), Some(least), Some(alone)]));
    }
    Table {
        name: "requests-errors",
        title: "Errors: canary requests until a regression is shown",
        note: "Margin 0, α = 1 %, no clip. The bound is that of theory for any test that is as rarely wrong \
            and does not know stable's rate; at most 2.2 times as many are promised. Where every canary request \
            fails, the ratio is to the bound in whole requests. Beside it a test on errors alone, as Netflix has \
            it (Lindon & Malek)."
            .to_owned(),
        head: vec!["stable → canary", "bound", "ours, mean", "p95", "ratio", "errors alone, mean"],
        rows,
        picture: Picture {
            axis: "canary requests (mean)",
            is_log: true,
            series: vec!["ours", "bound of theory", "errors alone"],
            groups,
            bound: None,
        },
    }
}
