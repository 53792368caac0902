//! Two workers against one on all cores, and throughput by the number of connections.

use std::time::Duration;

use crate::peers::{Kind, Running, Setup, Site};
use crate::process::Cores;
use crate::report::{Better, Report, Series};
use crate::work::{plain, weigh_idle};
use crate::{Options, Result};

/// Connections when workers are compared: enough for both.
const CONNECTIONS: u32 = 128;

/// Measures both.
pub fn measure(options: &Options, site: &Site, report: &mut Report) -> Result<()> {
    report.section("Workers and connections");
    if !options.quick {
        workers(options, site, report)?;
    }
    connections(options, site, report)
}

/// The load has the same cores: what is gained is what the load leaves.
fn workers(options: &Options, site: &Site, report: &mut Report) -> Result<()> {
    let start = |workers: usize| -> Result<Vec<Running>> {
        let start = |kind| site.start(&Setup { workers, cores: Cores::All, ..Setup::of(kind) });
        Kind::ALL.into_iter().map(start).collect()
    };
    let (one, mut two) = (start(1)?, start(2)?);
    weigh_idle(&mut two)?;
    let mut gained = Series::new("two workers against one, throughput", "×", Better::Higher);
    let mut both = Series::new("two workers, throughput", "/s", Better::Higher);
    let mut cpu = Series::new("two workers, CPU per request", "µs", Better::Lower);
    for _ in 0..options.rounds {
        for (one, two) in one.iter().zip(&two) {
            let alone = plain(one, CONNECTIONS, options.round)?;
            let together = plain(two, CONNECTIONS, options.round)?;
            gained.add(one.kind, together.throughput / alone.throughput);
            both.add(one.kind, together.throughput);
            cpu.add(one.kind, together.cpu);
        }
    }
    [gained, both, cpu].into_iter().for_each(|series| report.add(series));
    Ok(())
}

fn connections(options: &Options, site: &Site, report: &mut Report) -> Result<()> {
    let mut running: Vec<Running> =
        Kind::ALL.into_iter().map(|kind| site.start(&Setup::of(kind))).collect::<Result<_>>()?;
    weigh_idle(&mut running)?;
    // 64 of them are how everything else is measured.
    let counts: &[u32] = if options.quick { &[512] } else { &[1, 8, 512, 4_000] };
    for count in counts {
        let name = format!("{count} connection{}", if *count == 1 { "" } else { "s" });
        let mut throughput = Series::new(&format!("{name}, throughput"), "/s", Better::Higher);
        let mut cpu = Series::new(&format!("{name}, CPU per request"), "µs", Better::Lower);
        // Very many take a while to be made.
        let time = options.round.max(Duration::from_millis(if *count > 1_000 { 1_500 } else { 0 }));
        for _ in 0..options.rounds {
            for proxy in &running {
                let measured = plain(proxy, *count, time)?;
                throughput.add(proxy.kind, measured.throughput);
                cpu.add(proxy.kind, measured.cpu);
            }
        }
        report.add(throughput);
        report.add(cpu);
    }
    Ok(())
}
