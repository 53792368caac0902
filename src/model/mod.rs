//! The nouns every room shares: names, numbers, weights, revisions, instances.
//!
//! Plain values. No I/O, no clock, no randomness, and nothing of ours is imported here.

pub mod hook;
pub mod id;
pub mod instance;
pub mod moment;
pub mod network;
pub mod progress;
pub mod revision;
pub mod weight;
