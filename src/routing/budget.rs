//! How many of the canary's failures stable may be asked to answer.
//!
//! The shield sends a request that the canary failed to stable. Without a limit a canary that fails
//! everything at 50 % would double what stable has to do, and a fault that both sides share (a
//! database that is down) would be met twice per request. So over the last `WINDOW` seconds the
//! shield may add a share of what stable was asked by itself, and a small reserve for services with
//! little traffic. Window, share and reserve are those of Finagle's `RetryBudget` (10 s, 20 %, ten a
//! second); Envoy's `retry_budget` and Linkerd have the same 20 %.
//!
//! A shard per worker, each written by its worker alone: no locked instruction, and a service
//! without a canary has no budget to look at. Time is handed in, in whole seconds of the worker's
//! clock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::model::weight::Weight;

/// Seconds over which shares are taken.
const WINDOW: usize = 10;
/// Failures a second that are answered in any case, over all workers.
const RESERVE: u64 = 10;

/// What the shield may spend on one service.
#[derive(Debug)]
pub struct Budget {
    shards: Box<[Shard]>,
}

/// One worker's window. Aligned to two cache lines, as scorecards are.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    /// The second that was written last.
    last: AtomicU32,
    /// Requests that stable got by itself, by second.
    own: [AtomicU32; WINDOW],
    /// Requests that stable got from the shield, by second.
    spent: [AtomicU32; WINDOW],
    shielded: AtomicU64,
    refused: AtomicU64,
}

/// What the shield did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shielded {
    /// Failures of the canary that stable was asked to answer.
    pub shielded: u64,
    /// Failures that visitors saw because the budget was spent.
    pub refused: u64,
}

impl Shielded {
    /// What was added since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            shielded: self.shielded.saturating_sub(earlier.shielded),
            refused: self.refused.saturating_sub(earlier.refused),
        }
    }
}

impl Budget {
    /// A budget for so many workers (at least one).
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { shards: (0..workers.max(1)).map(|_| Shard::default()).collect() }
    }

    /// Stable was sent a request of its own.
    #[inline]
    pub fn earn(&self, worker: usize, second: u32) {
        let Some(shard) = self.shards.get(worker) else { return };
        shard.move_to(second);
        add(&shard.own[second as usize % WINDOW]);
    }

    /// Whether stable may be asked to answer one more of the canary's failures; counts it if so.
    /// `share` is the part of stable's own requests.
    #[must_use]
    pub fn spend(&self, worker: usize, second: u32, share: Weight) -> bool {
        let Some(shard) = self.shards.get(worker) else { return false };
        shard.move_to(second);
        let sum = |cells: &[AtomicU32]| cells.iter().map(|c| u64::from(c.load(Relaxed))).sum();
        let (own, spent): (u64, u64) = (sum(&shard.own), sum(&shard.spent));
        let reserve = (RESERVE * WINDOW as u64).div_ceil(self.shards.len() as u64);
        let earned = own * u64::from(share.basis_points()) / u64::from(Weight::WHOLE);
        if spent >= earned + reserve {
            bump(&shard.refused);
            return false;
        }
        add(&shard.spent[second as usize % WINDOW]);
        bump(&shard.shielded);
        true
    }

    /// What the shield did so far.
    #[must_use]
    pub fn total(&self) -> Shielded {
        let sum = |of: fn(&Shard) -> &AtomicU64| {
            self.shards.iter().map(|shard| of(shard).load(Relaxed)).sum()
        };
        Shielded { shielded: sum(|shard| &shard.shielded), refused: sum(|shard| &shard.refused) }
    }
}

impl Shard {
    /// Empties the seconds that have left the window.
    #[inline]
    fn move_to(&self, second: u32) {
        let last = self.last.load(Relaxed);
        if last == second {
            return;
        }
        self.last.store(second, Relaxed);
        for passed in 0..second.wrapping_sub(last).min(WINDOW as u32) {
            let at = second.wrapping_sub(passed) as usize % WINDOW;
            self.own[at].store(0, Relaxed);
            self.spent[at].store(0, Relaxed);
        }
    }
}

// Relaxed everywhere: one writer per shard, and readers need no order among cells.
fn add(cell: &AtomicU32) {
    cell.store(cell.load(Relaxed).saturating_add(1), Relaxed);
}

fn bump(cell: &AtomicU64) {
    cell.store(cell.load(Relaxed).wrapping_add(1), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIFTH: fn() -> Weight = || Weight::from_basis_points(2_000).expect("a weight");

    /// How many of `tries` are let through at `second`.
    fn spent(budget: &Budget, second: u32, tries: u32) -> u32 {
        (0..tries).filter(|_| budget.spend(0, second, FIFTH())).count() as u32
    }

    #[test]
    fn a_share_of_stables_requests_and_a_reserve() {
        let budget = Budget::new(1);
        for _ in 0..1_000 {
            budget.earn(0, 3);
        }
        assert_eq!(spent(&budget, 3, 1_000), 200 + 100);
        assert_eq!(budget.total(), Shielded { shielded: 300, refused: 700 });
        // Nothing more while the window holds it, everything again when it has passed.
        assert_eq!(spent(&budget, 12, 10), 0);
        assert_eq!(spent(&budget, 13, 1_000), 100);
    }

    #[test]
    fn a_canary_that_fails_everything_at_five_percent_stays_within_it() {
        let budget = Budget::new(2);
        for second in 0..60 {
            for request in 0..1_000 {
                if request % 20 == 0 {
                    assert!(budget.spend(1, second, FIFTH()), "{second}");
                } else {
                    budget.earn(1, second);
                }
            }
        }
        assert_eq!(budget.total().refused, 0);
    }

    #[test]
    fn stable_never_gets_much_more_than_the_share() {
        // Half of the traffic, failing all the time.
        let budget = Budget::new(1);
        let mut own = 0_u64;
        for second in 0..100 {
            for _ in 0..500 {
                budget.earn(0, second);
                own += 1;
                let _ = budget.spend(0, second, FIFTH());
            }
        }
        let shielded = budget.total().shielded;
        // The windows meet at their borders, where a share may be earned for two of them.
        assert!(shielded <= own * 20 / 100 + 100 * RESERVE + 1_100, "{shielded} of {own}");
        assert!(shielded >= own * 15 / 100, "{shielded} of {own}");
    }

    #[test]
    fn every_worker_has_a_part_of_the_reserve() {
        let budget = Budget::new(32);
        for worker in 0..32 {
            assert!(budget.spend(worker, 0, Weight::ZERO));
        }
        assert!(!budget.spend(99, 0, Weight::FULL), "there is no such worker");
    }
}
