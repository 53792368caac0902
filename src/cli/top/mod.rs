//! `switchback top`: everything on the whole screen, live, with keys that act.
//!
//! What changes something asks first. On a pipe the state is printed once.

use std::io::{Read, Write};
use std::time::Duration;

use jiff::Timestamp;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde_json::json;
use tokio::sync::mpsc;

use super::client::Client;
use super::console::{Console, Line, Look, Signs, columns};
use super::exit::Exit;
use super::status::{self, service_lines};
use super::trouble::{self, Trouble};
use super::{figures, live};
use crate::controller::status::{DaemonStatus, ServiceStatus};

/// Twice a second is as fast as a person compares numbers.
const REFRESH_EVERY: Duration = Duration::from_millis(500);

/// Within 80 columns.
const KEYS: &str = "↑↓ choose  p promote  P to the end  a abort  space pause/resume  q leave";
const KEYS_ASCII: &str =
    "k/j choose  p promote  P to the end  a abort  space pause/resume  q leave";
/// Of a service's name, so that the figures beside it fit on 80 columns.
const NAME: usize = 24;

/// A key that means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Up,
    Down,
    Promote,
    PromoteFull,
    Abort,
    Pause,
    Yes,
    Leave,
    Other,
}

/// What the keys in some bytes mean.
fn keys(bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut rest = bytes;
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        keys.push(match first {
            b'k' => Key::Up,
            b'j' => Key::Down,
            b'p' => Key::Promote,
            b'P' => Key::PromoteFull,
            b'a' => Key::Abort,
            b' ' => Key::Pause,
            b'y' => Key::Yes,
            b'q' => Key::Leave,
            // The arrows of every terminal: ESC [ A, or ESC O A.
            0x1b if matches!(more, [b'[' | b'O', b'A', ..]) => {
                rest = &more[2..];
                Key::Up
            }
            0x1b if matches!(more, [b'[' | b'O', b'B', ..]) => {
                rest = &more[2..];
                Key::Down
            }
            _ => Key::Other,
        });
    }
    keys
}

/// The terminal as it was, which it becomes again.
struct Screen(Termios);

impl Screen {
    /// Takes the whole screen: keys come one by one, and what was there comes back in the end.
    fn take() -> std::io::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut modes = before.clone();
        modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Now, &modes)?;
        let mut out = std::io::stderr();
        out.write_all(b"\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J")?;
        out.flush()?;
        Ok(Self(before))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = std::io::stderr();
        let _shown = out.write_all(b"\x1b[?25h\x1b[?1049l").and_then(|()| out.flush());
        let _same = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// What is seen and what was chosen.
#[derive(Default)]
struct View {
    services: Vec<ServiceStatus>,
    daemon: Option<DaemonStatus>,
    chosen: usize,
    /// What waits for a `y`.
    asked: Option<(&'static str, serde_json::Value)>,
    said: String,
}

/// Shows everything, until a person leaves.
pub async fn run(client: &Client, console: &mut Console, options: status::Options) -> Exit {
    if options.json || !console.is_live() {
        return status::run(client, console, options).await;
    }
    let shown = show(client, console, &options).await;
    trouble::ended(console, shown)
}

async fn show(
    client: &Client,
    console: &mut Console,
    options: &status::Options,
) -> Result<Exit, Trouble> {
    // Who cannot be reached is said on the screen that was.
    let mut view = View::default();
    look(client, options, &mut view).await?;
    let failed = |error: std::io::Error| Trouble::new(Exit::Error, error.to_string());
    let screen = Screen::take().map_err(failed)?;
    let mut pressed = listen();
    let mut ticks = tokio::time::interval(REFRESH_EVERY);
    let ended = loop {
        let now = Timestamp::now();
        console.draw(&picture(&view, console.signs(), console.is_ascii(), now));
        tokio::select! {
            _ = ticks.tick() => {
                if let Err(trouble) = look(client, options, &mut view).await {
                    view.said = trouble.sentence;
                }
            }
            bytes = pressed.recv() => {
                let Some(bytes) = bytes else { break Exit::Done };
                let mut leaves = false;
                for key in keys(&bytes) {
                    leaves |= press(client, &mut view, key).await;
                }
                if leaves {
                    break Exit::Done;
                }
            }
            _ = tokio::signal::ctrl_c() => break Exit::Done,
        }
    };
    console.clear();
    drop(screen);
    Ok(ended)
}

/// Keys as they are pressed. The thread ends with the process: a terminal cannot be stopped reading.
fn listen() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok(count @ 1..) = std::io::stdin().read(&mut bytes) {
            if sender.blocking_send(bytes[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

async fn look(client: &Client, options: &status::Options, view: &mut View) -> Result<(), Trouble> {
    view.services = client.measured(options.service.as_deref()).await?;
    view.daemon = Some(client.daemon().await?);
    view.chosen = view.chosen.min(view.services.len().saturating_sub(1));
    Ok(())
}

/// Does what a key says; whether the person leaves.
async fn press(client: &Client, view: &mut View, key: Key) -> bool {
    let asked = view.asked.take();
    view.said.clear();
    let Some(service) = view.services.get(view.chosen) else { return key == Key::Leave };
    let name = service.service.clone();
    match key {
        Key::Leave => return true,
        Key::Up => view.chosen = view.chosen.saturating_sub(1),
        Key::Down => view.chosen = (view.chosen + 1).min(view.services.len() - 1),
        Key::Promote => {
            ask(view, "promote", json!({}), &format!("let {name} go on to its next step"));
        }
        Key::PromoteFull => {
            ask(view, "promote", json!({ "full": true }), &format!("promote {name} to the end"));
        }
        Key::Abort => ask(view, "abort", json!({}), &format!("take the canary of {name} back")),
        Key::Pause => {
            let (verb, what) = match service.phase.as_str() {
                "paused" => ("resume", format!("let {name} bake again")),
                _ => ("pause", format!("keep the canary of {name} where it is")),
            };
            ask(view, verb, json!({}), &what);
        }
        Key::Yes => {
            if let Some((verb, body)) = asked {
                say(client, view, &name, verb, &body).await;
            }
        }
        Key::Other => {}
    }
    false
}

fn ask(view: &mut View, verb: &'static str, body: serde_json::Value, what: &str) {
    view.asked = Some((verb, body));
    view.said = format!("{what}? y does it, any other key does not");
}

async fn say(client: &Client, view: &mut View, name: &str, verb: &str, body: &serde_json::Value) {
    view.said = match client.command(name, verb, body).await {
        Ok(after) => format!("{name}: {}", live::standing(&after)),
        Err(trouble) => trouble.sentence,
    };
}

/// The screen. Pure.
fn picture(view: &View, signs: Signs, ascii: bool, now: Timestamp) -> Vec<Line> {
    let mut lines = Vec::new();
    let up = view.daemon.as_ref().and_then(|daemon| figures::seconds_until(&daemon.started, now));
    let up = figures::duration(up.unwrap_or(0.0).floor());
    let version = view.daemon.as_ref().map_or("", |daemon| daemon.version.as_str());
    let line = Line::new().and(Look::Strong, "switchback").plain(&format!(" {version}  up {up}  "));
    lines.push(line.and(Look::Faint, &now.strftime("%H:%M:%S UTC").to_string()));
    // Above what may be longer than the screen: what is asked must be seen.
    lines.push(Line::new().and(Look::Faint, if ascii { KEYS_ASCII } else { KEYS }));
    lines.push(Line::new().and(Look::Unsure, &view.said));
    let notes = view.daemon.iter().flat_map(|daemon| &daemon.notes);
    lines.extend(notes.map(|note| Line::new().and(Look::Unsure, "! ").plain(note)));
    let head = ["", "SERVICE", "CANARY", "REQ/S", "ERRORS", "P95", "HEALTHY", "STANDS"];
    let mut rows = vec![head.map(|text| (Look::Faint, text.to_owned())).to_vec()];
    for (n, service) in view.services.iter().enumerate() {
        rows.push(row(service, n == view.chosen, signs));
    }
    lines.extend(columns(&rows, &[false, false, true, true, true, true, true, false], 0));
    if let Some(service) = view.services.get(view.chosen) {
        lines.push(Line::new());
        lines.extend(service_lines(service, signs, now));
    }
    lines
}

/// A name that leaves room for others.
fn clipped(name: &str) -> String {
    match name.char_indices().nth(NAME) {
        Some((at, _)) => format!("{}~", &name[..at]),
        None => name.to_owned(),
    }
}

fn row(service: &ServiceStatus, chosen: bool, signs: Signs) -> Vec<(Look, String)> {
    let sides = [&service.stable, &service.canary];
    let sides = || sides.into_iter().flatten();
    let traffic = || sides().filter_map(|side| side.traffic);
    let rate: f64 = traffic().map(|one| one.requests_per_second).sum();
    let (requests, errors) =
        traffic().fold((0, 0), |(r, e), one| (r + one.requests, e + one.errors));
    let none = || signs.none.to_owned();
    let errors = match requests {
        0 => none(),
        requests => figures::percent(errors as f64 / requests as f64 * 100.0),
    };
    let p95 = traffic()
        .filter_map(|one| one.p95)
        .fold(None, |worst: Option<f64>, one| Some(worst.map_or(one, |worst| worst.max(one))));
    let instances = || sides().flat_map(|side| &side.instances);
    let (healthy, all) = (instances().filter(|one| one.healthy).count(), instances().count());
    let ill = if healthy < all { Look::Bad } else { Look::Plain };
    vec![
        (Look::Strong, if chosen { signs.now } else { " " }.to_owned()),
        (if chosen { Look::Strong } else { Look::Plain }, clipped(&service.service)),
        (Look::Plain, figures::percent(service.weights.canary)),
        (Look::Plain, figures::rate(rate)),
        (Look::Plain, errors),
        (Look::Plain, p95.map_or_else(none, figures::duration)),
        (ill, format!("{healthy}/{all}")),
        (Look::Plain, live::standing(service)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::fake::{baking, idle};

    #[test]
    fn keys_are_read_from_what_terminals_send() {
        assert_eq!(
            keys(b"\x1b[Aj\x1bOBPq"),
            [Key::Up, Key::Down, Key::Down, Key::PromoteFull, Key::Leave]
        );
        assert_eq!(keys(b"x\x1b"), [Key::Other, Key::Other]);
    }

    #[tokio::test]
    async fn what_changes_something_asks_first_and_acts_on_yes() {
        let fake = crate::admin::fake::Fake::start().await;
        let client = Client::new(&format!("unix://{}", fake.socket.display()), None).unwrap();
        let mut view = View { services: vec![baking(), idle()], ..View::default() };
        assert!(!press(&client, &mut view, Key::Abort).await);
        assert!(view.said.starts_with("take the canary of web back?"), "{}", view.said);
        assert!(!press(&client, &mut view, Key::Down).await);
        assert!(!press(&client, &mut view, Key::Yes).await);
        assert!(fake.levers.asked.lock().unwrap().is_empty(), "another key came between");
        press(&client, &mut view, Key::Up).await;
        press(&client, &mut view, Key::PromoteFull).await;
        press(&client, &mut view, Key::Yes).await;
        assert_eq!(*fake.levers.asked.lock().unwrap(), ["Promote { full: true } web"]);
        press(&client, &mut view, Key::Pause).await;
        assert!(view.said.starts_with("keep the canary of web where it is?"), "{}", view.said);
        press(&client, &mut view, Key::Yes).await;
        assert_eq!(fake.levers.asked.lock().unwrap().len(), 2);
        assert!(press(&client, &mut view, Key::Leave).await);
    }

    #[test]
    fn the_screen_has_a_row_for_each_service_and_the_keys() {
        let view = View { services: vec![baking(), idle()], chosen: 1, ..View::default() };
        let (console, out, _) = super::super::tests::written();
        let mut console = console;
        for line in picture(&view, console.signs(), false, "2026-11-21T10:00:00Z".parse().unwrap())
        {
            console.data(line);
        }
        let text = out.text();
        assert!(text.contains("▸  api"), "{text}");
        assert!(
            text.contains("1/1") && text.contains("p promote") && text.contains("25%"),
            "{text}"
        );
        // What acts, and what is asked, comes before what may be longer than the screen.
        assert!(text.lines().nth(1).is_some_and(|line| line.contains("q leave")), "{text}");
        assert!(KEYS.chars().count().max(KEYS_ASCII.len()) <= 79);
        let row = text.lines().find(|line| line.contains("baking")).unwrap();
        let at = row.split_once("baking").unwrap().0.chars().count();
        assert!(at < 72, "the figures fit on 80 columns: {row}");
    }
}
