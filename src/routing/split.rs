//! Which side takes a request.
//!
//! A request has a [`Ticket`]: a number below 10,000. It goes to the canary when its ticket is below
//! the canary's weight. Without affinity a ticket is a coin of the worker's own generator,
//! independent per request, on which the analysis rests. With affinity it is a hash of the user's
//! key, so raising the weight only adds users: who is on the canary at 5 % is there at 25 %.

use crate::model::weight::{Side, Weight};

/// What makes the tickets of keys differ between rollouts, so that it is not always the same users who
/// meet a new revision first. Made once: what the hash needs of it takes longer than the hash.
#[derive(Debug, Clone)]
pub struct Salt(rapidhash::v3::RapidSecrets);

impl Salt {
    /// A salt from a number, such as a rollout's.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self(rapidhash::v3::RapidSecrets::seed(number))
    }
}

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

    /// The ticket of a user's key in one rollout, and a hash of the key that is independent of the
    /// ticket. The hash is versioned and portable, so that tickets survive an upgrade.
    #[must_use]
    pub fn of_key(key: &[u8], salt: &Salt) -> (Self, u32) {
        let hash = rapidhash::v3::rapidhash_v3_seeded(key, &salt.0);
        (Self::random((hash >> 32) as u32), hash as u32)
    }

    /// Whether the ticket is among the highest, of which a part of stable's traffic is made: apart from
    /// the canary's, which are the lowest, for as long as the two weights fit into the whole.
    #[inline]
    #[must_use]
    pub fn is_among_highest(self, weight: Weight) -> bool {
        self.0 >= weight.complement().basis_points()
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
        let salt = Salt::new(42);
        for user in 0..2_000_u32 {
            let (ticket, _) = Ticket::of_key(&user.to_le_bytes(), &salt);
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
            let by_key =
                share(&|n| Ticket::of_key(&n.to_le_bytes(), &Salt::new(7)).0, basis_points);
            let by_coin = share(&|n| Ticket::random(n.wrapping_mul(0x9E37_79B9)), basis_points);
            assert!((by_key - wanted).abs() < 0.006, "{by_key}");
            assert!((by_coin - wanted).abs() < 0.006, "{by_coin}");
        }
    }

    #[test]
    fn the_canary_and_a_part_of_stable_share_no_ticket() {
        let (canary, part) = (weight(4_000), weight(2_500));
        let (mut of_part, all) = (0, 10_000_u32);
        for n in 0..all {
            let ticket = Ticket::random(((u64::from(n) << 32) / u64::from(all)) as u32 + 1);
            let is_part = ticket.is_among_highest(part);
            assert!(!(is_part && ticket.side(canary) == Side::Canary));
            of_part += u32::from(is_part);
        }
        assert_eq!(of_part, 2_500);
        assert!(!Ticket::random(u32::MAX).is_among_highest(Weight::ZERO));
    }

    #[test]
    fn the_hash_of_a_key_says_nothing_of_its_side() {
        let canary = weight(2_500);
        let salt = Salt::new(7);
        let of = |n: u32| Ticket::of_key(&n.to_le_bytes(), &salt);
        let low = |n: &u32| of(*n).1.is_multiple_of(2);
        let on_canary = |n: &u32| of(*n).0.side(canary) == Side::Canary;
        let count = (0..100_000_u32).filter(low).count() as f64;
        let both = (0..100_000_u32).filter(low).filter(on_canary).count() as f64;
        assert!((both / count - 0.25).abs() < 0.01, "{both} of {count}");
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
            .filter(|n| {
                Ticket::of_key(&n.to_le_bytes(), &Salt::new(1)).0.side(first) == Side::Canary
            })
            .filter(|n| {
                Ticket::of_key(&n.to_le_bytes(), &Salt::new(2)).0.side(first) == Side::Canary
            })
            .count();
        assert!((150..350).contains(&both), "{both}");
    }
}
