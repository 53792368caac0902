//! Exit codes: what a script learns from us. They are a contract.

use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::config::problem::Problems;

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

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The codes, for help texts.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done, promoted or healthy
  1  error
  2  the command line makes no sense
  3  rolled back by the analysis
  4  aborted by a person
  5  never became healthy, or timed out
  6  the daemon is not reachable
  7  the configuration is not valid";

/// Why a verb did not do what it was asked for: what is said on stderr, and the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// How the program ends.
    pub exit: Exit,
    /// What is said, possibly with ANSI colours; empty when everything was said already.
    pub said: String,
}

impl Failure {
    /// A failure that is explained by one sentence.
    #[must_use]
    pub fn new(exit: Exit, sentence: impl fmt::Display) -> Self {
        let error = super::output::BAD;
        Self { exit, said: format!("{error}error{error:#}: {sentence}") }
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self { exit: Exit::Invalid, said: problems.render(true) }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            // Whoever read our output has read enough.
            return Self { exit: Exit::Done, said: String::new() };
        }
        Self::new(Exit::Error, error)
    }
}
