//! Watches the live routing table during a rollout: when the canary's first bad answer was counted,
//! and when its weight was 0.

use std::time::Duration;

use tokio::time::Instant;

use crate::analysis::scorecard::Row;
use crate::routing::live::Live;

/// How often it looks; what it reports is that fine.
const LOOK: Duration = Duration::from_millis(5);

/// What makes an answer of the canary bad in a story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// Nothing is.
    Nothing,
    /// Errors and answers that never came.
    Errors,
    /// Every answer: it is slow from the first on.
    Every,
}

/// When things happened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    /// The canary's first bad answer.
    pub first_bad: Option<Instant>,
    /// The canary's weight was 0 again after it had some.
    pub zero: Option<Instant>,
}

/// Watches the first service until the canary, having had weight, has none; or until dropped.
/// Writes what it sees to `times` as it goes.
pub async fn watch(live: Live, bad: Bad, times: tokio::sync::watch::Sender<Times>) {
    let mut had_weight = false;
    let mut looks = tokio::time::interval(LOOK);
    loop {
        looks.tick().await;
        let table = live.load();
        let Some(service) = table.services.first() else { continue };
        let weight = service.canary_weight.basis_points();
        let now = Instant::now();
        if let Some(canary) = &service.canary
            && times.borrow().first_bad.is_none()
        {
            let sample = canary.scorecard.sample();
            let count = match bad {
                Bad::Nothing => 0,
                Bad::Errors => sample.errors(),
                Bad::Every => sample.count(Row::Success),
            };
            if count > 0 {
                times.send_modify(|times| times.first_bad = Some(now));
            }
        }
        if weight > 0 {
            had_weight = true;
        } else if had_weight {
            times.send_modify(|times| times.zero = Some(now));
            return;
        }
    }
}
