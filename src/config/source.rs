//! Reads what a service runs: the one of `image`, `command` and `endpoints` that was written, and the
//! keys that depend on which it is.

use std::net::SocketAddr;

use super::image::Image;
use super::problem::{Place, Problem};
use super::raw::{Table, Value};
use super::reader::{Found, Section};
use super::scalar;
use crate::model::revision::Source;

/// Keys that only one kind of source understands.
const IMAGE_ONLY: [&str; 17] = [
    "args",
    "volumes",
    "networks",
    "memory",
    "cpus",
    "pids",
    "user",
    "capabilities",
    "no_new_privileges",
    "read_only",
    "tmpfs",
    "log_size",
    "log_files",
    "labels",
    "pull",
    "paths",
    "build",
];
/// Keys without meaning for addresses that somebody else runs.
const LAUNCHED_ONLY: [&str; 6] =
    ["port", "replicas", "env", "env_file", "launch_deadline", "stop_grace"];

/// Whether a service with this table has no use for a key.
pub(super) fn ignores(table: &Table, name: &str) -> bool {
    let runs = |source: &str| table.entry(source).is_some();
    !runs("image") && (runs("command") || runs("endpoints")) && IMAGE_ONLY.contains(&name)
        || runs("endpoints") && LAUNCHED_ONLY.contains(&name)
}

/// The one of `image`, `command` and `endpoints` that was written. A service whose routes answer
/// everything needs none of them: it has no endpoints.
pub(super) fn read_source(section: &Section<'_>, answers_alone: bool) -> Option<Source> {
    let written: Vec<(&str, Place)> = ["image", "command", "endpoints"]
        .into_iter()
        .filter_map(|name| section.place_of(name).map(|place| (name, place)))
        .collect();
    match written.as_slice() {
        [] if ["image", "command", "endpoints"].iter().any(|name| !section.lacks(name)) => {
            return None;
        }
        [] if answers_alone => return Some(Source::Endpoints(Vec::new())),
        [] => {
            let problem = Problem::error(
                section.place.clone(),
                format!("[{}] does not say what to run", section.path),
            )
            .label("expected image = \"…\", command = [\"…\"] or endpoints = [\"…\"]");
            section.report.add(match section.written("route") {
                Some(_) => problem.help(
                    "nothing need run where a route with path = \"/\" answers by redirect, respond \
                     or files, and no other route asks the app",
                ),
                None => problem,
            });
            return None;
        }
        [_] => {}
        [(first, there), (second, here), ..] => {
            section.report.add(
                Problem::error(
                    here.clone(),
                    format!("`{second}` and `{first}` exclude each other"),
                )
                .label("a service has one source: image, command or endpoints")
                .related(there.clone(), "the other one"),
            );
            return None;
        }
    }
    if let Some(image) =
        section.parsed("image", "an image", |text| Image::parse(text).map(|_| text.to_owned()))
    {
        return Some(Source::Image(image.value));
    }
    if let Some(place) = section.place_of("command") {
        let words: Vec<String> =
            section.texts("command").into_iter().map(|word| word.value).collect();
        let complained =
            matches!(section.written("command").map(|node| &node.value), Some(Value::Text(_)));
        if words.is_empty() && !complained {
            section.wrong(
                "command",
                &place,
                "`command` is empty",
                "expected a program and its arguments",
            );
        }
        return (!words.is_empty()).then_some(Source::Command(words));
    }
    let endpoints: Vec<Found<SocketAddr>> =
        section.each("endpoints", "an address", |value| match value {
            Value::Text(text) => scalar::address(text),
            _ => scalar::address(""),
        });
    let place = section.place_of("endpoints")?;
    if let Some(Value::List(nodes)) = section.written("endpoints").map(|node| &node.value)
        && nodes.is_empty()
    {
        section.wrong(
            "endpoints",
            &place,
            "`endpoints` is empty",
            "expected at least one address and port",
        );
    }
    for (at, found) in endpoints.iter().enumerate() {
        if endpoints[..at].iter().any(|earlier| earlier.value == found.value) {
            let here = found.place.clone().unwrap_or_else(|| place.clone());
            section.wrong(
                "endpoints",
                &here,
                format!("{} stands twice", found.value),
                "expected each address once",
            );
        }
    }
    let addresses: Vec<SocketAddr> = endpoints.into_iter().map(|found| found.value).collect();
    (!addresses.is_empty()).then_some(Source::Endpoints(addresses))
}

/// Keys that the source has no use for would be silently ignored; say so instead.
pub(super) fn check_fit(section: &Section<'_>, source: &Source) {
    let (names, why): (Vec<&str>, &str) = match source {
        Source::Image(_) => return,
        Source::Command(_) => {
            (IMAGE_ONLY.to_vec(), "it works with `image` only, this service has a `command`")
        }
        Source::Endpoints(addresses) if addresses.is_empty() => (
            IMAGE_ONLY.iter().chain(&LAUNCHED_ONLY).copied().collect(),
            "the routes of this service answer everything, nothing is launched here",
        ),
        Source::Endpoints(_) => (
            IMAGE_ONLY.iter().chain(&LAUNCHED_ONLY).copied().collect(),
            "these `endpoints` are run by somebody else, nothing is launched here",
        ),
    };
    for name in names {
        if let Some(place) = section.place_of(name) {
            section.wrong(
                name,
                &place,
                format!("`{name}` has no effect in [{}]", section.path),
                why,
            );
        }
    }
}

/// A command is told its port by `{port}`; with a port of its own there can be only one of it.
pub(super) fn command_port(
    section: &Section<'_>,
    words: &[String],
    replicas: u32,
    port: Option<Found<u64>>,
) -> u16 {
    let told = words.iter().any(|word| word.contains("{port}"));
    let place = section.place_of("command").unwrap_or_else(|| section.place.clone());
    match port {
        None if told => 0,
        None => {
            section.report.add(
                Problem::error(place, "the command does not say on which port to listen")
                    .label("put {port} where the program takes its port: \"--port\", \"{port}\""),
            );
            0
        }
        Some(found) if told => {
            let place = found.place.unwrap_or(place);
            section.wrong(
                "port",
                &place,
                "`port` and {port} exclude each other",
                "leave it out: each instance gets a free port",
            );
            0
        }
        Some(found) => {
            let one = "two instances cannot share a port, so a canary could not start";
            let problem = if replicas > 1 {
                Problem::error(
                    place,
                    format!("{replicas} replicas would all listen on port {}", found.value),
                )
            } else {
                Problem::warning(
                    Some(place),
                    format!("every revision will listen on port {}", found.value),
                )
            };
            section
                .report
                .add(problem.label(one).help("put {port} into the command and leave `port` out"));
            found.value as u16
        }
    }
}
