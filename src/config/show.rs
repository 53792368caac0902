//! The configuration in effect: every key with its value and where that comes from.
//!
//! Secrets are masked, and so are all values of `env`, where passwords live.

use serde_json::{Map as JsonMap, Value as Json};

use super::document::Document;
use super::keys::{Key, Shape, TOP};
use super::problem::Place;
use super::raw::{self, Node, Table, Value};
use super::source::ignores;

/// What stands in place of a secret.
const MASK: &str = "***";

/// Everything that is in effect, as TOML; a comment after each value that is not from the file says
/// where it comes from.
#[must_use]
pub fn toml(document: &Document) -> String {
    let mut text = String::new();
    for key in TOP {
        let table = document.table.table(key.name);
        match key.shape {
            // Its mere presence asks for certificates.
            Shape::Table(_) if key.name == "acme" && table.is_none() => {}
            Shape::Table(keys) => write_table(&mut text, key.name, keys, table, document),
            Shape::Named(keys) => {
                for entry in table.iter().flat_map(|services| &services.entries) {
                    let Value::Table(table) = &entry.node.value else { continue };
                    let path = format!("{}.{}", key.name, entry.key);
                    write_table(&mut text, &path, keys, Some(table), document);
                }
            }
            _ => {}
        }
    }
    text
}

fn write_table(
    text: &mut String,
    path: &str,
    keys: &'static [Key],
    table: Option<&Table>,
    document: &Document,
) {
    let mut lines = String::new();
    let mut below = String::new();
    for key in keys {
        let written = table.and_then(|table| table.entry(key.name)).map(|entry| &entry.node);
        match (key.shape, written) {
            (Shape::Optional(_) | Shape::Short(..), None) => {}
            (Shape::Table(inner) | Shape::Optional(inner) | Shape::Short(inner, _), _) => {
                let table = table.and_then(|table| table.table(key.name));
                write_table(&mut below, &format!("{path}.{}", key.name), inner, table, document);
            }
            (_, Some(node)) => {
                let value = show(&node.value, key.shape);
                let origin = origin(&node.place, document);
                lines.push_str(&format!("{} = {value}{origin}\n", key.name));
            }
            (_, None) if (path, key.name) == ("listen", "https") && !document.has_certificate() => {
                lines.push_str("https = \"off\"  # there is no certificate\n");
            }
            (_, None)
                if !key.default.is_empty() && !table.is_some_and(|t| ignores(t, key.name)) =>
            {
                lines.push_str(&format!("{} = {}  # default\n", key.name, key.default));
            }
            (_, None) => {}
        }
    }
    if !lines.is_empty() {
        let gap = if text.is_empty() { "" } else { "\n" };
        text.push_str(&format!("{gap}[{path}]\n{lines}"));
    }
    if !below.is_empty() {
        text.push_str(&format!("\n{below}"));
    }
}

/// Where a value comes from, unless it is the file.
fn origin(place: &Place, document: &Document) -> String {
    let Some(source) = document.sources.get(place.source).filter(|_| place.source > 0) else {
        return String::new();
    };
    let name = source.text.split('=').next().unwrap_or("");
    if name.starts_with("--set ") { "  # --set".to_owned() } else { format!("  # {name}") }
}

/// A value as TOML.
fn show(value: &Value, shape: Shape) -> String {
    match value {
        Value::Text(_) if matches!(shape, Shape::Secret) => format!("\"{MASK}\""),
        Value::Text(text) => quote(text),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(truth) => truth.to_string(),
        Value::Date(date) => date.clone(),
        Value::List(nodes) => {
            let parts: Vec<String> = nodes.iter().map(|node| show(&node.value, shape)).collect();
            format!("[{}]", parts.join(", "))
        }
        Value::Table(table) => {
            let part = |key: &str, node: &Node| match shape {
                Shape::Secrets => format!("{} = \"{MASK}\"", bare(key)),
                Shape::Tables(keys) => {
                    format!("{} = {}", bare(key), show(&node.value, within(keys, key)))
                }
                _ => format!("{} = {}", bare(key), show(&node.value, shape)),
            };
            let parts: Vec<String> =
                table.entries.iter().map(|entry| part(&entry.key, &entry.node)).collect();
            if parts.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", parts.join(", ")) }
        }
    }
}

/// What a key of a table in a list takes.
fn within(keys: &'static [Key], name: &str) -> Shape {
    keys.iter().find(|key| key.name == name).map_or(Shape::Text, |key| key.shape)
}

/// A key, in quotes where it needs them.
fn bare(key: &str) -> String {
    let plain = key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if plain && !key.is_empty() { key.to_owned() } else { quote(key) }
}

/// Text as a basic string of TOML, whose escapes are those of JSON.
fn quote(text: &str) -> String {
    Json::String(text.to_owned()).to_string().replace('\u{7f}', "\\u007f")
}

/// Everything that is in effect, as JSON of the same shape as the file.
#[must_use]
pub fn json(document: &Document) -> Json {
    let mut top = JsonMap::new();
    for key in TOP {
        let table = document.table.table(key.name);
        let value = match key.shape {
            Shape::Table(_) if key.name == "acme" && table.is_none() => continue,
            Shape::Table(keys) => {
                let mut value = json_table(keys, table);
                let written = table.is_some_and(|table| table.entry("https").is_some());
                if key.name == "listen" && !written && !document.has_certificate() {
                    value["https"] = "off".into();
                }
                value
            }
            Shape::Named(_) if table.is_none() && key.name != "service" => continue,
            Shape::Named(keys) => {
                let services = table.iter().flat_map(|services| &services.entries);
                let shown = services.filter_map(|entry| match &entry.node.value {
                    Value::Table(table) => Some((entry.key.clone(), json_table(keys, Some(table)))),
                    _ => None,
                });
                Json::Object(shown.collect())
            }
            _ => continue,
        };
        top.insert(key.name.to_owned(), value);
    }
    Json::Object(top)
}

fn json_table(keys: &'static [Key], table: Option<&Table>) -> Json {
    let nowhere = Place { source: 0, span: 0..0 };
    let shown = keys.iter().filter_map(|key| {
        let value = match key.shape {
            _ if table.is_some_and(|table| ignores(table, key.name)) => return None,
            Shape::Optional(_) | Shape::Short(..)
                if table.is_none_or(|table| table.entry(key.name).is_none()) =>
            {
                return None;
            }
            Shape::Table(inner) | Shape::Optional(inner) | Shape::Short(inner, _) => {
                json_table(inner, table.and_then(|table| table.table(key.name)))
            }
            _ => {
                let written = table.and_then(|table| table.entry(key.name)).map(|e| e.node.clone());
                let node = written.or_else(|| raw::parse_value(key.default, &nowhere))?;
                json_value(&node.value, key.shape)
            }
        };
        Some((key.name.to_owned(), value))
    });
    Json::Object(shown.collect())
}

/// A value as JSON.
pub(super) fn json_value(value: &Value, shape: Shape) -> Json {
    match value {
        Value::Text(_) if matches!(shape, Shape::Secret | Shape::Secrets) => MASK.into(),
        Value::Text(text) | Value::Date(text) => text.as_str().into(),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Boolean(truth) => (*truth).into(),
        Value::List(nodes) => nodes.iter().map(|node| json_value(&node.value, shape)).collect(),
        Value::Table(table) => {
            let pairs = table.entries.iter();
            let of = |key: &str| match shape {
                Shape::Tables(keys) => within(keys, key),
                other => other,
            };
            let shown = |e: &raw::Entry| (e.key.clone(), json_value(&e.node.value, of(&e.key)));
            Json::Object(pairs.map(shown).collect())
        }
    }
}
