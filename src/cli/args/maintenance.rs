//! What `maintenance` is told.

use std::time::Duration;

use clap::Args;

use super::daemon::{Client, Service};
use crate::config::scalar;

/// What it does, at length.
pub(super) const MAINTENANCE: &str = "\
Keeps visitors from a service while it is worked on: they are answered 503, with the page of
`error_pages` if there is one, or with --queue wait until it is over. It outlives a restart.

  switchback maintenance web on
  switchback maintenance web on --queue 30s
  switchback maintenance web off";

/// `maintenance`
#[derive(Debug, Args)]
pub struct Maintenance {
    /// The service
    pub service: Service,
    /// Begins or ends it
    #[arg(value_name = "on|off", value_parser = ["on", "off"])]
    pub state: String,
    /// How long each visitor waits for its end before being answered 503
    #[arg(long, value_name = "DURATION", value_parser = scalar::duration)]
    pub queue: Option<Duration>,
    /// Where the daemon is.
    #[command(flatten)]
    pub client: Client,
}
