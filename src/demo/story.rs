//! Four releases of the sample app, each with the outcome it should have.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::load::Seen;
use super::watcher::{self, Bad, Times};
use crate::app::House;
use crate::controller::handle::{Handle, Refused};
use crate::controller::status::{DeployRequest, RolloutRecord};
use crate::model::id::{RolloutId, ServiceName};

/// How often the end of a rollout is looked for.
const LOOK: Duration = Duration::from_millis(20);
/// How long load goes on after a rollout's end, so that what it broke is seen.
const AFTERWARDS: Duration = Duration::from_millis(300);

/// One release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Story {
    /// A good revision is promoted.
    Good,
    /// One that answers 5 % errors is rolled back.
    Errors,
    /// One that is three times slower is rolled back.
    Slow,
    /// One that crashes after two seconds of traffic is rolled back.
    Crash,
}

impl Story {
    /// In the order in which they are told.
    pub const ALL: [Self; 4] = [Self::Good, Self::Errors, Self::Slow, Self::Crash];

    /// The word in the JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Errors => "errors",
            Self::Slow => "slow",
            Self::Crash => "crash",
        }
    }

    /// What the release is, in a few words.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Good => "a good revision",
            Self::Errors => "a revision that answers 5% errors",
            Self::Slow => "a revision that is 3 times slower",
            Self::Crash => "a revision that crashes after 2 s of traffic",
        }
    }

    /// What `SAMPLE_FAULT` is for it.
    #[must_use]
    pub fn fault(self) -> &'static str {
        match self {
            Self::Good => "none",
            Self::Errors => "errors:0.05",
            Self::Slow => "slow:3",
            Self::Crash => "crash:2",
        }
    }

    /// How it should end.
    #[must_use]
    pub fn should(self) -> &'static str {
        match self {
            Self::Good => "promoted",
            Self::Errors | Self::Slow | Self::Crash => "rolled_back",
        }
    }

    fn bad(self) -> Bad {
        match self {
            Self::Good => Bad::Nothing,
            Self::Errors | Self::Crash => Bad::Errors,
            Self::Slow => Bad::Every,
        }
    }
}

/// What came of a story: the contract's JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// Which.
    pub story: &'static str,
    /// `promoted` or `rolled_back`.
    pub outcome: String,
    /// From the first bad answer to canary weight 0; null for `good`.
    pub seconds_to_zero: Option<f64>,
    /// Requests sent.
    pub requests: u64,
    /// Answers that a client saw fail.
    pub failed_for_users: u64,
    /// How long the rollout took.
    pub seconds: f64,
    /// Why it went back.
    #[serde(skip)]
    pub cause: Option<String>,
}

impl Outcome {
    /// Whether it ended as it should.
    #[must_use]
    pub fn is_as_told(&self, story: Story) -> bool {
        self.outcome == story.should()
    }
}

/// Tells one story.
pub async fn tell(
    house: &House,
    story: Story,
    request: DeployRequest,
    seen: &Arc<Seen>,
) -> Result<Outcome, Refused> {
    let handle = house.handle();
    let service = ServiceName::new("demo").map_err(|error| Refused::Invalid(error.to_string()))?;
    let (requests_before, failed_before) = seen.so_far();
    let (times_in, times) = tokio::sync::watch::channel(Times::default());
    let stop = CancellationToken::new();
    let watching = watcher::watch(house.live().clone(), story.bad(), times_in);
    let watching = tokio::spawn(stop.clone().run_until_cancelled_owned(watching));
    let begun = Instant::now();
    let accepted = handle.deploy(service, request).await?;
    let record = ended(handle, RolloutId(accepted.rollout)).await?;
    let seconds = begun.elapsed().as_secs_f64();
    tokio::time::sleep(AFTERWARDS).await;
    stop.cancel();
    let _ = watching.await;
    let times = *times.borrow();
    let (requests, failed) = seen.so_far();
    let seconds_to_zero = match (story, times.first_bad, times.zero) {
        (Story::Good, ..) => None,
        (_, Some(first_bad), Some(zero)) => {
            Some(zero.saturating_duration_since(first_bad).as_secs_f64())
        }
        // The weight was 0 before any answer was bad.
        (_, None, Some(_)) => Some(0.0),
        _ => None,
    };
    Ok(Outcome {
        story: story.as_str(),
        outcome: if record.phase == "promoted" { "promoted" } else { "rolled_back" }.to_owned(),
        seconds_to_zero: seconds_to_zero.map(|seconds| (seconds * 1e3).round() / 1e3),
        requests: requests - requests_before,
        failed_for_users: failed - failed_before,
        seconds: (seconds * 10.0).round() / 10.0,
        cause: record.cause,
    })
}

/// Waits for the end of a rollout.
pub async fn ended(handle: &Handle, id: RolloutId) -> Result<RolloutRecord, Refused> {
    loop {
        let record = handle.rollout(id).await?;
        if record.outcome.is_some() {
            return Ok(record);
        }
        tokio::time::sleep(LOOK).await;
    }
}
