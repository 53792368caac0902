//! Copies of requests for a canary without visitors: their beginning, what they show, their end.

use super::driver::Driver;
use super::journal::Kind;
use super::service::Active;
use super::status::MirrorStatus;
use crate::analysis::mirror;
use crate::config::scalar;
use crate::model::id::ServiceName;
use crate::rollout::event::Event;
use crate::rollout::phase::Phase;
use crate::rollout::plan::Plan;

impl Driver {
    /// Begins to send copies.
    pub(super) fn mirror(&mut self, name: &ServiceName) {
        let Some(active) = self.services.get_mut(name).and_then(|s| s.active.as_mut()) else {
            return;
        };
        let plan = &active.rollout.plan;
        let Some(spec) = &plan.mirror else { return };
        match self.fleet.mirror(name, spec, &plan.criteria) {
            Ok(mirror) => active.mirror = mirror,
            // Of a plan that another version wrote; the configuration was read with this one.
            Err(why) => self.tell(name, Kind::Note, format!("no request is mirrored: {why}")),
        }
    }

    /// Weighs what the copies showed so far.
    pub(super) fn weigh_mirror(&mut self, name: &ServiceName) {
        let Some(active) = self.services.get_mut(name).and_then(|s| s.active.as_mut()) else {
            return;
        };
        let (Some(copies), plan) = (&active.mirror, &active.rollout.plan) else { return };
        let different = plan.mirror.as_ref().map_or(1.0, |spec| spec.different.fraction());
        let verdict = mirror::judge(&plan.criteria, different, &copies.twins.tally());
        active.verdict = Some(verdict.clone());
        self.step(name, Event::Sampled(verdict));
    }

    /// Sends no more copies once their phase is over, and tells what they showed.
    pub(super) fn end_mirror(&mut self, name: &ServiceName) {
        let active = self.services.get_mut(name).and_then(|s| s.active.as_mut());
        let Some(active) = active.filter(|a| a.rollout.phase != Phase::Mirroring) else { return };
        let Some(copies) = active.mirror.take() else { return };
        self.fleet.end_mirror(name);
        let (_, left_out) = copies.counts();
        let mut message = format!("mirror: {}", mirror::summary(&copies.twins.tally()));
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
    let copies = active.mirror.as_ref()?;
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
