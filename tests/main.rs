//! The stories.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a story ends at the first thing that is not as told"
)]

mod bad_days;
mod bad_revisions;
mod cli_offline;
mod crashes;
mod demonstration;
mod engine_gone;
mod keeping;
mod labels;
mod operators;
mod promotions;
mod releases;
mod reloads;
mod runtime_docker;
mod runtime_process;
mod secure;
mod support;
mod tidy;
