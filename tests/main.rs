//! The stories.

#![expect(clippy::expect_used, reason = "the helpers of tests may fail loudly, as tests do")]

mod cli_offline;
