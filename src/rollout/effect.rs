//! What to do: the machine's only output.

use crate::model::weight::Weight;

/// What to do, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Write the rollout's state as it is now, after all that was to be written before. Answered by
    /// `Saved` or `Unsaved`.
    ///
    /// When `must` is set, what follows is done once the machine has taken `Saved` without ignoring
    /// it, and else never: by then the rollout may have gone elsewhere. Otherwise what follows is done
    /// at once, because going back must not wait for a disk.
    Checkpoint {
        /// Whether the effects that follow depend on it.
        must: bool,
    },
    /// Start those of the canary's instances that are wanted and not there. Answered by `Launched` or `LaunchFailed`.
    Launch,
    /// Ask the canary's instances whether they are healthy. Answered by `Ready`.
    Probe,
    /// Put the canary through its smoke tests. Answered by `Smoked`.
    Smoke,
    /// Send copies of stable's requests to the canary, until the next Shift or Switch.
    Mirror,
    /// Have visitors wait, for a while each, or let them in: with the Shift or the Switch that follows,
    /// at once where none does.
    Queue(bool),
    /// Stop all of stable's instances, when their requests have finished. Answered by `Cleared`. Doing
    /// it twice changes nothing.
    Clear,
    /// Give up as large a part of stable's instances as the canary has of its own: `taken` of `of`, but
    /// never the last one. They finish their requests and stop; nobody waits for that. Doing it twice
    /// changes nothing.
    Release {
        /// How many instances the canary has.
        taken: u32,
        /// How many it will have.
        of: u32,
    },
    /// Start those of stable's instances that were stopped. Answered by `Restored`, when they are
    /// healthy.
    Restore,
    /// Give the canary this weight.
    Shift(Weight),
    /// Give the canary no new requests and wait for those in flight. Answered by `Drained`.
    Drain,
    /// Stop the canary's instances: all that this rollout launched or is still launching, whether or
    /// not `Launched` told of them. Answered by `Stopped`.
    Stop,
    /// Make the canary stable, the former stable warm. Answered by `Switched`. Doing it twice changes
    /// nothing. In a return to what still runs it may be done before anything is written. The former stable may be stopped once the rollout [is done], not before.
    ///
    /// [is done]: super::machine::Rollout::is_done
    Switch,
}
