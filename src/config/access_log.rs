//! Reads `[access_log]`.

use std::path::Path;

use super::keys;
use super::raw::Value;
use super::reader::Section;
use super::{AccessLog, RotateEvery};

/// Fields that can be left out.
const FIELDS: [&str; 6] = ["client", "host", "query", "referer", "user", "user_agent"];

/// Reads the table; `None` when nothing is to be written.
pub(super) fn read(section: &Section<'_>, base: &Path) -> Option<AccessLog> {
    let to = section.text("to");
    let sample = section.parsed("sample", "a share", share);
    let hide = section.each("hide", "a field that can be left out", |value| {
        let Value::Text(text) = value else { return Err(one_of()) };
        let known = FIELDS.iter().find(|field| *field == text);
        known.copied().ok_or_else(|| match keys::nearest(text, FIELDS.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => one_of(),
        })
    });
    let log = AccessLog {
        file: to.as_ref().filter(|found| found.value != "stdout").map(|found| found.path(base)),
        combined: section.choice("format") == "combined",
        sample: sample.map_or(1.0, |found| found.value),
        hide: hide.into_iter().map(|found| found.value).collect(),
        rotate_size: section.size("rotate_size").value,
        rotate_every: match section.choice("rotate_every") {
            "hour" => RotateEvery::Hour,
            "day" => RotateEvery::Day,
            _ => RotateEvery::Never,
        },
        keep: section.integer("keep").map_or(1, |found| found.value as usize),
    };
    to.filter(|found| found.value != "off").map(|_| log)
}

fn one_of() -> String {
    format!("expected one of {}", FIELDS.join(", "))
}

fn share(text: &str) -> Result<f64, String> {
    let number = text.trim().strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    number
        .filter(|percent| *percent > 0.0 && *percent <= 100.0)
        .map(|percent| percent / 100.0)
        .ok_or_else(|| "expected a share above 0% and up to 100%, such as \"10%\"".to_owned())
}
