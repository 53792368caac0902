//! The command line: which verbs there are and what they take.
//!
//! Only what is typed stands here; what it means is said by the verbs. Values that have a type
//! (steps, weights, durations, services) are parsed here already, so that a slip is a usage error
//! with exit code 2 before anything happens.

pub mod daemon;
pub mod freeze;
pub mod keeping;
pub mod maintenance;
pub mod offline;
pub mod tester;
pub mod watching;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use super::exit::EXIT_CODES;
use super::output::Format;
use crate::config::scalar;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "switchback",
    version,
    about = "A reverse proxy that changes an app's version safely: canary, verdict, rollback",
    long_about = LONG_ABOUT,
    after_help = AFTER_HELP,
    after_long_help = EXIT_CODES,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub struct Args {
    /// The configuration; may stand before the verb or after it
    // Verbs have this one under the same name, and clap hands a value given here down to them.
    #[arg(short, long, value_name = "FILE", global = true, help_heading = "Configuration")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

const LONG_ABOUT: &str = "\
A reverse proxy that changes an app's version safely: canary, verdict, rollback.

  switchback init                 write a switchback.toml to start from
  switchback check                read it without starting anything
  switchback run                  serve
  switchback deploy web:v2        carry a new revision to 100%, or take it back
  switchback status -w            watch
  switchback rollback web         undo";

const AFTER_HELP: &str = "\
`switchback VERB --help` says more, with examples. Exit codes stand in `switchback --help`.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Verbs that need no daemon.
    #[command(flatten)]
    Offline(offline::Offline),
    /// Verbs that are the daemon, or talk to it.
    #[command(flatten)]
    Daemon(daemon::Daemon),
}

/// Which configuration.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Source {
    /// The file [default: ./switchback.toml, else /etc/switchback/switchback.toml]
    // The variable is read together with all others, where the file is looked for.
    #[arg(short, long, value_name = "FILE", help_heading = "Configuration")]
    pub config: Option<PathBuf>,
    /// Sets one key, before the environment and the file: --set listen.http=127.0.0.1:8080
    #[arg(long = "set", value_name = "KEY=VALUE", help_heading = "Configuration")]
    pub settings: Vec<String>,
}

/// How data is written.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct Output {
    /// How the answer is written
    #[arg(short = 'o', long = "output", value_name = "FORMAT", value_enum, default_value_t = Format::Text, hide_default_value = true)]
    pub format: Format,
}

impl Output {
    /// Whether JSON is asked for.
    #[must_use]
    pub fn is_json(self) -> bool {
        self.format == Format::Json
    }
}

/// Parses a duration.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    scalar::duration(text)
}

#[cfg(test)]
mod tests;
