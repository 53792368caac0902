//! Memory: at start, of connections that idle, and of load while it lasts and when it is over.

use std::path::Path;
use std::time::Duration;

use crate::hold::{Holder, Speech};
use crate::load::wrk;
use crate::peers::{Kind, Running, Setup, Site};
use crate::report::{Better, Report, Series};
use crate::{Options, Result};

/// Until what a burst left behind is given back: idle buffers, and pages by the allocator.
const CALM: Duration = Duration::from_secs(3);
/// Connections of the load.
const LOADED: u32 = 256;
const MIB: f64 = 1024.0 * 1024.0;

/// Measures all of it.
pub fn measure(options: &Options, site: &Site, report: &mut Report) -> Result<()> {
    report.section("Memory");
    let running = start(site)?;
    let mut at_start = Series::new("resident at start", "MiB", Better::Lower);
    for proxy in &running {
        at_start.add(proxy.kind, proxy.process.resident()? / MIB);
    }
    report.add(at_start);
    let connections = if options.quick { 1_000 } else { 4_000 };
    let speeches = if options.quick { &Speech::ALL[..2] } else { &Speech::ALL };
    for speech in speeches {
        report.add(idle(&running, connections, *speech)?);
    }
    drop(running);
    under_load(options, site, report)
}

fn start(site: &Site) -> Result<Vec<Running>> {
    Kind::ALL.into_iter().map(|kind| site.start(&Setup::of(kind))).collect()
}

/// All proxies hold theirs at the same time: nobody's time is measured.
fn idle(running: &[Running], connections: usize, speech: Speech) -> Result<Series> {
    let hold = |count: usize| -> Result<Vec<Holder>> {
        let port = |proxy: &Running| match speech {
            Speech::Http1 => proxy.http,
            Speech::Tls | Speech::Http2 => proxy.https,
        };
        let begin = |proxy: &Running| Holder::begin(port(proxy), count, speech);
        let mut holders: Vec<Holder> = running.iter().map(begin).collect::<Result<_>>()?;
        holders.iter_mut().try_for_each(Holder::await_all)?;
        std::thread::sleep(CALM);
        Ok(holders)
    };
    let written = || running.iter().map(|proxy| proxy.process.written());
    // The first ones pay for what is never given back: allocator, tables, upstream connections.
    drop(hold(100)?);
    let before = written().collect::<Result<Vec<_>>>()?;
    let holders = hold(connections)?;
    let after = written().collect::<Result<Vec<_>>>()?;
    drop(holders);
    let name = format!("idle connection, {}", speech.name());
    let mut series = Series::new(&name, "KiB", Better::Lower);
    for ((proxy, before), after) in running.iter().zip(before).zip(after) {
        series.add(proxy.kind, (after - before) / connections as f64 / 1024.0);
    }
    Ok(series)
}

/// A minute of load on all at the same time.
fn under_load(options: &Options, site: &Site, report: &mut Report) -> Result<()> {
    let time = Duration::from_secs(if options.quick { 6 } else { 60 });
    let running = start(site)?;
    let (mut during, mut after) = (
        Series::new(&format!("resident after {} s of load", time.as_secs()), "MiB", Better::Lower),
        Series::new("resident 5 s after the load", "MiB", Better::Lower),
    );
    std::thread::scope(|scope| {
        let loads: Vec<_> = running
            .iter()
            .map(|proxy| {
                let url = format!("http://127.0.0.1:{}/", proxy.http);
                scope.spawn(move || wrk(&url, LOADED, time, false, None::<&Path>))
            })
            .collect();
        std::thread::sleep(time.saturating_sub(Duration::from_millis(700)));
        for proxy in &running {
            during.add(proxy.kind, proxy.process.resident()? / MIB);
        }
        for load in loads {
            load.join().map_err(|_| "a load's thread panicked")??;
        }
        Ok::<(), String>(())
    })?;
    std::thread::sleep(Duration::from_secs(5));
    for proxy in &running {
        after.add(proxy.kind, proxy.process.resident()? / MIB);
    }
    report.add(during);
    report.add(after);
    Ok(())
}
