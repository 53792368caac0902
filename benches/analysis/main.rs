//! The promises of the analysis, measured on simulated traffic, beside the bounds of theory and the
//! rules of other tools.
//!
//! `cargo bench --bench analysis` takes ten minutes or so of two processors; `-- --quick` a tenth of the runs, `-- --third` a
//! third; `-- --write` writes `src/analysis/RESULTS.md` and its pictures anew. Seeds are fixed: the same build prints the
//! same numbers, but for what a poll costs.

use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use switchback::{analysis, model};

mod bounds;
mod cost;
mod errors;
mod latency;
mod peers;
mod promotion;
mod report;
mod rollouts;
#[path = "../../src/analysis/simulation.rs"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod simulation;

use report::Table;

/// How many runs of everything, relative to a full benchmark.
#[derive(Clone, Copy)]
pub struct Effort(f64);

impl Effort {
    /// So many of `full`.
    pub fn runs(self, full: u64) -> u64 {
        ((full as f64 * self.0) as u64).max(10)
    }
}

/// The mean of some numbers.
pub fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len().max(1) as f64
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // `cargo bench` says `--bench`; without it somebody runs all targets as tests and is in a hurry.
    let asked = |word: &str| std::env::args().any(|arg| arg == word);
    let effort = Effort(match (asked("--bench") && !asked("--quick"), asked("--third")) {
        (false, _) => 0.1,
        (true, true) => 0.33,
        (true, false) => 1.0,
    });
    let began = Instant::now();
    let cost = cost::polls();
    println!("{cost}");
    let makes: [fn(Effort) -> Table; 10] = [
        errors::false_rollbacks,
        latency::false_rollbacks,
        rollouts::false_rollbacks,
        errors::requests_to_detect,
        latency::requests_to_detect,
        peers::times_to_detect,
        peers::false_alarms,
        rollouts::times_to_zero,
        promotion::requests_to_pass,
        promotion::wrongly_passed,
    ];
    let mut page = String::from(PAGE);
    page.push_str(&format!("{cost}\n\n"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/analysis");
    // Two at a time, told in order; what takes longest begins first.
    let mut tables: Vec<Option<Table>> = makes.iter().map(|_| None).collect();
    let left = Mutex::new(vec![0, 1, 2, 3, 4, 5, 9, 6, 8, 7]);
    let next = || left.lock().ok().and_then(|mut left| left.pop());
    let work = || {
        let made = std::iter::from_fn(|| next().map(|index: usize| (index, makes[index](effort))));
        made.collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let both = [scope.spawn(work), scope.spawn(work)];
        for (index, table) in both.into_iter().flat_map(|thread| thread.join().unwrap_or_default())
        {
            tables[index] = Some(table);
        }
    });
    for table in tables {
        let table = table.ok_or("a table was not made")?;
        table.print();
        if asked("--write") {
            std::fs::create_dir_all(root.join("results"))?;
            table.draw(&root.join("results"))?;
            page.push_str(&table.markdown());
        }
    }
    if asked("--write") {
        std::fs::write(root.join("RESULTS.md"), page.trim_end().to_owned() + "\n")?;
    }
    println!("\n{:.0} s in all", began.elapsed().as_secs_f64());
    Ok(())
}

const PAGE: &str = "\
# What the verdict is worth

Simulated traffic, fixed seeds, the code that judges live: `cargo bench --bench analysis -- --write` \
writes this page and its pictures anew. `tests/independent.rs` compares the formulas with code that \
others wrote (savvi, ville, SciPy), `src/analysis/stories.rs` asserts a few of these promises in every \
test run, and `tests/verdicts.rs` tells them on the running daemon.

Faults are made up, and their rates are what we chose. What no request-level test can tell is whether a \
canary is slow because of its revision or because of its machine: see `compare_instances`, \
`fresh_baseline` and more than one replica in [`config/switchback.toml`](../../config/switchback.toml).

";
