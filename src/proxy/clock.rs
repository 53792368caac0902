//! A worker's coarse clock: ticks of 100 ms, advanced by the worker itself.
//!
//! Deadlines of single requests are compared with it, so that a request needs no timer of its own.
//! It may be behind by one tick, never ahead. It does not measure latency.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

/// How long a tick is. A tenth of the shortest deadline that anybody configures.
pub const TICK: Duration = Duration::from_millis(MILLIS as u64);
const MILLIS: u32 = 100;

/// Bytes of a date as HTTP writes it.
pub const DATE: usize = 29;

/// The moment as answers tell it (RFC 9110, 5.6.7).
pub fn date() -> [u8; DATE] {
    let mut text = [b' '; DATE];
    let date = httpdate::HttpDate::from(SystemTime::now()).to_string();
    for (place, byte) in text.iter_mut().zip(date.bytes()) {
        *place = byte;
    }
    text
}

/// The number of ticks since the worker started.
pub type Tick = u64;

/// A handle on the worker's clock.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    ticks: Rc<Cell<Tick>>,
}

impl Clock {
    /// Ticks since the worker started.
    #[inline]
    pub fn now(&self) -> Tick {
        self.ticks.get()
    }

    /// One tick has passed.
    pub fn advance(&self) {
        self.ticks.set(self.ticks.get() + 1);
    }
}

/// So many ticks last at least this long: rounded up, and one more for the tick that has begun.
pub fn ticks(duration: Duration) -> Tick {
    // No 128-bit division: this is done a few times per request.
    let parts = Tick::from(duration.subsec_millis().div_ceil(MILLIS));
    duration.as_secs().saturating_mul(Tick::from(1_000 / MILLIS)).saturating_add(parts + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_last_at_least_as_long() {
        assert_eq!(ticks(Duration::ZERO), 1);
        assert_eq!(ticks(Duration::from_millis(1)), 2);
        assert_eq!(ticks(Duration::from_millis(100)), 2);
        assert_eq!(ticks(Duration::from_secs(1)), 11);
        assert!(ticks(Duration::MAX) > 1_000_000);
    }
}
