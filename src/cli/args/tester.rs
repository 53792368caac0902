//! What `tester-cookie` is told.

use std::time::Duration;

use clap::Args;

use super::daemon::{Service, side};
use super::{Source, duration};
use crate::model::weight::Side;

/// What it does, at length.
pub(super) const TESTER_COOKIE: &str = "\
Makes a cookie that lets its holder choose a side, signed with the service's `tester_secret`.

  switchback tester-cookie web canary --for 1h
  curl --cookie \"$(switchback tester-cookie web canary)\" https://app.example.com/";

/// `tester-cookie`
#[derive(Debug, Args)]
pub struct TesterCookie {
    /// The service
    pub service: Service,
    /// The side
    #[arg(value_name = "stable|canary", value_parser = side)]
    pub side: Side,
    /// How long it is good for
    #[arg(long = "for", value_name = "DURATION", value_parser = duration, default_value = "8h")]
    pub lifetime: Duration,
    /// Which configuration.
    #[command(flatten)]
    pub source: Source,
}
