//! Which side takes a request.
//!
//! A request has a [`Ticket`]: a number below 10,000. It goes to the canary when its ticket is below
//! the canary's weight. Without affinity a ticket is a coin of the worker's own generator,
//! independent per request, on which the analysis rests. With affinity it is a hash of the user's
//! key, so raising the weight only adds users: who is on the canary at 5 % is there at 25 %.

use crate::model::weight::{Side, Weight};

/// The number by which a request is chosen: 0 to 9,999.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u16);

impl Ticket {
    /// A ticket from 32 random bits.
    #[inline]
    #[must_use]
    pub fn random(bits: u32) -> Self {
        // Multiply-shift (Lemire 2019): uniform to within 10,000 / 2^32.
        Self(((u64::from(bits) * u64::from(Weight::WHOLE)) >> 32) as u16)
    }

    /// The ticket of a user's key in one rollout. `salt` differs between rollouts, so that it is not
    /// always the same users who meet a new revision first. The hash is versioned and portable, so
    /// that tickets survive an upgrade.
    #[must_use]
    pub fn of_key(key: &[u8], salt: u64) -> Self {
        let secrets = rapidhash::v3::RapidSecrets::seed(salt);
        let hash = rapidhash::v3::rapidhash_v3_seeded(key, &secrets);
        Self::random((hash >> 32) as u32)
    }

    /// The side that this ticket falls on when the canary has this weight.
    #[inline]
    #[must_use]
    pub fn side(self, canary: Weight) -> Side {
        if self.0 < canary.basis_points() { Side::Canary } else { Side::Stable }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(basis_points: u16) -> Weight {
        Weight::from_basis_points(basis_points).expect("a weight")
    }

    #[test]
    fn a_key_on_the_canary_stays_there_as_the_weight_rises() {
        for user in 0..2_000_u32 {
            let ticket = Ticket::of_key(&user.to_le_bytes(), 42);
            let mut on_canary = false;
            for basis_points in (0..=10_000).step_by(50) {
                let now = ticket.side(weight(basis_points)) == Side::Canary;
                assert!(now || !on_canary, "user {user} left at {basis_points}");
                on_canary = now;
            }
            assert!(on_canary);
        }
    }

    #[test]
    fn keys_and_coins_are_spread_by_weight() {
        let share = |tickets: &dyn Fn(u32) -> Ticket, basis_points| {
            let canary = weight(basis_points);
            (0..100_000).filter(|n| tickets(*n).side(canary) == Side::Canary).count() as f64 / 1e5
        };
        for basis_points in [500, 2_500, 5_000] {
            let wanted = f64::from(basis_points) / 1e4;
            let by_key = share(&|n| Ticket::of_key(&n.to_le_bytes(), 7), basis_points);
            let by_coin = share(&|n| Ticket::random(n.wrapping_mul(0x9E37_79B9)), basis_points);
            assert!((by_key - wanted).abs() < 0.006, "{by_key}");
            assert!((by_coin - wanted).abs() < 0.006, "{by_coin}");
        }
    }

    #[test]
    fn nothing_and_everything_are_exact() {
        for bits in [0, 1, u32::MAX / 2, u32::MAX] {
            assert_eq!(Ticket::random(bits).side(Weight::ZERO), Side::Stable);
            assert_eq!(Ticket::random(bits).side(Weight::FULL), Side::Canary);
        }
    }

    #[test]
    fn another_rollout_chooses_other_users() {
        let first = weight(500);
        let both = (0..100_000_u32)
            .filter(|n| Ticket::of_key(&n.to_le_bytes(), 1).side(first) == Side::Canary)
            .filter(|n| Ticket::of_key(&n.to_le_bytes(), 2).side(first) == Side::Canary)
            .count();
        assert!((150..350).contains(&both), "{both}");
    }
}
