//! Reads what is done to a service's requests: its own keys, and those of `[[service.NAME.route]]`.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::keys;
use super::networks;
use super::problem::{Place, Problem};
use super::raw::Value;
use super::reader::{Found, Section};
use super::scalar;
use crate::edge::fields::{Content, Edit, Edits};
use crate::edge::matcher::{Matcher, PathMatch};
use crate::edge::pattern::Pattern;
use crate::edge::rate::{AtOnce, Rate};
use crate::edge::rules::{Act, ForwardAuth, Page, RouteSpec, Rules, Spec};
use crate::edge::template::Template;
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
        let spec = read_route(&route, &base, context);
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

fn values<T>(found: Vec<Found<T>>) -> Vec<T> {
    found.into_iter().map(|found| found.value).collect()
}

fn text_of(value: &Value) -> &str {
    if let Value::Text(text) = value { text } else { "" }
}

/// Reads what a table says over what it inherits.
fn read_rules(section: &Section<'_>, inherited: &Rules, context: Context<'_>) -> Rules {
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
    } else if let Some(place) = section.place_of("forward_auth_headers") {
        let title = "`forward_auth_headers` has no effect without `forward_auth`";
        section.wrong("forward_auth_headers", &place, title, "write both here, or none");
    }
    if section.written("error_pages").is_some() {
        rules.pages = read_pages(section, context);
    }
    rules
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

fn method(value: &Value) -> Result<Method, String> {
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

fn read_route(section: &Section<'_>, base: &Rules, context: Context<'_>) -> RouteSpec {
    let mut rules = read_rules(section, base, context);
    let time = |name: &str| section.written(name).map(|_| section.time_limit(name));
    rules.times.connect = time("connect_timeout");
    rules.times.response = time("response_timeout");
    rules.times.idle = time("idle_timeout");
    rules.times.retries = section.integer("retries").map(|found| found.value as u32);
    rules.act = read_act(section);
    let own_limits = ["rate_limit", "max_in_flight", "limits_exempt"]
        .iter()
        .any(|name| section.written(name).is_some());
    let leads_to = section.parsed("service", "the name of a service", |text| {
        ServiceName::new(text).map_err(|error| error.to_string())
    });
    RouteSpec {
        matcher: read_matcher(section),
        rules,
        own_limits,
        leads_to: leads_to.map(|found| found.value),
    }
}

fn read_matcher(section: &Section<'_>) -> Matcher {
    let hosts = section.each("host", "a host", |value| match scalar::host(text_of(value))? {
        HostPattern::Exact(host) => Ok(host),
        HostPattern::Below(host) => Ok(format!(".{host}")),
        HostPattern::Any => Err("every host is meant anyway: leave the line out".to_owned()),
    });
    let path = |value: &Value| scalar::path_prefix(text_of(value));
    let mut paths: Vec<PathMatch> = Vec::new();
    paths.extend(values(section.each("path", "a path", path)).into_iter().map(PathMatch::Prefix));
    let exact = section.each("exact", "a path", |value| {
        // Here the slash at the end is a part of the path.
        let text = text_of(value);
        path(value).map(|_| text.to_owned())
    });
    paths.extend(values(exact).into_iter().map(PathMatch::Exact));
    let globs = section.each("glob", "a pattern", |value| match text_of(value) {
        text if text.starts_with(['/', '*']) => Ok(Pattern::exact_case(text)),
        _ => Err("expected a pattern such as \"*.php\" or \"/files/*.zip\"".to_owned()),
    });
    paths.extend(values(globs).into_iter().map(PathMatch::Pattern));
    let mut headers = Vec::new();
    for (name, patterns, place) in patterns(section, "header", Pattern::any_case) {
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) => headers.push((name, patterns)),
            Err(_) => {
                let title = format!("{name:?} cannot name a header");
                section.wrong("header", &place, title, "expected a name such as \"User-Agent\"");
            }
        }
    }
    let query = patterns(section, "query", Pattern::exact_case);
    Matcher {
        hosts: values(hosts),
        paths,
        methods: values(section.each("method", "a method", method)),
        headers,
        query: query.into_iter().map(|(name, patterns, _)| (name, patterns)).collect(),
    }
}

/// Names, each with its patterns.
fn patterns(
    section: &Section<'_>,
    key: &str,
    make: fn(&str) -> Pattern,
) -> Vec<(String, Vec<Pattern>, Place)> {
    let mut found = Vec::new();
    for entry in section.entries(key) {
        let one = std::slice::from_ref(&entry.node);
        let nodes = if let Value::List(nodes) = &entry.node.value { nodes.as_slice() } else { one };
        let mut patterns = Vec::new();
        for node in nodes {
            match &node.value {
                Value::Text(text) => patterns.push(make(text)),
                other => {
                    let title = format!("`{}` in `{key}` is not text", entry.key);
                    let expected = format!("expected text in quotes, found {}", other.kind());
                    section.wrong(key, &node.place, title, &expected);
                }
            }
        }
        found.push((entry.key.clone(), patterns, entry.place.clone()));
    }
    found
}

fn read_act(section: &Section<'_>) -> Act {
    let status = section.integer("status");
    let redirect = section.parsed("redirect", "a place to go to", |text| {
        if !text.starts_with(['/', '{']) && !text.contains("://") {
            return Err(format!("expected a path or an address: \"https://{text}\""));
        }
        HeaderValue::from_str(text).map_err(|_| "expected one line of ASCII".to_owned())?;
        Template::parse(text)
    });
    let respond = section.text("respond");
    let kind = section.parsed("content_type", "a type", |text| {
        HeaderValue::from_str(text).map_err(|_| "expected a type such as \"text/html\"".to_owned())
    });
    exclude(section, &["redirect", "respond", "service"]);
    if section.written("respond").is_none()
        && let Some(place) = section.place_of("content_type")
    {
        let title = "`content_type` has no effect without `respond`";
        section.wrong("content_type", &place, title, "leave it out");
    }
    let code = |default: StatusCode| {
        let written = status.as_ref().map(|found| found.value as u16);
        written.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(default)
    };
    if let Some(to) = redirect {
        let status = code(StatusCode::PERMANENT_REDIRECT);
        if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            let place = section.place_of("status").unwrap_or_else(|| section.place.clone());
            let title = format!("{} is no status of a redirect", status.as_u16());
            section.wrong("status", &place, title, "expected 301, 302, 303, 307 or 308");
        }
        return Act::Redirect { status, to: to.value };
    }
    match (respond, &status) {
        (Some(text), _) => {
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            let kind = kind.map_or(plain, |kind| kind.value);
            Act::Respond {
                status: code(StatusCode::OK),
                body: Some((Bytes::from(text.value), kind)),
            }
        }
        (None, Some(_)) if section.written("redirect").is_none() => {
            Act::Respond { status: code(StatusCode::OK), body: None }
        }
        _ => Act::Forward,
    }
}

/// Says so when several of these keys were written.
fn exclude(section: &Section<'_>, names: &[&str]) {
    let written: Vec<(&str, Place)> =
        names.iter().filter_map(|name| Some((*name, section.place_of(name)?))).collect();
    if let [(first, there), (second, here), ..] = written.as_slice() {
        section.report.add(
            Problem::error(here.clone(), format!("`{second}` and `{first}` exclude each other"))
                .label("a route does one of them")
                .related(there.clone(), "the other one"),
        );
    }
}

/// The nearest service to one that a route leads to and that is not there.
pub(super) fn unknown_service(name: &ServiceName, place: &Place, names: &[&str]) -> Problem {
    let problem = Problem::error(place.clone(), format!("there is no service `{name}`"));
    match keys::nearest(name.as_str(), names.iter().copied()) {
        Some(near) => problem.label(format!("did you mean \"{near}\"?")),
        None => problem.label(format!("expected one of {}", names.join(", "))),
    }
}
