//! When: pure functions of moments, in seconds since the Unix epoch.

use std::time::Duration;

const DAY: i64 = 24 * 60 * 60;
/// The longest pause after failures: four attempts a day stay below every authority's limits.
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 60 * 60);
/// An expiry is told of this long before.
const WARN_BEFORE: i64 = 14 * DAY;

/// When to renew what no authority has an opinion on: after two thirds of its life, as Let's Encrypt
/// advises, and up to a twentieth later, so that not all come at once. `chance` is 0 to 1.
#[must_use]
pub fn renewal(not_before: i64, not_after: i64, chance: f64) -> i64 {
    let life = (not_after - not_before).max(0);
    not_before + life * 2 / 3 + (life as f64 / 20.0 * chance) as i64
}

/// A moment in the window that the authority suggests (RFC 9773, 4.2).
#[must_use]
pub fn within(start: i64, end: i64, chance: f64) -> i64 {
    start + ((end - start).max(0) as f64 * chance) as i64
}

/// The pause after so many failures in a row, doubling from the first.
#[must_use]
pub fn pause(failures: u32, first: Duration) -> Duration {
    let doubled =
        first.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    doubled.min(LONGEST_PAUSE.max(first))
}

/// Whether an expiry is near: within two weeks, or in the last quarter of a life that is short.
#[must_use]
pub fn is_near(not_before: i64, not_after: i64, now: i64) -> bool {
    not_after - now < WARN_BEFORE.min((not_after - not_before) / 4)
}

/// Whole days until a moment, rounded down.
#[must_use]
pub fn days(until: i64, now: i64) -> i64 {
    (until - now).div_euclid(DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_leaves_a_third() {
        let life = 90 * DAY;
        assert_eq!(renewal(0, life, 0.0), 60 * DAY);
        assert!(renewal(0, life, 1.0) < 65 * DAY);
        // Six days, as "shortlived" certificates have.
        assert_eq!(renewal(0, 6 * DAY, 0.0), 4 * DAY);
        assert_eq!(within(100, 200, 0.5), 150);
        assert_eq!(within(100, 50, 0.9), 100, "a window that makes no sense is its start");
    }

    #[test]
    fn pauses_double_to_six_hours() {
        let minute = Duration::from_secs(60);
        let minutes: Vec<u64> = (1..=10).map(|n| pause(n, minute).as_secs() / 60).collect();
        assert_eq!(minutes, [1, 2, 4, 8, 16, 32, 64, 128, 256, 360]);
        assert_eq!(pause(u32::MAX, minute), LONGEST_PAUSE);
    }

    #[test]
    fn an_expiry_is_told_of_in_time() {
        assert!(!is_near(0, 90 * DAY, 75 * DAY) && is_near(0, 90 * DAY, 77 * DAY));
        assert!(!is_near(0, 6 * DAY, 4 * DAY) && is_near(0, 6 * DAY, 5 * DAY));
        assert_eq!((days(2 * DAY, DAY + 1), days(0, 1)), (0, -1));
    }
}
