//! What is known, said so that a machine can act on it and a person can read it.

use serde::{Deserialize, Serialize};

/// The outcome of a judgement. A lattice: the worst of several wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finding {
    /// Shown to be good enough.
    Pass,
    /// Neither shown. No traffic is inconclusive, never a pass.
    Inconclusive,
    /// Shown to be worse than allowed.
    Fail,
}

impl Finding {
    /// The worse of two.
    #[must_use]
    pub fn worst(self, other: Self) -> Self {
        self.max(other)
    }
}

/// One question that was asked of the evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// `errors`, `p95`, `breaker`, …
    pub name: String,
    /// Its answer.
    pub result: Finding,
    /// The canary's value: a fraction for rates, seconds for latencies.
    pub canary: Option<f64>,
    /// Stable's value over the same time.
    pub stable: Option<f64>,
    /// The limit that the canary is held to, in the same unit.
    pub limit: Option<f64>,
    /// Between which values the canary's surely lies (95 %, however often it is looked at).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<(f64, f64)>,
    /// Canary requests on which it rests.
    pub requests: u64,
    /// One sentence for a person, with the numbers.
    pub sentence: String,
}

/// A route on which the canary had errors at this step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorstRoute {
    /// The first two parts of the path.
    pub route: String,
    /// Errors of the canary.
    pub canary: u64,
    /// Errors of stable meanwhile.
    pub stable: u64,
}

/// What a judgement says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The worst of the checks.
    pub result: Finding,
    /// The checks.
    pub checks: Vec<Check>,
    /// One sentence: the check that decided, or what is still missing.
    pub sentence: String,
    /// About how many more canary requests a verdict needs, when that can be told.
    pub needs_requests: Option<u64>,
    /// About how many seconds those take at the present rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs_seconds: Option<f64>,
    /// The routes with the most of the canary's errors, the worst first; not judged by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub worst_routes: Vec<WorstRoute>,
    /// Something that a person should look at keeps the step from passing (both sides worsened
    /// together, the split delivered is not the split configured).
    #[serde(default)]
    pub hold: Option<String>,
    /// The canary does nothing but fail, or alone is beyond a limit, and not yet for long enough to
    /// tell: a moment more will.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failing: bool,
}

impl Verdict {
    /// Nothing is known yet.
    #[must_use]
    pub fn unknown(sentence: &str) -> Self {
        Self {
            result: Finding::Inconclusive,
            checks: Vec::new(),
            sentence: sentence.to_owned(),
            needs_requests: None,
            needs_seconds: None,
            worst_routes: Vec::new(),
            hold: None,
            failing: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_wins() {
        assert_eq!(Finding::Pass.worst(Finding::Fail), Finding::Fail);
        assert_eq!(Finding::Inconclusive.worst(Finding::Pass), Finding::Inconclusive);
        assert_eq!(Finding::Fail.worst(Finding::Inconclusive), Finding::Fail);
    }
}
