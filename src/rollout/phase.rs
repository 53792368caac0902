//! Where a rollout stands.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::weight::Weight;

/// Where a rollout stands. Steps count from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// Stable's instances finish their requests and stop, to make room for the canary's.
    Clearing,
    /// Instances of the canary are being started.
    Launching,
    /// Instances run and are asked whether they are healthy.
    Probing,
    /// Instances are healthy and go through the smoke tests, with no visitor.
    Smoke,
    /// Copies of visitors' requests go to the canary, and its answers are compared with stable's and
    /// thrown away. A regression takes it back.
    Mirroring,
    /// The canary takes its step's weight and evidence is gathered.
    Baking {
        /// The step.
        step: usize,
    },
    /// Further instances of the canary are being started in the place of stable's, while it keeps its
    /// weight. A regression takes it back.
    Growing {
        /// The step that they are for.
        step: usize,
        /// The weight that it keeps.
        weight: Weight,
        /// How far they are.
        stage: Stage,
    },
    /// The canary keeps its weight and waits. A regression still takes it back.
    Paused {
        /// The step to which it belongs.
        step: usize,
        /// The weight at which it waits; the step's own unless a person set another.
        weight: Weight,
        /// Why it waits.
        reason: PauseReason,
    },
    /// The canary is about to become stable; its checkpoint is being written.
    Promoting,
    /// The canary has weight 0; its last requests finish and its instances stop.
    RollingBack {
        /// Why.
        cause: Cause,
        /// Whether its requests have finished.
        drained: bool,
    },
    /// The canary is gone, and stable's instances start again.
    Restoring {
        /// Why.
        cause: Cause,
    },
    /// The canary became stable.
    Promoted,
    /// All traffic is back on stable and the canary is gone.
    RolledBack {
        /// Why.
        cause: Cause,
    },
}

/// How far further instances are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// They are being started.
    Launching,
    /// They run and are asked whether they are healthy.
    Probing,
    /// They go through the smoke tests.
    Smoke,
}

/// Why a rollout waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum PauseReason {
    /// A person said so, or set a weight by hand.
    Operator,
    /// The step lasted its longest and nothing is shown. Goes on by itself if it is shown after all.
    Inconclusive,
    /// Something that a person should look at.
    Hold {
        /// What.
        sentence: String,
    },
    /// A gate: a person must say so before it goes on.
    Gate,
    /// The state could not be saved, so nothing may move forward.
    Unsaved {
        /// Why not.
        sentence: String,
    },
}

/// Why a rollout goes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    /// The analysis found the canary worse.
    Regression {
        /// The verdict's sentence.
        sentence: String,
    },
    /// An instance ended by itself, or could not be connected to any more.
    Lost {
        /// How.
        sentence: String,
    },
    /// Instances could not be started.
    LaunchFailed {
        /// Why.
        sentence: String,
    },
    /// Instances did not become healthy in time.
    NeverHealthy {
        /// What the last probe said.
        sentence: String,
    },
    /// A smoke test failed.
    SmokeFailed {
        /// Which, and what was answered.
        sentence: String,
    },
    /// A program elsewhere wanted it back.
    Vetoed {
        /// Which, and why.
        sentence: String,
    },
    /// A person aborted.
    Aborted,
    /// Nobody came to a gate in time, and the plan says to go back.
    GateClosed {
        /// Which gate, and how long it waited.
        sentence: String,
    },
    /// A step lasted its longest, nothing was shown, and the plan says to go back.
    Inconclusive {
        /// What was missing.
        sentence: String,
    },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Regression { sentence }
            | Self::Lost { sentence }
            | Self::Vetoed { sentence }
            | Self::GateClosed { sentence } => f.write_str(sentence),
            Self::LaunchFailed { sentence } => write!(f, "could not start: {sentence}"),
            Self::NeverHealthy { sentence } => write!(f, "never became healthy: {sentence}"),
            Self::SmokeFailed { sentence } => write!(f, "smoke test failed: {sentence}"),
            Self::Aborted => f.write_str("aborted by a person"),
            Self::Inconclusive { sentence } => {
                write!(f, "nothing was shown in the time allowed: {sentence}")
            }
        }
    }
}

impl fmt::Display for PauseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => f.write_str("paused by a person"),
            Self::Inconclusive => f.write_str("the evidence shows nothing yet"),
            Self::Gate => f.write_str(
                "a gate: `switchback promote` goes on, `switchback abort` takes it back",
            ),
            Self::Hold { sentence } | Self::Unsaved { sentence } => f.write_str(sentence),
        }
    }
}

impl Phase {
    /// The contract's word for this phase.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Clearing | Self::Launching | Self::Growing { stage: Stage::Launching, .. } => {
                "launching"
            }
            Self::Probing | Self::Growing { stage: Stage::Probing, .. } => "probing",
            Self::Smoke | Self::Growing { stage: Stage::Smoke, .. } => "smoke",
            Self::Mirroring => "mirroring",
            Self::Baking { .. } => "baking",
            Self::Paused { .. } => "paused",
            Self::Promoting => "promoting",
            Self::Promoted => "promoted",
            Self::RollingBack { .. } | Self::Restoring { .. } => "rolling_back",
            Self::RolledBack { .. } => "rolled_back",
        }
    }

    /// Whether visitors meet the canary, and it may still be taken back for what they meet.
    #[must_use]
    pub fn is_weighed(&self) -> bool {
        matches!(self, Self::Baking { .. } | Self::Growing { .. } | Self::Paused { .. })
    }

    /// Whether the canary answers requests, be it copies, and may still be taken back for how.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.is_weighed() || *self == Self::Mirroring
    }

    /// Whether instances of the canary are being started.
    #[must_use]
    pub fn launches(&self) -> bool {
        matches!(self, Self::Launching | Self::Growing { stage: Stage::Launching, .. })
    }

    /// Whether instances of the canary run and are asked whether they are healthy.
    #[must_use]
    pub fn probes(&self) -> bool {
        matches!(self, Self::Probing | Self::Growing { stage: Stage::Probing, .. })
    }

    /// Whether the rollout is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Promoted | Self::RolledBack { .. })
    }

    /// The step, where there is one.
    #[must_use]
    pub fn step(&self) -> Option<usize> {
        match self {
            Self::Baking { step } | Self::Paused { step, .. } | Self::Growing { step, .. } => {
                Some(*step)
            }
            _ => None,
        }
    }
}
