//! Reads a JSON body, and says exactly what is wrong with one that cannot be read.
//!
//! An empty body is an empty object, so that `curl -X POST` is enough where nothing must be said.

use axum::extract::rejection::BytesRejection;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::problem::{Kind, Problem};

/// The longest body in bytes: the longest thing said is a deploy with its environment, which the
/// kernel limits to some 128 KiB per process and people to much less.
pub(super) const LIMIT: usize = 64 * 1024;
/// Reads `T`, an object of these fields, every one of which may be left out.
pub(super) fn read<T: DeserializeOwned>(
    fields: &[&str],
    body: Result<Bytes, BytesRejection>,
) -> Result<T, Problem> {
    let bytes = body.map_err(|rejection| match rejection.status().as_u16() {
        413 => {
            Problem::new(Kind::TooLarge, format!("the body is longer than {} KiB", LIMIT / 1024))
        }
        _ => Problem::new(Kind::Malformed, "the body ended before all of it had come"),
    })?;
    let object = object(&bytes)?;
    for key in object.keys() {
        if !fields.contains(&key.as_str()) {
            return Err(unknown(key, fields));
        }
    }
    // One field at a time, because serde does not say in which of them it failed.
    for (key, value) in &object {
        let alone = Map::from_iter([(key.clone(), value.clone())]);
        if let Err(error) = serde_json::from_value::<T>(Value::Object(alone)) {
            let detail = format!("`{key}`: {error}");
            return Err(Problem::new(Kind::Invalid, detail).with_field(key));
        }
    }
    serde_json::from_value(Value::Object(object))
        .map_err(|error| Problem::new(Kind::Invalid, error.to_string()))
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>, Problem> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Problem::new(Kind::Malformed, "the body must be a JSON object: {…}")),
        Err(error) => Err(Problem::new(Kind::Malformed, format!("the body is not JSON: {error}"))),
    }
}

fn unknown(key: &str, fields: &[&str]) -> Problem {
    let detail = if fields.is_empty() {
        format!("`{key}` is not known: nothing is said in this body")
    } else {
        match nearest(key, fields.iter().copied()) {
            Some(near) => format!("`{key}` is not known: did you mean `{near}`?"),
            None => format!("`{key}` is not known: there are `{}`", fields.join("`, `")),
        }
    };
    Problem::new(Kind::Invalid, detail).with_field(key)
}

/// The name most like a word, if one is like it at all: at most a third of its letters are missing,
/// too many, wrong or swapped, as rustc's own suggestions have it.
pub(super) fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|name| (strsim::damerau_levenshtein(word, name), name))
        .filter(|(edits, name)| *edits <= name.len().max(word.len()).max(3) / 3)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}
