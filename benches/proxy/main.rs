//! Switchback beside nginx and HAProxy, on loopback, as ratios.
//!
//! `cargo bench --bench proxy` takes under 10 minutes, `-- --quick` under 2. An origin, the peers and
//! Switchback are started with equivalent configurations; the proxies share one core, the origin and
//! the load generators have the others. Rounds alternate between the proxies, so that a noisy
//! machine is noisy for all alike; what is printed is the median of rounds with its range.
//!
//! `NGINX=`, `HAPROXY=` and `SWITCHBACK=` name other binaries. `--only WORD` (repeatable) keeps the measurements
//! whose name contains the word; `--no-instructions` leaves callgrind out, `--rounds N` and
//! `--seconds S` change how long is measured.

mod callgrind;
mod load;
mod memory;
mod origin;
mod peers;
mod process;
mod report;
mod tools;
mod work;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::peers::{Kind, Site};
use crate::report::Report;

/// What goes wrong in a benchmark ends it, with a sentence.
pub type Result<T> = std::result::Result<T, String>;

/// What was asked for on the command line.
#[derive(Debug)]
struct Options {
    quick: bool,
    instructions: bool,
    rounds: usize,
    seconds: f64,
    only: Vec<String>,
}

impl Options {
    fn read() -> Result<Self> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let quick = arguments.iter().any(|argument| argument == "--quick");
        let mut options = Self {
            quick,
            instructions: true,
            rounds: if quick { 3 } else { 5 },
            seconds: if quick { 1.0 } else { 2.0 },
            only: Vec::new(),
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                // What cargo adds.
                "--bench" | "--quick" => {}
                "--no-instructions" => options.instructions = false,
                "--rounds" => options.rounds = number(&value()?)?,
                "--seconds" => options.seconds = number(&value()?)?,
                "--only" => options.only.push(value()?),
                other => return Err(format!("{other} is not an option of this benchmark")),
            }
        }
        Ok(options)
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| name.contains(word.as_str()))
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    // The origin and the holder of idle connections are this program once more, so that they can
    // be kept to cores of their own.
    let done = match arguments.next().as_deref() {
        Some("--origin") => origin::main(),
        Some("--hold") => memory::hold(arguments),
        // Without `--bench` somebody runs all targets as tests.
        _ if !std::env::args().any(|argument| argument == "--bench" || argument == "--quick") => {
            println!("run it as `cargo bench --bench proxy`");
            Ok(())
        }
        _ => Options::read().and_then(|options| measure(&options)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<()> {
    let began = Instant::now();
    let tools = tools::check(options.instructions)?;
    let mut report = Report::new(&tools)?;
    let site = Site::prepare(&tools)?;
    let mut running = Vec::new();
    for kind in Kind::ALL {
        running.push(site.start(kind)?);
    }
    for proxy in &running {
        report.resident(proxy.kind, proxy.process.resident()?);
    }
    if options.wants("memory") {
        for proxy in &running {
            report.idle(proxy.kind, memory::per_idle_connection(&site, proxy)?);
        }
    }
    report.begin(options.rounds, options.seconds);
    for work in work::ALL {
        if !options.wants(work.name) {
            continue;
        }
        let mut rounds = Vec::new();
        for round in 0..options.rounds {
            for proxy in &running {
                let seconds = Duration::from_secs_f64(options.seconds);
                let measured = work.run(&site, proxy, seconds)?;
                report.keep(work.name, proxy.kind, round, &measured);
                rounds.push((proxy.kind, measured));
            }
        }
        report.row(work.name, &rounds);
    }
    drop(running);
    if options.instructions && options.wants("instructions") {
        let (few, many) = if options.quick { (500, 2_500) } else { (1_000, 6_000) };
        for (kind, ids) in [(Kind::Switchback, true), (Kind::Nginx, false), (Kind::Nginx, true)] {
            let instructions = callgrind::per_request(&site, kind, ids, few, many)?;
            report.instructions(kind, ids, instructions);
        }
    }
    report.end(began.elapsed())
}
