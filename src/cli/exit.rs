//! Exit codes: what a script learns from us. They are a contract.

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, promoted, or healthy.
    Done = 0,
    /// Something went wrong that has no code of its own.
    Error = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The analysis took the canary back.
    RolledBack = 3,
    /// A person ended the rollout.
    Aborted = 4,
    /// Instances never became healthy, or the time was up.
    Unhealthy = 5,
    /// The daemon could not be reached.
    Unreachable = 6,
    /// The configuration is not valid.
    Invalid = 7,
}
