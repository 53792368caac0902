//! What the stories stand on.

pub mod app;
pub mod clients;
pub mod daemon;
pub mod engine;
pub mod fake_engine;
pub mod http;
pub mod line;
pub mod load;
pub mod process;
pub mod python;
pub mod receiver;
pub mod registry;
pub mod repository;
pub mod sample;
pub mod terminal;

use std::path::PathBuf;

/// Says aloud that a story was left out; under `CI=true` that is a failure.
pub fn skipped(why: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "left out: {why}");
    eprintln!("SKIPPED: {why}");
}

/// A client that others wrote, from `PATH`; without it the reason is said aloud, and under `CI=true`
/// that is a failure.
pub fn client(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.exists());
    if found.is_none() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "there is no {name} for this test");
        eprintln!("SKIPPED: there is no {name} for this test");
    }
    found
}
