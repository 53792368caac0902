//! A rate limit's memory: the generic cell rate algorithm, one number per client, in fixed memory.
//!
//! For each client the moment is kept at which it would be even with a steady pace. A request is let
//! through when that moment is no further ahead than the burst allows, and pushes it on by one
//! interval (GCRA, ITU-T I.371; nginx's leaky bucket is its mirror image).
//!
//! All workers share one memory. A count per worker would let a client through as many times as
//! there are workers when its connections spread over them, and would refuse it at a fraction when
//! they do not: with rates of a few per second neither is what was written. The price is a lock per
//! limited request, on one of thousands of cells, which no two workers want at once but for the same
//! client.
//!
//! A client is a hash of its key, with a seed of the process, so that nobody can choose whom to be
//! taken for. A cell holds `WAYS` clients; when it is full, one that is even is forgotten, or the
//! one that is nearest to it: it gains at most what it had left to wait.

use std::hash::{BuildHasher, Hash};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::rate::Rate;

/// Clients in one cell: 8 make it most unlikely that a cell overflows before half the memory is used.
const WAYS: usize = 8;
/// Cells: 65,536 clients in all, in 1 MiB.
const CELLS: usize = 8_192;

/// How a key is hashed: keyed, so that nobody outside can make two clients fall together. Whoever
/// builds a policy hands it in.
pub type Seed = std::hash::RandomState;

/// One client: its hash, and when it is even, in nanoseconds since the memory began.
#[derive(Debug, Clone, Copy, Default)]
struct Client {
    hash: u64,
    even: u64,
}

/// The memory of one limit.
pub struct Limiter {
    interval: u64,
    /// How far ahead a client may be and still be let through.
    ahead: u64,
    began: Instant,
    seed: Seed,
    cells: Box<[Mutex<[Client; WAYS]>]>,
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter").field("interval", &self.interval).finish_non_exhaustive()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Limiter {
    /// An empty memory. `now` is where its time begins.
    #[must_use]
    pub fn new(rate: &Rate, seed: Seed, now: Instant) -> Self {
        let interval = nanos(rate.interval).max(1);
        Self {
            interval,
            ahead: interval.saturating_mul(u64::from(rate.burst.saturating_sub(1))),
            began: now,
            seed,
            cells: (0..CELLS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Takes one request of a client. The error is how long it has to wait before the next would be
    /// let through.
    pub fn take(&self, key: impl Hash, now: Instant) -> Result<(), Duration> {
        let now = nanos(now.saturating_duration_since(self.began));
        let hash = self.seed.hash_one(key);
        let Some(cell) = self.cells.get(hash as usize % CELLS) else { return Ok(()) };
        // Whoever panicked with the lock left whole numbers behind.
        let mut cell = cell.lock().unwrap_or_else(PoisonError::into_inner);
        // The same client, else whoever is even, or nearest to it.
        let known = cell.iter().position(|client| client.hash == hash);
        let slot = known.or_else(|| {
            let even = cell.iter().enumerate().min_by_key(|(_, client)| client.even);
            even.map(|(at, _)| at)
        });
        let Some(client) = slot.and_then(|at| cell.get_mut(at)) else { return Ok(()) };
        let even = if client.hash == hash { client.even.max(now) } else { now };
        let lead = even - now;
        if lead > self.ahead {
            return Err(Duration::from_nanos(lead - self.ahead));
        }
        *client = Client { hash, even: even.saturating_add(self.interval) };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn limiter(rate: &str) -> (Limiter, Instant) {
        let now = Instant::now();
        let rate = Rate::parse(rate).expect("a rate");
        (Limiter::new(&rate, Seed::new(), now), now)
    }

    #[test]
    fn a_burst_and_then_the_pace() {
        let (limiter, start) = limiter("10/s burst 3");
        let at = |millis: u64| start + Duration::from_millis(millis);
        let take = |millis| limiter.take("a", at(millis));
        assert_eq!([take(0), take(0), take(0)], [Ok(()); 3]);
        assert_eq!(take(0), Err(Duration::from_millis(100)));
        assert_eq!(take(40), Err(Duration::from_millis(60)));
        assert_eq!(take(100), Ok(()));
        assert_eq!(take(100), Err(Duration::from_millis(100)));
        assert_eq!(limiter.take("b", at(100)), Ok(()), "another client");
        // After a silence the whole burst, and no more.
        assert_eq!([take(9_000), take(9_000), take(9_000)], [Ok(()); 3]);
        assert!(take(9_000).is_err());
    }

    #[test]
    fn over_a_long_time_the_rate_is_what_was_written() {
        for (rate, expected) in [("7/s burst 1", 700), ("30/m burst 5", 54), ("1/s", 100)] {
            let (limiter, start) = limiter(rate);
            // A greedy client asks every millisecond for 100 seconds.
            let passed = (0..100_000_u64)
                .filter(|ms| limiter.take(1, start + Duration::from_millis(*ms)).is_ok())
                .count();
            // Never more than was written; a request waits for the next millisecond at most.
            assert!(
                passed <= expected && passed + expected / 100 + 1 >= expected,
                "{rate}: {passed}"
            );
        }
    }

    #[test]
    fn threads_share_one_count() {
        let (limiter, start) = limiter("1/d burst 100");
        let (limiter, passed) = (Arc::new(limiter), Arc::new(AtomicU32::new(0)));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (limiter, passed) = (Arc::clone(&limiter), Arc::clone(&passed));
                std::thread::spawn(move || {
                    for _ in 0..1_000 {
                        if limiter.take("a", start).is_ok() {
                            passed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("no panic");
        }
        assert_eq!(passed.load(Ordering::Relaxed), 100);
    }

    #[test]
    fn a_flood_of_clients_takes_no_more_memory_and_spares_who_is_known() {
        let (limiter, start) = limiter("1/h burst 1");
        let later = |n: u64| start + Duration::from_millis(n);
        // As many as half of the memory: nearly all are still known afterwards.
        for client in 0..32_768_u64 {
            assert_eq!(limiter.take(client, later(client)), Ok(()));
        }
        let forgotten = (0..32_768_u64).filter(|c| limiter.take(c, later(40_000)).is_ok()).count();
        assert!(forgotten < 3_000, "{forgotten} of 32768 were forgotten");
        for client in 0..1_000_000_u64 {
            let _ = limiter.take(client, later(50_000));
        }
        assert_eq!(limiter.cells.len() * size_of::<[Client; WAYS]>(), 1 << 20);
    }
}
