//! The mirror of a service: which of stable's requests are copied to the canary, and how many.
//!
//! Two caps hold over all workers together: so many copies over time, and so many on their way. Both are
//! asked only for a request that was drawn for the mirror, so that a service without one has nothing to
//! look at, and one with it shares a counter for a small part of its requests.

use std::borrow::Cow;
use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rapidhash::fast::RapidHasher;
use regex::bytes::Regex;

use crate::analysis::criteria::Criteria;
use crate::analysis::mirror::{Answered, Bodies, Twins};
use crate::model::mirror::MirrorSpec;
use crate::model::weight::Weight;

/// Bytes of a body that are kept to be compared, on each side. Pages and API answers are smaller; what
/// is longer is not compared.
pub const BODY: usize = 256 * 1024;

/// What stands in the place of what is masked.
const MASKED: &[u8] = b"\0";

/// The mirror of a service while it lasts.
#[derive(Debug)]
pub struct Mirror {
    /// What twins of answers showed.
    pub twins: Twins,
    /// How bodies are compared, where they are.
    pub mask: Option<Mask>,
    share: Weight,
    pace: Pace,
    /// How long latencies say nothing.
    warm_up: Duration,
    most: u32,
    in_flight: AtomicU32,
    sent: AtomicU64,
    left_out: AtomicU64,
}

/// The right to one copy on its way.
#[derive(Debug)]
pub struct Permit {
    mirror: Arc<Mirror>,
}

impl Permit {
    /// The mirror that gave it.
    #[must_use]
    pub fn mirror(&self) -> &Arc<Mirror> {
        &self.mirror
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.mirror.in_flight.fetch_sub(1, Relaxed);
    }
}

impl Mirror {
    /// A mirror that begins now, for so many workers. Fails where a mask is no regular expression.
    pub fn new(
        spec: &MirrorSpec,
        criteria: &Criteria,
        workers: usize,
        now: Instant,
    ) -> Result<Arc<Self>, String> {
        Ok(Arc::new(Self {
            twins: Twins::new(criteria, workers),
            mask: if spec.compare_body { Some(Mask::new(&spec.mask)?) } else { None },
            share: spec.share,
            pace: Pace {
                began: now,
                interval: spec.interval_micros,
                burst: spec.interval_micros.saturating_mul(u64::from(spec.burst.max(1) - 1)),
                next: AtomicU64::new(0),
            },
            warm_up: criteria.warm_up,
            most: spec.in_flight,
            in_flight: AtomicU32::new(0),
            sent: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
        }))
    }

    /// Whether a request is copied: it is drawn, and neither cap is reached.
    #[must_use]
    pub fn admit(self: &Arc<Self>, random: u64, now: Instant) -> Option<Permit> {
        if random % u64::from(Weight::WHOLE) >= u64::from(self.share.basis_points()) {
            return None;
        }
        if self.in_flight.fetch_add(1, Relaxed) < self.most {
            // From here on it counts as on its way, and no longer when this is dropped.
            let permit = Permit { mirror: Arc::clone(self) };
            if self.pace.takes(now) {
                self.sent.fetch_add(1, Relaxed);
                return Some(permit);
            }
        } else {
            self.in_flight.fetch_sub(1, Relaxed);
        }
        self.left_out.fetch_add(1, Relaxed);
        None
    }

    /// Counts stable's answer and the canary's, seen by this worker now.
    pub fn record(&self, worker: usize, answers: [Answered; 2], bodies: Bodies, now: Instant) {
        let timed = now.saturating_duration_since(self.pace.began) >= self.warm_up;
        self.twins.record(worker, answers, bodies, timed);
    }

    /// Copies that were begun, and requests that were drawn and left out because of a cap.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.sent.load(Relaxed), self.left_out.load(Relaxed))
    }
}

/// So many over time: the generic cell rate algorithm, with the moment from which on the next may come
/// as its only memory.
#[derive(Debug)]
struct Pace {
    began: Instant,
    /// Microseconds, from one to the next.
    interval: u64,
    /// Microseconds by which the next may be early.
    burst: u64,
    next: AtomicU64,
}

impl Pace {
    fn takes(&self, now: Instant) -> bool {
        let now = now.saturating_duration_since(self.began).as_micros();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let after = |next: u64| {
            (next <= now.saturating_add(self.burst))
                .then(|| next.max(now).saturating_add(self.interval))
        };
        self.next.fetch_update(Relaxed, Relaxed, after).is_ok()
    }
}

/// What in a body says nothing: times, tokens, the number of the request.
#[derive(Debug, Default)]
pub struct Mask {
    expressions: Vec<Regex>,
}

impl Mask {
    /// Of these regular expressions. The error says which is none, and why.
    pub fn new(expressions: &[String]) -> Result<Self, String> {
        let expressions = expressions.iter().map(|text| {
            Regex::new(text).map_err(|error| format!("{text:?} is no regular expression: {error}"))
        });
        Ok(Self { expressions: expressions.collect::<Result<_, _>>()? })
    }

    /// A hash of a body, the same for all that differ only in what is masked.
    #[must_use]
    pub fn hash(&self, body: &[u8]) -> u64 {
        let mut text = Cow::Borrowed(body);
        for expression in &self.expressions {
            if let Cow::Owned(masked) =
                expression.replace_all(&text, regex::bytes::NoExpand(MASKED))
            {
                text = Cow::Owned(masked);
            }
        }
        let mut hasher = RapidHasher::default();
        hasher.write(&text);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::scorecard::Row;

    fn spec(share: f64, per_second: u64, in_flight: u32) -> MirrorSpec {
        MirrorSpec {
            share: Weight::from_percent(share).expect("a weight"),
            lasts: Duration::from_secs(30),
            interval_micros: 1_000_000 / per_second,
            burst: 5,
            in_flight,
            compare_body: false,
            mask: Vec::new(),
            different: Weight::ZERO,
        }
    }

    fn mirror(spec: &MirrorSpec, now: Instant) -> Arc<Mirror> {
        Mirror::new(spec, &Criteria::default(), 1, now).expect("a mirror")
    }

    #[test]
    fn a_share_is_drawn() {
        let now = Instant::now();
        let mirror = mirror(&spec(10.0, 1_000_000, 100_000), now);
        let later = now + Duration::from_secs(3_600);
        let taken: Vec<_> = (0..100_000_u64)
            .filter_map(|n| mirror.admit(n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 7, later))
            .collect();
        // Five of them at one moment: the others wait for nothing, they are left out.
        assert_eq!(taken.len(), 5);
        let (sent, left_out) = mirror.counts();
        assert!((9_000..11_000).contains(&(sent + left_out)), "{sent} {left_out}");
    }

    #[test]
    fn never_more_than_so_many_over_time() {
        let began = Instant::now();
        let mirror = mirror(&spec(100.0, 50, 1_000), began);
        let mut taken = Vec::new();
        for millis in 0..10_000 {
            taken.extend(mirror.admit(0, began + Duration::from_millis(millis)));
        }
        assert!((500..=505).contains(&taken.len()), "{}", taken.len());
    }

    #[test]
    fn never_more_than_so_many_at_a_time() {
        let now = Instant::now();
        let mirror = mirror(&spec(100.0, 1_000_000, 3), now);
        let later = |n: u64| now + Duration::from_secs(n);
        let mut held: Vec<_> = (1..=10).filter_map(|n| mirror.admit(0, later(n))).collect();
        assert_eq!(held.len(), 3);
        held.pop();
        assert!(mirror.admit(0, later(11)).is_some(), "one was given back");
        assert_eq!(mirror.counts(), (4, 7));
    }

    #[test]
    fn latencies_count_once_it_is_warm() {
        let began = Instant::now();
        let mirror = mirror(&spec(100.0, 50, 10), began);
        let answer = Answered { row: Row::Success, micros: 1_000 };
        for seconds in [0, 1, 2, 3] {
            let now = began + Duration::from_secs(seconds);
            mirror.record(0, [answer; 2], Bodies::Unknown, now);
        }
        let tally = mirror.twins.tally();
        assert_eq!((tally.answered, tally.timed), (4, 2));
    }

    #[test]
    fn what_is_masked_is_the_same() {
        let mask = Mask::new(&[r"\d{2}:\d{2}".to_owned(), "token=[a-z]+".to_owned()]);
        let mask = mask.expect("expressions");
        assert_eq!(mask.hash(b"at 10:05 token=abc $0"), mask.hash(b"at 23:59 token=x $0"));
        assert_ne!(mask.hash(b"at 10:05"), mask.hash(b"on 10:05"));
        assert!(
            Mask::new(&["(".to_owned()]).is_err_and(|why| why.contains("no regular expression"))
        );
    }
}
