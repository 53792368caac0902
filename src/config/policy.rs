//! Reads what is done to a service's requests: its own keys, and those of `[[service.NAME.route]]`.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};

use super::keys;
use super::networks;
use super::problem::{Place, Problem};
use super::raw::Value;
use super::reader::{Found, Section};
use super::route;
use super::scalar;
use crate::edge::coding::Coding;
use crate::edge::fields::{Content, Edit, Edits};
use crate::edge::rate::{AtOnce, Rate};
use crate::edge::rules::{ForwardAuth, Page, Rules, Spec};
use crate::edge::send_file::SendFile;
use crate::edge::users::Users;
use crate::model::id::ServiceName;
use crate::routing::table::HostPattern;

/// Reads a file; an error is one sentence.
pub(super) type ReadFile<'a> = &'a dyn Fn(&Path) -> Result<String, String>;

/// What reading a policy needs besides its table.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    /// What paths are relative to.
    pub base: &'a Path,
    /// Reads a file.
    pub file: ReadFile<'a>,
    /// Whether https is served here.
    pub https: bool,
    /// Whether a proxy before us may serve it.
    pub proxied: bool,
}

/// Services that routes lead to, with where that was written.
pub(super) type Leads = Vec<(ServiceName, Place)>;

/// Reads a service's policy, and which services its routes lead to.
pub(super) fn read(section: &Section<'_>, context: Context<'_>) -> (Spec, Leads) {
    let start = Rules { to_https: context.https, ..Rules::default() };
    let mut base = read_rules(section, &start, context);
    base.canonical_host =
        section.parsed("canonical_host", "a host", exact_host).map(|found| found.value);
    let mut leads = Leads::new();
    let mut routes = Vec::new();
    for route in section.tables("route") {
        let spec = route::read(&route, &base, context);
        if let (Some(name), Some(place)) = (&spec.leads_to, route.place_of("service")) {
            leads.push((name.clone(), place));
        }
        if spec.matcher.is_empty() && !route_has_slip(&route) {
            route.report.add(
                Problem::error(route.place.clone(), "this route takes every request")
                    .label("say which: path, exact, glob, host, method, header or query")
                    .help(format!("what is for all requests stands in [{}] itself", section.path)),
            );
        }
        routes.push(spec);
    }
    (Spec { base, routes }, leads)
}

/// Whether a condition was written, although it could not be read: that is said elsewhere.
fn route_has_slip(section: &Section<'_>) -> bool {
    ["path", "exact", "glob", "host", "method", "header", "query"]
        .iter()
        .any(|name| section.written(name).is_some() || !section.lacks(name))
}

fn exact_host(text: &str) -> Result<String, String> {
    match scalar::host(text)? {
        HostPattern::Exact(host) => Ok(host),
        _ => Err("expected one host, without a star".to_owned()),
    }
}

pub(super) fn values<T>(found: Vec<Found<T>>) -> Vec<T> {
    found.into_iter().map(|found| found.value).collect()
}

pub(super) fn text_of(value: &Value) -> &str {
    if let Value::Text(text) = value { text } else { "" }
}

/// Reads what a table says over what it inherits.
pub(super) fn read_rules(section: &Section<'_>, inherited: &Rules, context: Context<'_>) -> Rules {
    let mut rules = inherited.clone();
    if let Some(found) = section.flag("https_redirect") {
        rules.to_https = found.value;
        if let (true, Some(place), false) =
            (found.value, &found.place, context.https || context.proxied)
        {
            let title = "`https_redirect` sends visitors where nobody answers";
            let expected =
                "configure [tls], or `trusted_proxies` when a proxy before us serves https";
            section.wrong("https_redirect", place, title, expected);
        }
    }
    if section.written("hsts").is_some() {
        rules.hsts = section.parsed("hsts", "a time for https alone", hsts).and_then(|f| f.value);
    }
    if section.written("security_headers").is_some() {
        rules.security_headers = section.flag("security_headers").is_some_and(|found| found.value);
    }
    rules.response = rules.response.then(read_edits(&section.inner("headers"), &RESPONSE));
    rules.request = rules.request.then(read_edits(&section.inner("request_headers"), &REQUEST));
    for (name, part) in
        [("strip_prefix", &mut rules.rewrite.strip), ("add_prefix", &mut rules.rewrite.add)]
    {
        if section.written(name).is_some() {
            let prefix = section.parsed(name, "a path", scalar::path_prefix);
            *part = prefix.map(|found| found.value).filter(|prefix| prefix != "/");
        }
    }
    if section.written("allow").is_some() {
        rules.access.allow = Some(networks::read(section, "allow", context));
    }
    if section.written("deny").is_some() {
        rules.access.deny = networks::read(section, "deny", context);
    }
    if section.written("methods").is_some() {
        rules.access.methods = values(section.each("methods", "a method", method));
    }
    if section.written("rate_limit").is_some() {
        rules.limits.rates = limits(section, "rate_limit", Rate::parse);
    }
    if section.written("max_in_flight").is_some() {
        rules.limits.at_once = limits(section, "max_in_flight", AtOnce::parse);
    }
    if section.written("limits_exempt").is_some() {
        rules.limits.exempt = networks::read(section, "limits_exempt", context);
    }
    if section.written("basic_auth").is_some() {
        rules.users = read_users(section, context);
    }
    if section.written("forward_auth").is_some() {
        rules.forward_auth = read_forward_auth(section);
    } else if let Some(place) = section.place_of("forward_auth_headers")
        && section.written("forward_auth_headers").is_some_and(|node| !is_empty_list(&node.value))
    {
        let title = "`forward_auth_headers` has no effect without `forward_auth`";
        section.wrong("forward_auth_headers", &place, title, "write both here, or none");
    }
    if section.written("compress").is_some() {
        rules.compress = read_compress(section);
    }
    if section.written("send_file").is_some() {
        rules.send_file = read_send_file(section, context);
    }
    if section.written("error_pages").is_some() {
        rules.pages = read_pages(section, context);
    }
    rules
}

fn is_empty_list(value: &Value) -> bool {
    matches!(value, Value::List(nodes) if nodes.is_empty())
}

/// Limits, or none where there stands `"off"`.
fn limits<T>(
    section: &Section<'_>,
    name: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Vec<T> {
    if section.written(name).is_some_and(|node| text_of(&node.value) == "off") {
        return Vec::new();
    }
    values(section.each(name, "a limit", |value| match value {
        Value::Integer(number) => Err(format!("a limit stands in quotes: \"{number}\"")),
        value => parse(text_of(value)),
    }))
}

pub(super) fn method(value: &Value) -> Result<Method, String> {
    let text = text_of(value);
    let is_token = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-');
    if !is_token {
        return Err("expected a method such as \"GET\"".to_owned());
    }
    let upper = text.to_ascii_uppercase();
    if upper != text {
        return Err(format!("methods are written in capitals: \"{upper}\""));
    }
    Method::from_bytes(text.as_bytes()).map_err(|_| "expected a method such as \"GET\"".to_owned())
}

fn hsts(text: &str) -> Result<Option<HeaderValue>, String> {
    if text == "off" {
        return Ok(None);
    }
    let mut words = text.split_whitespace();
    let age = scalar::duration(words.next().unwrap_or(""))?;
    let mut value = format!("max-age={}", age.as_secs());
    for word in words {
        value.push_str(match word {
            "include-subdomains" => "; includeSubDomains",
            "preload" => "; preload",
            _ => return Err("expected include-subdomains or preload behind the time".to_owned()),
        });
    }
    HeaderValue::try_from(value).map(Some).map_err(|error| error.to_string())
}

/// Names that cannot be changed, and why: framing and hops are the proxy's.
struct Fixed {
    names: &'static [&'static str],
    why: &'static str,
}

const HOPS: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];

const RESPONSE: [Fixed; 1] = [Fixed {
    names: &HOPS,
    why: "it belongs to one connection, and is written by who writes to that",
}];

const REQUEST: [Fixed; 2] = [
    Fixed {
        names: &HOPS,
        why: "it belongs to one connection, and is written by who writes to that",
    },
    Fixed {
        names: &[
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-host",
            "x-request-id",
            "traceparent",
        ],
        why: "the proxy says it itself; whom it believes is said by `trusted_proxies`",
    },
];

type MakeEdit = fn(HeaderName, Content) -> Edit;

fn read_edits(section: &Section<'_>, fixed: &[Fixed]) -> Edits {
    let mut edits = Vec::new();
    let make: [(&str, MakeEdit); 3] =
        [("set", Edit::Set), ("default", Edit::Default), ("add", Edit::Add)];
    for (key, edit) in make {
        for entry in section.entries(key) {
            let name = field_name(section, key, &entry.key, &entry.place, fixed);
            let content = match &entry.node.value {
                Value::Text(text) => Content::parse(text),
                other => Err(format!("expected text in quotes, found {}", other.kind())),
            };
            match (name, content) {
                (Some(name), Ok(content)) => edits.push(edit(name, content)),
                (_, Err(expected)) => {
                    let title = format!("`{}` cannot be given this value", entry.key);
                    section.wrong(key, &entry.node.place, title, &expected);
                }
                (None, Ok(_)) => {}
            }
        }
    }
    for found in section.texts("remove") {
        let place = found.place.clone().unwrap_or_else(|| section.place.clone());
        edits.extend(field_name(section, "remove", &found.value, &place, fixed).map(Edit::Remove));
    }
    Edits::new(edits)
}

fn field_name(
    section: &Section<'_>,
    key: &str,
    text: &str,
    place: &Place,
    fixed: &[Fixed],
) -> Option<HeaderName> {
    let lower = text.to_ascii_lowercase();
    if let Some(fixed) = fixed.iter().find(|fixed| fixed.names.contains(&lower.as_str())) {
        section.wrong(key, place, format!("`{text}` cannot be changed here"), fixed.why);
        return None;
    }
    let name = HeaderName::from_bytes(text.as_bytes()).ok();
    if name.is_none() {
        let title = format!("{text:?} cannot name a header");
        section.wrong(key, place, title, "expected a name such as \"X-Frame-Options\"");
    }
    name
}

fn read_users(section: &Section<'_>, context: Context<'_>) -> Option<Arc<Users>> {
    let found = section.text("basic_auth").filter(|found| found.value != "off")?;
    let realm = section.text("realm").map_or_else(String::new, |found| found.value);
    let path = found.path(context.base);
    let place = found.place.clone().unwrap_or_else(|| section.place.clone());
    match (context.file)(&path) {
        Ok(text) => match Users::parse(&text, &realm) {
            Ok(users) => return Some(Arc::new(users)),
            Err((line, expected)) => {
                let start = text.split_inclusive('\n').take(line).map(str::len).sum();
                let source = section.report.source(path.display().to_string(), text);
                let place = Place { source, span: start..start };
                let title = "a line of a `basic_auth` file cannot be used";
                section.report.add(Problem::error(place, title).label(expected).concealed());
            }
        },
        Err(why) => {
            let expected = format!("{}: {why}", path.display());
            section.wrong("basic_auth", &place, "`basic_auth` cannot be read", &expected);
        }
    }
    None
}

fn read_forward_auth(section: &Section<'_>) -> Option<Arc<ForwardAuth>> {
    if section.written("forward_auth").is_some_and(|node| text_of(&node.value) == "off") {
        return None;
    }
    let headers = section.each("forward_auth_headers", "a header", |value| {
        HeaderName::from_bytes(text_of(value).as_bytes())
            .map_err(|_| "expected a name such as \"X-User\"".to_owned())
    });
    let headers = values(headers);
    let found = section.parsed("forward_auth", "a server to ask", |text| {
        let example = || "expected for example \"http://127.0.0.1:4180/auth\"".to_owned();
        let rest = text.strip_prefix("http://").ok_or_else(example)?;
        let at = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        let path = if path.is_empty() { "/" } else { path };
        let is_path = path.parse::<http::uri::PathAndQuery>().is_ok() && !path.contains('#');
        Ok(ForwardAuth {
            address: scalar::address(authority)?,
            authority: authority.to_owned(),
            path: if is_path { path.to_owned() } else { return Err(example()) },
            headers,
        })
    });
    found.map(|found| Arc::new(found.value))
}

fn read_compress(section: &Section<'_>) -> Vec<Coding> {
    match section.written("compress").map(|node| &node.value) {
        Some(Value::Boolean(true)) => return Coding::ALL.to_vec(),
        Some(Value::Boolean(false)) | None => return Vec::new(),
        Some(_) => {}
    }
    values(section.each("compress", "a coding", |value| {
        let expected = "expected true, false, \"zstd\", \"br\" or \"gzip\"";
        Coding::named(text_of(value)).ok_or_else(|| expected.to_owned())
    }))
}

fn read_send_file(section: &Section<'_>, context: Context<'_>) -> SendFile {
    let mut places = Vec::new();
    for entry in section.entries("send_file") {
        let prefix = scalar::path_prefix(&entry.key).map_err(|expected| {
            let title = format!("{:?} in `send_file` is no beginning of names", entry.key);
            section.wrong("send_file", &entry.place, title, &expected);
        });
        match (prefix, text_of(&entry.node.value)) {
            (Ok(prefix), root) if !root.is_empty() && !root.contains('\0') => {
                places.push((prefix, context.base.join(root)));
            }
            (Err(()), _) => {}
            (Ok(_), _) => {
                let title = format!("`{}` in `send_file` leads to no directory", entry.key);
                let expected = "expected a directory such as \"/var/lib/app/files\"";
                section.wrong("send_file", &entry.node.place, title, expected);
            }
        }
    }
    SendFile::new(places)
}

fn read_pages(section: &Section<'_>, context: Context<'_>) -> Vec<Page> {
    let mut pages = Vec::new();
    for entry in section.entries("error_pages") {
        let statuses = match scalar::statuses(&entry.key) {
            Ok(statuses) => statuses,
            Err(expected) => {
                let title = format!("{:?} in `error_pages` is no status", entry.key);
                section.wrong("error_pages", &entry.place, title, &expected);
                continue;
            }
        };
        let path = context.base.join(text_of(&entry.node.value));
        let kind = match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => "application/json",
            Some("txt") => "text/plain; charset=utf-8",
            _ => "text/html; charset=utf-8",
        };
        match (context.file)(&path) {
            Ok(text) => pages.push(Page {
                statuses,
                body: Bytes::from(text),
                kind: HeaderValue::from_static(kind),
            }),
            Err(why) => {
                let title = "a page of `error_pages` cannot be read";
                let expected = format!("{}: {why}", path.display());
                section.wrong("error_pages", &entry.node.place, title, &expected);
            }
        }
    }
    pages
}

/// The nearest service to one that a route leads to and that is not there.
pub(super) fn unknown_service(name: &ServiceName, place: &Place, names: &[&str]) -> Problem {
    let problem = Problem::error(place.clone(), format!("there is no service `{name}`"));
    match keys::nearest(name.as_str(), names.iter().copied()) {
        Some(near) => problem.label(format!("did you mean \"{near}\"?")),
        None => problem.label(format!("expected one of {}", names.join(", "))),
    }
}
