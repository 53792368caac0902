//! From a server's locations to services: where requests go, and how they are treated.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use super::answers;
use super::convert::{Names, Server, daemon};
use super::expression;
use super::guard::{Level, is_guarded};
use super::passes;
use super::server::SEND_FILE;
use super::sheet::{Sheet, quoted};
use super::syntax::Directive;

/// Which requests.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// Their hosts.
    pub hosts: Vec<String>,
    /// Their path prefix; empty for all.
    pub path: String,
    /// The path is meant alone.
    pub exact: bool,
    /// Their paths with stars, in place of a prefix.
    pub globs: Vec<String>,
    /// What lies below `/.well-known` is meant by no star.
    pub keeps_well_known: bool,
    /// No expression is asked about what begins like this.
    pub first: bool,
    /// It is where `try_files` ends, for everything that is no file.
    pub named: bool,
    /// Clients must show a certificate here, and not everywhere.
    pub certificate: bool,
    /// Where it stands in the file.
    pub line: usize,
    /// Servers that are asked about requests, by the path of the location that leads to them.
    pub askers: Rc<BTreeMap<String, String>>,
}

/// What is inherited by kind: a level that says anything of one says all of it.
const KINDS: [&[&str]; 9] = [
    &["allow", "deny"],
    &["auth_basic"],
    &["auth_basic_user_file"],
    &["auth_request"],
    &["limit_req"],
    &["limit_conn"],
    &["add_header"],
    &["proxy_set_header", "grpc_set_header"],
    &["proxy_hide_header"],
];

/// What holds at a level: its own directives behind those of the level around it.
pub fn inherit(outer: &[Directive], own: &[Directive]) -> Vec<Directive> {
    let is_replaced = |one: &&Directive| {
        let is_of = |kind: &&&[&str]| kind.contains(&one.name.as_str());
        KINDS
            .iter()
            .find(is_of)
            .is_some_and(|kind| own.iter().any(|inner| kind.contains(&inner.name.as_str())))
    };
    outer.iter().filter(|one| !is_replaced(one)).chain(own).cloned().collect()
}

/// Converts what stands in a server or a location. `inherited` holds here too, outermost first.
pub fn location(
    place: &Place,
    inherited: &[Directive],
    inner: &[Directive],
    names: &mut Names,
    sheet: &mut Sheet,
) {
    let find = |name: &str| inner.iter().find(|one| one.name == name);
    let pass = find("proxy_pass").or_else(|| find("grpc_pass"));
    let is_root = |one: &Directive| one.name == "location" && one.words == ["/"];
    let level = Level { own: inner, all: inherited };
    if let Some(pass) = pass {
        passes::note(place, pass, level, names, sheet);
    } else if let Some(other) = inner.iter().find(|one| is_of_another_kind(one)) {
        sheet.leave(other.line, &format!("`{}`: instances speak HTTP", other.name));
        // What it would run must not be shown instead.
        answers::closed(place, 404, other.line, names);
    } else if let Some(answer) = find("return") {
        let upgraded = upgrades(place, inner, names);
        for one in inner.iter().filter(|one| one.name == "if" && !is_upgrading(one)) {
            sheet.leave(one.line, &format!("`if {} …`", one.words.join(" ")));
        }
        // Where each host is sent to https, nothing else is said to it.
        if upgraded.len() < place.hosts.len() {
            answers::returned(place, answer, level, names, sheet);
        }
    } else if !inner.iter().any(is_root) {
        let is_empty = !inherited.iter().any(|one| matches!(one.name.as_str(), "root" | "alias"));
        let is_server = place.path.is_empty() && place.globs.is_empty() && !place.named;
        let leads_on = inner.iter().any(|one| one.name == "rewrite");
        if is_empty && !is_server && (!leads_on || is_guarded(&level.guards(place, names, sheet))) {
            // Nothing is there, whatever there is elsewhere.
            answers::closed(place, 404, place.line, names);
        } else {
            answers::files(place, level, names, sheet);
        }
        for one in inherited {
            if !is_about_files(one) && !level.is_guard(one, place) {
                nowhere_known(one, sheet);
            }
        }
    }
    for one in inner.iter().filter(|one| one.name == "location") {
        let (kind, path) = match one.words.as_slice() {
            [path] => ("", path.as_str()),
            [kind, path] => (kind.as_str(), path.as_str()),
            _ => continue,
        };
        let is_quiet =
            |inner: &Directive| matches!(inner.name.as_str(), "log_not_found" | "access_log");
        let stars = expression::stars(kind, path).filter(|_| kind.starts_with('~'));
        match kind {
            "=" if one.inner().iter().all(is_quiet) => continue,
            "" | "^~" | "=" if path.starts_with('/') => {}
            // Named, it is where `try_files` ends: for everything that is no file.
            "" if path.starts_with('@') => {}
            _ if stars.is_some() => {}
            _ => {
                let what = format!("`location {}`: write it as a path prefix", one.words.join(" "));
                sheet.leave(one.line, &what);
                continue;
            }
        }
        let named = path.starts_with('@');
        let is_prefix = stars.is_none() && !named;
        let (globs, keeps_well_known) = stars.unwrap_or_default();
        let place = Place {
            path: if is_prefix { path.to_owned() } else { String::new() },
            exact: kind == "=",
            globs,
            keeps_well_known,
            first: kind == "^~",
            named,
            line: one.line,
            ..place.clone()
        };
        if one.inner().iter().any(|inner| inner.name == "internal") {
            // Only nginx itself goes there.
            if !place.named {
                answers::closed(&place, 404, one.line, names);
            }
            continue;
        }
        if one.inner().iter().any(|inner| inner.name == "deny" && inner.word(0) == "all")
            && !one.inner().iter().any(|inner| inner.name == "allow")
        {
            // Nobody may come, whatever is there.
            answers::closed(&place, 403, one.line, names);
            continue;
        }
        if path.starts_with('@') && !one.inner().iter().any(|inner| inner.name.ends_with("_pass")) {
            sheet.leave(one.line, &format!("`location {path}`: it passes nothing on"));
            continue;
        }
        let own: Vec<Directive> =
            one.inner().iter().filter(|inner| inner.name != "location").cloned().collect();
        location(&place, &inherit(inherited, &own), one.inner(), names, sheet);
    }
}

/// Whether what answers speaks no HTTP.
fn is_of_another_kind(one: &Directive) -> bool {
    matches!(one.name.as_str(), "fastcgi_pass" | "uwsgi_pass" | "scgi_pass" | "memcached_pass")
}

/// Whether a directive was looked at where files are answered, or is about what is passed on.
fn is_about_files(one: &Directive) -> bool {
    const KNOWN: [&str; 7] =
        ["add_header", "expires", "gzip", "gzip_types", "gzip_min_length", "brotli", "zstd"];
    let name = one.name.as_str();
    KNOWN.contains(&name)
        || ["proxy_", "grpc_", "fastcgi_", "client_"].iter().any(|begin| name.starts_with(begin))
}

/// `if ($host = NAME) { return 301 https://$host$request_uri; }`, which certbot writes.
fn is_upgrading(one: &Directive) -> bool {
    let is_host = matches!(one.words.as_slice(), [host, is, _] if host == "($host" && is == "=");
    let is_upgrade = |inner: &Directive| {
        inner.name == "return" && inner.words.last().is_some_and(|to| answers::is_upgrade(to))
    };
    one.name == "if" && is_host && matches!(one.inner(), [inner] if is_upgrade(inner))
}

/// The hosts that such lines send to https.
fn upgrades(place: &Place, inner: &[Directive], names: &mut Names) -> Vec<String> {
    let mut hosts = Vec::new();
    for one in inner.iter().filter(|one| is_upgrading(one)) {
        let host = one.word(2).trim_end_matches(')').to_owned();
        if place.hosts.contains(&host) && !hosts.contains(&host) {
            let place = Place { hosts: vec![host.clone()], ..place.clone() };
            answers::upgraded(&place, one.line, names);
            hosts.push(host);
        }
    }
    hosts
}

/// Names what has no place here.
pub fn nowhere_known(one: &Directive, sheet: &mut Sheet) {
    const STRUCTURE: [&str; 25] = [
        "try_files",
        "alias",
        "server",
        "location",
        "listen",
        "server_name",
        "proxy_pass",
        "grpc_pass",
        "ssl_certificate",
        "ssl_certificate_key",
        "ssl_client_certificate",
        "ssl_verify_client",
        "ssl_verify_depth",
        "ssl_crl",
        "upstream",
        "split_clients",
        "limit_req_zone",
        "limit_conn_zone",
        "return",
        "http",
        "stream",
        "root",
        "index",
        "ssl",
        SEND_FILE,
    ];
    if !STRUCTURE.contains(&one.name.as_str()) && !daemon(one, sheet) {
        let words = one.words.join(" ") + if one.block.is_some() { " …" } else { "" };
        sheet.leave(one.line, &format!("`{} {words}`", one.name));
    }
}

/// Where requests go.
pub fn endpoints(
    header: &str,
    pass: &Directive,
    authority: &str,
    names: &Names,
    sheet: &mut Sheet,
) {
    let line = pass.line;
    if let Some((by, parts)) = names.splits.get(authority) {
        let rest = parts.iter().find(|(share, _)| *share == 0.0).or(parts.last());
        let Some((_, stable)) = rest else { return };
        for server in servers(stable, line, names) {
            push(header, &server, sheet);
        }
        match by.as_str() {
            text if text.contains("remote_addr") => {
                sheet.set(header, "affinity", "\"client-address\"", line);
            }
            text => {
                if let Some(rest) = text.split("cookie_").nth(1) {
                    let is_name = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
                    let name: String = rest.chars().take_while(is_name).collect();
                    sheet.set(header, "affinity", &quoted(&format!("cookie:{name}")), line);
                }
            }
        }
        for (share, canary) in parts.iter().filter(|(_, name)| name != stable) {
            let addresses: Vec<String> =
                servers(canary, line, names).into_iter().map(|server| server.address).collect();
            split(header, &addresses, *share, sheet);
        }
        return;
    }
    let all = servers(authority, line, names);
    let heaviest = all.iter().map(|server| server.weight).max().unwrap_or(1);
    let total: u32 = all.iter().map(|server| server.weight).sum();
    for server in all.iter().filter(|server| server.weight == heaviest) {
        push(header, server, sheet);
    }
    for server in all.iter().filter(|server| server.weight < heaviest) {
        let share = f64::from(server.weight) * 100.0 / f64::from(total.max(1));
        split(header, std::slice::from_ref(&server.address), share, sheet);
    }
}

/// How a share of the traffic goes elsewhere: what nginx has in its file is a rollout here.
fn split(header: &str, addresses: &[String], share: f64, sheet: &mut Sheet) {
    let name = header.split_once('.').map_or(header, |(_, name)| name);
    let share = (share * 100.0).round() / 100.0;
    let to: Vec<String> =
        addresses.iter().map(|address| format!("--endpoints {address}")).collect();
    let to = to.join(" ");
    sheet.comment(header, &format!(
        "{share}% of the traffic goes elsewhere: switchback deploy {name} {to} --steps \"{share}% 100%\" --detach; switchback pause {name}"
    ));
}

fn servers(name: &str, line: usize, names: &Names) -> Vec<Server> {
    let one = || vec![Server { address: name.to_owned(), weight: 1, line }];
    names.upstreams.get(name).cloned().unwrap_or_else(one)
}

fn push(header: &str, server: &Server, sheet: &mut Sheet) {
    let text = &server.address;
    let with_port = |host: &str, port: &str| {
        let host = if host == "localhost" { "127.0.0.1" } else { host };
        format!("{host}:{port}")
    };
    let address = match text.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => with_port(host, port),
        _ => with_port(text, "80"),
    };
    if address.parse::<SocketAddr>().is_ok() {
        sheet.gather(header, "endpoints", &address, server.line);
    } else {
        let what = format!("the instance {text}: endpoints are IP addresses with a port");
        sheet.leave(server.line, &what);
    }
}
