//! The fast lane for a dead canary: an answer within a second, where the evidence needs two.
//!
//! It opens when the canary does nothing but fail while stable, in the same moments, does not. The
//! evidence stays the judge of everything subtler. A shared incident never opens it: stable must be
//! seen healthy *during* the run of failures, not before. Not a statistical test, but its one number
//! is: stable's own failures would have to produce such a run with probability below 1 in 10 million.
//!
//! A canary whose very first answers fail, all of them, needs two. A rollout has one first request,
//! not thousands of places where a run may begin: it fails by chance at stable's rate, and the second
//! one too at that rate squared, 1 in 10,000 where the rule holds at all (1 in 100 if failures always
//! came in pairs). That is what makes a canary at a request per second go within two or three.

use super::bernoulli::Tally;
use super::recent::Recent;
use crate::model::moment::Moment;
use std::time::Duration;

/// A run that is shorter than this may be a dropped connection or a pause; 0.7 s leaves room for a
/// poll and a shift within a second of the first failure.
const SPAN: Duration = Duration::from_millis(700);
/// Where there is no stable to look at, a run must last longer.
const SPAN_ALONE: Duration = Duration::from_millis(1_500);
/// Fewer failures are never enough, however rare stable's are.
const FEWEST: u64 = 3;
/// So many are, where the canary has never answered well …
const FEWEST_FIRST: u64 = 2;
/// … and stable fails no more often than this.
const RARE_FIRST: f64 = 0.01;
/// From so many failures on, one success in ten is still a dead canary.
const MANY: u64 = 20;
/// The natural logarithm of 1e-7: how improbable the run must be at stable's own rate. A rollout has
/// 10^4 to 10^5 places where a run may begin.
const RARE: f64 = -16.1;
/// Stable must have answered at least so much during the run, …
const STABLE_SEEN: u64 = 10;
/// … and failed no more than so much of it.
const STABLE_FAILURES: f64 = 0.05;

/// Watches for an unbroken run of failures.
#[derive(Debug, Clone, Default)]
pub struct Breaker {
    run: Option<Run>,
    /// The canary has answered well, in this rollout.
    answered: bool,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    since: Moment,
    canary: Tally,
    stable: Tally,
}

/// Why it opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// What the canary answered during the run.
    pub canary: Tally,
    /// What stable answered meanwhile.
    pub stable: Tally,
    /// How long the run lasted.
    pub lasted: Duration,
}

impl Breaker {
    /// Forgets the run under way.
    pub fn reset(&mut self) {
        self.run = None;
    }

    /// For a canary that answered before this process looked.
    #[must_use]
    pub fn of_one_that_answered() -> Self {
        Self { run: None, answered: true }
    }

    /// Whether the canary has done nothing but fail of late, however little that is.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.run.is_some()
    }

    /// Looks at one poll, which began at `since`. `recent` is what stable did of late, this poll
    /// included; `alone` says that the canary has all traffic.
    pub fn observe(
        &mut self,
        canary: Tally,
        stable: Tally,
        recent: &Recent,
        alone: bool,
        since: Moment,
        now: Moment,
    ) -> Option<Opened> {
        self.answered |= canary.others > 0;
        let first = !self.answered;
        if canary.events == 0 && self.run.is_none() {
            return None;
        }
        let run = self.run.get_or_insert(Run {
            since,
            canary: Tally::default(),
            stable: Tally::default(),
        });
        run.canary.add(canary);
        run.stable.add(stable);
        let Run { since, canary, stable } = *run;
        let tolerated = if canary.events >= MANY { canary.events / 9 } else { 0 };
        if canary.others > tolerated {
            self.run = None;
            return None;
        }
        let lasted = now.since(since);
        let rare = canary.events as f64 * recent.cautious_rate().ln() <= RARE;
        let healthy = if alone {
            lasted >= SPAN_ALONE
        } else {
            lasted >= SPAN
                && stable.requests() >= STABLE_SEEN
                && stable.events as f64 <= STABLE_FAILURES * stable.requests() as f64
        };
        let enough = (canary.events >= FEWEST && rare)
            || (first
                && !alone
                && canary.events >= FEWEST_FIRST
                && recent.cautious_rate() <= RARE_FIRST);
        (enough && healthy).then_some(Opened { canary, stable, lasted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs polls of 100 ms until the breaker opens; returns the milliseconds that took.
    fn opens(poll: impl Fn(u64) -> (Tally, Tally), alone: bool) -> Option<u64> {
        let mut breaker = Breaker::default();
        let mut recent = Recent::from_history(Tally::of(2, 10_000));
        (1..=100).find_map(|index| {
            let (canary, stable) = poll(index);
            let (since, now) = (Moment((index - 1) * 100), Moment(index * 100));
            recent.add(stable, now.since(since));
            let opened = breaker.observe(canary, stable, &recent, alone, since, now);
            opened.map(|_| index * 100)
        })
    }

    #[test]
    fn a_dead_canary_is_seen_within_a_second() {
        let dead = |_| (Tally::of(5, 5), Tally::of(0, 95));
        assert_eq!(opens(dead, false), Some(700));
        assert_eq!(opens(|_| (Tally::of(100, 100), Tally::default()), true), Some(1_500));
    }

    #[test]
    fn where_traffic_is_low_two_first_failures_are_enough_and_later_three() {
        let once = |index| u64::from(index % 10 == 0);
        let dead = |index| (Tally::of(once(index), once(index)), Tally::of(0, 2));
        assert_eq!(opens(dead, false), Some(2_000));
        let later = |index| {
            let failed = if index > 15 { once(index) } else { 0 };
            (Tally::of(failed, once(index)), Tally::of(0, 2))
        };
        assert_eq!(opens(later, false), Some(4_000));
        // Where stable fails now and then, so may a healthy canary twice at first.
        let shaky = |index| (Tally::of(once(index), once(index)), Tally::of(5 * once(index), 20));
        assert!(opens(shaky, false) > Some(4_000));
    }

    #[test]
    fn an_incident_that_both_sides_share_does_not_open_it() {
        for percent in [10, 50, 100] {
            let shared = |_| (Tally::of(5, 5), Tally::of(95 * percent / 100, 95));
            assert_eq!(opens(shared, false), None, "{percent}");
        }
    }

    #[test]
    fn a_blip_does_not_open_it() {
        let blip = |index| (Tally::of(if index <= 6 { 5 } else { 0 }, 5), Tally::of(0, 95));
        assert_eq!(opens(blip, false), None);
        let half = |_| (Tally::of(25, 50), Tally::of(0, 950));
        assert_eq!(opens(half, false), None);
    }

    #[test]
    fn nothing_is_known_without_stable() {
        assert_eq!(opens(|_| (Tally::of(5, 5), Tally::default()), false), None);
    }
}
