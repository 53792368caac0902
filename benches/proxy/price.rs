//! The price of each feature, in user instructions per request: with it and without.
//!
//! A feature is an entry in [`FEATURES`]. What no setting switches off is run alone, outside of a
//! proxy ([`alone`]). Looking up a route is timed, because a big table misses caches.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use switchback::analysis::scorecard::{Row, Scorecard};
use switchback::model::id::ServiceName;
use switchback::model::preamble::{self, Preamble};
use switchback::model::weight::Weight;
use switchback::proxy::ids::Mint;
use switchback::routing::split::Salt;
use switchback::routing::table::{HostPattern, Route, RoutingTable, ServiceEntry};

use crate::callgrind::{self, per_request};
use crate::edge_price;
use crate::peers::{Kind, Setup, Site};
use crate::report::{Better, Report, Series};
use crate::texts::host;
use crate::{Options, Result};

/// The section's title.
pub const SECTION: &str =
    "The price of features: instructions, and per cent of a request to a single fixed pool";
/// What a bar is about.
const TOGETHER: &str = "split, affinity cookie and scorecards";
/// Its row, in per cent.
pub const TOGETHER_PART: &str = "split, affinity cookie and scorecards, part";
/// The look-up that a bar is about.
pub const LOOKUP: &str = "looking up a route among 10,000, against 10";

/// A feature that a setting switches on.
pub struct Feature {
    /// What it is called in the table.
    pub name: &'static str,
    /// Lines in the service's table.
    pub service: &'static str,
    /// Lines by which it is off, where it is on by itself.
    pub off: &'static str,
    /// Tables of its own. `{here}` is a folder to write to.
    pub tables: &'static str,
    /// Lines in `[listen]`.
    pub listen: &'static str,
    /// What requests bring along for it.
    pub fields: &'static [&'static str],
    /// What it is compared with: a split, or a single pool.
    pub on_split: bool,
}

/// A feature that is a line or two in the service's table, on a single pool.
pub const fn policy(name: &'static str, service: &'static str) -> Feature {
    Feature { name, service, off: "", tables: "", listen: "", fields: &[], on_split: false }
}

const FEATURES: [Feature; 7] = [
    Feature {
        name: "affinity cookie",
        service: "affinity = \"cookie:user\"\n",
        off: "",
        tables: "",
        listen: "",
        fields: &[],
        on_split: true,
    },
    Feature {
        name: "shield",
        service: "",
        off: "shield = \"off\"\n",
        tables: "",
        listen: "",
        fields: &[],
        on_split: true,
    },
    policy("two response headers", "headers = { set = { X-One = \"1\", X-Two = \"2\" } }\n"),
    policy("security_headers", "security_headers = true\n"),
    policy("rate_limit", "rate_limit = \"1000000/s burst 1000000\"\n"),
    policy("a deny list of one network", "deny = \"192.0.2.0/24\"\n"),
    Feature {
        name: "access log, JSON to a file",
        service: "",
        off: "",
        tables: "[access_log]\nto = \"{here}access.log\"\n",
        listen: "",
        fields: &[],
        on_split: false,
    },
];

/// Measures all of them.
pub fn measure(options: &Options, site: &Site, report: &mut Report) -> Result<()> {
    report.section(SECTION);
    let count = |setup: &Setup, fields: &[&str]| per_request(options, site, setup, fields);
    let ours = Setup::of(Kind::Switchback);
    let single = Setup { split: false, ..ours.clone() };
    let (base, split) = (count(&single, &[])?, count(&ours, &[])?);
    let price = |report: &mut Report, name: &str, instructions: f64| {
        let mut series = Series::new(name, "", Better::Lower);
        series.add(Kind::Switchback, instructions);
        report.add(series);
        let mut part = Series::new(&format!("{name}, part"), "%", Better::Lower);
        part.add(Kind::Switchback, 100.0 * instructions / base);
        report.add(part);
    };
    price(report, "split", split - base);
    let mut together = split - base;
    for feature in FEATURES.iter().chain(&edge_price::FEATURES) {
        let pools = if feature.on_split { &ours } else { &single };
        let setup = Setup {
            service: feature.service.to_owned(),
            tables: feature.tables.replace("{here}", &site.file("").display().to_string()),
            listen: feature.listen.to_owned(),
            ..pools.clone()
        };
        // Against the same request without the feature, not against a shorter one.
        let without = if feature.off.is_empty() && feature.fields.is_empty() {
            if feature.on_split { split } else { base }
        } else {
            let off = Setup { service: feature.off.to_owned(), ..pools.clone() };
            count(&off, feature.fields)?
        };
        let instructions = count(&setup, feature.fields)? - without;
        if feature.name == "affinity cookie" {
            together += instructions;
        }
        price(report, feature.name, instructions);
    }
    let scorecards = callgrind::alone(site, "scorecard")?;
    price(report, "scorecards", scorecards);
    price(report, "request id and trace context", callgrind::alone(site, "names")?);
    price(report, "reading a PROXY protocol header", callgrind::alone(site, "preamble")?);
    price(report, TOGETHER, together + scorecards);
    lookups(options, report);
    Ok(())
}

/// Nanoseconds per look-up.
fn lookups(options: &Options, report: &mut Report) {
    let mut times = Series::new("nanoseconds to look up a route among 10", "ns", Better::Lower);
    let mut many = Series::new("nanoseconds to look up a route among 10,000", "ns", Better::Lower);
    let mut ratio = Series::new(LOOKUP, "×", Better::Lower);
    let (small, large) = (table(10), table(10_000));
    let (few_hosts, all_hosts) = (hosts(10), hosts(10_000));
    for _ in 0..options.rounds {
        let (a, b) = (lookup(&small, &few_hosts), lookup(&large, &all_hosts));
        times.add(Kind::Switchback, a);
        many.add(Kind::Switchback, b);
        ratio.add(Kind::Switchback, b / a);
    }
    [times, many, ratio].into_iter().for_each(|series| report.add(series));
}

/// A table whose services have a route each.
fn table(routes: usize) -> RoutingTable {
    let service = |number: usize| {
        let entry = ServiceEntry {
            name: ServiceName::new(&format!("app-{number}")).unwrap_or_else(|_| unreachable!()),
            settings: Arc::default(),
            policy: None,
            maintenance: None,
            canary_weight: Weight::ZERO,
            salt: Salt::new(0),
            overdue: Duration::from_secs(1),
            stable: None,
            canary: None,
            warm: None,
            budget: None,
            fresh: None,
            mirror: None,
        };
        let host = HostPattern::Exact(host(number));
        (entry, vec![Route { host, path: "/".to_owned() }])
    };
    RoutingTable::new(1, (0..routes).map(service).collect())
}

/// Hosts in an order that no prefetcher guesses, one written behind the other: a request's is at hand when
/// it is looked up, and what fetching it costs is no part of that.
fn hosts(routes: usize) -> String {
    (0..10_000).map(|turn| host((turn * 7_919) % routes)).collect()
}

/// The least of many short times, because whatever else the machine does only adds to them.
fn lookup(table: &RoutingTable, hosts: &str) -> f64 {
    const TIMES: usize = 100;
    let length = host(0).len();
    let time = |_| {
        let began = Instant::now();
        for at in (0..hosts.len()).step_by(length) {
            let host = hosts.get(at..at + length).unwrap_or_default();
            black_box(table.service_of(black_box(host), black_box("/a/b?c")));
        }
        began.elapsed().as_secs_f64() * 1e9 / (hosts.len() / length) as f64
    };
    (0..TIMES).map(time).fold(f64::INFINITY, f64::min)
}

/// Turns of one part alone, for callgrind.
pub fn alone(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let part = arguments.next().unwrap_or_default();
    let turns = arguments.next().and_then(|text| text.parse::<u64>().ok());
    let turns = turns.ok_or("--alone needs a part and a number of turns")?;
    let mut seed = 1_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        seed
    };
    match part.as_str() {
        "scorecard" => {
            let card = Scorecard::new(1);
            for _ in 0..turns {
                // One clock more than a proxy without scorecards would read.
                let micros = Instant::now().elapsed().as_micros() as u64 + (random() >> 50);
                card.record(0, black_box(Row::Success), micros);
            }
            black_box(card.sample());
        }
        "names" => {
            let mut mint = Mint::default();
            for _ in 0..turns {
                black_box(mint.names(None, None, &mut random));
            }
        }
        "preamble" => {
            let to = SocketAddr::from(([192, 0, 2, 1], 443));
            for turn in 0..turns {
                // Each a little different; writing it costs less than half of it.
                let from = SocketAddr::from(([203, 0, 113, 9], turn as u16));
                let mut bytes = Vec::with_capacity(64);
                Preamble::V2.write(Some((from, to)), &mut bytes);
                let _ = black_box(preamble::read(black_box(&bytes)));
            }
        }
        other => return Err(format!("{other} is no part that is run alone")),
    }
    Ok(())
}
