//! From a server's locations to services: where requests go, and how they are treated.

use std::net::SocketAddr;

use super::answers::{self, Taker};
use super::convert::{Names, Server, daemon, duration, size};
use super::guard::{self, Level};
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
}

/// Fields that the proxy sets by itself, or that are only how nginx does what we do anyway.
const OWN_FIELDS: [&str; 9] = [
    "host",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-request-id",
    "upgrade",
    "connection",
    "accept-encoding",
    "early-data",
];

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
    if let Some(pass) = pass {
        if place.exact || !place.globs.is_empty() {
            sheet.leave(pass.line, "`proxy_pass` of such a location: write it as a path prefix");
        } else {
            service(place, pass, inherited, inner, names, sheet);
        }
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
            answers::returned(place, answer, Level { own: inner, all: inherited }, names, sheet);
        }
    } else {
        if !inner.iter().any(is_root) {
            let level = Level { own: inner, all: inherited };
            answers::files(place, level, names, sheet);
            for one in inherited.iter().filter(|one| !is_about_files(one)) {
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
        match kind {
            "" | "^~" if path.starts_with('/') => {}
            // Named, it is where `try_files` ends: for everything that is no file.
            "" if path.starts_with('@') => {}
            "~" | "~*" if answers::endings(path).is_some() => {}
            "~" | "~*" if guard::dotted(path).is_some() => {}
            "=" if one
                .inner()
                .iter()
                .all(|inner| matches!(inner.name.as_str(), "log_not_found" | "access_log")) =>
            {
                continue;
            }
            "=" if path.starts_with('/') => {}
            _ => {
                let what = format!("`location {}`: write it as a path prefix", one.words.join(" "));
                sheet.leave(one.line, &what);
                continue;
            }
        }
        let is_regex = kind.starts_with('~');
        let mut globs = if is_regex { answers::endings(path) } else { None };
        let mut keeps_well_known = false;
        if let Some((stars, keeps)) = guard::dotted(path).filter(|_| is_regex) {
            (globs, keeps_well_known) = (Some(vec![stars]), keeps);
        }
        let is_named = path.starts_with('@') || globs.is_some();
        let place = Place {
            path: if is_named { String::new() } else { path.to_owned() },
            exact: kind == "=",
            globs: globs.unwrap_or_default(),
            keeps_well_known,
            ..place.clone()
        };
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
        let mut all = inherited.to_vec();
        let own = one.inner().iter().filter(|inner| inner.name != "location").cloned();
        all.extend(own);
        location(&place, &all, one.inner(), names, sheet);
    }
}

/// Whether what answers speaks no HTTP.
fn is_of_another_kind(one: &Directive) -> bool {
    matches!(one.name.as_str(), "fastcgi_pass" | "uwsgi_pass" | "scgi_pass" | "memcached_pass")
}

/// Whether a directive was looked at where files are answered, or is about what is passed on.
fn is_about_files(one: &Directive) -> bool {
    const KNOWN: [&str; 13] = [
        "allow",
        "deny",
        "auth_basic",
        "auth_basic_user_file",
        "limit_req",
        "limit_conn",
        "add_header",
        "gzip",
        "gzip_types",
        "gzip_min_length",
        "brotli",
        "zstd",
        "internal",
    ];
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

fn service(
    place: &Place,
    pass: &Directive,
    inherited: &[Directive],
    inner: &[Directive],
    names: &mut Names,
    sheet: &mut Sheet,
) {
    let url = pass.word(0);
    let is_grpc = pass.name == "grpc_pass";
    let bare = ["https://", "http://", "grpcs://", "grpc://"]
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme))
        .unwrap_or(url);
    let (authority, rest) = match bare.find('/') {
        Some(at) => (&bare[..at], &bare[at..]),
        None => (bare, ""),
    };
    if url.starts_with("https://") || url.starts_with("grpcs://") {
        sheet.leave(pass.line, "TLS to an instance: it is spoken to in cleartext");
    }
    let wished = match names.upstreams.contains_key(authority) || authority.starts_with('$') {
        true => authority.trim_start_matches('$'),
        false => place.hosts.first().map_or("web", String::as_str),
    };
    // The same instances for the same hosts at the same path are one service, as when cleartext and
    // TLS are two servers.
    let key = format!("{authority} {} {}", place.hosts.join(" "), place.path);
    let wished = if place.path.len() > 1 && wished != authority {
        format!("{wished}{}", place.path)
    } else {
        wished.to_owned()
    };
    let header = format!("service.{}", names.service(&wished, &key));
    let taker = Taker {
        header: header.clone(),
        hosts: place.hosts.clone(),
        path: place.path.trim_end_matches('/').to_owned(),
    };
    names.takers.push(taker);
    for host in &place.hosts {
        sheet.gather(&header, "host", host, pass.line);
    }
    let path = place.path.trim_end_matches('/');
    if !path.is_empty() {
        sheet.gather(&header, "path", path, pass.line);
    }
    endpoints(&header, pass, authority, names, sheet);
    if is_grpc {
        sheet.set(&header, "protocol", "\"h2c\"", pass.line);
    }
    if !rest.is_empty() {
        // What the location matched is replaced by the path of the URL.
        if !path.is_empty() {
            sheet.set(&header, "strip_prefix", &quoted(path), pass.line);
        }
        if rest != "/" {
            sheet.set(&header, "add_prefix", &quoted(rest.trim_end_matches('/')), pass.line);
        }
    }
    let level = Level { own: inner, all: inherited };
    let guards = level.access(sheet).into_iter().chain(level.users());
    for (key, value) in guards.collect::<Vec<_>>() {
        sheet.set(&header, &key, &value, pass.line);
    }
    // The innermost word wins, and comes first here.
    let mut seen = std::collections::BTreeSet::new();
    for one in inner.iter().chain(inherited.iter().rev()) {
        let repeats = ["add_header", "proxy_set_header", "limit_req", "limit_conn"];
        if (repeats.contains(&one.name.as_str()) || seen.insert(one.name.clone()))
            && !treated(&header, one, names, sheet)
        {
            nowhere_known(one, sheet);
        }
    }
}

fn nowhere_known(one: &Directive, sheet: &mut Sheet) {
    const STRUCTURE: [&str; 25] = [
        "try_files",
        "alias",
        "expires",
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
    ];
    if !STRUCTURE.contains(&one.name.as_str()) && !daemon(one, sheet) {
        let words = if one.block.is_some() { "…".to_owned() } else { one.words.join(" ") };
        sheet.leave(one.line, &format!("`{} {words}`", one.name));
    }
}

/// How requests are treated; whether this is such a directive.
fn treated(header: &str, one: &Directive, names: &Names, sheet: &mut Sheet) -> bool {
    let line = one.line;
    let time = || quoted(&duration(one.word(0)));
    match one.name.as_str() {
        "proxy_connect_timeout" => sheet.set(header, "connect_timeout", &time(), line),
        "proxy_read_timeout" | "grpc_read_timeout" => {
            sheet.set(header, "response_timeout", &time(), line);
            sheet.set(header, "idle_timeout", &time(), line);
        }
        "proxy_next_upstream_tries" => {
            let tries = one.word(0).parse::<u32>().unwrap_or(1).saturating_sub(1);
            sheet.set(header, "retries", &tries.to_string(), line);
        }
        "client_max_body_size" => match one.word(0) {
            "0" => {}
            text => sheet.set(header, "max_body", &size(text), line),
        },
        "gzip" | "brotli" | "zstd" if one.word(0) == "on" => {
            sheet.set(header, "compress", "true", line);
        }
        "gzip" | "brotli" | "zstd" | "gzip_types" | "gzip_min_length" => {}
        "add_header" => {
            let name = format!("{header}.headers.set");
            let field = format!("{} = {}", quoted(one.word(0)), quoted(one.word(1)));
            field_of(header, "headers", &field, line, sheet, &name);
        }
        "proxy_hide_header" => {
            let field = one.word(0).to_owned();
            sheet.gather(&format!("{header}.headers"), "remove", &field, line);
        }
        "proxy_set_header" => {
            let lower = one.word(0).to_ascii_lowercase();
            if OWN_FIELDS.contains(&lower.as_str()) {
                return true;
            }
            let value = match one.word(1) {
                "$remote_addr" => "{client}",
                "$host" | "$http_host" => "{host}",
                "$scheme" => "{scheme}",
                "$request_uri" => "{uri}",
                other => other,
            };
            let field = format!("{} = {}", quoted(one.word(0)), quoted(value));
            let name = format!("{header}.request_headers.set");
            field_of(header, "request_headers", &field, line, sheet, &name);
        }
        "limit_req" | "limit_conn" => {
            let key = if one.name == "limit_req" { "rate_limit" } else { "max_in_flight" };
            let Some(text) = guard::limit(one, names) else { return false };
            sheet.gather(header, key, &text, line);
        }
        // By level, above.
        "allow" | "deny" | "auth_basic" | "auth_basic_user_file" => {}
        _ => return false,
    }
    true
}

/// A header field; one line for each, because a table of them would hide what is left.
fn field_of(header: &str, table: &str, field: &str, line: usize, sheet: &mut Sheet, path: &str) {
    let (name, value) = field.split_once(" = ").unwrap_or((field, ""));
    if crate::config::keys::find(path).is_some() {
        sheet.put(&format!("{header}.{table}.set"), name, value);
    } else {
        sheet.leave(line, &format!("would be `{field}` in [{path}], which this version lacks"));
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
