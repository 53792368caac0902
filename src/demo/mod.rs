//! The whole story on one machine, nothing to configure: `switchback demo`.
//!
//! A real daemon in this process, on a free port of loopback and with its state in a directory that
//! is removed again; a sample app as child processes or containers; bounded load; four releases. It
//! measures what it shows from the outside (what clients got) and at the live routing table (when
//! the canary's weight was 0). It touches nothing that it did not make, and ends by itself.

pub mod image;
mod load;
pub mod sample;
mod story;
mod watcher;

use std::io::Write as _;
use std::time::Duration;

pub use story::{Outcome, Story};

/// Which runtime launches the sample app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DemoRuntime {
    /// Child processes.
    Process,
    /// Containers on the Docker engine.
    Docker,
}

/// How the demo shows itself.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// What launches.
    pub runtime: DemoRuntime,
    /// One JSON object per story on stdout and nothing else.
    pub json: bool,
    /// Requests per second.
    pub rate: u32,
}

impl Default for Options {
    fn default() -> Self {
        // The rate at which the promises of the README are made.
        Self { runtime: DemoRuntime::Process, json: false, rate: 1_000 }
    }
}

/// No demo lasts longer than this, whatever happens.
const LONGEST: Duration = Duration::from_secs(88);
