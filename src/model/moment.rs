//! Time as an argument.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment on a monotonic clock, in milliseconds since an origin that the caller chose.
///
/// Pure rooms take a `Moment` instead of asking a clock, so that a simulator can hand them hours in
/// a loop. Moments of one process compare; moments of two processes do not, which is why none is
/// ever stored.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
pub struct Moment(pub u64);

impl Moment {
    /// This moment and so much later. Saturates.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}
