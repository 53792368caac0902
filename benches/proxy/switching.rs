//! What switching costs: latency at half load while something changes, against the same proxy's when
//! nothing does, in the same round.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::nice;
use serde_json::json;
use switchback::demo::image::{PROGRAM, root_file_system};

use crate::latency::PERCENTILES;
use crate::offer::{Offered, offer};
use crate::peers::{Behind, Kind, Running, Setup, Site, us};
use crate::report::{Better, Report, Series};
use crate::texts::LABEL;
use crate::{Options, Result};

/// How often weights change.
const EVERY: Duration = Duration::from_millis(50);
/// How many routes are many.
const ROUTES: usize = 10_000;

/// The section's title.
pub const SECTION: &str =
    "What switching costs: latency at half load, as a multiple of the same when nothing changes";

/// What happens during an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// Weights change twenty times a second.
    Weights,
    /// A revision is launched, gets all traffic in three steps, and the former one is stopped.
    Rollout,
    /// The configuration is read again, once a second.
    Reload,
    /// There are many routes, and their hosts are asked for in turn.
    Routes,
}

impl Event {
    /// How many times the rounds of others it has: a promise about one request of a hundred, within
    /// 5 %, is lost in the noise of a few short rounds.
    fn turns(self) -> usize {
        if self == Self::Weights { 2 } else { 1 }
    }
}

/// Something that happens, and to which proxies.
struct Plan {
    event: Event,
    name: &'static str,
    /// Each with what it is compared with; with itself where there is nothing else.
    setups: Vec<(Setup, Option<Setup>)>,
}

impl Plan {
    fn of(event: Event, name: &'static str, setups: Vec<(Setup, Option<Setup>)>) -> Self {
        Self { event, name, setups }
    }

    fn start(&self, site: &Site) -> Result<Vec<Case>> {
        let start = |(setup, quiet): &(Setup, Option<Setup>)| {
            let quiet = quiet.as_ref().map(|setup| site.start(setup)).transpose()?;
            Ok(Case { event: self.event, changing: site.start(setup)?, quiet })
        };
        self.setups.iter().map(start).collect()
    }
}

/// A proxy in whose case something happens.
struct Case {
    event: Event,
    changing: Running,
    quiet: Option<Running>,
}

/// Measures all cases; `most` is nginx's own throughput.
pub fn measure(options: &Options, site: &Site, report: &mut Report, most: f64) -> Result<()> {
    report.section(SECTION);
    let rate = most * 0.5;
    let containers = Containers;
    for plan in plans(options, report)? {
        let name = plan.name;
        let cases = plan.start(site)?;
        let mut against =
            PERCENTILES.map(|(p, _)| Series::new(&format!("{name}, {p}"), "×", Better::Lower));
        let mut raw = Series::new(&format!("{name}, p99 in µs"), "µs", Better::Lower);
        let mut again = Series::new(&format!("{name}, requests sent again"), "", Better::Lower);
        let mut lost = Series::new(&format!("{name}, requests lost"), "", Better::Lower);
        for round in 0..options.rounds * plan.event.turns() {
            // What is promised is ours; peers are there to compare with.
            let is_more =
                |case: &&Case| round < options.rounds || case.changing.kind == Kind::Switchback;
            for case in cases.iter().filter(is_more) {
                let quiet = || {
                    let proxy = case.quiet.as_ref().unwrap_or(&case.changing);
                    offer(proxy.http, rate, options.offer, 1)
                };
                let changing =
                    || case.changing(options, rate).map_err(|error| format!("{name}: {error}"));
                // Which comes first alternates, lest one of them always meets what the other left.
                let (quiet, changing) = if round % 2 == 0 {
                    let quiet = quiet()?;
                    (quiet, changing()?)
                } else {
                    let changing = changing()?;
                    (quiet()?, changing)
                };
                let kind = case.changing.kind;
                for (series, (_, of)) in against.iter_mut().zip(PERCENTILES) {
                    series.add(kind, of(&changing) / of(&quiet));
                }
                raw.add(kind, changing.p99);
                again.add(kind, changing.again as f64);
                lost.add(kind, changing.lost as f64);
            }
        }
        against.into_iter().for_each(|series| report.add(series));
        report.keep(raw);
        report.add(again);
        report.add(lost);
    }
    drop(containers);
    Ok(())
}

/// What is done, to whom.
fn plans(options: &Options, report: &mut Report) -> Result<Vec<Plan>> {
    let alone = |kinds: &[Kind], change: &dyn Fn(Setup) -> Setup| -> Vec<_> {
        kinds.iter().map(|kind| (change(Setup::of(*kind)), None)).collect()
    };
    let many = |kind: &Kind| (Setup { routes: ROUTES, ..Setup::of(*kind) }, Some(Setup::of(*kind)));
    let launching = |behind: Behind| vec![(Setup { behind, ..Setup::of(Kind::Switchback) }, None)];
    let command = [&us()?.display().to_string(), "--instance", "{port}"].map(str::to_owned);
    let mut plans = vec![
        Plan::of(
            Event::Weights,
            "20 weights a second",
            alone(&[Kind::Haproxy, Kind::Switchback], &|setup| setup),
        ),
        Plan::of(
            Event::Reload,
            "a reload a second",
            alone(&Kind::ALL, &|setup| Setup { reloads: true, ..setup }),
        ),
        Plan::of(Event::Routes, "10,000 routes", Kind::ALL.iter().map(many).collect()),
        Plan::of(
            Event::Rollout,
            "a rollout of processes",
            launching(Behind::Processes(command.to_vec())),
        ),
    ];
    match image() {
        Ok(_) if options.quick => {}
        Ok(image) => {
            let arguments = ["--instance", "3000"].map(str::to_owned).to_vec();
            let behind = Behind::Containers { image, arguments };
            plans.push(Plan::of(Event::Rollout, "a rollout of containers", launching(behind)));
        }
        Err(why) => report.note(&format!("no rollout of containers is measured: {why}")),
    }
    Ok(plans)
}

impl Case {
    /// An offer while it happens.
    fn changing(&self, options: &Options, rate: f64) -> Result<Offered> {
        let proxy = &self.changing;
        let over = AtomicBool::new(false);
        let hosts = if self.event == Event::Routes { ROUTES } else { 1 };
        // A rollout takes longer than a round.
        let time =
            if self.event == Event::Rollout { options.offer.mul_f64(3.0) } else { options.offer };
        std::thread::scope(|scope| {
            let changes = scope.spawn(|| {
                // Who asks for changes shares a core with the offer and the origin, which must not wait
                // for it: its own work is none of the proxy's.
                let _ = nice(19);
                match self.event {
                    Event::Weights => weights(proxy, &over),
                    Event::Reload => reloads(proxy, &over),
                    Event::Rollout => rollouts(proxy, &over),
                    Event::Routes => Ok(()),
                }
            });
            let offered = offer(proxy.http, rate, time, hosts);
            over.store(true, Ordering::Relaxed);
            changes.join().map_err(|_| "a thread that changes things panicked")??;
            offered
        })
    }
}

fn weights(proxy: &Running, over: &AtomicBool) -> Result<()> {
    let mut next = Instant::now();
    for turn in 0_u32.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        // Both sides are the same origin: only the change itself may be felt.
        let canary = 5 + turn % 2;
        if proxy.kind == Kind::Haproxy {
            proxy.tell(&format!("set weight app/canary {canary}"))?;
        } else {
            proxy.weigh(f64::from(canary))?;
        }
        next += EVERY;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

fn reloads(proxy: &Running, over: &AtomicBool) -> Result<()> {
    // Behind the generator's warming, so that each second that counts has one.
    let mut wait = Duration::from_millis(300);
    let mut since = Instant::now();
    while !over.load(Ordering::Relaxed) {
        if since.elapsed() >= wait {
            proxy.reload()?;
            (since, wait) = (Instant::now(), Duration::from_secs(1));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn rollouts(proxy: &Running, over: &AtomicBool) -> Result<()> {
    while !over.load(Ordering::Relaxed) {
        // The same thing once more, as a new revision.
        proxy.deploy(&json!({}))?;
        proxy.until("the promotion", |web| web["phase"] == "promoted")?;
    }
    Ok(())
}

/// The image of an instance, on the Docker Engine that answers.
fn image() -> Result<String> {
    let ask = |arguments: &[&str], input: Option<Vec<u8>>| -> Result<()> {
        let mut command = Command::new("docker");
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.spawn().map_err(|error| format!("docker: {error}"))?;
        if let (Some(bytes), Some(mut stdin)) = (input, child.stdin.take()) {
            std::io::Write::write_all(&mut stdin, &bytes).map_err(|error| error.to_string())?;
        }
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(()) } else { Err(said.trim().to_owned()) }
    };
    ask(&["version"], None)?;
    let name = "switchback-bench:origin";
    let root = root_file_system(&us()?).map_err(|error| error.to_string())?;
    let entry = format!("ENTRYPOINT [{PROGRAM:?}]");
    ask(&["import", "--change", &entry, "-", name], Some(root))?;
    Ok(name.to_owned())
}

/// Containers that a daemon leaves running when it stops; they go with this.
struct Containers;

impl Drop for Containers {
    fn drop(&mut self) {
        let remove = format!("docker ps -aq --filter label={LABEL} | xargs -r docker rm -f");
        let mut command = Command::new("sh");
        command.args(["-c", &remove]).stdout(Stdio::null()).stderr(Stdio::null());
        let _ = command.status();
    }
}
