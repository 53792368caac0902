//! Reads typed values out of the tree and collects what is wrong with them.
//!
//! A [`Section`] is one table with its keys. Its methods give the value, or the default of the
//! key table, or a placeholder after recording a problem: reading goes on, so that all problems are
//! found at once, and the caller throws the whole away when there was any.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::keys::{self, Key, Shape};
use super::problem::{Place, Problem, Problems, Source};
use super::raw::{self, Node, Table, Value};
use super::scalar;

/// Where problems are collected.
#[derive(Debug, Default)]
pub struct Report {
    problems: RefCell<Problems>,
}

impl Report {
    /// Adds a problem.
    pub fn add(&self, problem: Problem) {
        self.problems.borrow_mut().list.push(problem);
    }

    /// Adds a text that places can point into; gives its number.
    pub fn source(&self, name: String, text: String) -> usize {
        let mut problems = self.problems.borrow_mut();
        problems.sources.push(Source { name, text });
        problems.sources.len() - 1
    }

    /// The texts so far.
    #[must_use]
    pub fn sources(&self) -> Vec<Source> {
        self.problems.borrow().sources.clone()
    }

    /// All problems.
    #[must_use]
    pub fn into_problems(self) -> Problems {
        self.problems.into_inner()
    }
}

/// One table of the file and the keys that it may have.
#[derive(Debug, Clone)]
pub struct Section<'a> {
    /// `service.web`, for sentences.
    pub path: String,
    /// Where its header stands.
    pub place: Place,
    keys: &'static [Key],
    table: Option<&'a Table>,
    /// Where problems go.
    pub report: &'a Report,
}

/// A value with its place; the place is `None` for a default.
#[derive(Debug, Clone)]
pub struct Found<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub place: Option<Place>,
}

impl Found<String> {
    /// As a path: what the file says is relative to the file, what a variable or a flag says is
    /// relative to where the program was started.
    #[must_use]
    pub fn path(&self, base: &Path) -> PathBuf {
        match &self.place {
            Some(place) if place.source == 0 => base.join(&self.value),
            _ => PathBuf::from(&self.value),
        }
    }
}

impl<'a> Section<'a> {
    /// A table of the file.
    #[must_use]
    pub fn new(
        path: String,
        place: Place,
        keys: &'static [Key],
        table: Option<&'a Table>,
        report: &'a Report,
    ) -> Self {
        Self { path, place, keys, table, report }
    }

    /// The table under a key of this one; empty when it was not written.
    #[must_use]
    pub fn inner(&self, name: &str) -> Section<'a> {
        let keys = self.keys.iter().find(|key| key.name == name).and_then(|key| key.shape.keys());
        let node = self.written(name);
        let table = node.and_then(|node| match &node.value {
            Value::Table(table) => Some(table),
            other => {
                let title = format!("`{name}` is a table, not {}", other.kind());
                self.report.add(
                    Problem::error(node.place.clone(), title)
                        .label(format!("write its keys in lines below [{}]", self.path_of(name))),
                );
                None
            }
        });
        let place = self.table.and_then(|table| table.entry(name)).map(|entry| entry.place.clone());
        Section {
            path: self.path_of(name),
            place: place.unwrap_or_else(|| self.place.clone()),
            keys: keys.unwrap_or_default(),
            table,
            report: self.report,
        }
    }

    /// The tables in a list under a key.
    #[must_use]
    pub fn tables(&self, name: &str) -> Vec<Section<'a>> {
        let keys = self.keys.iter().find(|key| key.name == name).and_then(|key| key.shape.keys());
        let nodes = match self.written(name) {
            None => return Vec::new(),
            Some(Node { value: Value::List(nodes), .. })
                if nodes.iter().all(|node| matches!(node.value, Value::Table(_)))
                    && !nodes.is_empty() =>
            {
                nodes
            }
            Some(Node { place, .. }) => {
                let expected = format!("write [[{}]] with double brackets", self.path_of(name));
                self.wrong(name, place, format!("`{name}` is a list of tables"), &expected);
                return Vec::new();
            }
        };
        let sections = nodes.iter().filter_map(|node| match &node.value {
            Value::Table(table) => Some(Section {
                path: self.path_of(name),
                place: node.place.clone(),
                keys: keys.unwrap_or_default(),
                table: Some(table),
                report: self.report,
            }),
            _ => None,
        });
        sections.collect()
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// What was written under a key.
    #[must_use]
    pub fn written(&self, name: &str) -> Option<&'a Node> {
        self.table.and_then(|table| table.entry(name)).map(|entry| &entry.node)
    }

    /// Whether a key is missing, and not because its name was misspelt: that is said elsewhere.
    #[must_use]
    pub fn lacks(&self, name: &str) -> bool {
        let names = || self.keys.iter().map(|key| key.name);
        let meant = |typed: &str| {
            !names().any(|known| known == typed) && keys::nearest(typed, names()) == Some(name)
        };
        self.written(name).is_none()
            && !self.table.is_some_and(|table| table.entries.iter().any(|entry| meant(&entry.key)))
    }

    /// Where a key was written.
    #[must_use]
    pub fn place_of(&self, name: &str) -> Option<Place> {
        self.table.and_then(|table| table.entry(name)).map(|entry| entry.place.clone())
    }

    fn is_secret(&self, name: &str) -> bool {
        self.keys.iter().any(|key| key.name == name && key.shape.is_secret())
    }

    /// Records that a value is not what was expected.
    pub fn wrong(&self, name: &str, place: &Place, title: impl Into<String>, expected: &str) {
        let problem = Problem::error(place.clone(), title).label(expected);
        self.report.add(if self.is_secret(name) { problem.concealed() } else { problem });
    }

    /// What was written under a key, else its default, else nothing.
    fn node(&self, name: &str) -> Option<(Node, Option<Place>)> {
        if let Some(node) = self.written(name) {
            return Some((node.clone(), Some(node.place.clone())));
        }
        let key = self.keys.iter().find(|key| key.name == name)?;
        let nowhere = Place { source: 0, span: 0..0 };
        raw::parse_value(key.default, &nowhere).map(|node| (node, None))
    }

    /// Reads a value: `read` gives it or the words for what was expected.
    fn read<T>(
        &self,
        name: &str,
        what: &str,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<Found<T>> {
        let (node, place) = self.node(name)?;
        match read(&node.value) {
            Ok(value) => Some(Found { value, place }),
            Err(expected) => {
                self.wrong(name, &node.place, format!("`{name}` is not {what}"), &expected);
                None
            }
        }
    }

    /// Text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<Found<String>> {
        let found = self.read(name, "text in quotes", |value| match value {
            Value::Text(text) if text.contains('\0') => Err("it has a zero byte".to_owned()),
            Value::Text(text) => Ok(text.clone()),
            _ if self.is_secret(name) => Err("text stands in quotes".to_owned()),
            other => Err(quoted(other)),
        })?;
        if let (true, Some(place)) = (found.value.trim().is_empty(), &found.place) {
            let expected = "leave the line out, or write a value";
            self.wrong(name, place, format!("`{name}` is empty"), expected);
            return None;
        }
        Some(found)
    }

    /// Text that `parse` understands. The sentence says that it is not `what`.
    #[must_use]
    pub fn parsed<T>(
        &self,
        name: &str,
        what: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Found<T>> {
        self.read(name, what, |value| match value {
            Value::Text(text) => parse(text),
            other => Err(quoted(other)),
        })
    }

    /// A whole number within the bounds of the key.
    #[must_use]
    pub fn integer(&self, name: &str) -> Option<Found<u64>> {
        let key = self.keys.iter().find(|key| key.name == name)?;
        let Shape::Integer(low, high) = key.shape else { return None };
        let expected = format!("expected a whole number from {low} to {high}");
        let found = self.read(name, "a whole number", |value| match value {
            Value::Integer(number) => Ok(*number),
            Value::Text(text) if text.parse::<i64>().is_ok() => {
                Err(format!("a number stands without quotes: {text}"))
            }
            _ => Err(expected.clone()),
        })?;
        match u64::try_from(found.value) {
            Ok(value) if (low..=high).contains(&found.value) => {
                Some(Found { value, place: found.place })
            }
            _ => {
                let place = found.place.unwrap_or_else(|| self.place.clone());
                self.wrong(name, &place, format!("`{name}` is out of range"), &expected);
                None
            }
        }
    }

    /// A number from 0 to the bound of the key.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<Found<f64>> {
        let key = self.keys.iter().find(|key| key.name == name)?;
        let Shape::Number(high) = key.shape else { return None };
        let expected = || "expected for example 1.5".to_owned();
        self.read(name, &format!("a number from 0 to {high}"), |value| {
            let number = match value {
                Value::Integer(number) => *number as f64,
                Value::Float(number) => *number,
                _ => return Err(expected()),
            };
            if (0.0..=high).contains(&number) { Ok(number) } else { Err(expected()) }
        })
    }

    /// A duration; zero when it could not be read.
    #[must_use]
    pub fn duration(&self, name: &str) -> Found<Duration> {
        self.read(name, "a duration", |value| match value {
            Value::Text(text) => scalar::duration(text),
            Value::Integer(number) => scalar::duration(&number.to_string()),
            _ => scalar::duration(""),
        })
        .unwrap_or(Found { value: Duration::ZERO, place: None })
    }

    /// A duration above zero.
    #[must_use]
    pub fn time_limit(&self, name: &str) -> Duration {
        let found = self.duration(name);
        if let (Duration::ZERO, Some(place)) = (found.value, &found.place) {
            let expected = "expected a time above zero, such as \"10s\"";
            self.wrong(
                name,
                place,
                format!("with `{name}` at zero nothing could ever be in time"),
                expected,
            );
        }
        found.value
    }

    /// A size in bytes; zero when it could not be read.
    #[must_use]
    pub fn size(&self, name: &str) -> Found<u64> {
        self.read(name, "a size", |value| match value {
            Value::Text(text) if text.trim() == "0" => Ok(0),
            Value::Text(text) => scalar::size(text),
            Value::Integer(bytes) => {
                u64::try_from(*bytes).map_err(|_| "it is below zero".to_owned())
            }
            _ => scalar::size(""),
        })
        .unwrap_or(Found { value: 0, place: None })
    }

    /// `true` or `false`; `false` when it could not be read.
    #[must_use]
    pub fn switch(&self, name: &str) -> bool {
        self.flag(name).is_some_and(|found| found.value)
    }

    /// `true` or `false`, if it was written or has a default.
    #[must_use]
    pub fn flag(&self, name: &str) -> Option<Found<bool>> {
        self.read(name, "true or false", |value| match value {
            Value::Boolean(truth) => Ok(*truth),
            Value::Text(text) if matches!(text.as_str(), "true" | "false") => {
                Err(format!("it stands without quotes: {text}"))
            }
            other => Err(format!("expected true or false, found {}", other.kind())),
        })
    }

    /// One of the words of the key.
    #[must_use]
    pub fn choice(&self, name: &str) -> &'static str {
        let key = self.keys.iter().find(|key| key.name == name);
        let Some(Key { shape: Shape::Choice(words), .. }) = key else { return "" };
        let found = self.read(name, &format!("one of {}", words.join(", ")), |value| {
            let Value::Text(text) = value else { return Err(one_of(words)) };
            let known = words.iter().find(|word| *word == text);
            known.copied().ok_or_else(|| match keys::nearest(text, words.iter().copied()) {
                Some(word) => format!("did you mean \"{word}\"?"),
                None => one_of(words),
            })
        });
        found.map_or("", |found| found.value)
    }

    /// One text or a list of them, each parsed.
    #[must_use]
    pub fn each<T>(
        &self,
        name: &str,
        what: &str,
        parse: impl Fn(&Value) -> Result<T, String>,
    ) -> Vec<Found<T>> {
        let Some((node, place)) = self.node(name) else { return Vec::new() };
        let nodes = match node.value {
            Value::List(nodes) => nodes,
            _ => vec![node],
        };
        let read = nodes.into_iter().filter_map(|node| match parse(&node.value) {
            Ok(value) => Some(Found { value, place: place.as_ref().map(|_| node.place) }),
            Err(expected) => {
                let title = match &node.value {
                    Value::Text(text) => format!("{text:?} in `{name}` is not {what}"),
                    _ => format!("`{name}` is not {what}"),
                };
                self.wrong(name, &node.place, title, &expected);
                None
            }
        });
        read.collect()
    }

    /// A list of texts, or one text where the key allows it.
    #[must_use]
    pub fn texts(&self, name: &str) -> Vec<Found<String>> {
        let single =
            self.keys.iter().any(|key| key.name == name && matches!(key.shape, Shape::TextOrList));
        if let Some(Node { value: value @ Value::Text(text), place }) = self.written(name)
            && !single
        {
            let words: Vec<String> =
                text.split_whitespace().map(|word| format!("{word:?}")).collect();
            let expected = format!("write {name} = [{}]", words.join(", "));
            self.wrong(name, place, format!("`{name}` is a list, not {}", value.kind()), &expected);
            return Vec::new();
        }
        self.each(name, "a list of texts", |value| match value {
            Value::Text(text) if !text.is_empty() && !text.contains('\0') => Ok(text.clone()),
            Value::Text(_) => Err("expected text that is not empty".to_owned()),
            other => Err(quoted(other)),
        })
    }

    /// Names, each with its value and place.
    pub fn entries(&self, name: &str) -> impl Iterator<Item = &'a raw::Entry> {
        self.inner(name).table.into_iter().flat_map(|table| &table.entries)
    }

    /// Names and texts.
    #[must_use]
    pub fn map(&self, name: &str) -> BTreeMap<String, String> {
        let mut map = BTreeMap::new();
        for entry in self.inner(name).table.iter().flat_map(|table| &table.entries) {
            match &entry.node.value {
                Value::Text(text) if !text.contains('\0') => {
                    map.insert(entry.key.clone(), text.clone());
                }
                other => {
                    let title = format!("`{}` in `{name}` is not text", entry.key);
                    let secret = self.is_secret(name);
                    let expected =
                        if secret { "text stands in quotes".to_owned() } else { quoted(other) };
                    self.wrong(name, &entry.node.place, title, &expected);
                }
            }
        }
        map
    }

    /// One address, a list of them, or `"off"`.
    #[must_use]
    pub fn addresses(&self, name: &str) -> Vec<Found<SocketAddr>> {
        if let Some(Node { value: Value::Text(text), .. }) = self.written(name)
            && text == "off"
        {
            return Vec::new();
        }
        self.each(name, "an address", |value| match value {
            Value::Text(text) => scalar::address(text),
            Value::Integer(port) => scalar::address(&port.to_string()),
            _ => scalar::address(""),
        })
    }
}

fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    format!("expected {}", quoted.join(", "))
}

/// What to write instead of something that is not text.
fn quoted(value: &Value) -> String {
    match value {
        Value::Integer(number) => format!("text stands in quotes: \"{number}\""),
        Value::Float(number) => format!("text stands in quotes: \"{number}\""),
        Value::Boolean(truth) => format!("text stands in quotes: \"{truth}\""),
        other => format!("expected text in quotes, found {}", other.kind()),
    }
}
