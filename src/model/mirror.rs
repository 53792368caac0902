//! The mirror: what of the visitors' requests is copied to a canary that has none yet.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::revision::duration_millis;
use super::weight::Weight;

/// Which requests are copied, how many at the most, and what is compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorSpec {
    /// The part of stable's GET and HEAD requests of which copies are sent.
    pub share: Weight,
    /// How long it lasts.
    #[serde(with = "duration_millis")]
    pub lasts: Duration,
    /// Microseconds from one copy to the next, at a steady pace: the most that are sent.
    pub interval_micros: u64,
    /// Copies that may be sent at once after a silence.
    pub burst: u32,
    /// Copies on their way at a time, over all workers; more are left out.
    pub in_flight: u32,
    /// Whether bodies are compared.
    pub compare_body: bool,
    /// Regular expressions; what they match in a body is the same to the comparison.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mask: Vec<String>,
    /// The part of the bodies that may differ.
    pub different: Weight,
}

impl MirrorSpec {
    /// The request header that marks a copy.
    pub const HEADER: &'static str = "x-switchback-mirror";
}
