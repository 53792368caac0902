//! `switchback events`: what happened, and with `-f` what happens.

use super::client::Client;
use super::console::{Console, Line, Look, Signs};
use super::exit::Exit;
use super::figures;
use super::stream::Told;
use super::trouble::{self, Trouble};
use crate::controller::status::EventRecord;

/// What to show.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only those of this service.
    pub service: Option<String>,
    /// Go on until interrupted.
    pub follow: bool,
    /// As JSON, one object per line.
    pub json: bool,
}

/// Shows events.
pub async fn run(client: &Client, console: &mut Console, options: Options) -> Exit {
    tokio::select! {
        shown = show(client, console, &options) => trouble::ended(console, shown),
        // Ctrl-C is how a person ends what goes on for ever.
        _ = tokio::signal::ctrl_c(), if options.follow => Exit::Done,
    }
}

async fn show(client: &Client, console: &mut Console, options: &Options) -> Result<Exit, Trouble> {
    let mut query = Vec::new();
    if let Some(name) = &options.service {
        query.push(("service", client.service(Some(name)).await?.service));
    }
    let mut last = 0;
    let mut reconnecting = super::watch::Patience::default();
    loop {
        let mut stream = match client.events(Some(last), &query, options.follow).await {
            Ok(stream) => stream,
            Err(trouble) if options.follow && last > 0 => {
                reconnecting.wait(console, trouble).await?;
                continue;
            }
            Err(trouble) => return Err(trouble),
        };
        reconnecting.over(console);
        while let Ok(Some(told)) = stream.next().await {
            match told {
                Told::Event(event) => {
                    last = event.id;
                    tell(console, &event, options.json);
                }
                Told::Missed(count) => missed(console, count),
                // Its events go on by themselves.
                Told::Restarted => {}
            }
            if console.is_closed() {
                return Ok(Exit::Done);
            }
        }
        if !options.follow {
            return Ok(Exit::Done);
        }
        super::watch::Patience::pause().await;
    }
}

/// Says one event as a line of data.
pub(super) fn tell(console: &mut Console, event: &EventRecord, json: bool) {
    if json { console.json(event) } else { console.data(line(event, console.signs())) }
}

pub(super) fn missed(console: &mut Console, count: u64) {
    let missed = figures::plural(count, "event");
    console.talk(
        Line::new()
            .and(Look::Unsure, &format!("{missed} came too fast or too long ago to be shown")),
    );
}

/// `2026-11-21T10:00:05.000Z  web  baking 25%  message`.
fn line(event: &EventRecord, signs: Signs) -> Line {
    let service = event.service.as_deref().unwrap_or(signs.none);
    let line = Line::new().and(Look::Faint, &event.at).plain("  ").and(Look::Strong, service);
    // Twelve columns hold the names that people give, and keep short ones aligned.
    let column = line.width().max(event.at.chars().count() + 2 + 12) + 2;
    let line = line.pad_to(column).and(look(event), &what(event));
    let column = line.width().max(column + "rolling_back 100%".len()) + 2;
    line.pad_to(column).plain(&event.message)
}

/// The phase and weight of an event, or its kind.
pub(super) fn what(event: &EventRecord) -> String {
    match (&event.phase, event.weight) {
        (Some(phase), Some(weight)) if matches!(phase.as_str(), "baking" | "paused") => {
            format!("{phase} {}", figures::percent(weight))
        }
        (Some(phase), _) => phase.clone(),
        (None, _) => event.kind.clone(),
    }
}

/// How an event looks.
pub(super) fn look(event: &EventRecord) -> Look {
    match event.phase.as_deref() {
        Some("rolling_back" | "rolled_back") => Look::Bad,
        Some("paused") => Look::Unsure,
        Some("promoted") => Look::Good,
        _ => Look::Plain,
    }
}
