//! The operator's limits, `errors > 1% or p95 > 1.5x`, and the margins that follow from them.
//!
//! A limit names something to watch and how bad is too bad. Everything that is watched is compared
//! with stable, request by request; the limits set how far apart the two may be:
//!
//! | in the limits | taken back when shown to exceed | a step passes when shown to be within |
//! |---|---|---|
//! | `errors > L%` | stable × 1.1 + L/10, or L itself while stable is below L | stable × 1.5 + L/2 |
//! | `errors > R x` | stable × (1 + (R−1)/5) + 0.1 points | stable × R + 0.5 points |
//! | `pQ > R x` | stable × (1 + 0.4 (R−1)), at least + 2 ms, anywhere in the distribution | p50 0.4, p90 0.6, p99 1.0 of the way from 1 to R |
//! | `pQ > T ms` | T itself while stable is below T; and as 1.5x | as 1.5x |
//!
//! so that a canary *at* its limit is taken back and one that equals stable passes. The default limits
//! give the margins on which the tables of the design rest: 1.1x + 0.1 points and 20 %; 1.5x + 0.5
//! points and 20/30/50 %. What is not named is neither compared nor needed; 4xx answers are watched
//! together with errors. Where all traffic is the canary's, `x` means stable's last minute.

use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::bernoulli::Boundary;
use super::ordinal::LatencyMargin;
use crate::model::revision::duration_millis;

/// Limits beyond which a canary is taken back, and how sure one must be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Criteria {
    /// The limits; any one that is broken ends the rollout.
    pub limits: Vec<Limit>,
    /// The chance, at most, that a canary no worse than stable is taken back: over the whole rollout,
    /// however often anyone looks. 1 % keeps a team's trust and costs 4.6 nats of evidence.
    pub alpha: f64,
    /// The chance, at most, that a step passes a canary that is worse than the promotion margins.
    pub promotion_alpha: f64,
    /// Canary requests, at least, before a step passes. 50; the evidence asks for hundreds anyway.
    pub min_requests: u64,
    /// How long the latencies of a rollout's first step are left out, while new instances warm up.
    /// Errors always count: a user who met one does not care that it was early.
    #[serde(with = "duration_millis")]
    pub warm_up: Duration,
    /// What goes to one side or the other by a coin.
    pub unit: Unit,
    /// Whether stable's instances are compared with each other, to learn what instances of one
    /// revision differ by (see [`super::instances`]).
    pub compares_instances: bool,
    /// Margins set by hand, in place of those that follow from the limits.
    pub margins: Option<Margins>,
}

/// What is assigned to a side by an independent coin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Every request.
    #[default]
    Request,
    /// A client, who then stays. The share of requests may then differ from the split.
    Session,
}

/// One limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// What is measured.
    pub metric: Metric,
    /// What it must not exceed.
    pub bound: Bound,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The fraction of requests that are errors.
    Errors,
    /// A latency quantile, 0 to 1.
    Latency(f64),
}

/// What must not be exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// A fraction for errors, seconds for latencies.
    Absolute(f64),
    /// So many times the stable revision, over the same time.
    Ratio(f64),
}

/// A tolerated rate: `ratio × stable + plus`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RateMargin {
    /// Factor on stable's rate, at least 1.
    pub ratio: f64,
    /// Added to it, a fraction.
    pub plus: f64,
}

impl RateMargin {
    /// The margin as the end of a null.
    #[must_use]
    pub fn boundary(self) -> Boundary {
        Boundary { ratio: self.ratio, plus: self.plus }
    }
}

/// A tolerated factor on a latency quantile.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct QuantileMargin {
    /// The quantile, 0 to 1.
    pub quantile: f64,
    /// Factor on stable's.
    pub factor: f64,
}

/// By how much latency may be higher: a factor, or microseconds, whichever is more.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SlowMargin {
    /// Factor on every latency, at least 1.
    pub factor: f64,
    /// Microseconds, for services so fast that a percentage means nothing.
    pub plus: f64,
}

impl SlowMargin {
    /// The margin as the end of a null.
    #[must_use]
    pub fn null(self) -> LatencyMargin {
        LatencyMargin { factor: self.factor, plus: self.plus }
    }
}

/// What is tolerated before a rollback, and what is asked for before a promotion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Margins {
    /// Errors beyond this are a regression.
    pub errors: RateMargin,
    /// 4xx answers beyond this are a regression.
    pub rejected: RateMargin,
    /// Latency beyond this is a regression.
    pub latency: SlowMargin,
    /// Errors must be shown to be within this to pass.
    pub promote_errors: RateMargin,
    /// Each quantile must be shown to be within this (and `latency.plus`) to pass.
    pub promote_latency: [QuantileMargin; 3],
}

/// The absolute limit on errors that the design's margins belong to.
const USUAL_ERRORS: f64 = 0.01;
/// The ratio that the design's margins belong to, for errors and for latency.
const USUAL_RATIO: f64 = 1.5;
/// Two milliseconds: below that a proxy on the same host cannot tell a canary from a noisy neighbour.
const SLOW_PLUS: f64 = 2_000.0;

impl Default for Criteria {
    fn default() -> Self {
        Self {
            limits: vec![
                Limit { metric: Metric::Errors, bound: Bound::Absolute(USUAL_ERRORS) },
                Limit { metric: Metric::Latency(0.95), bound: Bound::Ratio(USUAL_RATIO) },
            ],
            alpha: 0.01,
            promotion_alpha: 0.05,
            min_requests: 50,
            // Long enough for connections and first code paths; a JVM wants 60 s and more.
            warm_up: Duration::from_secs(2),
            unit: Unit::Request,
            compares_instances: false,
            margins: None,
        }
    }
}

impl Criteria {
    /// The default certainty, for the given limits.
    #[must_use]
    pub fn of(limits: Vec<Limit>) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Whether errors are watched.
    #[must_use]
    pub fn watches_errors(&self) -> bool {
        self.limits.iter().any(|limit| limit.metric == Metric::Errors)
    }

    /// Whether latency is watched.
    #[must_use]
    pub fn watches_latency(&self) -> bool {
        self.limits.iter().any(|limit| matches!(limit.metric, Metric::Latency(_)))
    }

    /// The margins: set by hand, or as the table above says. Of several limits on one thing the
    /// strictest counts.
    #[must_use]
    pub fn margins(&self) -> Margins {
        if let Some(margins) = &self.margins {
            return margins.clone();
        }
        let strictest = |pick: &dyn Fn(&Limit) -> Option<f64>, usual: f64| {
            self.limits.iter().filter_map(pick).min_by(f64::total_cmp).unwrap_or(usual)
        };
        let errors = strictest(
            &|limit| match (limit.metric, limit.bound) {
                (Metric::Errors, Bound::Absolute(rate)) => Some(rate),
                _ => None,
            },
            USUAL_ERRORS,
        );
        let errors_ratio = strictest(
            &|limit| match (limit.metric, limit.bound) {
                (Metric::Errors, Bound::Ratio(ratio)) => Some(ratio),
                _ => None,
            },
            USUAL_RATIO,
        );
        let latency = strictest(
            &|limit| match (limit.metric, limit.bound) {
                (Metric::Latency(_), Bound::Ratio(ratio)) => Some(ratio),
                _ => None,
            },
            USUAL_RATIO,
        );
        let towards = |part: f64| 1.0 + part * (latency - 1.0);
        let quantile =
            |quantile: f64, part: f64| QuantileMargin { quantile, factor: towards(part) };
        Margins {
            errors: RateMargin { ratio: 1.0 + (errors_ratio - 1.0) / 5.0, plus: errors / 10.0 },
            // A new version may well refuse a little more; wide, because clients cause 4xx.
            rejected: RateMargin { ratio: 1.25, plus: 0.01 },
            latency: SlowMargin { factor: towards(0.4), plus: SLOW_PLUS },
            promote_errors: RateMargin { ratio: errors_ratio, plus: errors / 2.0 },
            promote_latency: [quantile(0.5, 0.4), quantile(0.9, 0.6), quantile(0.99, 1.0)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_limits_give_the_margins_of_the_design() {
        let margins = Criteria::default().margins();
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} against {b}");
        near(margins.errors.ratio, 1.1);
        near(margins.errors.plus, 0.001);
        near(margins.latency.factor, 1.2);
        near(margins.promote_errors.ratio, 1.5);
        near(margins.promote_errors.plus, 0.005);
        let factors = margins.promote_latency.map(|margin| margin.factor);
        [1.2, 1.3, 1.5].into_iter().zip(factors).for_each(|(a, b)| near(a, b));
    }

    #[test]
    fn the_strictest_limit_counts() {
        let criteria: Criteria =
            "errors > 5% or errors > 0.1% or p99 > 3x".parse().expect("limits");
        let margins = criteria.margins();
        assert!((margins.errors.plus - 0.0001).abs() < 1e-12);
        assert!((margins.latency.factor - 1.8).abs() < 1e-12);
        let written = Criteria { margins: Some(margins.clone()), ..Criteria::default() };
        assert_eq!(written.margins(), margins);
    }
}
