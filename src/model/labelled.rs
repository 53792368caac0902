//! A container that somebody else launched, and that says by its labels what it serves.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// A running container with labels of ours that we did not launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labelled {
    /// What the engine calls it.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// The image as it was named.
    pub image: String,
    /// The image itself: the same for every name of it.
    pub image_id: String,
    /// When it was created, in seconds since the Unix epoch.
    pub created: i64,
    /// All its labels.
    pub labels: BTreeMap<String, String>,
    /// Where it is reached; none when it has no network of its own.
    pub address: Option<IpAddr>,
}
