//! `/metrics`: the cells that the verdict reads, the statuses, and the data plane's counters.
//!
//! Counts nothing itself; a scrape adds up and writes. Labels are bounded: services, revisions that
//! run, sides, outcomes, phases, instances that run.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::api::AppState;
use super::page::{CONTENT_TYPE, Page};
use crate::analysis::histogram::{Histogram, lower_bound, upper_bound};
use crate::analysis::scorecard::{Row, Sample};
use crate::analysis::verdict::Finding;
use crate::controller::handle::ServiceCounts;
use crate::controller::status::{DaemonStatus, ServiceStatus};
use crate::telemetry::traffic::{Count, Traffic};

/// Upper bounds of latency buckets in microseconds: powers of two from 256 µs to 67 s, and the halves
/// between them from 4 to 800 ms, where web latencies and their limits lie. All are borders of the
/// histogram's cells, so that no count is guessed.
const BOUNDS: [u64; 23] = [
    1 << 8,
    1 << 10,
    1 << 11,
    1 << 12,
    3 << 11,
    1 << 13,
    3 << 12,
    1 << 14,
    3 << 13,
    1 << 15,
    3 << 14,
    1 << 16,
    3 << 15,
    1 << 17,
    3 << 16,
    1 << 18,
    3 << 17,
    1 << 19,
    3 << 18,
    1 << 20,
    1 << 22,
    1 << 24,
    1 << 26,
];
/// The phases of the contract.
const PHASES: [&str; 10] = [
    "idle",
    "launching",
    "probing",
    "smoke",
    "baking",
    "paused",
    "promoting",
    "promoted",
    "rolling_back",
    "rolled_back",
];
const MICROS_PER_SECOND: f64 = 1e6;

/// Metrics in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "daemon",
    responses((status = 200, content_type = "text/plain", body = String)))]
pub(super) async fn metrics(State(state): State<AppState>) -> Response {
    let counts = state.handle.scorecards().await;
    let mut page = Page::default();
    daemon(&mut page, &state.handle.daemon());
    requests(&mut page, &counts);
    services(&mut page, &state.handle.services());
    sides(&mut page, &state.handle.services());
    traffic(&mut page, &state.traffic);
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], page.into_text()).into_response()
}

fn daemon(page: &mut Page, daemon: &DaemonStatus) {
    page.family("switchback_build_info", "gauge", "Always 1; the version is the label.")
        .series(&[("version", &daemon.version)], 1);
    if let Ok(started) = daemon.started.parse::<jiff::Timestamp>() {
        let help = "When the daemon started, in seconds since the Unix epoch.";
        page.family("switchback_start_time_seconds", "gauge", help)
            .series(&[], started.as_second());
    }
    if let Some(docker) = daemon.docker {
        let help = "Whether the Docker engine can be reached.";
        page.family("switchback_docker_up", "gauge", help).series(&[], u8::from(docker));
    }
    page.family("switchback_stopping", "gauge", "Whether the daemon is about to stop.")
        .series(&[], u8::from(daemon.stopping));
    let help = "Things that a person should know, as `switchback status` tells them.";
    page.family("switchback_notes", "gauge", help).series(&[], daemon.notes.len());
}

fn requests(page: &mut Page, counts: &[ServiceCounts]) {
    let mut merged: BTreeMap<(&str, u32, &'static str), Sample> = BTreeMap::new();
    for one in counts {
        let key = (one.service.as_str(), one.revision.0, one.side.as_str());
        merged.entry(key).or_default().merge(&one.total);
    }
    let help = "Finished requests by outcome, as the verdict counts them.";
    let mut family = page.family("switchback_requests_total", "counter", help);
    for ((service, revision, side), sample) in &merged {
        let revision = revision.to_string();
        for row in Row::ALL {
            let labels = [
                ("service", *service),
                ("revision", &revision),
                ("side", side),
                ("outcome", row.as_str()),
            ];
            family.series(&labels, sample.count(row));
        }
    }
    let help =
        "Seconds to the response headers. The sum is known within 1.6 %, the buckets exactly.";
    let mut family = page.family("switchback_request_duration_seconds", "histogram", help);
    for ((service, revision, side), sample) in &merged {
        let revision = revision.to_string();
        // Outcomes that never came are left out: a histogram is many series.
        for row in Row::ALL.into_iter().filter(|row| sample.count(*row) > 0) {
            let labels = [
                ("service", *service),
                ("revision", &revision),
                ("side", side),
                ("outcome", row.as_str()),
            ];
            let histogram = sample.row(row);
            let (bounds, count, sum) = (cumulative(histogram), histogram.total(), sum(histogram));
            family.histogram(&labels, bounds.into_iter(), count, sum);
        }
    }
}

/// How many observations lie below each of [`BOUNDS`], in seconds.
fn cumulative(histogram: &Histogram) -> Vec<(f64, u64)> {
    let mut cells = histogram.counts().iter().enumerate().peekable();
    let mut below = 0;
    let mut bounds = Vec::with_capacity(BOUNDS.len());
    for bound in BOUNDS {
        while let Some((_, count)) = cells.next_if(|(cell, _)| upper_bound(*cell) <= bound) {
            below += count;
        }
        bounds.push((bound as f64 / MICROS_PER_SECOND, below));
    }
    bounds
}

/// Each cell's count times its middle, in seconds.
fn sum(histogram: &Histogram) -> f64 {
    let cells = histogram.counts().iter().enumerate().filter(|(_, count)| **count > 0);
    let micros = cells.map(|(cell, count)| {
        *count as f64 * (lower_bound(cell) + upper_bound(cell) - 1) as f64 / 2.0
    });
    micros.sum::<f64>() / MICROS_PER_SECOND
}

fn services(page: &mut Page, services: &[ServiceStatus]) {
    let help = "The share of traffic that a side is to get, 0 to 1.";
    let mut family = page.family("switchback_rollout_weight_ratio", "gauge", help);
    for service in services {
        let (stable, canary) = (service.weights.stable / 100.0, service.weights.canary / 100.0);
        family.series(&[("service", &service.service), ("side", "stable")], stable);
        family.series(&[("service", &service.service), ("side", "canary")], canary);
    }
    let help = "1 for the phase that a service is in, 0 for the others.";
    let mut family = page.family("switchback_rollout_phase", "gauge", help);
    for service in services {
        for phase in PHASES {
            let labels = [("service", service.service.as_str()), ("phase", phase)];
            family.series(&labels, u8::from(service.phase == phase));
        }
    }
    let help = "The step under way, counted from 1; 0 outside the steps.";
    let mut family = page.family("switchback_rollout_step", "gauge", help);
    for service in services {
        family.series(&[("service", &service.service)], service.step.unwrap_or(0));
    }
    let help = "1 for what a check of the canary says now: pass, inconclusive or fail.";
    let mut family = page.family("switchback_rollout_check", "gauge", help);
    for service in services {
        let mut seen = std::collections::BTreeSet::new();
        for check in service.verdict.iter().flat_map(|verdict| &verdict.checks) {
            if seen.insert(check.name.as_str()) {
                let labels = [
                    ("service", service.service.as_str()),
                    ("check", &check.name),
                    ("result", finding(check.result)),
                ];
                family.series(&labels, 1);
            }
        }
    }
    let help = "The generation of the routing table that carries a service.";
    let mut family = page.family("switchback_routing_generation", "gauge", help);
    for service in services {
        family.series(&[("service", &service.service)], service.generation);
    }
}

fn finding(finding: Finding) -> &'static str {
    match finding {
        Finding::Pass => "pass",
        Finding::Inconclusive => "inconclusive",
        Finding::Fail => "fail",
    }
}

fn sides(page: &mut Page, services: &[ServiceStatus]) {
    let sides: Vec<_> = services
        .iter()
        .flat_map(|service| {
            let stable = service.stable.as_ref().map(|side| (service, "stable", side));
            let canary = service.canary.as_ref().map(|side| (service, "canary", side));
            stable.into_iter().chain(canary)
        })
        .map(|(service, name, side)| {
            (service.service.as_str(), name, side.revision.to_string(), side)
        })
        .collect();
    let help = "The share of traffic that a side got over the last seconds, 0 to 1.";
    let mut family = page.family("switchback_delivered_share_ratio", "gauge", help);
    for (service, name, revision, side) in &sides {
        if let Some(traffic) = side.traffic {
            let labels = [("service", *service), ("revision", revision), ("side", name)];
            family.series(&labels, traffic.share / 100.0);
        }
    }
    let help = "Whether the probes of an instance succeed.";
    let mut family = page.family("switchback_instance_up", "gauge", help);
    for (service, name, revision, side) in &sides {
        for instance in &side.instances {
            let labels = [
                ("service", *service),
                ("revision", revision),
                ("side", name),
                ("instance", &instance.id),
            ];
            family.series(&labels, u8::from(instance.healthy));
        }
    }
    let help = "Requests that an instance is answering.";
    let mut family = page.family("switchback_instance_inflight_requests", "gauge", help);
    for (service, name, revision, side) in &sides {
        for instance in &side.instances {
            let labels = [
                ("service", *service),
                ("revision", revision),
                ("side", name),
                ("instance", &instance.id),
            ];
            family.series(&labels, instance.in_flight);
        }
    }
}

fn traffic(page: &mut Page, traffic: &Traffic) {
    let counters = [
        ("switchback_connections_total", "Downstream connections accepted.", Count::Accepted),
        ("switchback_proxy_requests_total", "Requests received, of any kind.", Count::Requests),
        ("switchback_unrouted_requests_total", "Requests that matched no route.", Count::Unrouted),
        (
            "switchback_refused_requests_total",
            "Requests refused as malformed or over a limit.",
            Count::Refused,
        ),
        ("switchback_retries_total", "Requests tried again on another endpoint.", Count::Retries),
        (
            "switchback_rescued_requests_total",
            "Canary failures that no user saw, because stable answered instead.",
            Count::Rescued,
        ),
        (
            "switchback_synthetic_responses_total",
            "Answers that the proxy made itself: 502, 503, 504.",
            Count::Synthetic,
        ),
        ("switchback_tunnels_total", "Tunnels opened by Upgrade or CONNECT.", Count::Tunnels),
        ("switchback_panics_total", "Panics caught in a connection.", Count::Panics),
    ];
    for (name, help, count) in counters {
        page.family(name, "counter", help).series(&[], traffic.total(count));
    }
    // Closed first: a connection that closes meanwhile must not make the difference negative.
    let closed = traffic.total(Count::Closed);
    let open = traffic.total(Count::Accepted).saturating_sub(closed);
    page.family("switchback_open_connections", "gauge", "Downstream connections that are open.")
        .series(&[], open);
    let mut family =
        page.family("switchback_tls_handshakes_total", "counter", "TLS handshakes, by result.");
    family.series(&[("result", "success")], traffic.total(Count::TlsHandshakes));
    family.series(&[("result", "failure")], traffic.total(Count::TlsFailures));
    let help = "Connections opened to instances, by result.";
    let mut family = page.family("switchback_upstream_connects_total", "counter", help);
    family.series(&[("result", "success")], traffic.total(Count::UpstreamConnects));
    family.series(&[("result", "failure")], traffic.total(Count::UpstreamConnectFailures));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::histogram::bucket_of;

    #[test]
    fn bounds_are_borders_of_cells_and_rise() {
        for pair in BOUNDS.windows(2) {
            assert!(pair[0] < pair[1]);
        }
        for bound in BOUNDS {
            assert_eq!(lower_bound(bucket_of(bound)), bound);
        }
    }

    #[test]
    fn cumulative_counts_are_exact() {
        let mut histogram = Histogram::default();
        for micros in [1, 255, 256, 1_023, 1_024, 70_000_000, u64::MAX] {
            histogram.record(micros);
        }
        let counts: Vec<u64> = cumulative(&histogram).into_iter().map(|(_, below)| below).collect();
        assert_eq!(counts[..3], [2, 4, 5]);
        assert_eq!(counts[BOUNDS.len() - 1], 5);
        assert_eq!(histogram.total(), 7);
    }
}
