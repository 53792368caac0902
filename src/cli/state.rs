//! `switchback state`: the daemon's own state, to another host.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::args::keeping::{Export, Import};
use super::client::Client;
use super::console::Console;
use super::exit::{Exit, Failure};
use super::trouble::{self, Trouble};
use crate::config::load;

/// The format of the file.
const FORMAT: u32 = 1;

/// The first line of the file; the second is the state.
#[derive(Serialize, Deserialize)]
struct Head {
    format: u32,
    written_by: String,
    written: String,
    /// Of the second line.
    sha256: String,
}

fn sum(state: &[u8]) -> String {
    let digest = digest(&SHA256, state);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes the state of a daemon into a file.
pub(super) async fn export(client: &Client, console: &mut Console, args: &Export) -> Exit {
    let ended = exported(client, console, &args.file).await;
    trouble::ended(console, ended)
}

async fn exported(client: &Client, console: &mut Console, to: &Path) -> Result<Exit, Trouble> {
    let state = client.state().await?;
    let count = |name: &str| state[name].as_array().map_or(0, Vec::len);
    let (services, revisions) = (count("services"), count("revisions"));
    let state =
        serde_json::to_vec(&state).map_err(|error| Trouble::new(Exit::Error, error.to_string()))?;
    let head = Head {
        format: FORMAT,
        written_by: env!("CARGO_PKG_VERSION").to_owned(),
        written: jiff::Timestamp::now().to_string(),
        sha256: sum(&state),
    };
    let fail = |error: std::io::Error| {
        let reason = match error.kind() {
            std::io::ErrorKind::AlreadyExists => "it exists already".to_owned(),
            _ => error.to_string(),
        };
        Trouble::new(Exit::Error, format!("cannot write {}: {reason}", to.display()))
    };
    let mut text = serde_json::to_vec(&head).map_err(|error| fail(error.into()))?;
    text.push(b'\n');
    text.extend(state);
    let mut file =
        File::options().write(true).create_new(true).mode(0o600).open(to).map_err(fail)?;
    let written = file.write_all(&text).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // Half of it is nothing to anybody.
        let _ = std::fs::remove_file(to);
        return Err(fail(error));
    }
    console.talk(format!(
        "{services} services with {revisions} revisions in {}; it may hold passwords",
        to.display()
    ));
    Ok(Exit::Done)
}

/// Reads a state into the state directory.
pub(super) fn import(args: &Import) -> Result<Exit, Failure> {
    let name = args.file.display();
    let fail = |sentence: String| Failure::new(Exit::Error, sentence);
    let text =
        std::fs::read(&args.file).map_err(|error| fail(format!("cannot read {name}: {error}")))?;
    let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
    let (head, state) = (&text[..end], text.get(end + 1..).unwrap_or_default());
    let head: Head = serde_json::from_slice(head)
        .map_err(|_| fail(format!("{name} is not what `switchback state export` writes")))?;
    if head.format > FORMAT {
        return Err(fail(format!(
            "{name} has format {}, and this version reads up to format {FORMAT}: use Switchback {} or later",
            head.format, head.written_by
        )));
    }
    if sum(state) != head.sha256 {
        return Err(fail(format!(
            "{name} is damaged or cut off: the SHA-256 of its state is another one"
        )));
    }
    let state = serde_json::from_slice(state)
        .map_err(|error| fail(format!("{name} is damaged: {error}")))?;
    let variables = load::environment();
    let path = load::locate(args.source.config.as_deref(), &variables)?;
    let config = load::load(&path, &variables, &args.source.settings)?.config;
    let (services, revisions) = crate::app::import_state(&config, state, args.replace)
        .map_err(|error| Failure::new(Exit::Error, error))?;
    super::output::talk(&format!(
        "{services} services with {revisions} revisions in {}; `switchback run` starts what was stable",
        config.state.dir.display()
    ));
    Ok(Exit::Done)
}
