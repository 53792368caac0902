//! The stories.

#![expect(clippy::unwrap_used, reason = "a story ends at the first thing that is not as told")]

mod runtime_docker;
mod runtime_process;
mod support;
mod tidy;
