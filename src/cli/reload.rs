//! `switchback reload`: the daemon reads its configuration again.

use super::client::{Client, Trouble};
use super::console::Console;
use super::exit::Exit;

/// The status with which the daemon refuses a bad file.
const UNPROCESSABLE: u16 = 422;

/// Reloads. A bad file changes nothing, and ends this with the exit code of an invalid configuration.
pub async fn run(client: &Client, console: &mut Console) -> Exit {
    let reloaded = client.reload().await.map_err(|trouble| match trouble.status {
        Some(UNPROCESSABLE) => Trouble { exit: Exit::InvalidConfig, ..trouble },
        _ => trouble,
    });
    let reloaded = reloaded.map(|message| {
        console.data(message);
        Exit::Done
    });
    super::ended(console, reloaded)
}
