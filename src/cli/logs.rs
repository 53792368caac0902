//! `switchback logs`: the last output of a revision's instances.

use super::client::Client;
use super::console::{Console, Line, Look};
use super::exit::Exit;
use super::trouble::{self, Trouble};

/// Two screens.
pub const DEFAULT_LINES: usize = 100;

/// Whose output, and how much of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// The service; may be left out where there is one.
    pub service: Option<String>,
    /// The revision; the stable one where nothing is said.
    pub revision: Option<u32>,
    /// Lines per instance.
    pub lines: usize,
    /// As JSON.
    pub json: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { service: None, revision: None, lines: DEFAULT_LINES, json: false }
    }
}

/// Shows output.
pub async fn run(client: &Client, console: &mut Console, options: Options) -> Exit {
    let shown = show(client, console, &options).await;
    trouble::ended(console, shown)
}

async fn show(client: &Client, console: &mut Console, options: &Options) -> Result<Exit, Trouble> {
    let service = client.service(options.service.as_deref()).await?.service;
    let logs = client.logs(&service, options.revision, options.lines).await?;
    if options.json {
        console.json(&logs);
        return Ok(Exit::Done);
    }
    if logs.iter().all(|one| one.lines.is_empty()) {
        let revision = match options.revision {
            Some(revision) => format!("revision {revision}"),
            None => "the stable revision".to_owned(),
        };
        console.talk(format!("{service}: {revision} has no output that is kept"));
    }
    // Which of several said it; of one there is nothing to tell.
    let several = logs.len() > 1;
    for one in &logs {
        for text in &one.lines {
            let mut line = Line::new();
            if several {
                line = line.and(Look::Faint, &one.instance).plain("  ");
            }
            console.data(line.plain(text));
        }
    }
    Ok(Exit::Done)
}
