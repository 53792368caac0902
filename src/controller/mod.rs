//! The control plane: one driver task that owns all services, and what it is spoken to through.
//!
//! Reaches the data plane by one door only ([`crate::routing::live`]) and hears from it by one other
//! ([`crate::analysis::scorecard`]). Never waits for work: launches, probes, drains and stops are
//! tasks whose completions come back as events.

mod asks;
pub mod driver;
mod executor;
pub mod fleet;
pub mod handle;
mod journal;
mod keeper;
mod labels;
mod owner;
mod perform;
mod recovery;
mod reload;
mod report;
mod service;
pub mod settings;
pub mod status;
