//! Servers: for which hosts, where they listen, and with which certificates. Here each service answers on
//! every address; a server that was not for everybody says so by other means, or is named.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::convert::Names;
use super::location::{Place, inherit, location};
use super::sheet::{Sheet, quoted};
use super::syntax::Directive;

/// Networks of this machine alone, as nginx would name them.
const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1"];

/// Learns what is to be known of all servers before the first is converted.
pub fn survey(directives: &[Directive], names: &mut Names) {
    let (mut verify, mut tls) = (0, 0);
    for one in servers(directives) {
        if one.inner().iter().any(|inner| inner.name == "listen" && has(inner, "ssl")) {
            tls += 1;
            verify += usize::from(verifies(one));
        }
        names.is_public |= listens(one).iter().any(|address| is_usual(address));
    }
    names.some_verify = verify > 0 && verify < tls;
}

/// Servers of HTTP.
fn servers(directives: &[Directive]) -> Vec<&Directive> {
    let mut found = Vec::new();
    for one in directives {
        match one.name.as_str() {
            "http" => found.extend(servers(one.inner())),
            "server" => found.push(one),
            _ => {}
        }
    }
    found
}

fn has(listen: &Directive, wanted: &str) -> bool {
    listen.words.iter().skip(1).any(|word| word == wanted)
}

fn verifies(server: &Directive) -> bool {
    server.inner().iter().any(|one| one.name == "ssl_verify_client" && one.word(0) == "on")
}

/// Where a server listens by TCP.
fn listens(server: &Directive) -> Vec<String> {
    let all = server.inner().iter().filter(|one| one.name == "listen");
    let found: Vec<&Directive> = all.collect();
    if found.is_empty() {
        return vec!["0.0.0.0:80".to_owned()];
    }
    found.into_iter().filter_map(|one| address(one.word(0))).collect()
}

/// The directive that stands for what an app may have sent.
pub const SEND_FILE: &str = "send_file";

/// An address in our words; none for a socket in the file system.
fn address(text: &str) -> Option<String> {
    if text.starts_with("unix:") {
        return None;
    }
    if text.parse::<u16>().is_ok() {
        return Some(format!("0.0.0.0:{text}"));
    }
    Some(match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => match host {
            "*" => format!("0.0.0.0:{port}"),
            "localhost" => format!("127.0.0.1:{port}"),
            host => format!("{host}:{port}"),
        },
        _ if text == "localhost" => "127.0.0.1:80".to_owned(),
        _ => format!("{text}:80"),
    })
}

fn is_loopback(address: &str) -> bool {
    address.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
}

/// Whether everybody comes there.
fn is_usual(address: &str) -> bool {
    let everybody = |ip: IpAddr| ip.is_unspecified();
    address
        .parse::<SocketAddr>()
        .is_ok_and(|address| everybody(address.ip()) && matches!(address.port(), 80 | 443))
}

/// Converts a server; `beside` holds for all of them.
pub fn http(one: &Directive, beside: &[Directive], names: &mut Names, sheet: &mut Sheet) {
    let (hosts, is_tls) = (hosts(one, sheet), listen_all(one, sheet));
    if hosts.is_empty() {
        // It is for hosts that cannot be said, and not for all.
        return;
    }
    if is_tls {
        certificate(one, names, sheet);
    }
    let askers = Rc::new(askers(one, names));
    let is_asked = is_tls && names.some_verify && verifies(one);
    let place = Place { hosts, askers, certificate: is_asked, ..Place::default() };
    let own = |names: &[Directive]| -> Vec<Directive> {
        names.iter().filter(|inner| inner.name != "location").cloned().collect()
    };
    let mut inherited = inherit(&own(beside), &own(one.inner()));
    if names.is_public {
        private(one, &mut inherited, sheet);
    }
    inherited.extend(send_file(one, &inherited, sheet));
    location(&place, &inherited, one.inner(), names, sheet);
}

/// What an app may name in `X-Accel-Redirect`: files of the locations that are only for nginx itself, each as
/// a directive of ours with the beginning of their names and their directory.
fn send_file(server: &Directive, inherited: &[Directive], sheet: &mut Sheet) -> Vec<Directive> {
    let mut found = Vec::new();
    let is_internal = |one: &&Directive| {
        one.name == "location" && one.inner().iter().any(|inner| inner.name == "internal")
    };
    for one in server.inner().iter().filter(is_internal) {
        let path = match one.words.as_slice() {
            [path] => path,
            [kind, path] if kind == "^~" => path,
            _ => continue,
        };
        let find = |name: &str| one.inner().iter().find(|inner| inner.name == name);
        let around = || inherited.iter().rev().find(|outer| outer.name == "root");
        let passes = one.inner().iter().any(|inner| inner.name.ends_with("_pass"));
        let directory = match (find("alias"), find("root").or_else(around)) {
            // What an app names so is asked of another one, if nginx does not go there by itself.
            _ if passes => {
                if !path.starts_with('@') && !mentions(server, path) {
                    let what = format!(
                        "`location {path}`: what an app names in X-Accel-Redirect is a file here"
                    );
                    sheet.leave(one.line, &what);
                }
                continue;
            }
            (Some(alias), _) => alias.word(0).to_owned(),
            (None, Some(root)) => format!("{}{path}", root.word(0).trim_end_matches('/')),
            (None, None) => continue,
        };
        if path.starts_with('/') && !directory.contains('$') {
            let (path, directory) = (path.trim_end_matches('/'), directory.trim_end_matches('/'));
            let path = if path.is_empty() { "/" } else { path };
            found.push(Directive {
                name: SEND_FILE.to_owned(),
                words: vec![path.to_owned(), directory.to_owned()],
                block: None,
                line: one.line,
            });
        }
    }
    found
}

/// Whether something within sends nginx to a path.
fn mentions(one: &Directive, path: &str) -> bool {
    one.inner().iter().any(|inner| {
        let leads = matches!(
            inner.name.as_str(),
            "auth_request" | "error_page" | "try_files" | "rewrite" | "mirror" | "index"
        );
        leads && inner.words.iter().any(|word| word.starts_with(path)) || mentions(inner, path)
    })
}

/// The hosts of a server.
fn hosts(one: &Directive, sheet: &mut Sheet) -> Vec<String> {
    let mut hosts: Vec<String> = Vec::new();
    let mut is_named = false;
    for inner in one.inner().iter().filter(|inner| inner.name == "server_name") {
        is_named = true;
        for word in &inner.words {
            match word.as_str() {
                "_" | "" => hosts.push("*".to_owned()),
                word if word.starts_with('~') || word.ends_with(".*") => {
                    let what = format!("`server_name {word}`: write the names out");
                    sheet.leave(inner.line, &what);
                }
                word => match word.strip_prefix('.') {
                    Some(name) => hosts.extend([name.to_owned(), format!("*.{name}")]),
                    None => hosts.push(word.to_owned()),
                },
            }
        }
    }
    if !is_named {
        hosts.push("*".to_owned());
    }
    hosts
}

/// Where it listens; whether with TLS.
fn listen_all(one: &Directive, sheet: &mut Sheet) -> bool {
    let mut is_tls = false;
    for inner in one.inner().iter().filter(|inner| inner.name == "listen") {
        let with_tls = has(inner, "ssl");
        is_tls |= with_tls;
        let Some(address) = address(inner.word(0)) else {
            sheet.leave(inner.line, "`listen unix:`: visitors connect by TCP");
            continue;
        };
        if has(inner, "proxy_protocol") {
            sheet.gather("listen", "proxy_protocol", &address, inner.line);
        }
        sheet.gather("listen", if with_tls { "https" } else { "http" }, &address, inner.line);
    }
    is_tls
}

/// A server that not everybody could connect to, beside one that everybody can.
fn private(one: &Directive, inherited: &mut Vec<Directive>, sheet: &mut Sheet) {
    let addresses = listens(one);
    let guards = |one: &Directive| matches!(one.name.as_str(), "allow" | "deny");
    let is_told = |one: &Directive| one.name == "set_real_ip_from";
    let all = addresses.join(" ");
    if addresses.iter().any(|address| is_usual(address)) || addresses.is_empty() {
        return;
    }
    let is_local = addresses.iter().all(|address| is_loopback(address));
    // Where somebody on this machine speaks for others, who is here is not who asks.
    if is_local && !inherited.iter().any(|one| guards(one) || is_told(one)) {
        let guard = |name: &str, word: &str| Directive {
            name: name.to_owned(),
            words: vec![word.to_owned()],
            block: None,
            line: one.line,
        };
        inherited.extend(LOOPBACK.map(|network| guard("allow", network)));
        inherited.push(guard("deny", "all"));
        if !one.inner().iter().any(|inner| inner.inner().iter().any(guards)) {
            return;
        }
    }
    let what = format!(
        "`listen {all}`: each service answers on every address here; `allow` says who may come"
    );
    sheet.leave(one.line, &what);
}

/// Servers that are asked about requests, by the path of the location that leads to them.
fn askers(one: &Directive, names: &Names) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for location in one.inner().iter().filter(|inner| inner.name == "location") {
        let Some(path) = location.words.last().filter(|path| path.starts_with('/')) else {
            continue;
        };
        let pass = location.inner().iter().find(|inner| inner.name == "proxy_pass");
        let Some(rest) = pass.and_then(|pass| pass.word(0).strip_prefix("http://")) else {
            continue;
        };
        let (authority, target) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let authority = match names.upstreams.get(authority).map(Vec::as_slice) {
            Some([only]) => only.address.as_str(),
            _ => authority,
        };
        let with_port = match authority.rsplit_once(':') {
            Some(("localhost", port)) => format!("127.0.0.1:{port}"),
            Some((_, port)) if port.parse::<u16>().is_ok() => authority.to_owned(),
            _ if authority == "localhost" => "127.0.0.1:80".to_owned(),
            _ => format!("{authority}:80"),
        };
        let target = if target.is_empty() { path } else { target };
        if with_port.parse::<SocketAddr>().is_ok() && !target.contains('$') {
            found.insert(path.clone(), format!("http://{with_port}{target}"));
        }
    }
    found
}

fn certificate(one: &Directive, names: &Names, sheet: &mut Sheet) {
    let all = |name: &str| -> Vec<Directive> {
        one.inner().iter().filter(|inner| inner.name == name).cloned().collect()
    };
    for (cert, key) in all("ssl_certificate").iter().zip(all("ssl_certificate_key")) {
        sheet.certificate(cert.word(0), key.word(0));
    }
    let mode = all("ssl_verify_client").first().map(|inner| (inner.word(0).to_owned(), inner.line));
    let mode = match mode {
        // Of others none is asked for: its own services say that they need one.
        Some((word, line)) if word == "on" && names.some_verify => Some(("optional", line)),
        Some((word, line)) if word == "on" => Some(("required", line)),
        Some((word, line)) if word.starts_with("optional") => Some(("optional", line)),
        _ => None,
    };
    if let Some((mode, line)) = mode {
        sheet.set("tls", "client_auth", &quoted(mode), line);
        for (theirs, ours) in [("ssl_client_certificate", "client_ca"), ("ssl_crl", "client_crl")] {
            for inner in all(theirs) {
                sheet.set("tls", ours, &quoted(inner.word(0)), inner.line);
            }
        }
    }
}
