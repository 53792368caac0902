//! The JSON Schema of the file, made from the key table: for editors, which complete keys and show
//! what they are for, and for whoever writes the file by a program.
//!
//! A schema cannot say everything that [`super::parse`] checks; it never refuses what `parse` takes.

use serde_json::{Map, Value, json};

use super::keys::{Key, Shape, TOP};
use super::problem::Place;
use super::raw;

/// The schema, in the 2020-12 dialect.
#[must_use]
pub fn schema() -> Value {
    let mut schema = object(TOP);
    if let Value::Object(map) = &mut schema {
        map.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
        map.insert("title".to_owned(), "switchback.toml".into());
    }
    schema
}

fn object(keys: &'static [Key]) -> Value {
    let properties: Map<String, Value> =
        keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    json!({ "type": "object", "additionalProperties": false, "properties": properties })
}

fn property(key: &Key) -> Value {
    let mut property = shape(key.shape);
    let nowhere = Place { source: 0, span: 0..0 };
    if let Value::Object(map) = &mut property {
        map.insert("description".to_owned(), key.doc.into());
        if let Some(node) = raw::parse_value(key.default, &nowhere) {
            map.insert("default".to_owned(), super::show::json_value(&node.value, key.shape));
        }
    }
    property
}

fn shape(shape: Shape) -> Value {
    let text = || json!({ "type": "string", "minLength": 1 });
    let one_or_list = |one: Value| json!({ "anyOf": [one, { "type": "array", "items": one }] });
    match shape {
        Shape::Text | Shape::Secret => text(),
        Shape::Integer(low, high) => json!({ "type": "integer", "minimum": low, "maximum": high }),
        Shape::Number(high) => json!({ "type": "number", "minimum": 0, "maximum": high }),
        Shape::Duration => json!({
            "type": "string",
            "pattern": r"^\s*(?=\d)(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?\s*$",
            "examples": ["500ms", "30s", "1h30m"],
        }),
        Shape::Size => json!({
            "anyOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "string", "pattern": r"^\s*(0|\d+\s*(B|[KMGT]iB|[kMGT]B))\s*$" },
            ],
            "examples": ["512MiB", "64KiB"],
        }),
        Shape::Address => one_or_list(text()),
        Shape::Switch => json!({ "type": "boolean" }),
        Shape::Choice(words) => json!({ "enum": words }),
        Shape::List => json!({ "type": "array", "items": text() }),
        Shape::TextOrList => one_or_list(text()),
        Shape::SwitchOrList => json!({ "anyOf": [{ "type": "boolean" }, one_or_list(text())] }),
        Shape::Statuses => one_or_list(json!({
            "anyOf": [text(), { "type": "integer", "minimum": 100, "maximum": 599 }],
        })),
        Shape::Map | Shape::Secrets => {
            json!({ "type": "object", "additionalProperties": { "type": "string" } })
        }
        Shape::Table(keys) | Shape::Optional(keys) => object(keys),
        Shape::Short(keys, _) => json!({ "anyOf": [text(), object(keys)] }),
        Shape::Named(keys) => json!({
            "type": "object",
            "propertyNames": { "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$" },
            "additionalProperties": object(keys),
        }),
        Shape::Patterns => {
            json!({ "type": "object", "additionalProperties": one_or_list(text()) })
        }
        Shape::Tables(keys) => json!({ "type": "array", "items": object(keys) }),
    }
}
