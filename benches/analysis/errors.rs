//! The error stream: how often it is wrong, and how many requests it needs.

use crate::analysis::bernoulli::{Boundary, Tally};
use crate::analysis::mixture::{AT_START, AT_STEP};
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
    let cases: [(&str, f64, Rate); 5] = [
        ("0.1 %, 1,000/s", 1000.0, |_| 0.001),
        ("1 %, 1,000/s", 1000.0, |_| 0.01),
        ("1 %, 50/s", 50.0, |_| 0.01),
        ("20 %, 200/s", 200.0, |_| 0.2),
        ("1 % by the hour, shared incidents, 200/s", 200.0, incidents),
    ];
    for (name, rps, rate) in cases {
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
        let (ours, peeking) = (part(ours), part(peeking));
        rows.push(vec![
            name.to_owned(),
            format!("{ours:.4}"),
            format!("{peeking:.3}"),
            runs.to_string(),
        ]);
        groups.push((name.to_owned(), vec![Some(ours), Some(peeking)]));
    }
    Table {
        name: "false-rollbacks-errors",
        title: "Errors: how often an equal canary would be taken back",
        note: "Thirty minutes at 5, 25 and 50 %, the canary equal to stable, margin 0 (the worst case), \
            α = 1 %. A z-test at 1 % that is looked at every ten seconds, as on a dashboard, for comparison."
            .to_owned(),
        head: vec!["both sides", "ours", "z-test every 10 s", "runs"],
        rows,
        picture: Picture {
            axis: "part of rollouts taken back",
            is_log: false,
            series: vec!["ours", "z-test every 10 s"],
            groups,
            bound: Some((0.01, "α")),
        },
    }
}

/// Canary requests until 1/α, margin 0, no clip.
pub fn requests_to_detect(effort: Effort) -> Table {
    let (mut rows, mut groups) = (Vec::new(), Vec::new());
    for (stable, canary, share) in [
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
        (0.0, 0.01, 0.05),
        (0.0, 0.05, 0.05),
        (0.001, 0.005, 0.25),
        (0.001, 0.005, 0.5),
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
        let name =
            format!("{} % → {} %, {} % share", stable * 100.0, canary * 100.0, share * 100.0);
        let p95 = median_and_p95(needed).1;
        rows.push(vec![
            name.clone(),
            format!("{least:.1}"),
            format!("{ours:.0}"),
            format!("{p95:.0}"),
            format!("{:.2}", ours / least),
        ]);
        groups.push((name, vec![Some(ours), Some(least)]));
    }
    Table {
        name: "requests-errors",
        title: "Errors: canary requests until a regression is shown",
        note: "Margin 0, α = 1 %, no clip. The bound is that of theory for any test that is as rarely wrong \
            and does not know stable's rate."
            .to_owned(),
        head: vec!["stable → canary", "bound", "ours, mean", "p95", "ratio"],
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
