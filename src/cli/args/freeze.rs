//! What `freeze` and `unfreeze` are told.

use clap::Args;

use super::daemon::{Client, Service};

/// `freeze`
#[derive(Debug, Args)]
pub struct Freeze {
    /// The service; may be left out where there is one
    pub service: Option<Service>,
    /// All services
    #[arg(long, conflicts_with = "service")]
    pub all: bool,
    /// Why nobody may deploy
    #[arg(long)]
    pub reason: String,
    /// Until when: 2026-12-01T08:00:00Z, or 12h from now [default: until `unfreeze`]
    #[arg(long)]
    pub until: Option<String>,
    /// Where the daemon is.
    #[command(flatten)]
    pub client: Client,
}

/// `unfreeze`
#[derive(Debug, Args)]
pub struct Unfreeze {
    /// The service; may be left out where there is one
    pub service: Option<Service>,
    /// All services that are frozen
    #[arg(long, conflicts_with = "service")]
    pub all: bool,
    /// Where the daemon is.
    #[command(flatten)]
    pub client: Client,
}
