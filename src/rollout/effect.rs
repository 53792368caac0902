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
    /// Start the canary's instances. Answered by `Launched` or `LaunchFailed`.
    Launch,
    /// Ask the canary's instances whether they are healthy. Answered by `Ready`.
    Probe,
    /// Put the canary through its smoke tests. Answered by `Smoked`.
    Smoke,
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
