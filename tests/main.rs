//! The stories.

mod cli_offline;
