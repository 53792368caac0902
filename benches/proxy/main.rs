//! Switchback beside nginx and HAProxy, on loopback, as ratios.
//!
//! `cargo bench --bench proxy` takes under 10 minutes, `-- --quick` under 2. An origin, the peers and
//! Switchback are started with equivalent configurations; the proxies share one core, the origin and
//! the load generators have the others. Rounds alternate between the proxies, so that a noisy
//! machine is noisy for all alike; what is printed is the median of rounds with its range.
//!
//! `NGINX=`, `HAPROXY=` and `SWITCHBACK=` name other binaries. `--section WORD` (repeatable) keeps the
//! sections named so: work, instructions, price, files, memory, losses, latency, switching, scaling, and
//! beside, which runs only when it is named. `--only WORD` keeps the kinds of work whose name contains
//! the word; `--rounds N` and `--seconds S` change how long is measured. `--write` puts the table into
//! the README and the picture beside this.

mod bars;
mod beside;
mod callgrind;
mod edge_price;
mod edge_work;
mod hold;
mod insecure;
mod latency;
mod load;
mod losses;
mod memory;
mod offer;
mod origin;
mod peers;
mod picture;
mod price;
mod process;
mod readme;
mod report;
mod scaling;
mod shake;
mod switching;
mod texts;
mod tools;
mod work;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::peers::{Kind, Setup, Site};
use crate::report::Report;

/// What goes wrong in a benchmark ends it, with a sentence.
pub type Result<T> = std::result::Result<T, String>;

/// What was asked for on the command line.
#[derive(Debug)]
pub struct Options {
    /// Less of everything.
    pub quick: bool,
    /// What is measured goes into the README.
    pub write: bool,
    /// Rounds of each figure that is a time.
    pub rounds: usize,
    /// How long one is.
    pub round: Duration,
    /// How long one is in which requests are offered at a rate.
    pub offer: Duration,
    sections: Vec<String>,
    only: Vec<String>,
}

impl Options {
    fn read() -> Result<Self> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let quick = arguments.iter().any(|argument| argument == "--quick");
        let mut options = Self {
            quick,
            write: false,
            rounds: if quick { 1 } else { 5 },
            round: Duration::from_millis(600),
            offer: Duration::from_millis(700),
            sections: Vec::new(),
            only: Vec::new(),
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                // What cargo adds.
                "--bench" | "--quick" => {}
                "--write" => options.write = true,
                "--rounds" => options.rounds = number(&value()?)?,
                "--seconds" => {
                    options.round = Duration::try_from_secs_f64(number(&value()?)?)
                        .map_err(|error| error.to_string())?;
                    options.offer = options.round;
                }
                "--section" => options.sections.push(value()?),
                "--only" => options.only.push(value()?),
                other => return Err(format!("{other} is not an option of this benchmark")),
            }
        }
        if options.rounds == 0 || options.round.is_zero() {
            return Err("there must be a round, and it must take a while".into());
        }
        if options.write && (quick || !options.sections.is_empty() || !options.only.is_empty()) {
            return Err("only a full run is written into the README".into());
        }
        Ok(options)
    }

    /// Whether a kind of work is wanted.
    pub fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| name.contains(word.as_str()))
    }

    fn asks(&self, section: &str) -> bool {
        self.sections.iter().any(|name| name == section)
    }

    fn has(&self, section: &str) -> bool {
        self.sections.is_empty() || self.asks(section)
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    // The origin and the load are this program once more, so that they can be kept to cores of their
    // own.
    let done = match arguments.next().as_deref() {
        Some("--origin") => origin::main(),
        Some("--instance") => origin::instance(arguments),
        Some("--hold") => hold::main(arguments),
        Some("--shake") => shake::main(arguments),
        Some("--offer") => offer::main(arguments),
        Some("--alone") => price::alone(arguments),
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
    let tools = tools::check()?;
    let mut report = Report::new(options, &tools)?;
    let site = Site::prepare(&tools)?;
    let mut most = None;
    if options.has("work") {
        most = work::measure(options, &site, &mut report)?;
    }
    if options.has("instructions") {
        callgrind::measure(options, &site, &mut report)?;
    }
    // Quick is for what may have changed by a mistake; a price is looked at when a feature is made.
    if options.has("price") && (!options.quick || options.asks("price")) {
        price::measure(options, &site, &mut report)?;
    }
    if options.has("files") && (!options.quick || options.asks("files")) {
        edge_work::measure(options, &site, &mut report)?;
    }
    if options.has("memory") {
        memory::measure(options, &site, &mut report)?;
    }
    if options.has("losses") {
        losses::measure(options, &site, &mut report)?;
    }
    if options.has("latency") || options.has("switching") {
        let most = match most {
            Some(most) => most,
            None => saturation(options, &site)?,
        };
        if options.has("latency") {
            latency::measure(options, &site, &mut report, most)?;
        }
        if options.has("switching") {
            switching::measure(options, &site, &mut report, most)?;
        }
    }
    if options.has("scaling") {
        scaling::measure(options, &site, &mut report)?;
    }
    if options.asks("beside") {
        beside::measure(options, &site, &mut report)?;
    }
    report.end(options, began.elapsed())
}

/// What nginx can do of plain work, in requests per second.
fn saturation(options: &Options, site: &Site) -> Result<f64> {
    let nginx = site.start(&Setup::of(Kind::Nginx))?;
    work::plain(&nginx, 64, options.round).map(|measured| measured.throughput)
}
