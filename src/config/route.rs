//! Reads `[[service.NAME.route]]`: which requests it takes, and what differs for them.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

use super::policy::{Context, method, read_rules, text_of, values};
use super::problem::{Place, Problem};
use super::raw::Value;
use super::reader::Section;
use super::scalar;
use crate::edge::files::{Files, Missing, meant};
use crate::edge::matcher::{Matcher, PathMatch};
use crate::edge::pattern::Pattern;
use crate::edge::rules::{Act, RouteSpec, Rules};
use crate::edge::template::Template;
use crate::model::id::ServiceName;
use crate::routing::table::HostPattern;

/// Reads a route of a service whose own rules are these.
pub(super) fn read(section: &Section<'_>, base: &Rules, context: Context<'_>) -> RouteSpec {
    let mut rules = read_rules(section, base, context);
    let time = |name: &str| section.written(name).map(|_| section.time_limit(name));
    rules.times.connect = time("connect_timeout");
    rules.times.response = time("response_timeout");
    rules.times.idle = time("idle_timeout");
    rules.times.retries = section.integer("retries").map(|found| found.value as u32);
    rules.act = read_act(section, context);
    rules.access.certificate = section.choice("client_certificate") == "required";
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

fn read_files(section: &Section<'_>, context: Context<'_>) -> Option<Files> {
    let name = |key: &str, text: &str| {
        let sound = meant(text).filter(|_| !text.contains('%') && !text.ends_with('/'));
        sound
            .filter(|name| !name.is_empty())
            .ok_or_else(|| format!("expected a file such as \"{key}\""))
    };
    let root = section.text("files");
    let index = section.parsed("index", "a file", |text| match text.contains('/') {
        true => Err("expected the name of a file, without a directory".to_owned()),
        false => name("index.html", text),
    });
    let missing = section.parsed("missing", "what becomes of them", |text| match text {
        "404" => Ok(Missing::NotFound),
        "app" => Ok(Missing::App),
        text if text.starts_with('/') => name("/index.html", text).map(Missing::File),
        _ => Err("expected \"404\", \"app\", or a file such as \"/index.html\"".to_owned()),
    });
    let Some(root) = root else {
        for key in ["index", "missing"] {
            if let Some(place) = section.place_of(key) {
                let title = format!("`{key}` has no effect without `files`");
                section.wrong(key, &place, title, "leave it out");
            }
        }
        return None;
    };
    Some(Files {
        root: root.path(context.base),
        index: index.map_or_else(String::new, |found| found.value),
        missing: missing.map(|found| found.value).unwrap_or_default(),
    })
}

fn read_act(section: &Section<'_>, context: Context<'_>) -> Act {
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
    let files = read_files(section, context);
    let leads =
        if matches!(&files, Some(files) if files.missing == Missing::App) { "" } else { "service" };
    exclude(section, &["redirect", "respond", "files", leads]);
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
    if let Some(files) = files {
        return Act::Files(Arc::new(files));
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
