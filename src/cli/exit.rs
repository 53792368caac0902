//! How a verb ends: the exit codes of the contract.

/// How a verb ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, promoted or healthy.
    Done,
    /// It could not be done.
    Error,
    /// It was asked in a way that cannot be understood.
    Usage,
    /// The analysis, or the loss of an instance, took the canary back.
    RolledBack,
    /// A person took the canary back.
    Aborted,
    /// The canary never became healthy, or time ran out.
    NeverHealthy,
    /// No daemon answers.
    Unreachable,
    /// The configuration is invalid.
    InvalidConfig,
}

impl Exit {
    /// The exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Error => 1,
            Self::Usage => 2,
            Self::RolledBack => 3,
            Self::Aborted => 4,
            Self::NeverHealthy => 5,
            Self::Unreachable => 6,
            Self::InvalidConfig => 7,
        }
    }
}
