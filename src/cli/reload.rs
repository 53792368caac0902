//! `switchback reload`: the daemon reads its configuration again.

use super::client::Client;
use super::console::Console;
use super::exit::Exit;
use super::trouble::{self, Trouble};

/// The status with which the daemon refuses a bad file.
const UNPROCESSABLE: u16 = 422;

/// Reloads. A bad file changes nothing, and ends this with the exit code of an invalid configuration.
pub async fn run(client: &Client, console: &mut Console) -> Exit {
    let reloaded = client.reload().await.map_err(|trouble| match trouble.status {
        Some(UNPROCESSABLE) => Trouble { exit: Exit::Invalid, ..trouble },
        _ => trouble,
    });
    let reloaded = reloaded.map(|message| {
        console.data(message);
        Exit::Done
    });
    trouble::ended(console, reloaded)
}
