//! The operator's program that publishes DNS records, called as lego's `exec` provider calls it:
//! `PROGRAM present _acme-challenge.example.com. VALUE`, and `cleanup` with the same.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// How long the program may take: some providers' APIs take minutes.
const PATIENCE: Duration = Duration::from_secs(300);
/// Of what it says, what a sentence can hold.
const QUOTED: usize = 200;

/// Calls the program. The error is one sentence.
///
/// Cancel safety: dropped, the program is killed.
pub async fn call(words: &[String], verb: &str, record: &str, value: &str) -> Result<(), String> {
    let Some((program, arguments)) = words.split_first() else {
        return Err("there is no dns_hook".to_owned());
    };
    let mut command = Command::new(program);
    command.args(arguments).args([verb, record, value]).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = output
        .map_err(|_| format!("the dns_hook {program} did not end within {PATIENCE:?}"))?
        .map_err(|error| format!("the dns_hook {program} cannot be started: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String = said.trim().lines().last().unwrap_or("").chars().take(QUOTED).collect();
    Err(format!("the dns_hook {program} {verb} ended with {}: {said}", output.status))
}
