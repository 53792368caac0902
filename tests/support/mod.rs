//! What the stories stand on.

pub mod engine;
pub mod fake_engine;
