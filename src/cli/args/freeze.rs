//! What `freeze` is told.

use clap::Args;

use super::daemon::{Client, Service};

/// `freeze`
#[derive(Debug, Args)]
pub struct Freeze {
    /// The service
    pub service: Service,
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
