//! `switchback stats`: what each side of each service does, in one table.

use std::time::Duration;

use serde::Serialize;

use super::client::Client;
use super::console::{Console, Line, Look, Signs, columns};
use super::exit::Exit;
use super::figures;
use super::trouble::{self, Trouble};
use super::watch::Patience;
use crate::controller::status::{ServiceStatus, SideStatus};

/// As often as a person compares numbers.
const REFRESH_EVERY: Duration = Duration::from_secs(1);

/// What to show.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The service; all of them where nothing is said.
    pub service: Option<String>,
    /// Again and again, until interrupted.
    pub watch: bool,
    /// As JSON: an array with an object for each side; with `watch` an array for each look.
    pub json: bool,
}

/// One side of one service.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Figures<'a> {
    service: &'a str,
    side: &'static str,
    revision: u32,
    weight: f64,
    requests_per_second: f64,
    /// Since this step began, or since the daemon started; so are errors and latencies.
    requests: u64,
    errors: u64,
    error_rate: Option<f64>,
    p50: Option<f64>,
    p95: Option<f64>,
    p99: Option<f64>,
    in_flight: u32,
    instances: usize,
    cpu: Option<f64>,
    memory: Option<u64>,
}

/// Shows figures.
pub async fn run(client: &Client, console: &mut Console, options: Options) -> Exit {
    tokio::select! {
        shown = show(client, console, &options) => trouble::ended(console, shown),
        // Ctrl-C is how a person ends what goes on for ever.
        _ = tokio::signal::ctrl_c(), if options.watch => Exit::Done,
    }
}

async fn show(client: &Client, console: &mut Console, options: &Options) -> Result<Exit, Trouble> {
    let mut patience = Patience::default();
    let mut answered = false;
    while !console.is_closed() {
        let services = match client.measured(options.service.as_deref()).await {
            Ok(services) => services,
            Err(trouble) if answered => {
                patience.wait(console, trouble).await?;
                continue;
            }
            Err(trouble) => return Err(trouble),
        };
        answered = true;
        patience.over(console);
        let figures: Vec<Figures<'_>> = services.iter().flat_map(of_service).collect();
        let signs = console.signs();
        if options.json {
            console.json(&figures);
        } else if figures.is_empty() {
            console.talk("nothing is deployed: there are no figures");
        } else if options.watch && console.is_live() {
            console.draw(&table(&figures, signs));
        } else {
            for line in table(&figures, signs) {
                console.data(line);
            }
        }
        if !options.watch {
            break;
        }
        tokio::time::sleep(REFRESH_EVERY).await;
    }
    Ok(Exit::Done)
}

fn of_service(service: &ServiceStatus) -> impl Iterator<Item = Figures<'_>> {
    let weights = service.weights;
    let sides =
        [("stable", &service.stable, weights.stable), ("canary", &service.canary, weights.canary)];
    sides.into_iter().filter_map(|(name, side, weight)| {
        Some(of_side(&service.service, name, side.as_ref()?, weight))
    })
}

fn of_side<'a>(
    service: &'a str,
    name: &'static str,
    side: &SideStatus,
    weight: f64,
) -> Figures<'a> {
    let traffic = side.traffic;
    let all = &side.instances;
    // What is not known of one is not known of all.
    let cpu = all.iter().map(|one| one.cpu).sum::<Option<f64>>().filter(|_| !all.is_empty());
    let memory = all.iter().map(|one| one.memory).sum::<Option<u64>>();
    Figures {
        service,
        side: name,
        revision: side.revision,
        weight,
        requests_per_second: traffic.map_or(0.0, |one| one.requests_per_second),
        requests: traffic.map_or(0, |one| one.requests),
        errors: traffic.map_or(0, |one| one.errors),
        // No request is no error rate.
        error_rate: traffic.filter(|one| one.requests > 0).map(|one| one.error_rate),
        p50: traffic.and_then(|one| one.p50),
        p95: traffic.and_then(|one| one.p95),
        p99: traffic.and_then(|one| one.p99),
        in_flight: all.iter().map(|one| one.in_flight).sum(),
        instances: all.len(),
        cpu,
        memory: memory.filter(|_| !all.is_empty()),
    }
}

fn table(figures: &[Figures<'_>], signs: Signs) -> Vec<Line> {
    let head = [
        "service",
        "side",
        "revision",
        "weight",
        "req/s",
        "errors",
        "p50",
        "p95",
        "p99",
        "requests",
        "in flight",
        "cpu",
        "memory",
    ];
    let mut rows = vec![head.map(|text| (Look::Faint, text.to_owned())).to_vec()];
    let none = || signs.none.to_owned();
    let latency = |seconds: Option<f64>| seconds.map_or_else(none, figures::duration);
    let percent = |rate: Option<f64>| rate.map_or_else(none, |rate| figures::percent(rate * 100.0));
    for one in figures {
        let ill = if one.errors > 0 { Look::Unsure } else { Look::Plain };
        let plain = |text: String| (Look::Plain, text);
        rows.push(vec![
            (Look::Strong, one.service.to_owned()),
            plain(one.side.to_owned()),
            plain(one.revision.to_string()),
            plain(figures::percent(one.weight)),
            plain(figures::rate(one.requests_per_second)),
            (ill, percent(one.error_rate)),
            plain(latency(one.p50)),
            plain(latency(one.p95)),
            plain(latency(one.p99)),
            plain(figures::count(one.requests)),
            plain(one.in_flight.to_string()),
            plain(percent(one.cpu)),
            plain(one.memory.map_or_else(none, figures::bytes)),
        ]);
    }
    let mut right = [true; 13];
    (right[0], right[1]) = (false, false);
    columns(&rows, &right, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::fake::{baking, idle};

    #[test]
    fn each_side_has_a_row() {
        let mut services = [baking(), idle()];
        for side in [&mut services[0].stable, &mut services[0].canary].into_iter().flatten() {
            (side.instances[0].cpu, side.instances[0].memory) = (Some(0.125), Some(85_000_000));
        }
        let figures: Vec<_> = services.iter().flat_map(of_service).collect();
        let sides: Vec<_> = figures.iter().map(|one| (one.service, one.side)).collect();
        assert_eq!(sides[..2], [("web", "stable"), ("web", "canary")]);
        assert_eq!((figures[0].cpu, figures[0].memory), (Some(0.125), Some(85_000_000)));
        let (mut console, out, _) = super::super::tests::written();
        for line in table(&figures, console.signs()) {
            console.data(line);
        }
        let text = out.text();
        assert!(text.starts_with("service  side    revision  weight"), "{text}");
        assert!(text.contains("12.5%") && text.contains("85 MB"), "{text}");
    }
}
