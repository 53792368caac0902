//! What happened: the machine's only input.

use crate::analysis::verdict::Verdict;
use crate::model::instance::Instance;

use super::command::Command;

/// The number of a phase entered by a rollout. Completions carry it, so that one that belongs to an
/// earlier phase is known as stale.
pub type Attempt = u32;

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// All instances that were to be started run and have addresses. When it comes too late it is ignored; the instances are
    /// the rollout's all the same, and Stop stops them with the rest.
    Launched {
        /// Of the phase that asked.
        attempt: Attempt,
        /// The instances.
        instances: Vec<Instance>,
    },
    /// Instances could not be started.
    LaunchFailed {
        /// Of the phase that asked.
        attempt: Attempt,
        /// Why.
        sentence: String,
    },
    /// Stable's instances are stopped.
    Cleared {
        /// Of the phase that asked.
        attempt: Attempt,
    },
    /// Stable's instances run again, and are healthy.
    Restored {
        /// Of the phase that asked.
        attempt: Attempt,
    },
    /// All instances are healthy.
    Ready {
        /// Of the phase that asked.
        attempt: Attempt,
    },
    /// The smoke tests are done.
    Smoked {
        /// Of the phase that asked.
        attempt: Attempt,
        /// What failed, if anything.
        failure: Option<String>,
    },
    /// The evidence was weighed.
    Sampled(Verdict),
    /// A canary instance ended, or the canary cannot be connected to.
    Lost {
        /// How.
        sentence: String,
    },
    /// A program elsewhere, which has a say, wants the canary taken back.
    Vetoed {
        /// Which, and why.
        sentence: String,
    },
    /// All others of its group are as far.
    Together,
    /// The canary's requests have finished or were cut.
    Drained {
        /// Of the phase that asked.
        attempt: Attempt,
    },
    /// The canary's instances are gone.
    Stopped {
        /// Of the phase that asked.
        attempt: Attempt,
    },
    /// The canary is stable now.
    Switched {
        /// Of the phase that asked.
        attempt: Attempt,
    },
    /// A checkpoint is on disk. When the machine does not ignore it, what waited for it is done now.
    Saved {
        /// Of the phase that asked.
        attempt: Attempt,
    },
    /// A checkpoint could not be written; what waited for it is not done.
    Unsaved {
        /// Of the phase that asked.
        attempt: Attempt,
        /// Why.
        sentence: String,
    },
    /// Time passed. `diagnosis` is what the last probe said, for the deadline's sentence.
    Tick {
        /// What the last failing probe said.
        diagnosis: Option<String>,
    },
    /// A person said something that was admitted.
    Command(Command),
}
