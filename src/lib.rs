#![doc = include_str!("ARCHITECTURE.md")]
#![forbid(unsafe_code)]

pub mod model;

pub mod analysis;

pub mod config;
pub mod rollout;
pub mod routing;

pub mod runtime;
pub mod telemetry;

pub mod cli;
