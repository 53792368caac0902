//! The stories.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a story ends at the first thing that is not as told"
)]

mod adopted;
mod advisories;
mod affinity;
mod amplification;
mod archives;
mod assets;
mod audited;
mod bad_days;
mod bad_revisions;
mod carried;
mod cli_offline;
mod crashes;
mod demonstration;
mod differential;
mod dumps;
mod edge;
mod engine_gone;
mod fits;
mod fixed_addresses;
mod fresh_baseline;
mod gates;
mod hardened;
mod hooks;
#[cfg(feature = "http3")]
mod http3;
mod independent;
mod instructions;
mod keeping;
mod kept_images;
mod labels;
mod maintenance;
mod mirrored;
mod monitoring;
mod notified;
mod one_day;
mod operators;
mod outside;
mod own_health;
mod policies;
mod promotions;
mod ranks;
mod releases;
mod reloads;
mod runtime_docker;
mod runtime_process;
mod screen;
mod secure;
mod shielded;
mod small_disk;
mod sources;
mod state;
mod strategies;
mod suites;
mod support;
mod tidy;
mod together;
mod turns;
mod upgrades;
mod uploads;
mod verdicts;
mod watched;
