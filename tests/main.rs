//! The stories.

mod cli_offline;
mod releases;
mod runtime_docker;
mod runtime_process;
mod support;
mod tidy;
