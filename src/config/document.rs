//! The whole tree: the file, with variables and flags laid over it, and no key that is not known.

use std::collections::BTreeMap;

use super::Input;
use super::keys::{self, Key, SERVICE, Shape, TCP, TOP};
use super::problem::{Place, Problem, Source};
use super::raw::{self, Entry, Node, Table, Value};
use super::reader::{Report, Section};

/// The tree of everything that was written.
#[derive(Debug, Clone)]
pub struct Document {
    /// The tree.
    pub table: Table,
    /// The texts it was read from.
    pub sources: Vec<Source>,
}

/// Variables of ours that set no key.
const OTHER_VARIABLES: [&str; 6] = [
    "SWITCHBACK_CONFIG",
    "SWITCHBACK_HOST",
    "SWITCHBACK_TOKEN",
    "SWITCHBACK_LOG",
    // Set by a daemon for the one that takes over from it.
    "SWITCHBACK_HEIR_OF",
    "SWITCHBACK_HEIR_FILES",
];

/// Reads the file and lays variables and flags over it. `None` when it is not TOML.
pub fn assemble(input: &Input<'_>, report: &Report) -> Option<Document> {
    let name = input.name.display().to_string();
    let source = report.source(name, input.text.to_owned());
    let (mut table, problems) = raw::parse(input.text, source);
    if !problems.is_empty() {
        // One slip often trips the parser several times on its line; the first says it best.
        let mut last = None;
        for problem in problems {
            let line = problem.place.as_ref().map(|place| line_start(input.text, place));
            if last.is_none() || last != Some(line) {
                report.add(explain(problem, input.text));
            }
            last = Some(line);
        }
        return None;
    }
    check_known(&table, TOP, "", report);
    unfold(&mut table, TOP);
    variables(&mut table, input.variables, report);
    for flag in input.flags {
        set(&mut table, flag, report);
    }
    Some(Document { table, sources: report.sources() })
}

impl Document {
    /// The top of the tree.
    pub(super) fn top<'a>(&'a self, report: &'a Report) -> Section<'a> {
        let start = Place { source: 0, span: 0..0 };
        Section::new(String::new(), start, TOP, Some(&self.table), report)
    }

    /// Whether a certificate is configured.
    #[must_use]
    pub fn has_certificate(&self) -> bool {
        let tls = self.table.table("tls");
        let written = |name| tls.is_some_and(|tls| tls.entry(name).is_some());
        let local = tls.and_then(|tls| tls.entry("local"));
        ["cert", "key", "certificate"].into_iter().any(written)
            || local.is_some_and(|entry| entry.node.value == Value::Text("all".to_owned()))
            || self.table.table("acme").is_some()
    }

    /// The names of the services that were written.
    pub fn service_names(&self) -> impl Iterator<Item = &str> {
        let services = self.table.table("service");
        services.into_iter().flat_map(|table| &table.entries).map(|entry| entry.key.as_str())
    }
}

/// Where the line of a place begins.
fn line_start(text: &str, place: &Place) -> usize {
    text[..place.span.start].rfind('\n').map_or(0, |newline| newline + 1)
}

/// Whether a line that cannot be parsed may hold a secret: by its key, or by the table it stands in.
fn may_be_secret(text: &str, start: usize) -> bool {
    let line = text[start..].lines().next().unwrap_or("");
    let header = text[..start].lines().rev().find(|line| line.trim_start().starts_with('['));
    let key = line.split('=').next().unwrap_or("").to_ascii_lowercase();
    let header = header.unwrap_or("").to_ascii_lowercase();
    ["token", "secret", "password", "env"].iter().any(|word| key.contains(word))
        || header.trim_end().trim_end_matches(']').ends_with(".env")
}

/// Says what TOML's own words leave open: most often text without quotes.
fn explain(problem: Problem, text: &str) -> Problem {
    let Some(place) = problem.place.clone() else { return problem };
    let start = line_start(text, &place);
    let line = text[start..].lines().next().unwrap_or("");
    if may_be_secret(text, start) {
        return problem.concealed();
    }
    let Some((key, value)) = line.split_once('=') else { return problem };
    if place.span.start <= start + key.len() {
        return problem;
    }
    let value = value.split('#').next().unwrap_or(value).trim();
    let nowhere = Place { source: 0, span: 0..0 };
    let bare = raw::parse_value(value, &nowhere).is_none()
        && !value.is_empty()
        && !value.contains(['"', '\'', '[', ']', '{', '}', '=']);
    if bare {
        let key = key.trim();
        return problem.label(format!("text stands in quotes: {key} = \"{value}\""));
    }
    problem
}

fn check_known(table: &Table, known: &'static [Key], path: &str, report: &Report) {
    for entry in &table.entries {
        let Some(key) = known.iter().find(|key| key.name == entry.key) else {
            report.add(unknown(&entry.key, entry.place.clone(), known, path));
            continue;
        };
        let inner =
            if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
        match (key.shape, &entry.node.value) {
            (
                Shape::Table(keys) | Shape::Optional(keys) | Shape::Short(keys, _),
                Value::Table(table),
            ) => {
                check_known(table, keys, &inner, report);
            }
            (Shape::Named(keys), Value::Table(table)) => {
                for entry in &table.entries {
                    if let Value::Table(table) = &entry.node.value {
                        check_known(table, keys, &format!("{inner}.{}", entry.key), report);
                    }
                }
            }
            (Shape::Tables(keys), Value::List(nodes)) => {
                for node in nodes {
                    if let Value::Table(table) = &node.value {
                        check_known(table, keys, &inner, report);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Writes out tables of which only one key's text was written.
fn unfold(table: &mut Table, known: &'static [Key]) {
    for entry in &mut table.entries {
        let Some(key) = known.iter().find(|key| key.name == entry.key) else { continue };
        match (key.shape, &mut entry.node.value) {
            (Shape::Short(_, one), Value::Text(_)) => {
                let (key, place) = (one.to_owned(), entry.node.place.clone());
                let node = std::mem::replace(
                    &mut entry.node,
                    Node { value: Value::Table(Table::default()), place: place.clone() },
                );
                entry.node.value =
                    Value::Table(Table { entries: vec![Entry { key, place, node }] });
            }
            (Shape::Named(keys), Value::Table(table)) => {
                for entry in &mut table.entries {
                    if let Value::Table(table) = &mut entry.node.value {
                        unfold(table, keys);
                    }
                }
            }
            _ => {}
        }
    }
}

fn unknown(name: &str, place: Place, known: &'static [Key], path: &str) -> Problem {
    let title = if path.is_empty() {
        format!("there is no table `{name}`")
    } else {
        format!("there is no key `{name}` in [{path}]")
    };
    let problem = Problem::error(place, title);
    if let Some(near) = keys::nearest(name, known.iter().map(|key| key.name)) {
        // The value of a misspelt secret is a secret.
        let secret = known.iter().any(|key| key.name == near && key.shape.is_secret());
        let problem = if secret { problem.concealed() } else { problem };
        return problem.label(format!("did you mean `{near}`?"));
    }
    if path.matches('.').count() == 1 && keys::edge::ROUTE.iter().any(|key| key.name == name) {
        return problem.label(format!("`{name}` belongs below [[{path}.route]]"));
    }
    // Right key, wrong table: a line that slid below another header, or stands above the first.
    let home = TOP.iter().find(|table| {
        table.shape.keys().is_some_and(|keys| keys.iter().any(|key| key.name == name))
    });
    if let Some(home) = home {
        let header = if matches!(home.shape, Shape::Named(_)) {
            format!("[{}.NAME]", home.name)
        } else {
            format!("[{}]", home.name)
        };
        return problem.label(format!("`{name}` belongs below {header}"));
    }
    let names: Vec<&str> = known.iter().map(|key| key.name).collect();
    problem.help(format!("known here: {}", names.join(", ")))
}

/// Every key that a variable can set, with its path.
fn settable(table: &Table) -> Vec<(Vec<String>, &'static Key)> {
    fn walk(prefix: &[String], keys: &'static [Key], found: &mut Vec<(Vec<String>, &'static Key)>) {
        for key in keys {
            let path: Vec<String> = prefix.iter().cloned().chain([key.name.to_owned()]).collect();
            match key.shape {
                Shape::Table(inner) | Shape::Optional(inner) | Shape::Short(inner, _) => {
                    walk(&path, inner, found);
                }
                shape if shape.fits_a_variable() => found.push((path, key)),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    walk(&[], TOP, &mut found);
    for (name, keys) in [("service", SERVICE), ("tcp", TCP), ("notify", keys::NOTIFY)] {
        for entry in table.table(name).iter().flat_map(|services| &services.entries) {
            walk(&[name.to_owned(), entry.key.clone()], keys, &mut found);
        }
    }
    found
}

fn variable_name(path: &[String]) -> String {
    format!("SWITCHBACK_{}", path.join("_").replace('-', "_").to_ascii_uppercase())
}

fn variables(table: &mut Table, variables: &BTreeMap<String, String>, report: &Report) {
    let settable = settable(table);
    let mut used: BTreeMap<String, String> = BTreeMap::new();
    for (path, key) in &settable {
        let name = variable_name(path);
        let alias = (key.name == "filter").then_some("SWITCHBACK_LOG");
        let found = variables.get_key_value(&name);
        let Some((name, text)) = found.or_else(|| variables.get_key_value(alias?)) else {
            continue;
        };
        let dotted = path.join(".");
        if let Some(other) = used.insert(name.clone(), dotted.clone()) {
            let title = format!("{name} could set `{other}` as well as `{dotted}`");
            report.add(
                Problem::nowhere(title)
                    .help("unset it, and write the value in the file or as --set"),
            );
            continue;
        }
        let source = report.source("environment".to_owned(), format!("{name}={text}"));
        let place = Place { source, span: name.len() + 1..name.len() + 1 + text.len() };
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        table.put(&path, overlay(text, key.shape, place));
    }
    let docker = variables.get("DOCKER_HOST").filter(|text| !text.is_empty());
    let written = table.table("runtime").is_some_and(|runtime| runtime.entry("docker").is_some());
    if let Some(text) = docker.filter(|_| !written) {
        let source = report.source("environment".to_owned(), format!("DOCKER_HOST={text}"));
        let place = Place { source, span: 12..12 + text.len() };
        table.put(&["runtime", "docker"], overlay(text, Shape::Text, place));
    }
    for name in variables.keys().filter(|name| name.starts_with("SWITCHBACK_")) {
        if !used.contains_key(name) && !OTHER_VARIABLES.contains(&name.as_str()) {
            let names: Vec<String> = settable.iter().map(|(path, _)| variable_name(path)).collect();
            let near = keys::nearest(name, names.iter().map(String::as_str));
            let mut problem = Problem::warning(None, format!("the variable {name} sets nothing"));
            problem.help = near.map(|near| format!("did you mean {near}?"));
            report.add(problem);
        }
    }
}

/// What a variable or flag says, as if it stood in the file.
fn overlay(text: &str, shape: Shape, place: Place) -> Node {
    if let (Shape::Switch | Shape::SwitchOrList, Ok(truth)) = (shape, text.trim().parse::<bool>()) {
        return Node { value: Value::Boolean(truth), place };
    }
    let word = |text: &str| match text.trim().parse::<i64>() {
        Ok(number) if matches!(shape, Shape::Integer(..) | Shape::Number(_) | Shape::Statuses) => {
            Value::Integer(number)
        }
        _ => match text.trim().parse::<f64>() {
            Ok(number) if matches!(shape, Shape::Number(_)) => Value::Float(number),
            _ => Value::Text(text.trim().to_owned()),
        },
    };
    let listed =
        matches!(shape, Shape::Address | Shape::List | Shape::TextOrList | Shape::Statuses)
            || matches!(shape, Shape::SwitchOrList);
    if listed
        && text.trim_start().starts_with('[')
        && let Some(node) = raw::parse_value(text, &place)
    {
        return node;
    }
    if listed && (text.contains(',') || matches!(shape, Shape::List)) {
        let parts = text.split(',').filter(|part| !part.trim().is_empty());
        let nodes = parts.map(|part| Node { value: word(part), place: place.clone() });
        return Node { value: Value::List(nodes.collect()), place };
    }
    Node { value: word(text), place }
}

/// Lays `path.of.key=value` over the tree.
fn set(table: &mut Table, flag: &str, report: &Report) {
    let text = format!("--set {flag}");
    let source = report.source("command line".to_owned(), text.clone());
    let whole = Place { source, span: 6..text.len() };
    let Some((path, value)) = flag.split_once('=') else {
        report.add(
            Problem::error(whole, "`--set` takes a key and a value")
                .label("expected for example listen.http=127.0.0.1:8080"),
        );
        return;
    };
    let path = path.trim();
    let place = Place { source, span: text.len() - value.len()..text.len() };
    match keys::find(path) {
        Some(key) if key.shape.fits_a_variable() => {
            let parts: Vec<&str> = path.split('.').collect();
            table.put(&parts, overlay(value, key.shape, place));
        }
        Some(_) => {
            let label = "tables are written in the file; set their keys one by one";
            report.add(Problem::error(whole, format!("`{path}` takes a table")).label(label));
        }
        None => {
            let names: Vec<String> =
                settable(table).iter().map(|(path, _)| path.join(".")).collect();
            let label = match keys::nearest(path, names.iter().map(String::as_str)) {
                Some(near) => format!("did you mean {near}?"),
                None => "expected for example listen.http or service.web.steps".to_owned(),
            };
            report.add(Problem::error(whole, format!("there is no key `{path}`")).label(label));
        }
    }
}
