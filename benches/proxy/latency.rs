//! Latency at fixed offered rates: a quarter, half and three quarters of what nginx can do.

use crate::offer::{Offered, offer};
use crate::peers::{Kind, Running, Setup, Site};
use crate::report::{Better, Report, Series};
use crate::{Options, Result};

/// A percentile's name in tables, and where it is in an offer.
type Percentile = (&'static str, fn(&Offered) -> f64);

/// The percentiles of an offer. The second is the one that pauses of the machine do not decide.
pub const PERCENTILES: [Percentile; 4] = [
    ("p50", |offered| offered.p50),
    ("p99 within 50 ms", |offered| offered.window),
    ("p99", |offered| offered.p99),
    ("p99.9", |offered| offered.p999),
];

/// Measures at all rates; `most` is nginx's own throughput.
pub fn measure(options: &Options, site: &Site, report: &mut Report, most: f64) -> Result<()> {
    report.section("Latency at an offered rate");
    let running: Vec<Running> =
        Kind::ALL.into_iter().map(|kind| site.start(&Setup::of(kind))).collect::<Result<_>>()?;
    let parts: &[(&str, f64)] =
        if options.quick { &[("1/2", 0.5)] } else { &[("1/4", 0.25), ("1/2", 0.5), ("3/4", 0.75)] };
    for (name, part) in parts {
        let rate = most * part;
        let title = format!("{name} of nginx's most ({rate:.0}/s)");
        let mut series = PERCENTILES.map(|(percentile, _)| {
            Series::new(&format!("{title}, {percentile}"), "µs", Better::Lower)
        });
        for _ in 0..options.rounds {
            for proxy in &running {
                let offered = offer(proxy.http, rate, options.offer, 1)?;
                if offered.lost > 0 {
                    return Err(format!("{} lost {} requests", proxy.kind, offered.lost));
                }
                for (series, (_, of)) in series.iter_mut().zip(PERCENTILES) {
                    series.add(proxy.kind, of(&offered));
                }
            }
        }
        series.into_iter().for_each(|series| report.add(series));
    }
    Ok(())
}
