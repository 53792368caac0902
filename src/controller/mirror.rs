//! Copies of requests for a canary without visitors: their beginning, what they show, their end.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::driver::Driver;
use super::journal::Kind;
use super::service::Active;
use crate::analysis::mirror;
use crate::config::scalar;
use crate::model::id::ServiceName;
use crate::rollout::event::Event;
use crate::rollout::phase::Phase;
use crate::rollout::plan::Plan;
use crate::routing::mirror::Mirror;
use crate::telemetry::metrics;

/// Copies of requests to a canary without visitors, and what its answers showed beside stable's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MirrorStatus {
    /// The part of the GET and HEAD requests of which copies are sent, in percent.
    pub share: f64,
    /// Copies that were sent.
    pub sent: u64,
    /// Requests that were drawn, and not copied because of `max_rate` or `max_in_flight`.
    pub left_out: u64,
    /// Twins of answers that were compared.
    pub compared: u64,
    /// Errors of the canary and of stable among them.
    pub failed: [u64; 2],
    /// 4xx answers of the canary and of stable among them.
    pub rejected: [u64; 2],
    /// Twins in which the canary took longer than the limit on latency allows.
    pub slower: u64,
    /// Twins whose bodies were compared.
    pub bodies: u64,
    /// Those of them that differed.
    pub different: u64,
}

/// What copies requests, and how much of it the metrics know.
#[derive(Debug)]
pub struct Copies {
    pub mirror: Arc<Mirror>,
    counted: [u64; RESULTS.len()],
}

/// What the metrics tell apart.
const RESULTS: [&str; 5] = ["sent", "left_out", "compared", "failed", "different"];

impl Copies {
    /// Counts what came since the last time.
    fn count(&mut self, service: &ServiceName, seen: &mirror::Tally) {
        let (sent, left_out) = self.mirror.counts();
        let failed = seen.failed.both + seen.failed.canary;
        let now = [sent, left_out, seen.twins(), failed, seen.different];
        for ((result, now), before) in RESULTS.iter().zip(now).zip(&mut self.counted) {
            let more = now.saturating_sub(*before);
            if more > 0 {
                let labels = [("service", service.as_str()), ("result", *result)];
                metrics::count_more(&metrics::MIRRORED, &labels, more);
            }
            *before = now;
        }
    }
}

impl Driver {
    /// Begins to send copies.
    pub(super) fn mirror(&mut self, name: &ServiceName) {
        let Some(active) = self.services.get_mut(name).and_then(|s| s.active.as_mut()) else {
            return;
        };
        let plan = &active.rollout.plan;
        let Some(spec) = &plan.mirror else { return };
        match self.fleet.mirror(name, spec, &plan.criteria) {
            Ok(mirror) => {
                active.mirror = mirror.map(|mirror| Copies { mirror, counted: [0; RESULTS.len()] });
            }
            // Of a plan that another version wrote; the configuration was read with this one.
            Err(why) => self.tell(name, Kind::Note, format!("no request is mirrored: {why}")),
        }
    }

    /// Weighs what the copies showed so far.
    pub(super) fn weigh_mirror(&mut self, name: &ServiceName) {
        let Some(active) = self.services.get_mut(name).and_then(|s| s.active.as_mut()) else {
            return;
        };
        let (Some(copies), plan) = (&mut active.mirror, &active.rollout.plan) else { return };
        let different = plan.mirror.as_ref().map_or(1.0, |spec| spec.different.fraction());
        let seen = copies.mirror.twins.tally();
        copies.count(name, &seen);
        let verdict = mirror::judge(&plan.criteria, different, &seen);
        active.verdict = Some(verdict.clone());
        self.step(name, Event::Sampled(verdict));
    }

    /// Sends no more copies once their phase is over, and tells what they showed.
    pub(super) fn end_mirror(&mut self, name: &ServiceName) {
        let active = self.services.get_mut(name).and_then(|s| s.active.as_mut());
        let Some(active) = active.filter(|a| a.rollout.phase != Phase::Mirroring) else { return };
        let Some(mut copies) = active.mirror.take() else { return };
        self.fleet.end_mirror(name);
        let (seen, (_, left_out)) = (copies.mirror.twins.tally(), copies.mirror.counts());
        copies.count(name, &seen);
        let mut message = format!("mirror: {}", mirror::summary(&seen));
        if left_out > 0 {
            message += &format!("; {left_out} more were left out by `max_rate` or `max_in_flight`");
        }
        self.tell(name, Kind::Note, message);
    }
}

/// What is told when copies begin to be sent.
pub(super) fn beginning(plan: &Plan) -> String {
    let Some(spec) = &plan.mirror else { return "nothing is mirrored".to_owned() };
    format!(
        "healthy; {} of the GET and HEAD requests are copied to the canary for {}, and its answers \
         thrown away",
        spec.share,
        scalar::show_duration(spec.lasts)
    )
}

/// What the copies showed so far.
pub(super) fn status(active: &Active) -> Option<MirrorStatus> {
    let copies = &active.mirror.as_ref()?.mirror;
    let ((sent, left_out), seen) = (copies.counts(), copies.twins.tally());
    let both = |twin: mirror::Shown| [twin.both + twin.canary, twin.both + twin.stable];
    Some(MirrorStatus {
        share: active.rollout.plan.mirror.as_ref().map_or(0.0, |spec| spec.share.percent()),
        sent,
        left_out,
        compared: seen.twins(),
        failed: both(seen.failed),
        rejected: both(seen.rejected),
        slower: seen.slow,
        bodies: seen.read,
        different: seen.different,
    })
}
