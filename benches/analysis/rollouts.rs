//! Whole rollouts: all streams and guards together, as the daemon judges.

use crate::analysis::criteria::{Criteria, Margins, RateMargin, SlowMargin};
use crate::report::{Picture, Table};
use crate::simulation::{Behaviour, Ending, HEALTHY, Plan, Story, median_and_p95};
use crate::{Effort, mean};

fn errors(errors: f64) -> Behaviour {
    Behaviour { errors, ..HEALTHY }
}

fn slow(factor: f64) -> Behaviour {
    Behaviour { median: HEALTHY.median * factor, ..HEALTHY }
}

/// No margin at all: the worst case, in which the bound on false rollbacks is all that protects.
fn without_margins() -> Criteria {
    let criteria = Criteria::default();
    let none = RateMargin { ratio: 1.0, plus: 0.0 };
    let margins = Margins {
        errors: none,
        rejected: none,
        latency: SlowMargin { factor: 1.0, plus: 0.0 },
        ..criteria.margins()
    };
    Criteria { margins: Some(margins), ..criteria }
}

/// What both sides share, second by second.
const SHARED: [(&str, Story<'static>); 5] = [
    ("nothing happens", &|_, _| HEALTHY),
    ("10 % errors for 40 s", &|at, _| {
        if (50.0..90.0).contains(&at) { errors(0.1) } else { HEALTHY }
    }),
    ("an outage of 10 s", &|at, _| {
        if (70.0..80.0).contains(&at) { errors(1.0) } else { HEALTHY }
    }),
    ("three times slower for 40 s", &|at, _| {
        if (50.0..90.0).contains(&at) { slow(3.0) } else { HEALTHY }
    }),
    ("errors and latency by the minute", &|at, _| Behaviour {
        errors: 0.01 * (1.0 + 0.9 * (at / 9.0).sin()),
        median: HEALTHY.median * (1.0 + 0.6 * (at / 13.0).sin()),
        ..HEALTHY
    }),
];

/// Rollouts of a canary that equals stable, through what both sides share.
pub fn false_rollbacks(effort: Effort) -> Table {
    let (mut rows, mut groups) = (Vec::new(), Vec::new());
    for (name, story) in SHARED {
        let mut parts = Vec::new();
        let mut held = 0;
        let runs = effort.runs(300);
        for criteria in [without_margins(), Criteria::default()] {
            let plan = Plan {
                rps: 100.0,
                steps: &[5.0, 25.0, 50.0, 100.0],
                bake: 30.0,
                until: 160.0,
                criteria,
            };
            let endings: Vec<Ending> = (0..runs).map(|seed| plan.play(story, seed + 1)).collect();
            held = endings.iter().filter(|end| end.held).count();
            let failed = endings.iter().filter(|end| end.failed()).count();
            parts.push(failed as f64 / runs as f64);
        }
        rows.push(vec![
            name.to_owned(),
            format!("{:.4}", parts[0]),
            format!("{:.4}", parts[1]),
            format!("{:.2}", held as f64 / runs as f64),
            runs.to_string(),
        ]);
        groups.push((name.to_owned(), parts.into_iter().map(Some).collect()));
    }
    Table {
        name: "false-rollbacks-whole",
        title: "Whole rollouts: how often an equal canary is taken back",
        note: "All streams, breaker and guards together: 5, 25, 50 and 100 % of 100 requests a second, 160 s, \
            through what happens to both sides alike. Margin 0 is the worst case, for which α = 1 % is \
            promised. Held: rollouts in which a guard said that a person should look."
            .to_owned(),
        head: vec!["both sides", "margin 0", "default margins", "held", "runs"],
        rows,
        picture: Picture {
            axis: "part of rollouts taken back",
            is_log: false,
            series: vec!["margin 0", "default margins"],
            groups,
            bound: Some((0.01, "α")),
        },
    }
}

/// A canary: its name, requests a second, how it behaves, when to stop watching, steps, and runs.
type Case = (&'static str, f64, Behaviour, f64, &'static [f64], u64);

/// How soon a fault is seen, and a healthy canary promoted.
pub fn times_to_zero(effort: Effort) -> Table {
    let (mut rows, mut groups) = (Vec::new(), Vec::new());
    const ALL: &[f64] = &[5.0, 25.0, 50.0, 100.0];
    let cases: [Case; 25] = [
        ("dead", 1000.0, errors(1.0), 60.0, ALL, 60),
        ("dead", 100.0, errors(1.0), 60.0, ALL, 200),
        ("dead", 20.0, errors(1.0), 60.0, ALL, 200),
        ("dead", 10.0, errors(1.0), 120.0, ALL, 200),
        ("dead, at 50 %", 10.0, errors(1.0), 60.0, &[50.0], 200),
        ("dead", 1.0, errors(1.0), 900.0, ALL, 200),
        ("dead, at 50 %", 1.0, errors(1.0), 300.0, &[50.0], 200),
        ("10 % errors", 10.0, errors(0.1), 900.0, &[5.0], 100),
        ("10 % errors, at 50 %", 10.0, errors(0.1), 300.0, &[50.0], 100),
        ("10 % errors, at 50 %", 1.0, errors(0.1), 1_800.0, &[50.0], 100),
        ("5 % errors", 1000.0, errors(0.05), 120.0, ALL, 60),
        ("1 % errors", 1000.0, errors(0.01), 300.0, ALL, 60),
        ("5 % errors", 100.0, errors(0.05), 300.0, ALL, 200),
        ("5 % errors", 20.0, errors(0.05), 900.0, ALL, 200),
        ("1.5 times slower", 1000.0, slow(1.5), 120.0, ALL, 60),
        ("1.5 times slower", 100.0, slow(1.5), 600.0, ALL, 100),
        ("3 times slower", 1000.0, slow(3.0), 60.0, ALL, 60),
        ("3 times slower", 20.0, slow(3.0), 300.0, ALL, 200),
        ("half are 4xx", 100.0, Behaviour { rejected: 0.5, ..HEALTHY }, 120.0, ALL, 100),
        (
            "5 % are 4xx (stable: 1 %)",
            1000.0,
            Behaviour { rejected: 0.05, ..HEALTHY },
            300.0,
            ALL,
            40,
        ),
        ("healthy, promoted", 10_000.0, HEALTHY, 600.0, ALL, 10),
        ("healthy, promoted", 1000.0, HEALTHY, 600.0, ALL, 60),
        ("healthy, promoted", 100.0, HEALTHY, 2_400.0, ALL, 100),
        ("healthy, promoted", 10.0, HEALTHY, 14_400.0, ALL, 30),
        ("healthy, promoted", 1.0, HEALTHY, 90_000.0, ALL, 10),
    ];
    for (name, rps, canary, until, steps, runs) in cases {
        let is_healthy = name.starts_with("healthy");
        let plan = Plan {
            rps,
            steps,
            bake: if is_healthy { 30.0 } else { 0.0 },
            until,
            criteria: Criteria::default(),
        };
        let story = move |_: f64, is_canary: bool| if is_canary { canary } else { HEALTHY };
        let runs = effort.runs(runs);
        let endings: Vec<Ending> = (0..runs).map(|seed| plan.play(&story, seed + 1)).collect();
        let done = |end: &&Ending| if is_healthy { end.passed.len() == 4 } else { end.failed() };
        let count = endings.iter().filter(done).count();
        let times: Vec<f64> = endings
            .iter()
            .filter(done)
            .map(|end| match canary.errors > HEALTHY.errors {
                true => end.at - end.first_error.min(end.at),
                false => end.at,
            })
            .collect();
        let (median, p95) = median_and_p95(times);
        let failures = mean(&endings.iter().map(|end| end.canary.1 as f64).collect::<Vec<_>>());
        let name = format!("{name}, {rps}/s");
        rows.push(vec![
            name.clone(),
            format!("{count} of {runs}"),
            format!("{median:.1} s"),
            format!("{p95:.1} s"),
            format!("{failures:.1}"),
        ]);
        groups.push((name, vec![Some(median), Some(p95)]));
    }
    Table {
        name: "times-to-zero",
        title: "Whole rollouts: seconds until a fault is taken back",
        note: "The default limits and steps, stable with 0.1 % errors and a p95 of 75 ms; from the canary's \
            first error on (from the step's beginning where it is slow or refuses), without a least time at a \
            step. The last rows are healthy canaries, from the first step to the end of the last, each step \
            30 s at least, which is the default; a step may take as long as it needs."
            .to_owned(),
        head: vec!["canary", "decided", "median", "p95", "failed requests, mean"],
        rows,
        picture: Picture {
            axis: "seconds",
            is_log: true,
            series: vec!["median", "p95"],
            groups,
            bound: None,
        },
    }
}
