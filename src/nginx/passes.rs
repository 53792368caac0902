//! What is passed on to instances. Locations whose requests go to the same instances are one service
//! here, with a route for each that is treated otherwise than the rest.

use std::collections::{BTreeMap, BTreeSet};

use super::answers;
use super::answers::{Answer, Kind, Taker, seconds, template};
use super::convert::{Names, duration, size};
use super::guard::Level;
use super::location::{Place, endpoints, nowhere_known};
use super::server::SEND_FILE;
use super::sheet::{Sheet, listed, quoted};
use super::syntax::Directive;

/// Fields that the proxy sets by itself, or that are only how nginx does what we do anyway, each with what
/// it is given then.
const OWN_FIELDS: [(&str, &[&str]); 9] = [
    ("host", &["$host", "$http_host", "$host:$server_port", "$server_name"]),
    ("x-forwarded-for", &["$proxy_add_x_forwarded_for", "$remote_addr"]),
    ("x-forwarded-proto", &["$scheme"]),
    ("x-forwarded-host", &["$host", "$http_host", "$server_name"]),
    ("x-request-id", &["$request_id"]),
    ("upgrade", &[]),
    ("connection", &[]),
    ("accept-encoding", &[]),
    ("early-data", &[]),
];
/// Keys that a place can say otherwise, or take back.
const TIMES: [&str; 5] =
    ["connect_timeout", "response_timeout", "idle_timeout", "retries", "compress"];
/// What nginx takes of a body where nothing is said.
const MOST_BODY: &str = "1m";

/// How requests are treated: a key, and the field where that is a table of them, with TOML.
pub type Said = BTreeMap<(String, String), String>;

/// A location whose requests are passed on.
#[derive(Debug)]
pub struct Pass {
    place: Place,
    directive: Directive,
    authority: String,
    said: Said,
    /// As nginx writes sizes.
    most_body: String,
}

impl Pass {
    fn is_of(&self, other: &Self) -> bool {
        self.authority == other.authority
            && self.place.hosts == other.place.hosts
            && self.directive.name == other.directive.name
    }

    fn is_at(&self, other: &Place) -> bool {
        let Place { path, exact, globs, named, .. } = &self.place;
        (path.trim_end_matches('/'), exact, globs, named)
            == (other.path.trim_end_matches('/'), &other.exact, &other.globs, &other.named)
    }

    fn path(&self) -> &str {
        self.place.path.trim_end_matches('/')
    }
}

/// Notes a location whose requests are passed on.
pub fn note(
    place: &Place,
    directive: &Directive,
    level: Level<'_>,
    names: &mut Names,
    sheet: &mut Sheet,
) {
    let url = directive.word(0);
    let bare = ["https://", "http://", "grpcs://", "grpc://"]
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme))
        .unwrap_or(url);
    let (authority, rest) = bare.split_at(bare.find('/').unwrap_or(bare.len()));
    if url.starts_with("https://") || url.starts_with("grpcs://") {
        sheet.leave(directive.line, "TLS to an instance: it is spoken to in cleartext");
    }
    let mut said = treatment(place, level, names, sheet);
    if !rest.is_empty() {
        // What the location matched is replaced by the path of the URL.
        let path = place.path.trim_end_matches('/');
        let mut prefix = |key: &str, value: &str| {
            said.insert((key.to_owned(), String::new()), quoted(value));
        };
        if !path.is_empty() {
            prefix("strip_prefix", path);
        }
        if rest != "/" {
            prefix("add_prefix", rest.trim_end_matches('/'));
        }
    }
    let sizes = level.all.iter().rev().find(|one| one.name == "client_max_body_size");
    names.passes.push(Pass {
        place: place.clone(),
        directive: directive.clone(),
        authority: authority.to_owned(),
        said,
        most_body: sizes.map_or(MOST_BODY, |one| one.word(0)).to_owned(),
    });
}

/// How the requests of a place are treated. What is not known is named.
fn treatment(place: &Place, level: Level<'_>, names: &Names, sheet: &mut Sheet) -> Said {
    let mut said = Said::new();
    let guards = level.guards(place, names, sheet);
    said.extend(guards.into_iter().map(|(key, value)| ((key, String::new()), value)));
    for one in level.of(&["add_header"]) {
        said.insert(("headers.set".to_owned(), one.word(0).to_owned()), quoted(one.word(1)));
    }
    let mut hidden = Vec::new();
    let mut taken = Vec::new();
    for one in level.of(&["proxy_set_header", "grpc_set_header"]) {
        match field(place, one, sheet) {
            None => {}
            Some(None) => taken.push(one.word(0)),
            Some(Some(value)) => {
                let key = ("request_headers.set".to_owned(), one.word(0).to_owned());
                said.insert(key, quoted(&value));
            }
        }
    }
    for one in level.of(&["proxy_hide_header"]) {
        hidden.push(one.word(0));
    }
    for (key, names) in [("headers.remove", hidden), ("request_headers.remove", taken)] {
        if !names.is_empty() {
            said.insert((key.to_owned(), String::new()), listed(&names));
        }
    }
    // The innermost word holds.
    let mut seen = BTreeSet::new();
    for one in level.all.iter().rev() {
        let time = || quoted(&duration(one.word(0)));
        let lines: &[(&str, String)] = &match one.name.as_str() {
            "proxy_connect_timeout" | "grpc_connect_timeout" => vec![("connect_timeout", time())],
            "proxy_read_timeout" | "grpc_read_timeout" => {
                vec![("response_timeout", time()), ("idle_timeout", time())]
            }
            "proxy_next_upstream_tries" => {
                let tries = one.word(0).parse::<u32>().unwrap_or(1).saturating_sub(1);
                vec![("retries", tries.to_string())]
            }
            SEND_FILE => {
                let key = (SEND_FILE.to_owned(), one.word(0).to_owned());
                said.insert(key, quoted(one.word(1)));
                continue;
            }
            "gzip" | "brotli" | "zstd" if one.word(0) == "on" => {
                vec![("compress", "true".to_owned())]
            }
            "gzip" | "brotli" | "zstd" | "gzip_types" | "gzip_min_length" => vec![],
            "expires" if seconds(one.word(0)).is_some() => {
                let age = format!("max-age={}", seconds(one.word(0)).unwrap_or(0));
                let key = ("headers.set".to_owned(), "Cache-Control".to_owned());
                said.entry(key).or_insert_with(|| quoted(&age));
                continue;
            }
            "client_max_body_size"
            | "add_header"
            | "proxy_set_header"
            | "grpc_set_header"
            | "proxy_hide_header" => continue,
            _ if level.is_guard(one, place) => continue,
            _ => {
                nowhere_known(one, sheet);
                continue;
            }
        };
        if seen.insert(one.name.as_str()) {
            for (key, value) in lines {
                said.insert(((*key).to_owned(), String::new()), value.clone());
            }
        }
    }
    said
}

/// What a field on its way to an instance is given: nothing to do, none, or this.
fn field(place: &Place, one: &Directive, sheet: &mut Sheet) -> Option<Option<String>> {
    let (name, value) = (one.word(0), one.word(1));
    let lower = name.to_ascii_lowercase();
    if let Some((_, usual)) = OWN_FIELDS.iter().find(|(own, _)| *own == lower) {
        if !usual.is_empty() && !usual.contains(&value) {
            let what = format!("`{} {name} {value}`: the proxy says it itself", one.name);
            sheet.leave(one.line, &what);
        }
        return None;
    }
    if value == format!("$http_{}", lower.replace('-', "_")) {
        return None;
    }
    let told = template(value, place).filter(|_| !value.is_empty());
    if told.is_none() && !value.is_empty() {
        // Nor may a client say it then.
        let what = format!("`{} {name} {value}`: the field is taken away", one.name);
        sheet.leave(one.line, &what);
    }
    Some(told)
}

/// Makes services of what is passed on.
pub fn all(names: &mut Names, sheet: &mut Sheet) {
    let mut groups: Vec<Vec<Pass>> = Vec::new();
    for pass in std::mem::take(&mut names.passes) {
        match groups.iter_mut().find(|group| group[0].is_of(&pass)) {
            None => groups.push(vec![pass]),
            Some(group) => match group.iter_mut().find(|known| known.is_at(&pass.place)) {
                // As when cleartext and TLS are two servers.
                Some(known) => merge(known, pass, sheet),
                None => group.push(pass),
            },
        }
    }
    for group in groups {
        service(&group, names, sheet);
    }
}

/// What was said first stays, and what was not said then is added.
fn merge(known: &mut Pass, pass: Pass, sheet: &mut Sheet) {
    for (key, value) in pass.said {
        match known.said.get(&key) {
            None => {
                known.said.insert(key, value);
            }
            Some(first) if *first == value => {}
            Some(first) => {
                let (key, field) = key;
                let name = if field.is_empty() { key } else { format!("{key} {field}") };
                let what =
                    format!("`{name} = {value}` for {}: it is {first} already", known.path());
                sheet.leave(pass.directive.line, &what);
            }
        }
    }
    known.place.certificate |= pass.place.certificate;
}

fn bytes(size: &str) -> u64 {
    let lower = size.to_ascii_lowercase();
    let unit = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
    let number: u64 = lower[..unit].parse().unwrap_or(0);
    let factor = match &lower[unit..] {
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => 1,
    };
    if number == 0 { u64::MAX } else { number.saturating_mul(factor) }
}

fn service(group: &[Pass], names: &mut Names, sheet: &mut Sheet) {
    let Some(first) = group.iter().find(|pass| pass.place.globs.is_empty()) else {
        for pass in group {
            let what = "`proxy_pass` of such a location: write it as a path prefix";
            sheet.leave(pass.directive.line, what);
            // What stands beside it must not be shown instead.
            answers::closed(&pass.place, 404, pass.directive.line, names);
        }
        return;
    };
    let (hosts, authority, line) = (&first.place.hosts, &first.authority, first.directive.line);
    let is_upstream = names.upstreams.contains_key(authority) || authority.starts_with('$');
    let wished = match is_upstream {
        true => authority.trim_start_matches('$').to_owned(),
        false if group.len() == 1 && first.place.path.len() > 1 => {
            format!("{}{}", hosts.first().map_or("web", String::as_str), first.place.path)
        }
        false => hosts.first().map_or("web", String::as_str).to_owned(),
    };
    let key = format!("{authority} {} {}", hosts.join(" "), first.directive.name);
    let header = format!("service.{}", names.service(&wished, &key));
    for host in hosts {
        sheet.gather(&header, "host", host, line);
    }
    let paths: BTreeSet<&str> =
        group.iter().filter(|one| one.place.globs.is_empty()).map(Pass::path).collect();
    for path in &paths {
        if !paths.contains("") {
            sheet.gather(&header, "path", path_of(path), line);
        }
        let (path, hosts) = ((*path).to_owned(), hosts.clone());
        names.takers.push(Taker { header: header.clone(), hosts, path });
    }
    endpoints(&header, &first.directive, authority, names, sheet);
    if first.directive.name == "grpc_pass" {
        sheet.set(&header, "protocol", "\"h2c\"", line);
    }
    if group.iter().any(|pass| pass.place.certificate) {
        sheet.set(&header, "client_certificate", "\"required\"", line);
    }
    let most = group.iter().map(|pass| &pass.most_body).max_by_key(|body| bytes(body));
    let most = most.map_or(MOST_BODY, String::as_str);
    if bytes(most) != u64::MAX {
        sheet.set(&header, "max_body", &size(most), line);
    }
    for pass in group.iter().filter(|pass| bytes(&pass.most_body) != bytes(most)) {
        let what = format!(
            "`client_max_body_size {}` for {}: the whole service takes {most}",
            pass.most_body,
            path_of(pass.path())
        );
        sheet.leave(pass.directive.line, &what);
    }
    let base = base(group);
    write(&header, &base, line, sheet);
    for pass in group.iter().filter(|pass| !pass.place.named) {
        let lines = others(pass, &base, sheet);
        let whole = others(pass, &Said::new(), sheet);
        names.answers.push(Answer {
            place: pass.place.clone(),
            lines,
            line: pass.directive.line,
            otherwise: String::new(),
            kind: Kind::Pass { header: header.clone(), whole },
        });
    }
}

fn path_of(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}

/// What is said for a whole service: what all say, or, where files are tried first, what is said for the
/// rest.
fn base(group: &[Pass]) -> Said {
    if let Some(rest) = group.iter().find(|pass| pass.place.named) {
        return rest.said.clone();
    }
    let Some((first, more)) = group.split_first() else { return Said::new() };
    let is_common = |(key, value): &(&(String, String), &String)| {
        more.iter().all(|pass| pass.said.get(*key) == Some(*value))
    };
    let common = first.said.iter().filter(is_common);
    let mut common: Said = common.map(|(key, value)| (key.clone(), value.clone())).collect();
    // What can be said otherwise for a place is said as for the rest, where that has one.
    let is_rest = |pass: &&Pass| pass.path().is_empty() && pass.place.globs.is_empty();
    if let Some(rest) = group.iter().find(is_rest) {
        let times = rest.said.iter().filter(|((key, _), _)| TIMES.contains(&key.as_str()));
        common.extend(times.map(|(key, value)| (key.clone(), value.clone())));
    }
    // They belong together.
    if !common.contains_key(&("basic_auth".to_owned(), String::new())) {
        common.remove(&("realm".to_owned(), String::new()));
    }
    common
}

/// What a location says besides, and takes back.
fn others(pass: &Pass, base: &Said, sheet: &mut Sheet) -> Vec<(String, String)> {
    let mut lines: Vec<(String, String)> = Vec::new();
    let mut tables: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for ((key, field), value) in &pass.said {
        if base.get(&(key.clone(), field.clone())) == Some(value) {
            continue;
        }
        if field.is_empty() {
            lines.push((key.clone(), value.clone()));
        } else {
            tables.entry(key).or_default().push(format!("{} = {value}", super::guard::key(field)));
        }
    }
    for (key, fields) in tables {
        lines.push((key.to_owned(), format!("{{ {} }}", fields.join(", "))));
    }
    for (key, field) in base.keys().filter(|key| !pass.said.contains_key(*key)) {
        let off = match key.as_str() {
            "rate_limit" | "max_in_flight" | "basic_auth" | "forward_auth" => "\"off\"",
            "allow" => "[\"0.0.0.0/0\", \"::/0\"]",
            "deny" | "methods" => "[]",
            "compress" => "false",
            "strip_prefix" | "add_prefix" => "\"/\"",
            "connect_timeout" | "response_timeout" | "idle_timeout" => "\"60s\"",
            "retries" => "1",
            "realm" => continue,
            _ => {
                let what = format!("{}: it has `{key}` {field} as well", path_of(pass.path()));
                sheet.leave(pass.directive.line, &what);
                continue;
            }
        };
        lines.push((key.clone(), off.to_owned()));
    }
    lines
}

fn write(header: &str, said: &Said, line: usize, sheet: &mut Sheet) {
    for ((key, field), value) in said {
        let (table, name) = match key.split_once('.') {
            Some((table, name)) => (format!("{header}.{table}"), name),
            None => (header.to_owned(), key.as_str()),
        };
        if field.is_empty() {
            sheet.set(&table, name, value, line);
        } else {
            // One line for each, because a table of them would hide what is left.
            sheet.put(&format!("{table}.{name}"), &quoted(field), value);
        }
    }
}
