//! Is what is certain also enough to act on?
//!
//! Each of these only ever takes a verdict away, so the bound on false rollbacks stands.

use super::clients;
use super::criteria::{Metric, Unit};
use super::judge::Judge;
use crate::model::weight::Side;

impl Judge {
    /// Whether the canary's latency differs by more than stable's instances do among themselves.
    pub(super) fn is_beyond_instances(&self) -> bool {
        !self.criteria.compares_instances || self.instances.are_outdone_by(self.latency.evidence())
    }

    /// Whether the canary's errors lie beyond the margin as they were counted. Bets on events alone do
    /// not know the margin's absolute part; like [`Self::is_slow_enough`] it only takes verdicts away.
    pub(super) fn is_faulty_enough(&self) -> bool {
        if self.criteria.unit == Unit::Request {
            return true;
        }
        let rate = |side| self.totals_of(side).news.rate().unwrap_or(0.0);
        rate(Side::Canary) > self.margins.errors.boundary().at(rate(Side::Stable))
    }

    /// Whether the canary is slower by enough to matter, and not just surely slower.
    pub(super) fn is_slow_enough(&self) -> bool {
        let named = self.criteria.limits.iter().filter_map(|limit| match limit.metric {
            Metric::Latency(quantile) => Some(quantile),
            Metric::Errors => None,
        });
        let named = named.chain([0.5]);
        let mut margin = self.margins.latency;
        if self.criteria.unit == Unit::Request {
            return self.effect.is_beyond(named, margin);
        }
        margin.factor *= clients::by_chance(self.clients);
        self.effect.is_beyond(named.filter(|q| self.effect.knows(*q)), margin)
    }
}
