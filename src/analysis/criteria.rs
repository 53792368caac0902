//! The operator's limits: `errors > 1% or p95 > 1.5x`.

use serde::{Deserialize, Serialize};

/// Limits beyond which a canary is taken back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Criteria {
    /// The limits; any one that is broken ends the rollout.
    pub limits: Vec<Limit>,
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

impl Default for Criteria {
    /// `errors > 1% or p95 > 1.5x`.
    fn default() -> Self {
        let limits = vec![
            Limit { metric: Metric::Errors, bound: Bound::Absolute(0.01) },
            Limit { metric: Metric::Latency(0.95), bound: Bound::Ratio(1.5) },
        ];
        Self { limits }
    }
}
