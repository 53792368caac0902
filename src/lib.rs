#![doc = include_str!("ARCHITECTURE.md")]
#![forbid(unsafe_code)]

pub mod model;

pub mod analysis;

pub mod routing;

pub mod proxy;
pub mod runtime;
pub mod telemetry;
