//! `/metrics`: the cells that the verdict reads, the statuses, and the data plane's counters.
//!
//! Names, help and format are telemetry's; this only says what goes on the page. A scrape adds up and
//! writes, and counts nothing itself.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::api::AppState;
use crate::analysis::scorecard::Sample;
use crate::analysis::verdict::Finding;
use crate::controller::handle::ServiceCounts;
use crate::controller::status::{DaemonStatus, NotifyStatus, ServiceStatus, SideStatus};
use crate::model::weight::Side;
use crate::telemetry::audit::Audit;
use crate::telemetry::metrics::{self as names, Page};

/// The media type of a page.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The phases of the contract.
const PHASES: [&str; 11] = [
    "idle",
    "launching",
    "probing",
    "smoke",
    "mirroring",
    "baking",
    "paused",
    "promoting",
    "promoted",
    "rolling_back",
    "rolled_back",
];
/// What a check may say.
const FINDINGS: [&str; 3] = ["pass", "inconclusive", "fail"];

/// Metrics in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "daemon",
    responses((status = 200, content_type = "text/plain", body = String)))]
pub(super) async fn metrics(State(state): State<AppState>) -> Response {
    let counts = state.handle.scorecards().await;
    let mut page = Page::new();
    daemon(&mut page, &state.handle.daemon());
    if let Some(notifier) = &state.notifier {
        recipients(&mut page, &notifier.status());
    }
    if let Some(free) = state.audit.as_ref().and_then(Audit::free) {
        page.add(&names::DISK_FREE, &[], free);
    }
    requests(&mut page, &counts);
    for status in state.handle.services().iter() {
        service(&mut page, status);
    }
    page.traffic(&state.traffic);
    let rare = state.rare.as_ref().map(names::Rare::render).unwrap_or_default();
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], page.render() + &rare).into_response()
}

fn daemon(page: &mut Page, daemon: &DaemonStatus) {
    page.build();
    if let Ok(started) = daemon.started.parse::<jiff::Timestamp>() {
        page.add(&names::STARTED, &[], started.as_second());
    }
    if let Ok(read) = daemon.configured.parse::<jiff::Timestamp>() {
        page.add(&names::RELOADED_AT, &[], read.as_second());
    }
    page.add(&names::RELOADED, &[], u8::from(!daemon.reload_refused));
    for one in &daemon.certificates {
        let name = one.names.first().map_or("", String::as_str);
        let labels = [("name", name), ("source", one.source.as_str())];
        if let Some(until) = one.not_after_seconds {
            page.add(&names::NOT_AFTER, &labels, until);
        }
        page.add(&names::CERTIFICATE_OK, &labels, u8::from(one.note.is_none()));
    }
    if let Some(docker) = daemon.docker {
        page.add(&names::DOCKER_UP, &[], u8::from(docker));
    }
}

fn recipients(page: &mut Page, recipients: &[NotifyStatus]) {
    for one in recipients {
        let labels = [("recipient", one.name.as_str())];
        page.add(&names::NOTIFY_UP, &labels, u8::from(one.trouble.is_none()));
        page.add(&names::NOTIFY_WAITING, &labels, one.waiting);
    }
}

/// Two sides of one service that have the same revision and name are one series.
fn requests(page: &mut Page, counts: &[ServiceCounts]) {
    let mut merged = BTreeMap::new();
    for one in counts {
        let key = (&one.service, one.revision, one.side.index());
        merged.entry(key).or_insert_with(Sample::default).merge(&one.total);
    }
    for ((service, revision, side), sample) in merged {
        page.revision(service, revision, Side::BOTH[side], &sample);
    }
}

fn service(page: &mut Page, status: &ServiceStatus) {
    let service = ("service", status.service.as_str());
    page.state(&names::PHASE, &[service], "phase", &PHASES, &status.phase);
    if let Some(step) = status.step {
        page.add(&names::STEP, &[service], step);
    }
    page.add(&names::FROZEN, &[service], u8::from(status.freeze.is_some()));
    page.add(&names::GATED, &[service], u8::from(status.gated));
    page.add(&names::UNCONFIRMED, &[service], u8::from(status.confirm.is_some()));
    let shield = status.shield.unwrap_or_default();
    page.add(&names::SHIELDED, &[service, ("result", "sent")], shield.shielded_total);
    page.add(&names::SHIELDED, &[service, ("result", "refused")], shield.refused_total);
    page.add(&names::GENERATION, &[service], status.generation);
    let mut seen = std::collections::BTreeSet::new();
    for check in status.verdict.iter().flat_map(|verdict| &verdict.checks) {
        if seen.insert(check.name.as_str()) {
            let result = match check.result {
                Finding::Pass => "pass",
                Finding::Inconclusive => "inconclusive",
                Finding::Fail => "fail",
            };
            let labels = [service, ("check", check.name.as_str())];
            page.state(&names::CHECK, &labels, "result", &FINDINGS, result);
        }
    }
    let weights = &status.weights;
    for (name, weight, side) in
        [("stable", weights.stable, &status.stable), ("canary", weights.canary, &status.canary)]
    {
        page.add(&names::WEIGHT, &[service, ("side", name)], weight / 100.0);
        if let Some(status) = side {
            instances(page, service, name, status);
        }
    }
}

fn instances(page: &mut Page, service: (&str, &str), side: &str, status: &SideStatus) {
    let revision = status.revision.to_string();
    let labels = [service, ("revision", revision.as_str()), ("side", side)];
    let in_flight: u64 = status.instances.iter().map(|one| u64::from(one.in_flight)).sum();
    page.add(&names::IN_FLIGHT, &labels, in_flight);
    if let Some(traffic) = status.traffic {
        page.add(&names::SHARE, &labels, traffic.share / 100.0);
    }
    for instance in &status.instances {
        let labels = [service, ("revision", revision.as_str()), ("instance", instance.id.as_str())];
        page.add(&names::INSTANCE_UP, &labels, u8::from(instance.healthy));
    }
}
