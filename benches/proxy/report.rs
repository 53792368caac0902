//! The table, and the raw rows beside it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::Result;
use crate::peers::Kind;
use crate::tools::Tools;
use crate::work::Measured;

/// What is printed and kept.
#[derive(Debug)]
pub struct Report {
    file: PathBuf,
    head: Value,
    rows: Vec<Value>,
    /// Our instructions per request.
    ours: Option<f64>,
}

impl Report {
    /// A report about these tools.
    pub fn new(tools: &Tools) -> Result<Self> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("proxy-bench");
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let model = model.map_or("", |(_, name)| name.trim());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let ours = format!("switchback {}", env!("CARGO_PKG_VERSION"));
        println!("{ours}\n{}", tools.versions.join("\n"));
        println!("{model}, {cores} cores, Linux {}", kernel.trim());
        let head = json!({
            "switchback": env!("CARGO_PKG_VERSION"),
            "versions": tools.versions,
            "machine": { "processor": model, "cores": cores, "kernel": kernel.trim() },
            "date": jiff::Timestamp::now().to_string(),
        });
        Ok(Self { file: folder.join("rows.json"), head, rows: Vec::new(), ours: None })
    }

    /// The head of the table.
    pub fn begin(&self, rounds: usize, seconds: f64) {
        println!(
            "\nMedians of {rounds} rounds of {seconds} s, and their range. Ratios are ours to theirs, \
             round by round:\nCPU below 1 and throughput above 1 are better.\n"
        );
        println!(
            "{:<30} {:>22} {:>18} {:>18} {:>18} {:>18}",
            "", "CPU µs ours (user)", "to nginx", "to HAProxy", "throughput nginx", "to HAProxy"
        );
    }

    /// Keeps a round.
    pub fn keep(&mut self, work: &str, kind: Kind, round: usize, measured: &Measured) {
        self.rows.push(json!({
            "work": work, "proxy": kind.to_string(), "round": round, "measured": measured,
        }));
    }

    /// A row of the table, of all rounds of one kind of work.
    pub fn row(&self, work: &str, rounds: &[(Kind, Measured)]) {
        let of = |wanted: Kind| -> Vec<&Measured> {
            rounds.iter().filter(|(kind, _)| *kind == wanted).map(|(_, m)| m).collect()
        };
        let ours = of(Kind::Switchback);
        let ratio = |peer: Kind, figure: &dyn Fn(&Measured) -> f64| {
            Spread::of(ours.iter().zip(of(peer)).map(|(us, it)| figure(us) / figure(it)).collect())
        };
        let cpu = Spread::of(ours.iter().map(|m| m.cpu()).collect());
        let user = Spread::of(ours.iter().map(|m| m.user).collect());
        println!(
            "{work:<30} {:>22} {:>18} {:>18} {:>18} {:>18}",
            format!("{:.1} ({:.1})", cpu.median, user.median),
            ratio(Kind::Nginx, &Measured::cpu).to_string(),
            ratio(Kind::Haproxy, &Measured::cpu).to_string(),
            ratio(Kind::Nginx, &|m| m.throughput).to_string(),
            ratio(Kind::Haproxy, &|m| m.throughput).to_string(),
        );
    }

    /// Memory at start.
    pub fn resident(&mut self, kind: Kind, bytes: u64) {
        self.figure(kind, "memory at start, MiB", bytes as f64 / (1024.0 * 1024.0));
    }

    /// Memory per idle connection.
    pub fn idle(&mut self, kind: Kind, bytes: f64) {
        self.figure(kind, "memory per idle connection, KiB", bytes / 1024.0);
    }

    /// User instructions per request; ours come first.
    pub fn instructions(&mut self, kind: Kind, ids: bool, instructions: f64) {
        let what = match (kind, ids) {
            (Kind::Nginx, true) => "user instructions, request id too",
            _ => "user instructions per request",
        };
        self.figure(kind, what, instructions);
        let ours = *self.ours.get_or_insert(instructions);
        if kind != Kind::Switchback {
            println!("{:<47} ours to it: {:.3}", "", ours / instructions);
        }
    }

    fn figure(&mut self, kind: Kind, what: &str, value: f64) {
        println!("{what:<34} {kind:<12} {value:>10.1}");
        self.rows.push(json!({ "figure": what, "proxy": kind.to_string(), "value": value }));
    }

    /// Writes the raw rows.
    pub fn end(self, took: Duration) -> Result<()> {
        let Self { file, head, rows, .. } = self;
        let all = json!({ "about": head, "rows": rows });
        let text = serde_json::to_string_pretty(&all).map_err(|error| error.to_string())?;
        std::fs::write(&file, text).map_err(|error| error.to_string())?;
        println!("\n{:.0} s in all; raw rows in {}", took.as_secs_f64(), file.display());
        Ok(())
    }
}

/// A median and the range around it.
#[derive(Debug, Clone, Copy)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
        let (middle, last) = (values.len() / 2, values.len().saturating_sub(1));
        let median =
            if values.len() % 2 == 1 { at(middle) } else { (at(middle) + at(last / 2)) / 2.0 };
        Self { median, least: at(0), most: at(last) }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{:.2} ({:.2}–{:.2})", self.median, self.least, self.most))
    }
}
