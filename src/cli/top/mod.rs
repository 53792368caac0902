//! `switchback top`: everything on the whole screen, live, with keys that act.
//!
//! What changes something asks first. On a pipe the state is printed once. The screen is never held
//! up by the daemon: it is asked by tasks, and keys are heard while it does not answer.

mod screen;
mod view;

use std::time::Duration;

use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use self::screen::Screen;
use self::view::{Act, Does, Seen, View};
use super::client::Client;
use super::console::Console;
use super::exit::Exit;
use super::status;
use super::trouble::{self, Trouble};
use crate::controller::status::ServiceStatus;

/// Twice a second is as fast as a person compares numbers.
const REFRESH_EVERY: Duration = Duration::from_millis(500);

/// Shows everything, until a person leaves.
pub async fn run(client: &Client, console: &mut Console, options: status::Options) -> Exit {
    if options.json || !console.is_live() || !screen::has_keys() {
        return status::run(client, console, options).await;
    }
    let shown = show(client, console, options.service).await;
    trouble::ended(console, shown)
}

async fn show(
    client: &Client,
    console: &mut Console,
    service: Option<String>,
) -> Result<Exit, Trouble> {
    // Who cannot be reached is said on the screen that was.
    let mut view = View::default();
    view.saw(see(client, service.as_deref()).await?, Timestamp::now());
    let failed = |error: std::io::Error| Trouble::new(Exit::Error, error.to_string());
    let mut resized = signal(SignalKind::window_change()).map_err(failed)?;
    let mut ends = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
        .into_iter()
        .map(signal)
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    let mut told_to_end = std::pin::pin!(futures_util::future::select_all(
        ends.iter_mut().map(|end| Box::pin(end.recv()))
    ));
    let screen = Screen::take().map_err(failed)?;
    let mut pressed = screen::listen();
    let mut seen = watch(client.clone(), service);
    let (answers, mut answered) = mpsc::channel(4);
    let mut ticks = tokio::time::interval(REFRESH_EVERY);
    loop {
        let (width, height) = console.size();
        let surface = view::Surface {
            signs: console.signs(),
            ascii: console.is_ascii(),
            width,
            height,
            now: Timestamp::now(),
        };
        console.paint(&view::picture(&view, &surface));
        view.drawn();
        tokio::select! {
            // The clock goes on, also while nothing is answered.
            _ = ticks.tick() => {}
            _ = resized.recv() => {}
            now = seen.recv() => match now {
                Some(Ok(seen)) => view.saw(seen, Timestamp::now()),
                Some(Err(trouble)) => view.away = Some(trouble.sentence),
                None => break,
            },
            Some(answer) = answered.recv() => view.answered(answer),
            bytes = pressed.recv() => {
                let Some(bytes) = bytes else { break };
                let mut leaves = false;
                for key in view::keys(&bytes) {
                    match view.press(key, view::is_too_small(width, height)) {
                        Does::Nothing => {}
                        Does::Leave => leaves = true,
                        Does::Act(act) => carry_out(client.clone(), act, answers.clone()),
                    }
                }
                if leaves {
                    break;
                }
            }
            _ = &mut told_to_end => break,
        }
    }
    drop(screen);
    Ok(Exit::Done)
}

/// Looks again and again, for as long as somebody wants to know.
fn watch(client: Client, service: Option<String>) -> mpsc::Receiver<Result<Seen, Trouble>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(REFRESH_EVERY).await;
            if sender.send(see(&client, service.as_deref()).await).await.is_err() {
                return;
            }
        }
    });
    receiver
}

async fn see(client: &Client, service: Option<&str>) -> Result<Seen, Trouble> {
    let services = client.measured(service).await?;
    Ok(Seen { services, daemon: client.daemon().await? })
}

/// Asks the daemon for what a key says, and tells what came of it.
fn carry_out(client: Client, act: Act, answers: mpsc::Sender<Result<ServiceStatus, String>>) {
    tokio::spawn(async move {
        let Act { service, verb, body } = act;
        let answer = client.command(&service, verb, &body).await;
        // Who has left is told nothing.
        let _left = answers.send(answer.map_err(|trouble| trouble.sentence)).await;
    });
}
