//! What `top` shows and what its keys mean. Pure.

use jiff::Timestamp;
use serde_json::json;

use crate::cli::console::{Line, Look, Signs, columns};
use crate::cli::status::service_lines;
use crate::cli::{figures, live};
use crate::controller::status::{DaemonStatus, ServiceStatus};

/// Within 80 columns, two spaces apart.
const KEYS: [&str; 6] =
    ["↑↓ choose", "p promote", "P to the end", "a abort", "space pause/resume", "q leave"];
const CHOOSE_ASCII: &str = "k/j choose";
/// Of a service's name, so that the figures beside it fit on 80 columns.
const NAME: usize = 24;
/// The least that shows a service with its figures, columns and rows.
const LEAST: (usize, usize) = (56, 10);
/// A daemon that has said nothing for so long is said to be silent: it is asked twice a second.
const SILENT_AFTER_S: f64 = 3.0;
/// Rows that a sentence may take.
const SENTENCE_ROWS: usize = 3;

/// A key that means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
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
pub(super) fn keys(bytes: &[u8]) -> Vec<Key> {
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
            // Ctrl-C, Ctrl-D and Ctrl-\ too.
            b'q' | 0x03 | 0x04 | 0x1c => Key::Leave,
            // What begins with ESC [ or ESC O: the arrows of every terminal end with A and B.
            0x1b if matches!(more, [b'[' | b'O', ..]) => {
                let end = more[1..].iter().position(|byte| (b'@'..=b'~').contains(byte));
                let end = end.map_or(more.len(), |end| end + 2);
                rest = &more[end..];
                match &more[..end] {
                    [_, b'A'] => Key::Up,
                    [_, b'B'] => Key::Down,
                    _ => Key::Other,
                }
            }
            _ => Key::Other,
        });
    }
    keys
}

/// What the daemon said.
pub(super) struct Seen {
    pub(super) services: Vec<ServiceStatus>,
    pub(super) daemon: DaemonStatus,
}

/// A change that a key stands for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Act {
    pub(super) service: String,
    pub(super) verb: &'static str,
    pub(super) body: serde_json::Value,
}

/// What is to be done about a key.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Does {
    Nothing,
    Leave,
    Act(Act),
}

/// What is seen and what was chosen.
#[derive(Default)]
pub(super) struct View {
    services: Vec<ServiceStatus>,
    daemon: Option<DaemonStatus>,
    chosen: usize,
    /// What waits for a `y`, and the question.
    asked: Option<(Act, String)>,
    /// Whether the question has been on the screen: a `y` typed before it answers nothing.
    read: bool,
    /// What came of the last key.
    said: String,
    /// When the daemon last answered.
    seen: Option<Timestamp>,
    /// Why it does not answer now.
    pub(super) away: Option<String>,
}

impl View {
    /// The daemon has answered. Who was chosen stays so, wherever the service stands now.
    pub(super) fn saw(&mut self, seen: Seen, now: Timestamp) {
        let chosen = self.services.get(self.chosen).map(|service| service.service.clone());
        let place = |name: &String| seen.services.iter().position(|one| one.service == *name);
        let same = chosen.as_ref().and_then(place);
        self.chosen = same.unwrap_or(self.chosen.min(seen.services.len().saturating_sub(1)));
        if chosen.is_some() && same.is_none() {
            self.asked = None;
        }
        self.services = seen.services;
        self.daemon = Some(seen.daemon);
        self.seen = Some(now);
        self.away = None;
    }

    /// What a key brought about. The next look will say more; until then this is how it stands.
    pub(super) fn answered(&mut self, answer: Result<ServiceStatus, String>) {
        match answer {
            Ok(after) => {
                self.said = format!("{}: {}", after.service, live::standing(&after));
                let mut services = self.services.iter_mut();
                if let Some(one) = services.find(|one| one.service == after.service) {
                    *one = after;
                }
            }
            Err(sentence) => self.said = sentence,
        }
    }

    /// The picture has been drawn.
    pub(super) fn drawn(&mut self) {
        self.read = true;
    }

    /// What a key means now. Where nothing can be read nothing is changed.
    pub(super) fn press(&mut self, key: Key, too_small: bool) -> Does {
        let asked = self.asked.take();
        self.said.clear();
        if key == Key::Leave {
            return Does::Leave;
        }
        let Some(service) = self.services.get(self.chosen).filter(|_| !too_small) else {
            return Does::Nothing;
        };
        let name = service.service.clone();
        match key {
            Key::Up => self.chosen = self.chosen.saturating_sub(1),
            Key::Down => self.chosen = (self.chosen + 1).min(self.services.len() - 1),
            Key::Promote => {
                let what = format!("let {name} go on to its next step");
                self.ask(&name, "promote", json!({}), &what);
            }
            Key::PromoteFull => {
                let what = format!("promote {name} to the end");
                self.ask(&name, "promote", json!({ "full": true }), &what);
            }
            Key::Abort => {
                let what = format!("take the canary of {name} back");
                self.ask(&name, "abort", json!({}), &what);
            }
            Key::Pause => {
                let (verb, what) = match service.phase.as_str() {
                    "paused" => ("resume", format!("let {name} bake again")),
                    _ => ("pause", format!("keep the canary of {name} where it is")),
                };
                self.ask(&name, verb, json!({}), &what);
            }
            Key::Yes => {
                if let Some((act, _)) = asked.filter(|_| self.read) {
                    self.said = format!("{}: asked to {} …", act.service, act.verb);
                    return Does::Act(act);
                }
            }
            Key::Leave | Key::Other => {}
        }
        Does::Nothing
    }

    fn ask(&mut self, name: &str, verb: &'static str, body: serde_json::Value, what: &str) {
        let act = Act { service: name.to_owned(), verb, body };
        self.read = false;
        self.asked = Some((act, format!("{what}? y does it, any other key does not")));
    }

    /// Why what is shown may not be how it is.
    fn stale(&self, now: Timestamp) -> Option<String> {
        let silent = self.seen.map(|seen| now.duration_since(seen).as_secs_f64())?;
        let since = figures::duration(silent.floor());
        match &self.away {
            Some(why) => Some(format!("what is shown is {since} old: {why}")),
            None if silent >= SILENT_AFTER_S => {
                Some(format!("what is shown is {since} old: the daemon does not answer"))
            }
            None => None,
        }
    }
}

/// What is drawn on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surface {
    pub(super) signs: Signs,
    pub(super) ascii: bool,
    /// Columns.
    pub(super) width: usize,
    /// Rows.
    pub(super) height: usize,
    pub(super) now: Timestamp,
}

/// Whether a terminal of so many columns and rows shows too little to act by.
pub(super) fn is_too_small(width: usize, height: usize) -> bool {
    width < LEAST.0 || height < LEAST.1
}

/// Pieces on as few lines as `width` columns allow.
fn wrapped<'a>(pieces: impl Iterator<Item = &'a str>, between: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for piece in pieces {
        let count = |text: &str| text.chars().count();
        match lines.last_mut() {
            Some(line) if count(line) + count(between) + count(piece) <= width => {
                line.push_str(between);
                line.push_str(piece);
            }
            _ => lines.push(piece.to_owned()),
        }
    }
    lines
}

/// A sentence on a few lines.
fn sentence(text: &str, look: Look, width: usize) -> impl Iterator<Item = Line> {
    let lines = wrapped(text.split_whitespace(), " ", width).into_iter().take(SENTENCE_ROWS);
    lines.map(move |line| Line::new().and(look, &line))
}

/// The screen.
pub(super) fn picture(view: &View, surface: &Surface) -> Vec<Line> {
    let Surface { signs, width, height, now, .. } = *surface;
    if is_too_small(width, height) {
        let text = format!(
            "top needs {} columns and {} rows, and here are {width} and {height}: make the \
             terminal larger, or leave with q",
            LEAST.0, LEAST.1
        );
        return wrapped(text.split_whitespace(), " ", width).into_iter().map(Line::from).collect();
    }
    let mut lines = head(view, surface);
    if view.services.is_empty() {
        let none = "no service is configured: add a [service.NAME] to the configuration, then \
                    `switchback reload`";
        lines.extend(sentence(none, Look::Plain, width));
        return lines;
    }
    let details =
        view.services.get(view.chosen).map_or_else(Vec::new, |one| service_lines(one, signs, now));
    // All rows where they fit; else as many as leave the chosen one's details half of the screen.
    let room = height.saturating_sub(lines.len() + 1);
    let all = view.services.len();
    let shown = all.min(room.saturating_sub(details.len() + 1).max(room / 2).max(1));
    let first = view.chosen.saturating_sub(shown / 2).min(all - shown);
    let title = match shown < all {
        true => format!("SERVICE {} of {all}", view.chosen + 1),
        false => "SERVICE".to_owned(),
    };
    let head = ["", &title, "CANARY", "REQ/S", "ERRORS", "P95", "HEALTHY", "STANDS"];
    let mut rows = vec![head.map(|text| (Look::Faint, text.to_owned())).to_vec()];
    for (n, service) in view.services.iter().enumerate().skip(first).take(shown) {
        rows.push(row(service, n == view.chosen, signs));
    }
    lines.extend(columns(&rows, &[false, false, true, true, true, true, true, false], 0));
    lines.push(Line::new());
    lines.extend(details);
    if lines.len() > height {
        lines.truncate(height - 1);
        let name = &view.services[view.chosen].service;
        let rest = format!("  the rest: `switchback status {name}`");
        lines.push(Line::new().and(Look::Faint, &rest));
    }
    lines
}

/// Above what may be longer than the screen: what is asked must be seen.
fn head(view: &View, surface: &Surface) -> Vec<Line> {
    let Surface { ascii, width, now, .. } = *surface;
    let up = view.daemon.as_ref().and_then(|daemon| figures::seconds_until(&daemon.started, now));
    let up = figures::duration(up.unwrap_or(0.0).floor());
    let version = view.daemon.as_ref().map_or("", |daemon| daemon.version.as_str());
    let line = Line::new().and(Look::Strong, "switchback").plain(&format!(" {version}  up {up}  "));
    let mut lines = vec![line.and(Look::Faint, &now.strftime("%H:%M:%S UTC").to_string())];
    let keys = KEYS.into_iter().enumerate();
    let keys = keys.map(|(n, key)| if n == 0 && ascii { CHOOSE_ASCII } else { key });
    let keys = wrapped(keys, "  ", width);
    lines.extend(keys.iter().map(|line| Line::new().and(Look::Faint, line)));
    let asked = view.asked.as_ref().map(|(_, question)| (question, Look::Strong));
    let (text, look) = asked.unwrap_or((&view.said, Look::Unsure));
    match text.is_empty() {
        true => lines.push(Line::new()),
        false => lines.extend(sentence(text, look, width)),
    }
    if let Some(why) = view.stale(now) {
        lines.extend(sentence(&why, Look::Bad, width));
    }
    let notes = view.daemon.iter().flat_map(|daemon| &daemon.notes);
    lines.extend(notes.map(|note| Line::new().and(Look::Unsure, "! ").plain(note)));
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

    const NOW: &str = "2026-11-21T10:00:00Z";

    fn view(services: Vec<ServiceStatus>) -> View {
        View { services, seen: Some(NOW.parse().unwrap()), ..View::default() }
    }

    fn shown(view: &mut View, width: usize, height: usize) -> Vec<String> {
        let (mut console, out, _) = crate::cli::tests::written();
        let now = NOW.parse().unwrap();
        let surface = Surface { signs: console.signs(), ascii: false, width, height, now };
        for line in picture(view, &surface) {
            console.data(line);
        }
        view.drawn();
        out.text().lines().map(str::to_owned).collect()
    }

    fn named(name: &str) -> ServiceStatus {
        ServiceStatus { service: name.to_owned(), ..idle() }
    }

    #[test]
    fn keys_are_read_from_what_terminals_send() {
        assert_eq!(
            keys(b"\x1b[Aj\x1bOBPq"),
            [Key::Up, Key::Down, Key::Down, Key::PromoteFull, Key::Leave]
        );
        assert_eq!(keys(b"x\x1b"), [Key::Other, Key::Other]);
        // Ctrl-right and F5 are one key each, and none of ours.
        assert_eq!(keys(b"\x1b[1;5Cp\x1b[15~"), [Key::Other, Key::Promote, Key::Other]);
        assert_eq!(keys(b"\x03\x1a"), [Key::Leave, Key::Other]);
    }

    #[test]
    fn what_changes_something_asks_first_and_acts_on_yes() {
        let mut view = view(vec![baking(), idle()]);
        assert_eq!(view.press(Key::Abort, false), Does::Nothing);
        assert!(shown(&mut view, 80, 24)[2].starts_with("take the canary of web back? y does it"));
        assert_eq!(view.press(Key::Down, false), Does::Nothing);
        assert_eq!(view.press(Key::Yes, false), Does::Nothing, "another key came between");
        view.press(Key::Up, false);
        view.press(Key::PromoteFull, false);
        assert_eq!(view.press(Key::Yes, false), Does::Nothing, "typed before it was asked");
        view.press(Key::PromoteFull, false);
        shown(&mut view, 80, 24);
        let act = Act { service: "web".to_owned(), verb: "promote", body: json!({ "full": true }) };
        assert_eq!(view.press(Key::Yes, false), Does::Act(act));
        assert_eq!(view.press(Key::Yes, false), Does::Nothing, "once");
        view.press(Key::Pause, false);
        assert!(shown(&mut view, 80, 24)[2].starts_with("keep the canary of web where it is?"));
        assert_eq!(view.press(Key::Leave, false), Does::Leave);
        view.press(Key::Abort, false);
        shown(&mut view, 80, 24);
        view.answered(Ok(ServiceStatus { phase: "paused".to_owned(), ..baking() }));
        let lines = shown(&mut view, 80, 24);
        assert!(lines.iter().any(|line| line.starts_with("▸  web") && line.contains("paused")));
        view.press(Key::Pause, false);
        assert!(shown(&mut view, 80, 24)[2].starts_with("let web bake again?"), "it is paused now");
        view.press(Key::Abort, true);
        assert_eq!(view.press(Key::Yes, false), Does::Nothing, "nothing could be read");
    }

    #[test]
    fn a_question_is_about_the_service_that_it_names() {
        let now = NOW.parse().unwrap();
        let mut view = view(vec![baking(), idle()]);
        view.press(Key::Abort, false);
        view.drawn();
        // Another service comes, before it in the order.
        view.saw(Seen { services: vec![named("aa"), baking(), idle()], daemon: daemon() }, now);
        assert!(shown(&mut view, 80, 24).iter().any(|line| line.starts_with("▸  web")));
        let Does::Act(act) = view.press(Key::Yes, false) else { panic!("it was asked") };
        assert_eq!((act.service.as_str(), act.verb), ("web", "abort"));
        // The service itself goes.
        view.press(Key::Abort, false);
        view.drawn();
        view.saw(Seen { services: vec![named("aa")], daemon: daemon() }, now);
        assert_eq!(view.press(Key::Yes, false), Does::Nothing);
    }

    fn daemon() -> DaemonStatus {
        serde_json::from_value(json!({
            "version": "0.1.0", "started": NOW, "listen": [], "docker": true, "notes": [],
            "configured": "", "reload_refused": false, "stopping": false, "certificates": [],
            "notify": [], "disk_free": null
        }))
        .unwrap()
    }

    #[test]
    fn the_screen_has_a_row_for_each_service_and_the_keys() {
        let mut view = view(vec![baking(), idle()]);
        view.chosen = 1;
        let lines = shown(&mut view, 80, 24);
        let text = lines.join("\n");
        assert!(text.contains("▸  api"), "{text}");
        assert!(text.contains("1/1") && text.contains("p promote") && text.contains("25%"));
        // What acts, and what is asked, comes before what may be longer than the screen.
        assert!(lines[1].contains("q leave"), "{text}");
        let row = lines.iter().find(|line| line.contains("baking")).unwrap();
        let at = row.split_once("baking").unwrap().0.chars().count();
        assert!(at < 72, "the figures fit on 80 columns: {row}");
        // Where they do not fit on a line, the keys take two.
        let narrow = shown(&mut view, 60, 24);
        assert!(narrow[1].contains("p promote") && narrow[2].contains("q leave"), "{narrow:?}");
    }

    #[test]
    fn who_is_chosen_among_many_is_on_the_screen() {
        let mut view = view((0..40).map(|n| named(&format!("s{n:02}"))).collect());
        for chosen in [0, 20, 39] {
            view.chosen = chosen;
            let lines = shown(&mut view, 80, 24);
            assert!(lines.len() <= 24, "{lines:?}");
            let row = format!("▸  s{chosen:02}");
            assert!(lines.iter().any(|line| line.starts_with(&row)), "{lines:?}");
            let title = format!("SERVICE {} of 40", chosen + 1);
            assert!(lines.iter().any(|line| line.contains(&title)), "{lines:?}");
        }
    }

    #[test]
    fn a_screen_that_is_too_small_and_a_daemon_that_is_silent_are_said() {
        let mut view = view(vec![baking()]);
        let lines = shown(&mut view, 30, 6);
        assert!(lines.len() <= 6 && lines.iter().all(|line| line.chars().count() <= 30));
        assert!(lines.join(" ").contains("top needs 56 columns and 10 rows"), "{lines:?}");
        view.seen = Some("2026-11-21T09:59:48Z".parse().unwrap());
        let text = shown(&mut view, 80, 24).join("\n");
        assert!(text.contains("what is shown is 12s old: the daemon does not answer"), "{text}");
        view.away = Some("cannot connect".to_owned());
        let text = shown(&mut view, 80, 24).join("\n");
        assert!(text.contains("what is shown is 12s old: cannot connect"), "{text}");
    }
}
