//! What happened in about the last ten seconds: a rate that forgets quickly.
//!
//! For guards, which hold and never roll back, and for the breaker.

use std::time::Duration;

use super::bernoulli::Tally;

/// A rate with a half-life of ten seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Recent {
    events: f64,
    requests: f64,
}

impl Recent {
    /// Half is forgotten after so long: soon enough to see an incident end.
    const HALF_LIFE: Duration = Duration::from_secs(10);
    /// History counts for at most so many requests.
    const HISTORY: f64 = 300.0;

    /// Starts with what was seen before.
    #[must_use]
    pub fn from_history(history: Tally) -> Self {
        let requests = history.requests() as f64;
        let weight = if requests > 0.0 { (Self::HISTORY / requests).min(1.0) } else { 0.0 };
        Self { events: history.events as f64 * weight, requests: requests * weight }
    }

    /// Adds what was newly counted in `elapsed`.
    pub fn add(&mut self, tally: Tally, elapsed: Duration) {
        // Without traffic nothing is learned, and nothing forgotten.
        if tally.requests() == 0 {
            return;
        }
        let keep = (-elapsed.as_secs_f64() / Self::HALF_LIFE.as_secs_f64()).exp2();
        self.events = self.events * keep + tally.events as f64;
        self.requests = self.requests * keep + tally.requests() as f64;
    }

    /// Events, requests.
    #[must_use]
    pub fn counts(&self) -> (f64, f64) {
        (self.events, self.requests)
    }

    /// The rate; zero when nothing was seen.
    #[must_use]
    pub fn rate(&self) -> f64 {
        if self.requests > 0.0 { self.events / self.requests } else { 0.0 }
    }

    /// The rate with one event and one other request more (Laplace): never zero.
    #[must_use]
    pub fn cautious_rate(&self) -> f64 {
        (self.events + 1.0) / (self.requests + 2.0)
    }

    /// Whether the rate is clearly above `bound`: three standard deviations of a count (Poisson).
    #[must_use]
    pub fn is_clearly_above(&self, bound: f64) -> bool {
        self.events - 3.0 * self.events.sqrt() > bound * self.requests
    }
}
