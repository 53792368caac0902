//! Is the canary's rate of some event (errors, rejections) higher than stable's, beyond a margin?
//!
//! Eight experts bet on rates at fixed odds above the margin; what stable showed in earlier slots is
//! their starting point, so every bet is settled before the slot that it is made on. Decides nothing.

use serde::{Deserialize, Serialize};

use super::bernoulli::{Boundary, Payoffs, Tally};
use super::mixture::{Mixture, PER_SLOT, Purse};
use super::normal::{expit, logit};

/// How many experts.
pub const EXPERTS: usize = 8;
/// Odds, relative to the margin, that the experts believe in. A grid without 1.2 and 1.5 loses a
/// factor of 2 to 4 on small regressions; one in steps of 2 gains nothing on large ones.
pub const ODDS: [f64; EXPERTS] = [1.2, 1.5, 2.0, 3.5, 8.0, 25.0, 120.0, 2000.0];
/// The highest rate an expert believes in: a success of the canary must not ruin it.
const HIGHEST: f64 = 0.98;
/// The margin is kept below this, where odds above it still mean something.
const HIGHEST_MARGIN: f64 = 0.9;

/// A rate with a fading memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fading {
    events: f64,
    requests: f64,
}

impl Fading {
    /// What a rate remembers: half of it is gone after five minutes of one-second slots.
    const HALF_LIFE_SLOTS: f64 = 300.0;
    /// The most requests that history counts for; more would hold on to a stale rate.
    const HISTORY: f64 = 2000.0;
    /// With no history: 1 % over ten requests. Costs 2 to 5 % more requests until a verdict.
    const COLD: Self = Self { events: 0.1, requests: 10.0 };
    /// Rates are never believed lower or higher than this.
    const RANGE: (f64, f64) = (1e-5, 0.9);

    /// A rate that starts with what was seen before.
    #[must_use]
    pub fn from_history(history: Tally) -> Self {
        let requests = history.requests() as f64;
        let weight = if requests > 0.0 { (Self::HISTORY / requests).min(1.0) } else { 0.0 };
        let seen = Self { events: history.events as f64 * weight, requests: requests * weight };
        // A hundred requests say more than the cold guess does.
        if seen.requests >= 100.0 {
            return seen;
        }
        Self {
            events: seen.events + Self::COLD.events,
            requests: seen.requests + Self::COLD.requests,
        }
    }

    /// The rate.
    #[must_use]
    pub fn rate(&self) -> f64 {
        (self.events / self.requests).clamp(Self::RANGE.0, Self::RANGE.1)
    }

    fn add(&mut self, tally: Tally) {
        self.events += tally.events as f64;
        self.requests += tally.requests() as f64;
    }

    fn fade(&mut self) {
        let keep = (-1.0 / Self::HALF_LIFE_SLOTS).exp2();
        self.events *= keep;
        self.requests *= keep;
    }
}

/// The evidence that the canary's rate lies beyond a margin above stable's.
#[derive(Debug, Clone)]
pub struct RateStream {
    share: f64,
    boundary: Boundary,
    stable: Fading,
    slot: Tally,
    mixture: Mixture<EXPERTS>,
    payoffs: [Payoffs; EXPERTS],
    events_only: bool,
}

/// What a [`RateStream`] keeps over a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RateMemory {
    purse: Purse,
    stable: Fading,
}

impl RateStream {
    /// A stream with all its wealth in cash.
    #[must_use]
    pub fn new(boundary: Boundary, stable: Fading) -> Self {
        Self {
            share: 0.0,
            boundary,
            stable,
            slot: Tally::default(),
            mixture: Mixture::new([1.0 / EXPERTS as f64; EXPERTS]),
            payoffs: [Payoffs::default(); EXPERTS],
            events_only: false,
        }
    }

    /// The same, betting on events alone: where clients and not requests are assigned to a side.
    /// Only the margin's factor holds then; see [`Payoffs::events_only`].
    #[must_use]
    pub fn events_only(self) -> Self {
        Self { events_only: true, ..self }
    }

    /// The same without the clip, for comparison with bounds.
    #[must_use]
    pub fn without_clip(self) -> Self {
        Self { mixture: self.mixture.without_clip(), ..self }
    }

    /// From now on a request reaches the canary with probability `share`; `release` of the cash is bet.
    pub fn begin(&mut self, share: f64, release: f64) {
        self.settle();
        self.share = share;
        self.mixture.release(release);
        self.refresh();
    }

    /// Counts what both sides showed.
    pub fn count(&mut self, canary: Tally, stable: Tally) {
        for (won, payoffs) in self.mixture.slot_mut().iter_mut().zip(&self.payoffs) {
            *won += payoffs.gain(canary, stable);
        }
        self.slot.add(stable);
    }

    /// Ends a slot: what was won is kept, what stable showed becomes the next slot's starting point.
    pub fn end_slot(&mut self) {
        self.settle();
        self.mixture.release(PER_SLOT);
        self.stable.fade();
        self.refresh();
    }

    /// The evidence: 1 to begin with, `1/α` when the null is rejected at α.
    #[must_use]
    pub fn evidence(&self) -> f64 {
        self.mixture.total()
    }

    /// Stable's rate as of the last slot.
    #[must_use]
    pub fn stable_rate(&self) -> f64 {
        self.stable.rate()
    }

    /// What is kept over a restart.
    #[must_use]
    pub fn memory(&self) -> RateMemory {
        RateMemory { purse: self.mixture.purse(), stable: self.stable.clone() }
    }

    /// Goes on from what was kept, at the given share.
    pub fn restore(&mut self, memory: &RateMemory, share: f64) {
        self.mixture.restore(&memory.purse);
        self.stable = memory.stable.clone();
        self.slot = Tally::default();
        self.share = share;
        self.refresh();
    }

    fn settle(&mut self) {
        self.mixture.end_slot();
        self.stable.add(std::mem::take(&mut self.slot));
    }

    fn refresh(&mut self) {
        if !(self.share > 0.0 && self.share < 1.0) {
            self.payoffs = [Payoffs::default(); EXPERTS];
            return;
        }
        if self.events_only {
            let (share, ratio) = (self.share, self.boundary.ratio);
            self.payoffs = ODDS.map(|odds| Payoffs::events_only(odds, share, ratio));
            return;
        }
        let stable = self.stable.rate();
        let margin = logit(self.boundary.at(stable).min(HIGHEST_MARGIN));
        for (payoffs, odds) in self.payoffs.iter_mut().zip(ODDS) {
            let canary = expit(margin + odds.ln()).min(HIGHEST);
            // Where nearly all fails no rate is beyond the margin, and a bet would be on the contrary.
            *payoffs = if canary > self.boundary.at(stable) {
                Payoffs::new(canary, stable, self.share, self.boundary)
            } else {
                Payoffs::default()
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::mixture::AT_START;
    use super::*;

    /// Forty slots computed by an independent implementation in Python.
    #[test]
    fn the_golden_vector() {
        let text = include_str!("../../tests/data/golden_error_stream.json");
        let golden: serde_json::Value = serde_json::from_str(text).expect("valid JSON");
        let number = |value: &serde_json::Value, key: &str| value[key].as_f64().expect("a number");
        let count = |value: &serde_json::Value, key: &str| value[key].as_u64().expect("a count");
        let config = &golden["config"];
        let boundary = Boundary { ratio: number(config, "rho"), plus: number(config, "a") };
        let history = number(config, "n0");
        let stable = Fading { events: number(config, "p0") * history, requests: history };
        let mut stream = RateStream::new(boundary, stable);
        stream.begin(number(config, "w"), AT_START);
        for (index, slot) in golden["slots"].as_array().expect("slots").iter().enumerate() {
            stream.count(
                Tally::of(count(slot, "ec"), count(slot, "nc")),
                Tally::of(count(slot, "eb"), count(slot, "nb")),
            );
            stream.end_slot();
            let ours = stream.evidence().ln();
            assert!((ours - number(slot, "log_wealth")).abs() < 1e-9, "slot {index}: {ours}");
            assert!((stream.stable_rate() - number(slot, "p0_next")).abs() < 1e-12, "slot {index}");
            assert!((stream.mixture.cash() - number(slot, "cash")).abs() < 1e-12, "slot {index}");
        }
    }

    /// The worst case, a margin of nothing: a canary equal to stable reaches `1/α` in at most α of all
    /// rollouts, looked at in every slot.
    #[test]
    fn an_equal_canary_is_rarely_taken_for_worse() {
        use super::super::simulation::Dice;
        let (alpha, runs) = (0.05, 400);
        let mut dice = Dice::new(7);
        let mut wrong = 0;
        for _ in 0..runs {
            let boundary = Boundary { ratio: 1.0, plus: 0.0 };
            let mut stream = RateStream::new(boundary, Fading::COLD);
            stream.begin(0.05, AT_START);
            let crossed = (0..240).any(|slot| {
                if slot == 120 {
                    stream.begin(0.25, super::super::mixture::AT_STEP);
                }
                let rate = if slot % 50 < 5 { 0.2 } else { 0.01 };
                let mut tally = |rps: f64| Tally {
                    events: dice.poisson(rps * rate),
                    others: dice.poisson(rps * (1.0 - rate)),
                };
                let share = stream.share;
                stream.count(tally(200.0 * share), tally(200.0 * (1.0 - share)));
                stream.end_slot();
                stream.evidence() >= 1.0 / alpha
            });
            wrong += u32::from(crossed);
        }
        let rate = f64::from(wrong) / f64::from(runs);
        let error = (alpha * (1.0 - alpha) / f64::from(runs)).sqrt();
        assert!(rate <= alpha + 3.0 * error, "{rate}");
    }

    #[test]
    fn where_everything_fails_nothing_is_bet_on_the_contrary() {
        for share in [0.05, 0.25, 0.5] {
            let boundary = Boundary { ratio: 1.1, plus: 0.001 };
            let mut stream = RateStream::new(boundary, Fading::COLD);
            stream.begin(share, AT_START);
            let mut highest = 0.0_f64;
            for _ in 0..300 {
                let canary = (1000.0 * share) as u64;
                stream.count(Tally::of(canary, canary), Tally::of(1000 - canary, 1000 - canary));
                stream.end_slot();
                highest = highest.max(stream.evidence());
            }
            assert!(highest <= 1.0, "{share}: {highest}");
        }
    }

    #[test]
    fn a_share_of_all_or_nothing_bets_nothing() {
        for share in [0.0, 1.0] {
            let mut stream = RateStream::new(Boundary { ratio: 1.1, plus: 0.001 }, Fading::COLD);
            stream.begin(share, AT_START);
            stream.count(Tally::of(100, 100), Tally::default());
            assert!((stream.evidence() - 1.0).abs() < 1e-12);
        }
    }
}
