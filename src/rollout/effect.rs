//! What to do: the machine's only output.

use crate::model::weight::Weight;

/// What to do, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Write the rollout's state. What follows waits for it when `must` is set, and is not done if
    /// it fails; otherwise what follows is done at once, because going back must not wait for a disk.
    Checkpoint {
        /// Whether the effects that follow depend on it.
        must: bool,
    },
    /// Start the canary's instances. Answered by `Launched` or `LaunchFailed`.
    Launch,
    /// Ask the canary's instances whether they are healthy. Answered by `Ready`.
    Probe,
    /// Give the canary this weight.
    Shift(Weight),
    /// Give the canary no new requests and wait for those in flight. Answered by `Drained`.
    Drain,
    /// Stop the canary's instances. Answered by `Stopped`.
    Stop,
    /// Make the canary stable, the former stable warm. Answered by `Switched`.
    Switch,
}
