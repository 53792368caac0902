//! `version`.

use serde_json::json;

use super::args::Output;
use super::exit::{Exit, Failure};
use super::output;

/// Runs the verb.
pub fn run(format: Output) -> Result<Exit, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    if format.is_json() {
        output::json_line(&json!({ "version": version, "target": target }))?;
    } else {
        output::data(&format!("switchback {version} ({target})"))?;
    }
    Ok(Exit::Done)
}
