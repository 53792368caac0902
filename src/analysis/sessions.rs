//! Which clients have met an error already, where clients and not requests are assigned to a side.
//!
//! With affinity a client stays on its side, so that its second error says nothing that the first did
//! not: one broken session would look like a broken revision. The first error of each client counts,
//! wherever it was met, for the whole rollout. A client that never met one still has a side by a coin
//! of known weight, whatever others met; on that the proof rests.
//!
//! One bit per hash, set and never cleared: 64 KiB however many clients there are. Two clients with one
//! bit cost the second one its voice, on either side alike (2 % of them at 10,000 broken sessions).

use std::sync::atomic::{AtomicU64, Ordering};

/// Bits: 64 KiB.
const BITS: usize = 1 << 19;

/// Who met an error. Shared by workers; touched only when there is one.
#[derive(Debug)]
pub struct Sessions {
    met: Box<[AtomicU64]>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { met: (0..BITS / 64).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Sessions {
    /// Notes that the client with this hash met an error; says whether it is its first. The hash must
    /// not be the one that chose its side, or not the same bits of it.
    pub fn is_news(&self, hash: u32) -> bool {
        let bit = hash as usize % BITS;
        let mask = 1 << (bit % 64);
        // Relaxed: which of two errors at once is the first does not matter.
        self.met.get(bit / 64).is_none_or(|word| word.fetch_or(mask, Ordering::Relaxed) & mask == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::scorecard::{Row, Scorecard, Whose};
    use super::*;
    use std::sync::Arc;

    #[test]
    fn the_first_error_of_a_client_is_news_on_whichever_side() {
        let sessions = Arc::new(Sessions::default());
        let card = || Scorecard::new(1).of_sessions(Some(Arc::clone(&sessions)));
        let (stable, canary) = (card(), card());
        let of = |session| Whose { session: Some(session), path: Some("/cart/7") };
        for (card, session) in [(&stable, 7), (&stable, 7), (&canary, 7), (&canary, 8)] {
            card.record_error(0, Row::Failure, 10, of(session));
        }
        canary.record_error(0, Row::Fault, 10, Whose::default());
        let (stable, canary) = (stable.sample(), canary.sample());
        assert_eq!((stable.errors(), stable.news()), (2, 1));
        assert_eq!((canary.errors(), canary.news()), (3, 2), "one without a session counts");
        assert_eq!(canary.requests(), 3);
    }

    #[test]
    fn any_hash_has_a_place() {
        let sessions = Sessions::default();
        for hash in [0, 1, u32::MAX, BITS as u32 + 1] {
            assert_eq!(sessions.is_news(hash), hash != BITS as u32 + 1, "{hash}");
        }
    }
}
