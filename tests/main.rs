//! The stories.

mod runtime_process;
