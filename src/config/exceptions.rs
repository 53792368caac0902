//! Reads which paths of a service are judged otherwise, and which are its assets.

use super::raw::Value;
use super::reader::Section;
use super::scalar;
use crate::routing::asset::Assets;
use crate::routing::settings::ErrorRule;

/// Paths with a rule of their own, and paths that say nothing.
pub(super) fn read_exceptions(section: &Section<'_>) -> Vec<(String, Option<ErrorRule>)> {
    let mut exceptions = Vec::new();
    for (path, text) in section.map("route_errors") {
        let place = section.place_of("route_errors").unwrap_or_else(|| section.place.clone());
        let wrong = |what: &str, expected: &str| {
            section.wrong("route_errors", &place, format!("{what} in `route_errors`"), expected);
        };
        let prefix = scalar::path_prefix(&path);
        let words = text.split([' ', ',']).filter(|word| !word.is_empty());
        let statuses: Result<Vec<_>, _> = words.map(scalar::statuses).collect();
        match (prefix, statuses) {
            (Err(expected), _) => wrong(&format!("{path:?} is not a path"), &expected),
            (_, Err(expected)) => wrong(&format!("{text:?} is not a list of statuses"), &expected),
            (Ok(_), Ok(ranges)) if ranges.is_empty() => {
                wrong(&format!("nothing would be an error on {path:?}"), "expected \"5xx 429\"");
            }
            (Ok(prefix), Ok(ranges)) => {
                let statuses = ranges.into_iter().flat_map(|(first, last)| first..=last);
                exceptions.push((prefix, Some(ErrorRule::of(statuses))));
            }
        }
    }
    let ignored = section.each("ignore_routes", "a path", |value| match value {
        Value::Text(text) => scalar::path_prefix(text),
        _ => scalar::path_prefix(""),
    });
    for found in ignored {
        let place = found.place.clone().unwrap_or_else(|| section.place.clone());
        if found.value == "/" {
            let title = "`ignore_routes` leaves nothing to judge a revision by";
            let expected = "name the paths that say nothing: \"/healthz\"";
            section.wrong("ignore_routes", &place, title, expected);
        }
        if exceptions.iter().any(|(path, _)| *path == found.value) {
            let title = format!("{:?} is in `ignore_routes` and in `route_errors`", found.value);
            section.wrong("ignore_routes", &place, title, "one of the two counts: take one out");
        }
        exceptions.push((found.value, None));
    }
    exceptions
}

pub(super) fn read_assets(section: &Section<'_>) -> Assets {
    let expected = "expected \"auto\", \"off\", or path prefixes such as [\"/assets/\"]";
    let found = section.each("assets", "a path prefix", |value| match value {
        Value::Text(text) if text.starts_with('/') || text == "auto" || text == "off" => {
            Ok(text.clone())
        }
        _ => Err(expected.to_owned()),
    });
    let words = found.iter().filter(|found| !found.value.starts_with('/')).count();
    if words > 0 && found.len() > 1 {
        let place = section.place_of("assets").unwrap_or_else(|| section.place.clone());
        section.wrong("assets", &place, "`assets` is a word or path prefixes, not both", expected);
    }
    match found.first().map(|found| found.value.as_str()) {
        Some("auto") => Assets::Auto,
        Some("off") | None => Assets::Off,
        Some(_) => Assets::Below(found.into_iter().map(|found| found.value).collect()),
    }
}
