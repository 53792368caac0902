//! The nouns every room shares: names, numbers, weights, revisions, instances.
//!
//! Plain values. No I/O, no clock, no randomness, and nothing of ours is imported here.

pub mod certificate;
pub mod hardening;
pub mod hook;
pub mod id;
pub mod instance;
pub mod labelled;
pub mod mirror;
pub mod moment;
pub mod network;
pub mod preamble;
pub mod progress;
pub mod revision;
pub mod webhook;
pub mod weight;
