//! What `audit`, `notify`, `doctor`, `top` and `logs` are told.

use clap::{Args, Subcommand};

use super::Output;
use super::daemon::{Client, Service, revision};
use crate::model::id::RevisionId;

/// What it does, at length.
pub(super) const AUDIT: &str = "\
Lists what was done, by whom, from where, and what came of it.

  switchback audit
  switchback audit --service web --verb deploy --since 720h
  switchback audit --by ann -n 1000 -o json      one object per line

Entries are only ever added; `state.audit_keep` says how far the log goes back.";

/// `audit`
#[derive(Debug, Args)]
pub struct Audit {
    /// Only this service
    #[arg(long)]
    pub service: Option<Service>,
    /// Only this verb: deploy, rollback, freeze, …; `rollout` is the end of one
    #[arg(long)]
    pub verb: Option<String>,
    /// Only whose name holds this
    #[arg(long, value_name = "WHO")]
    pub by: Option<String>,
    /// Not before: 2026-12-01T08:00:00Z, or 12h ago
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
    /// How many, the newest
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    pub limit: usize,
    /// How data is written.
    #[command(flatten)]
    pub output: Output,
    /// Where the daemon is.
    #[command(flatten)]
    pub client: Client,
}

/// `notify`
#[derive(Debug, Args)]
pub struct Notify {
    /// What to do.
    #[command(subcommand)]
    pub verb: NotifyVerb,
}

/// What is done with those who are told.
#[derive(Debug, Subcommand)]
pub enum NotifyVerb {
    /// Sends a message that says it is a test, and says what came of it
    Test(NotifyTest),
}

/// `notify test`
#[derive(Debug, Args)]
pub struct NotifyTest {
    /// One recipient; all of them otherwise
    pub name: Option<String>,
    /// How data is written.
    #[command(flatten)]
    pub output: Output,
    /// Where the daemon is.
    #[command(flatten)]
    pub client: Client,
}

/// What it does, at length.
pub(super) const DOCTOR: &str = "\
Looks for what would stop a deploy today, and says how to mend it. Works with a daemon and without:
without one the file is read, ports, directories and the engine are tried.

  switchback doctor
  switchback doctor -c /etc/switchback/switchback.toml

Exit code 0 when nothing would stop a deploy, 1 otherwise.";

/// `doctor`
#[derive(Debug, Args)]
pub struct Doctor {
    /// How data is written.
    #[command(flatten)]
    pub output: Output,
    /// Where the daemon is.
    #[command(flatten)]
    pub client: Client,
}

/// What it does, at length.
pub(super) const TOP: &str = "\
Shows all services on the whole screen, live; keys act on the chosen one.

  ↑ ↓ or k j   choose         p   promote (its step)      P   promote to the end
  a            abort          space   pause or resume     q   leave

Each asks first. Ctrl-C leaves as well. On a pipe it prints the state once and ends.";

/// `top`
#[derive(Debug, Args)]
pub struct Watching {
    /// Only this service
    pub service: Option<Service>,
    /// How data is written.
    #[command(flatten)]
    pub output: Output,
    /// Where the daemon is.
    #[command(flatten)]
    pub client: Client,
}

/// What it does, at length.
pub(super) const LOGS: &str = "\
Shows what the instances of a service have written, in the order in which it was written.

  switchback logs web -f
  switchback logs web --all --since 15m --grep error     canary, stable and warm together
  switchback logs web --revision 4 --instance r4-1 -t";

/// What it does, at length.
pub(super) const STATS: &str = "\
Shows what each side of each service does: requests, errors, latencies, processors and memory.

  switchback stats              once
  switchback stats web -w       live
  switchback stats -o json      an array with an object for each side";

/// `stats`
#[derive(Debug, Args)]
pub struct Stats {
    /// Only this service
    pub service: Option<Service>,
    /// Again and again, until interrupted
    #[arg(short, long)]
    pub watch: bool,
    /// How data is written.
    #[command(flatten)]
    pub output: Output,
    /// Where the daemon is.
    #[command(flatten)]
    pub client: Client,
}

/// `logs`
#[derive(Debug, Args)]
pub struct Logs {
    /// The service
    pub service: Service,
    /// Only instances of this revision; the stable one when left out
    #[arg(long, value_parser = revision)]
    pub revision: Option<RevisionId>,
    /// All revisions that have instances
    #[arg(short, long, conflicts_with = "revision")]
    pub all: bool,
    /// Not before: 2026-12-01T08:00:00Z, or 15m ago
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
    /// With the time of each line
    #[arg(short, long)]
    pub times: bool,
    /// Only instances whose name holds this
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// Only lines that hold this text
    #[arg(long, value_name = "TEXT")]
    pub grep: Option<String>,
    /// Goes on as lines come; with -o json an object for each line
    #[arg(short, long)]
    pub follow: bool,
    /// How the answer is written.
    #[command(flatten)]
    pub output: Output,
    /// How many lines of each instance; with --since all of them when left out
    #[arg(short = 'n', long, value_name = "N")]
    pub lines: Option<usize>,
    /// Where the daemon is.
    #[command(flatten)]
    pub client: Client,
}
