//! The control plane: one driver task that owns all services, and what it is spoken to through.
//!
//! Reaches the data plane by one door only ([`crate::routing::live`]) and hears from it by one other
//! ([`crate::analysis::scorecard`]). Never waits for work: launches, probes, drains and stops are
//! tasks whose completions come back as events.

pub mod archivist;
mod asks;
pub mod closing;
pub mod driver;
mod evidence;
mod exchange;
mod executor;
mod fit;
pub mod fleet;
mod fresh;
mod gates;
mod group;
pub mod handle;
mod hooks;
mod journal;
mod keeper;
mod labels;
mod maintenance;
mod measured;
mod mirror;
mod output;
mod outside;
mod owner;
mod perform;
mod prepare;
mod recorder;
mod recovery;
mod reload;
mod report;
mod return_together;
pub mod runtimes;
mod service;
pub mod settings;
pub mod status;
mod together;
mod way_back;
