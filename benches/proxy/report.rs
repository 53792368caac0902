//! The tables, and the raw rows beside them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::bars::{BARS, Bar};
use crate::peers::Kind;
use crate::picture;
use crate::readme;
use crate::tools::Tools;
use crate::{Options, Result};

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// Less.
    Lower,
    /// More.
    Higher,
}

/// A figure: its values by proxy and round.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// What it is counted in.
    pub unit: &'static str,
    /// Which way is better.
    pub better: Better,
    by: Vec<(Kind, Vec<f64>)>,
}

impl Series {
    /// No values yet.
    pub fn new(name: &str, unit: &'static str, better: Better) -> Self {
        Self { name: name.to_owned(), unit, better, by: Vec::new() }
    }

    /// Adds a proxy's next round.
    pub fn add(&mut self, kind: Kind, value: f64) {
        match self.by.iter_mut().find(|(other, _)| *other == kind) {
            Some((_, values)) => values.push(value),
            None => self.by.push((kind, vec![value])),
        }
    }

    fn of(&self, kind: Kind) -> &[f64] {
        self.by.iter().find(|(other, _)| *other == kind).map_or(&[], |(_, values)| values)
    }

    /// A proxy's median.
    pub fn median(&self, kind: Kind) -> Option<f64> {
        self.spread(kind).map(|spread| spread.median)
    }

    /// A proxy's values.
    pub fn spread(&self, kind: Kind) -> Option<Spread> {
        Spread::of(self.of(kind).to_vec())
    }

    /// Ours to a peer's, round by round.
    pub fn against(&self, peer: Kind) -> Option<Spread> {
        let pairs = self.of(Kind::Switchback).iter().zip(self.of(peer));
        Spread::of(pairs.map(|(us, it)| us / it).collect())
    }
}

/// What is printed and kept.
#[derive(Debug)]
pub struct Report {
    folder: PathBuf,
    head: Value,
    title: String,
    sections: Vec<(String, Vec<Series>)>,
    notes: Vec<String>,
}

impl Report {
    /// A report about these tools.
    pub fn new(options: &Options, tools: &Tools) -> Result<Self> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("proxy-bench");
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let model = model.map_or("", |(_, name)| name.trim());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let machine = format!("{model}, {cores} cores, Linux {}", kernel.trim());
        let ours = format!("Switchback {}", env!("CARGO_PKG_VERSION"));
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
        println!("{ours}\n{}\n{machine}, load {}", tools.versions.join("\n"), busy());
        println!(
            "{} rounds of {:.1} s, the proxies in turn; medians, and the range of rounds in brackets",
            options.rounds,
            options.round.as_secs_f64()
        );
        let peers = tools
            .versions
            .iter()
            .filter(|said| said.starts_with("nginx") || said.starts_with("HAProxy"));
        // "nginx version: nginx/1.22.1" and "HAProxy version 2.6.12-1+deb12u4 2026/10/17"
        let peers = peers.map(|said| match said.split_once("nginx/") {
            Some((_, version)) => format!("nginx {version}"),
            None => said.replace(" version", "").split(' ').take(2).collect::<Vec<_>>().join(" "),
        });
        let peers = peers.collect::<Vec<_>>().join(", ");
        let title = format!("{date}, {ours}, {peers}, {machine}");
        let head = json!({
            "switchback": env!("CARGO_PKG_VERSION"), "versions": tools.versions,
            "machine": machine, "load": busy(), "date": date,
            "rounds": options.rounds, "seconds": options.round.as_secs_f64(),
        });
        Ok(Self { folder, head, title, sections: Vec::new(), notes: Vec::new() })
    }

    /// Begins a section.
    pub fn section(&mut self, title: &str) {
        println!("\n{title}");
        println!(
            "{:<46}{:>12}{:>12}{:>12}   {:<22}{:<22}",
            "", "Switchback", "nginx", "HAProxy", "to nginx", "to HAProxy"
        );
        self.sections.push((title.to_owned(), Vec::new()));
    }

    /// Prints a row, and keeps it.
    pub fn add(&mut self, series: Series) {
        let cell = |kind| {
            series.median(kind).map_or(String::new(), |median| {
                let unit = if series.unit == "×" || series.unit == "%" { "" } else { " " };
                format!("{}{unit}{}", figure(median), series.unit)
            })
        };
        // What is a ratio already is not compared once more.
        let ratio = |peer| match series.against(peer) {
            Some(ratio) if series.unit != "×" && ratio.median.is_finite() => ratio.to_string(),
            _ => String::new(),
        };
        let ours = match series.spread(Kind::Switchback) {
            Some(spread) if series.unit == "×" => spread.to_string(),
            _ => ratio(Kind::Nginx),
        };
        println!(
            "{:<46}{:>12}{:>12}{:>12}   {:<22}{:<22}",
            series.name,
            cell(Kind::Switchback),
            cell(Kind::Nginx),
            cell(Kind::Haproxy),
            ours,
            ratio(Kind::Haproxy)
        );
        self.keep(series);
    }

    /// Keeps a row that is not printed.
    pub fn keep(&mut self, series: Series) {
        if let Some((_, rows)) = self.sections.last_mut() {
            rows.push(series);
        }
    }

    /// Says something beside the rows.
    pub fn note(&mut self, words: &str) {
        println!("  {words}");
        self.notes.push(words.to_owned());
    }

    /// A row by its name, or by its beginning.
    pub fn find(&self, name: &str) -> Option<&Series> {
        self.sections.iter().flat_map(|(_, rows)| rows).find(|row| row.name == name)
    }

    /// The bars, as a table for the README.
    fn bars(&self) -> String {
        let mut text = String::from("| | measured | bar | wanted |\n|---|---|---|---|\n");
        for bar in &BARS {
            let Some(measured) = bar.measured(self) else { continue };
            let Bar { text: what, bar: limit, wanted, unit, .. } = bar;
            let verdict = if measured.median > *limit { " ✗" } else { "" };
            let range = if measured.is_point() {
                String::new()
            } else {
                format!(" ({}–{})", figure(measured.least), figure(measured.most))
            };
            text += &format!(
                "| {what} | **{}{unit}**{range}{verdict} | ≤ {}{unit} | {}{unit} |\n",
                figure(measured.median),
                figure(*limit),
                figure(*wanted),
            );
        }
        text
    }

    /// Writes the raw rows, the table and the picture.
    pub fn end(mut self, options: &Options, took: Duration) -> Result<()> {
        self.head["load at the end"] = json!(busy());
        self.head["took"] = json!(took.as_secs());
        let table = self.bars();
        let Self { folder, head, title, sections, notes } = &self;
        let rows = sections.iter().flat_map(|(section, rows)| {
            rows.iter().map(move |row| {
                let by = row.by.iter().map(|(kind, values)| (kind.to_string(), json!(values)));
                json!({
                    "section": section, "name": row.name, "unit": row.unit,
                    "better": if row.better == Better::Lower { "lower" } else { "higher" },
                    "rounds": by.collect::<serde_json::Map<_, _>>(),
                })
            })
        });
        let all = json!({ "about": head, "notes": notes, "rows": rows.collect::<Vec<_>>() });
        let text = serde_json::to_string_pretty(&all).map_err(|error| error.to_string())?;
        let write = |name: &str, text: &str| {
            let file = folder.join(name);
            std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))
        };
        write("rows.json", &text)?;
        write("table.md", &format!("{title}\n\n{table}"))?;
        println!("\n{title}\n\n{table}");
        if let Some(picture) = picture::draw(&self)? {
            write("proxy.svg", &picture)?;
            if options.write {
                readme::write(title, &table, &picture)?;
            }
        }
        println!(
            "{:.0} s in all, load {}; rows.json, table.md and proxy.svg are in {}",
            took.as_secs_f64(),
            busy(),
            folder.display()
        );
        Ok(())
    }

    /// What was measured with, and when.
    pub fn title(&self) -> &str {
        &self.title
    }
}

/// The machine's load averages.
fn busy() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// A number with as many digits as it deserves.
pub fn figure(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "–".to_owned(),
        size if size >= 10_000.0 => {
            let whole = format!("{value:.0}");
            let at = whole.len() - 3;
            format!("{},{}", &whole[..at], &whole[at..])
        }
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        0.0 => "0".to_owned(),
        _ => format!("{value:.2}"),
    }
}

/// A median and the range around it.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    /// The middle.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (first, last) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, least: first, most: last })
    }

    /// Whether it has no width.
    pub fn is_point(&self) -> bool {
        self.most - self.least <= f64::EPSILON * self.most.abs()
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = if self.is_point() {
            figure(self.median)
        } else {
            format!("{} ({}–{})", figure(self.median), figure(self.least), figure(self.most))
        };
        f.pad(&text)
    }
}
