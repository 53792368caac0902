//! The stories.

mod bad_revisions;
mod cli_offline;
mod crashes;
mod operators;
mod releases;
mod runtime_docker;
mod runtime_process;
mod support;
mod tidy;
