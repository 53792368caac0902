//! What happened, for people and for monitoring: logging, the access log, metrics, the counters of
//! the data plane.
//!
//! Every metric name stands once, in one place. Nothing here decides.

pub mod access_log;
pub mod audit;
pub mod logging;
pub mod metrics;
pub mod traffic;
