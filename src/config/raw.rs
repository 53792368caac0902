//! The file letter for letter: a tree of values, each with the place where it was written.
//!
//! It knows TOML and nothing of what the keys mean. Variables and `--set` flags are laid over the
//! tree as nodes of their own, so that a later complaint can point at whichever of them said it.
//! Tables keep the order in which they were written.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problem};

/// A value and the place where it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What was written.
    pub value: Value,
    /// Where.
    pub place: Place,
}

/// What can be written.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text in quotes, or the whole of a variable.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// `true` or `false`.
    Boolean(bool),
    /// A date or a time; no key takes one.
    Date(String),
    /// `[…]`.
    List(Vec<Node>),
    /// `{…}` or `[…]` above lines.
    Table(Table),
}

impl Value {
    /// What it is, for a sentence.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number with a fraction",
            Self::Boolean(_) => "true or false",
            Self::Date(_) => "a date or time",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// Keys and values, in the order in which they were written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    /// The entries.
    pub entries: Vec<Entry>,
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key was written.
    pub place: Place,
    /// The value.
    pub node: Node,
}

impl Table {
    /// The entry of a key.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// The table under a key.
    #[must_use]
    pub fn table(&self, key: &str) -> Option<&Self> {
        match &self.entry(key)?.node.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// Puts a value at a path of keys, in place of what stood there; makes the tables on the way.
    /// A value on the way that is no table is left alone, to be complained about where it stands.
    pub fn put(&mut self, path: &[&str], node: Node) {
        let Some((key, rest)) = path.split_first() else { return };
        let at = match self.entries.iter().position(|entry| entry.key == *key) {
            Some(at) => at,
            None => {
                let place = node.place.clone();
                let value = Value::Table(Self::default());
                let node = Node { value, place: place.clone() };
                self.entries.push(Entry { key: (*key).to_owned(), place, node });
                self.entries.len() - 1
            }
        };
        let entry = &mut self.entries[at];
        if rest.is_empty() {
            entry.node = node;
        } else if let Value::Table(table) = &mut entry.node.value {
            table.put(rest, node);
        }
    }
}

/// Reads TOML. Whatever could be read is returned beside the complaints, so that one slip does not
/// hide the others. `source` is the number that places will carry.
#[must_use]
pub fn parse(text: &str, source: usize) -> (Table, Vec<Problem>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let problems = errors.iter().map(|error| {
        let span = error.span().unwrap_or(0..0);
        let place = Place { source, span: widen(span, text) };
        Problem::error(place, "this is not TOML").label(error.message())
    });
    (convert_table(table.get_ref(), source), problems.collect())
}

/// Reads one TOML value, such as a list in a variable.
#[must_use]
pub fn parse_value(text: &str, place: &Place) -> Option<Node> {
    let value = DeValue::parse(text).ok()?;
    let mut node = convert(&value, place.source);
    node.replace_places(place);
    Some(node)
}

impl Node {
    fn replace_places(&mut self, place: &Place) {
        self.place = place.clone();
        match &mut self.value {
            Value::List(nodes) => nodes.iter_mut().for_each(|node| node.replace_places(place)),
            Value::Table(table) => {
                for entry in &mut table.entries {
                    entry.place = place.clone();
                    entry.node.replace_places(place);
                }
            }
            _ => {}
        }
    }
}

/// An empty span is drawn under nothing: take the character before the end of the line.
fn widen(span: Range<usize>, text: &str) -> Range<usize> {
    if span.start < span.end {
        return span;
    }
    let end = span.end.min(text.len());
    let start = text[..end].char_indices().next_back().map_or(0, |(at, _)| at);
    if text[start..end].contains('\n') { end..end } else { start..end }
}

fn convert_table(table: &DeTable<'_>, source: usize) -> Table {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().as_ref().to_owned(),
            place: Place { source, span: key.span() },
            node: convert(value, source),
        })
        .collect();
    entries.sort_by_key(|entry| entry.place.span.start);
    Table { entries }
}

fn convert(value: &Spanned<DeValue<'_>>, source: usize) -> Node {
    let place = Place { source, span: value.span() };
    let value = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.as_ref().to_owned()),
        DeValue::Integer(number) => {
            // Beyond 64 bits no key has a meaning for it; the largest number fails every range.
            Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).unwrap_or(i64::MAX))
        }
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(truth) => Value::Boolean(*truth),
        DeValue::Datetime(date) => Value::Date(date.to_string()),
        DeValue::Array(values) => {
            Value::List(values.iter().map(|value| convert(value, source)).collect())
        }
        DeValue::Table(table) => Value::Table(convert_table(table, source)),
    };
    Node { value, place }
}
