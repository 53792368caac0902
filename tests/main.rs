//! The stories.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a story ends at the first thing that is not as told"
)]

mod cli_offline;
mod runtime_docker;
mod runtime_process;
mod support;
mod tidy;
