//! The walls of the house: who may import whom, where a foreign crate lives, what a pure room must
//! not touch, and what nothing here is called. `src/ARCHITECTURE.md` draws what this file holds.
//!
//! It reads the source as text, so it says where and which rule, and needs nothing to build.

#![expect(clippy::expect_used, reason = "a source that cannot be read ends the test")]

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use text::{code, definitions, line, own_paths, places, segments, without_tests};

mod failing;
mod text;

/// The most lines a file may have; beyond that it holds two things.
const LINES: usize = 500;

/// A room and what it may import. Its own modules it may always.
struct Room {
    name: &'static str,
    floor: u8,
    imports: &'static [&'static str],
    /// No I/O, no clock, no chance, no async.
    is_pure: bool,
}

const fn room(name: &'static str, floor: u8, imports: &'static [&'static str]) -> Room {
    Room { name, floor, imports, is_pure: false }
}

const fn pure(name: &'static str, floor: u8, imports: &'static [&'static str]) -> Room {
    Room { name, floor, imports, is_pure: true }
}

/// The house from the ground up. A room imports only from floors below, or from a room beside it
/// that does not import it back; proxy and controller never meet.
const ROOMS: [Room; 20] = [
    pure("model", 1, &[]),
    pure("analysis", 1, &["model"]),
    pure("rollout", 2, &["analysis", "model"]),
    pure("edge", 2, &["model"]),
    pure(
        "routing",
        2,
        &["analysis::criteria", "analysis::mirror", "analysis::scorecard", "edge", "model"],
    ),
    room("runtime", 2, &["model"]),
    room("prober", 2, &["model"]),
    room("archive", 2, &["model"]),
    room("telemetry", 2, &["analysis", "model"]),
    pure(
        "config",
        3,
        &[
            "rollout::plan",
            "rollout::strategy",
            "routing::asset",
            "routing::mirror",
            "routing::settings",
            "routing::table",
            "analysis",
            "edge",
            "model",
        ],
    ),
    room("store", 3, &["rollout", "analysis::verdict", "model"]),
    room("proxy", 3, &["routing", "analysis", "edge", "telemetry", "model"]),
    pure("nginx", 4, &["config"]),
    room(
        "certificates",
        4,
        &["proxy::tls", "routing::table", "store", "telemetry", "config", "model"],
    ),
    room(
        "controller",
        4,
        &[
            "rollout",
            "routing",
            "analysis",
            "edge",
            "runtime",
            "prober",
            "store",
            "archive",
            "telemetry",
            "config",
            "model",
        ],
    ),
    room(
        "notify",
        5,
        &[
            "controller::handle",
            "controller::status",
            "rollout",
            "analysis",
            "prober::call",
            "store",
            "telemetry",
            "config::notify",
            "model",
        ],
    ),
    room(
        "admin",
        5,
        &[
            "notify",
            "controller::handle",
            "controller::archivist",
            "controller::status",
            "rollout",
            "analysis",
            "telemetry",
            "model",
        ],
    ),
    room(
        "cli",
        7,
        &[
            "app",
            "demo",
            "admin",
            "config",
            "controller::status",
            "controller::closing::Leave",
            "controller::archivist",
            "rollout",
            "analysis::verdict",
            // `analyze` judges a recording without a daemon.
            "analysis::replay",
            "analysis::criteria",
            "routing::table",
            // The binary is its own shim, and signs testers' cookies.
            "runtime::shim",
            "proxy::tester",
            "certificates::loose",
            "nginx",
            "telemetry",
            "model",
        ],
    ),
    room(
        "demo",
        7,
        // It builds the sample's image, and watches what the proxy counts.
        &[
            "app",
            "config",
            "controller",
            "runtime",
            "routing::live",
            "analysis::scorecard",
            "model",
            "cli::console",
            "cli::live",
        ],
    ),
    room(
        "app",
        6,
        &[
            "admin",
            "notify",
            "proxy",
            "certificates",
            "controller",
            "store",
            "config",
            "prober",
            "runtime",
            "telemetry",
            "routing",
            "rollout",
            "analysis",
            "model",
        ],
    ),
];

/// A foreign crate and where it lives, as beginnings of paths below `src/`.
const HOMES: [(&[&str], &[&str]); 15] = [
    (&["brotli", "flate2"], &["proxy/compress.rs"]),
    (&["mime_guess"], &["proxy/files"]),
    (&["regex"], &["routing/mirror.rs"]),
    (&["argon2", "bcrypt", "sha_crypt"], &["proxy/credentials.rs"]),
    (&["rolling_file"], &["telemetry/access_log"]),
    (&["bollard"], &["runtime/docker"]),
    (&["lettre"], &["notify/mail.rs"]),
    (&["redb"], &["store/"]),
    (&["arc_swap"], &["routing/live.rs", "proxy/tls"]),
    (
        &["hyper", "hyper_util"],
        &[
            "proxy/",
            "admin/",
            "prober/",
            "certificates/ask",
            "cli/client.rs",
            "cli/stream.rs",
            "cli/source/",
            "demo/",
        ],
    ),
    (&["instant_acme", "rcgen"], &["certificates/"]),
    (&["x509_parser"], &["proxy/tls"]),
    (&["h3"], &["proxy/downstream/http3"]),
    (&["quinn"], &["proxy/downstream/http3", "proxy/tls"]),
    (
        &["rustls", "tokio_rustls"],
        &[
            "proxy/tls",
            "proxy/listener",
            "proxy/downstream",
            "proxy/stream",
            "prober/call",
            "main.rs",
        ],
    ),
];

/// What a pure room does not touch, as it is written.
const IMPURE: [(&str, &str); 16] = [
    ("tokio", "async"),
    ("hyper", "the network"),
    ("async fn", "async"),
    (".await", "async"),
    ("fs::", "the disk"),
    ("TcpStream", "the network"),
    ("TcpListener", "the network"),
    ("UdpSocket", "the network"),
    ("UnixStream", "the network"),
    ("UnixListener", "the network"),
    ("Instant::now", "a clock"),
    ("SystemTime", "a clock"),
    ("Timestamp::now", "a clock"),
    ("rand::", "chance"),
    ("fastrand", "chance"),
    ("std::process", "processes"),
];

/// The one file of a pure room that touches something after all, and what: it hands the reading of
/// files to the rest of its room as a function.
const DOORS: [(&str, &str); 1] = [("config/load.rs", "the disk")];

/// From the glossary's "Not ours": in other projects these are names of what has another name here,
/// or of nothing in particular. Of that list, words that also mean something of their own are left
/// out (the Host header, the Docker Engine and its API's version, a percent, the signal KILL).
const NOT_OURS: [&str; 14] = [
    "backend",
    "target",
    "cluster",
    "primary",
    "active",
    "candidate",
    "stage",
    "manager",
    "util",
    "utils",
    "helper",
    "helpers",
    "common",
    "misc",
];

/// Names in which such a word is not what the glossary warns of, and why.
const ALLOWED_NAMES: [(&str, &str); 6] = [
    ("Active", "a rollout under way; not one of two sides"),
    ("ActiveRecord", "as stored"),
    ("active", "the table of those"),
    ("Stage", "how far one exchange is; a rollout has phases"),
    ("stage", "of an exchange"),
    ("Target", "what one probe asks, with the way to ask it; an endpoint is only its address"),
];

/// One broken rule.
#[derive(Debug, PartialEq, Eq)]
struct Complaint {
    file: String,
    line: usize,
    rule: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.rule)
    }
}

/// What is wrong with a file. `file` is its path below `src/`; `is_test` when its parent declares
/// it under `#[cfg(test)]`.
fn complaints(file: &str, text: &str, is_test: bool) -> Vec<Complaint> {
    let mut found = Vec::new();
    let mut complain = |line: usize, rule: String| {
        found.push(Complaint { file: format!("src/{file}"), line, rule });
    };
    let lines = text.lines().count();
    if lines > LINES {
        complain(LINES + 1, format!("{lines} lines; a file has at most {LINES}"));
    }
    if !text.starts_with("//!") && !text.starts_with("#![doc = include_str!") {
        complain(1, "a module opens with `//!`: what it is for, what it does not do".to_owned());
    }

    let all = code(text);
    let (shipped, _) = without_tests(&all);
    for (at, name) in definitions(if is_test { "" } else { &shipped }) {
        let foreign = segments(&name).into_iter().find(|word| NOT_OURS.contains(&word.as_str()));
        let is_allowed = ALLOWED_NAMES.iter().any(|(allowed, _)| *allowed == name);
        if let Some(word) = foreign.filter(|_| !is_allowed) {
            complain(
                line(&shipped, at),
                format!("`{name}`: `{word}` is not our word; see the glossary"),
            );
        }
    }
    if is_test {
        return found;
    }

    let (own, depth) = place(file);
    for (at, path) in own_paths(&shipped, depth) {
        let to = path.split("::").next().unwrap_or_default();
        let Some(there) = ROOMS.iter().find(|room| room.name == to) else { continue };
        let Some(here) = ROOMS.iter().find(|room| room.name == own) else { continue };
        let is_within = |allowed: &str| {
            path.strip_prefix(allowed).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        if here.name != there.name && !here.imports.iter().any(|allowed| is_within(allowed)) {
            complain(
                line(&shipped, at),
                format!("`{own}` may not import `{path}`; it may {:?}", here.imports),
            );
        }
    }
    for (crates, homes) in HOMES {
        for name in crates {
            for at in places(&shipped, name) {
                let is_path = shipped[at + name.len()..].starts_with("::");
                if is_path && !homes.iter().any(|home| file.starts_with(home)) {
                    let rule = format!("`{name}` lives in {homes:?} and nowhere else");
                    complain(line(&shipped, at), rule);
                }
            }
        }
    }
    if ROOMS.iter().any(|room| room.name == own && room.is_pure) {
        for (written, what) in IMPURE {
            if DOORS.contains(&(file, what)) {
                continue;
            }
            for (at, _) in shipped.match_indices(written) {
                let is_whole = !shipped[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
                if is_whole || written.starts_with('.') {
                    let rule = format!("`{own}` is pure and does not touch {what}: `{written}`");
                    complain(line(&shipped, at), rule);
                }
            }
        }
    }
    found
}

/// The room of a file, and how deep its module lies below the crate's root.
fn place(file: &str) -> (&str, usize) {
    let path = file.strip_suffix(".rs").unwrap_or(file);
    let path = path.strip_suffix("/mod").unwrap_or(path);
    (path.split('/').next().unwrap_or(path), path.split('/').count())
}

/// All Rust files below a directory, as paths relative to it.
fn files(root: &Path, below: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(root.join(below)).expect("a directory of this package");
    for entry in entries {
        let entry = entry.expect("an entry");
        let path = below.join(entry.file_name());
        if entry.path().is_dir() {
            files(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every Rust file below `src/` or `tests/`: its path, its text, whether it is a test.
fn sources(directory: &str) -> Vec<(String, String, bool)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut paths = Vec::new();
    files(&root, Path::new(""), &mut paths);
    paths.sort();
    let read = |path: &PathBuf| {
        let name = path.to_str().expect("a path in UTF-8").to_owned();
        (name, fs::read_to_string(root.join(path)).expect("a readable source"))
    };
    let texts: Vec<(String, String)> = paths.iter().map(read).collect();
    let mut tests = Vec::new();
    for (file, text) in &texts {
        let here = file.strip_suffix(".rs").unwrap_or(file);
        let here = here.strip_suffix("mod").unwrap_or(here).trim_end_matches('/');
        for module in without_tests(&code(text)).1 {
            let below = if here == "lib" { module } else { format!("{here}/{module}") };
            tests.push(below);
        }
    }
    let is_test = |file: &str| {
        let is_below = |test: &String| {
            let rest = file.strip_prefix(test.as_str());
            rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        };
        directory == "tests" || tests.iter().any(is_below)
    };
    texts.into_iter().map(|(file, text)| (file.clone(), text, is_test(&file))).collect()
}

#[test]
fn the_house_is_tidy() {
    let sources = sources("src");
    assert!(sources.len() > 20, "only {} files were found", sources.len());
    let mut found: Vec<Complaint> = Vec::new();
    for (file, text, is_test) in &sources {
        found.extend(complaints(file, text, *is_test));
    }
    let told: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(told.is_empty(), "{} walls are broken:\n{}\n", told.len(), told.join("\n"));
}

#[test]
fn the_stories_are_short_too() {
    for (file, text, _) in sources("tests") {
        let lines = text.lines().count();
        assert!(lines <= LINES, "tests/{file}: {lines} lines; a file has at most {LINES}");
        assert!(text.starts_with("//!"), "tests/{file}:1: a module opens with `//!`");
    }
}

#[test]
fn every_room_is_on_the_plan() {
    for (file, ..) in sources("src") {
        let (own, _) = place(&file);
        let is_known = ["lib", "main"].contains(&own) || ROOMS.iter().any(|room| room.name == own);
        assert!(is_known, "src/{file}: `{own}` is no room of ours; put it on the plan");
    }
}

/// The map that people read has the same rooms on the same floors.
#[test]
fn the_map_shows_the_plan() {
    let map = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ARCHITECTURE.md");
    let map = fs::read_to_string(map).expect("the map");
    for Room { name, floor, .. } in &ROOMS {
        let shows = |line: &str| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            cells.get(1) == Some(&floor.to_string().as_str())
                && cells.get(2).is_some_and(|rooms| rooms.split(", ").any(|room| room == *name))
        };
        assert!(map.lines().any(shows), "src/ARCHITECTURE.md has no `{name}` on floor {floor}");
    }
}

/// The table itself: no circle, nothing imported from above except where the door is named.
#[test]
fn the_plan_has_no_circle() {
    let floor = |name: &str| ROOMS.iter().find(|room| room.name == name).map(|room| room.floor);
    let imports =
        |from: &Room, to: &str| from.imports.iter().any(|path| path.split("::").next() == Some(to));
    for room in &ROOMS {
        for path in room.imports {
            let name = path.split("::").next().unwrap_or_default();
            let below = floor(name).unwrap_or_else(|| panic!("`{name}` is no room"));
            assert!(below <= room.floor, "`{}` looks up to `{name}`", room.name);
            let other = ROOMS.iter().find(|other| other.name == name).expect("found above");
            let is_back = imports(other, room.name);
            // The demo is one of the verbs, and prints as they do.
            let is_known = ["cli", "demo"].contains(&room.name) && ["cli", "demo"].contains(&name);
            assert!(!is_back || is_known, "`{}` and `{name}` import each other", room.name);
        }
    }
    let proxy = ROOMS.iter().find(|room| room.name == "proxy").expect("a room");
    let controller = ROOMS.iter().find(|room| room.name == "controller").expect("a room");
    assert!(!imports(proxy, "controller") && !imports(controller, "proxy"));
}
