//! Small requests beside large bodies: what others wait for while some visitors download or upload as
//! fast as they can.

use std::time::Duration;

use rustix::process::nice;

use crate::offer::offer;
use crate::peers::{Kind, Running, Setup, Site};
use crate::report::{Better, Report, Series};
use crate::work::Work;
use crate::{Options, Result};

/// Small requests per second: a tenth of what each proxy can do.
const RATE: f64 = 2_000.0;
/// How much longer the others last than the small requests, on both sides together.
const LONGER: Duration = Duration::from_millis(400);

/// Measures both directions.
pub fn measure(options: &Options, site: &Site, report: &mut Report) -> Result<()> {
    report.section("2,000 small requests a second beside 8 clients with bodies of 1 MiB");
    let running: Vec<Running> =
        Kind::ALL.into_iter().map(|kind| site.start(&Setup::of(kind))).collect::<Result<_>>()?;
    for (name, work) in [("downloads", "1 MiB"), ("uploads", "POST 1 MiB")] {
        let work = Work::named(work)?;
        let title = |what: &str| format!("beside {name}, {what}");
        let mut p50 = Series::new(&title("p50"), "µs", Better::Lower);
        let mut p99 = Series::new(&title("p99"), "µs", Better::Lower);
        let mut moved = Series::new(&title("bodies"), "/s", Better::Higher);
        for _ in 0..options.rounds {
            for proxy in &running {
                let (small, large) = std::thread::scope(|scope| {
                    let large = scope.spawn(|| {
                        // Strangers are on other machines: here they take no core from who asks.
                        let _ = nice(19);
                        work.load(site, proxy, options.offer + LONGER)
                    });
                    (offer(proxy.http, RATE, options.offer, 1), large.join())
                });
                let (small, large) = (small?, large.map_err(|_| "a thread panicked")??);
                if small.lost > 0 {
                    return Err(format!("{} lost {} requests", proxy.kind, small.lost));
                }
                p50.add(proxy.kind, small.p50);
                p99.add(proxy.kind, small.p99);
                moved.add(proxy.kind, large.requests as f64 / large.seconds);
            }
        }
        [p50, p99, moved].into_iter().for_each(|series| report.add(series));
    }
    Ok(())
}
