#![doc = include_str!("ARCHITECTURE.md")]
#![forbid(unsafe_code)]

pub mod model;

pub mod analysis;

pub mod config;
pub mod edge;
pub mod rollout;
pub mod routing;

pub mod archive;
pub mod prober;
pub mod runtime;
pub mod store;
pub mod telemetry;

pub mod proxy;

pub mod certificates;
pub mod controller;
pub mod nginx;

pub mod notify;

pub mod admin;
pub mod cli;

pub mod app;
pub mod demo;

#[doc = include_str!("GLOSSARY.md")]
pub mod glossary {}
