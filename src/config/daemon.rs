//! Reads the tables of the daemon itself: listen, tls, admin, state, runtime, log.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use http::HeaderName;

use super::networks;
use super::policy::{Context, ReadFile};
use super::problem::Problem;
use super::raw::Value;
use super::reader::{Found, Section};
use super::{
    Admin, Announced, Config, FileText, Limits, Listen, LogFormat, LogSettings, RuntimeSettings,
    State,
};

/// The fewest characters of a secret: 16 of base64 are 96 bits, beyond any guessing over a network.
pub(super) const SECRET_LENGTH: usize = 16;

/// Reads everything but the services.
pub(super) fn read(top: &Section<'_>, base: &Path, file: ReadFile<'_>) -> Config {
    let (tls, acme) = super::tls::read(top, base);
    // Meant, though perhaps not well written: that is said already.
    let section = top.inner("tls");
    let meant = ["cert", "key", "certificate"].iter().any(|name| section.written(name).is_some())
        || top.written("acme").is_some();
    let context = Context { base, file, https: meant || tls.is_some(), proxied: false };
    let listen = read_listen(&top.inner("listen"), context);
    Config {
        listen,
        tls,
        acme,
        admin: read_admin(&top.inner("admin"), base),
        state: read_state(&top.inner("state"), base),
        runtime: RuntimeSettings {
            docker: read_docker(&top.inner("runtime")),
            labels: top.inner("runtime").choice("labels") == "on",
        },
        log: read_log(&top.inner("log")),
        access_log: super::access_log::read(&top.inner("access_log"), base),
        notify: Vec::new(),
        services: Vec::new(),
        text: FileText::default(),
    }
}

fn text(section: &Section<'_>, name: &str) -> String {
    section.text(name).map_or_else(String::new, |found| found.value)
}

fn path(section: &Section<'_>, name: &str, base: &Path) -> PathBuf {
    section.text(name).map_or_else(PathBuf::new, |found| found.path(base))
}

fn read_state(section: &Section<'_>, base: &Path) -> State {
    let dir = path(section, "dir", base);
    let named = section.text("checkpoints").map(|found| found.path(base));
    let checkpoints = named.unwrap_or_else(|| dir.join("checkpoints"));
    let secrets = section.text("secrets").map(|found| found.path(base));
    State { dir, checkpoints, secrets, audit_keep: section.time_limit("audit_keep") }
}

fn values<T>(found: Vec<Found<T>>) -> Vec<T> {
    found.into_iter().map(|found| found.value).collect()
}

fn read_listen(section: &Section<'_>, context: Context<'_>) -> Listen {
    let http = section.addresses("http");
    let mut https = section.addresses("https");
    if !context.https {
        let written = https.first().and_then(|found| found.place.clone());
        // Without [tls] there is nothing to complain about unless someone asked for it.
        if let Some(place) = written {
            section.report.add(
                Problem::error(place, "`https` is opened, but there is no certificate")
                    .label("this address cannot be served")
                    .help("add cert and key below [tls], or an [acme] table, or write https = \"off\""),
            );
        }
        https.clear();
    }
    let off = section.written("http").filter(|node| node.value == Value::Text("off".to_owned()));
    if let (true, Some(node)) = (https.is_empty(), off) {
        section.report.add(
            Problem::error(node.place.clone(), "nothing is listened on")
                .label("expected an address here, or in `https` with a certificate"),
        );
    }
    let count = |name: &str| section.integer(name).map_or(0, |found| found.value);
    // The bounds in the key table are below 2^32, so these cannot truncate.
    let limits = Limits {
        handshake_timeout: section.time_limit("handshake_timeout"),
        header_timeout: section.time_limit("header_timeout"),
        body_timeout: section.time_limit("body_timeout"),
        write_timeout: section.time_limit("write_timeout"),
        keep_alive: section.duration("keep_alive").value,
        keep_alive_requests: count("keep_alive_requests") as u32,
        max_headers: count("max_headers") as usize,
        max_header_size: bounded_size(section, "max_header_size", 1 << 10, 1 << 20),
        max_target: bounded_size(section, "max_target", 256, 64 << 10),
        max_streams: count("max_streams") as u32,
        max_header_line: bounded_size(section, "max_header_line", 256, 1 << 20),
        underscores: section.choice("header_underscores") == "keep",
        body_rate: count("body_rate"),
        max_connections: count("max_connections") as usize,
        max_connections_per_address: count("max_connections_per_address") as u32,
        max_age: section.time_limit("max_age"),
        memory: Some(section.size("memory").value).filter(|bytes| *bytes > 0),
        buffer_disk: section.size("buffer_disk").value,
    };
    let https = values(https);
    let proxy_protocol = read_announced(section);
    Listen {
        http: values(http),
        http3: read_http3(section, &https, &proxy_protocol),
        https,
        workers: count("workers") as usize,
        trusted_proxies: networks::list(section, "trusted_proxies", context),
        client_header: read_client_header(section),
        proxy_protocol,
        connections_exempt: networks::read(section, "connections_exempt", context),
        limits,
    }
}

/// Whether HTTP/3 is wanted, and can be had.
fn read_http3(section: &Section<'_>, https: &[SocketAddr], announced: &Announced) -> bool {
    if !section.switch("http3") {
        return false;
    }
    let Some(place) = section.place_of("http3") else { return false };
    if !cfg!(feature = "http3") {
        section.report.add(
            Problem::error(place, "this binary was built without HTTP/3")
                .label("it cannot be spoken")
                .help("build it with `cargo build --release --features http3`, or write http3 = false"),
        );
    } else if https.is_empty() {
        section.report.add(
            Problem::error(place, "HTTP/3 is spoken on the ports of `https`, which is off")
                .label("there is no port for it")
                .help("open `https` with a certificate, or write http3 = false"),
        );
    } else if https.iter().all(|address| announced.is_on(*address)) {
        section.report.add(
            Problem::error(place, "`proxy_protocol` is on all of `https`, and HTTP/3 has none")
                .label("nobody could speak it")
                .help("open an address of `https` without it, or write http3 = false"),
        );
    }
    true
}

fn read_client_header(section: &Section<'_>) -> HeaderName {
    let found = section.parsed("client_header", "a header", |text| {
        HeaderName::from_bytes(text.as_bytes())
            .map_err(|_| "expected a name such as \"CF-Connecting-IP\"".to_owned())
    });
    if let Some(place) = section.place_of("client_header")
        && section.written("trusted_proxies").is_none()
    {
        let title = "`client_header` has no effect without `trusted_proxies`";
        section.wrong("client_header", &place, title, "say whose header is believed");
    }
    found.map_or(HeaderName::from_static("x-forwarded-for"), |found| found.value)
}

fn read_announced(section: &Section<'_>) -> Announced {
    let is = |word: &str| {
        section
            .written("proxy_protocol")
            .is_none_or(|node| node.value == Value::Text(word.to_owned()))
    };
    if is("off") {
        return Announced::On(Vec::new());
    }
    if let (Some(place), None) =
        (section.place_of("proxy_protocol"), section.written("trusted_proxies"))
    {
        let title = "with `proxy_protocol` nobody could connect";
        let expected = "write `trusted_proxies`: only their PROXY protocol headers are taken";
        section.wrong("proxy_protocol", &place, title, expected);
    }
    if is("all") {
        return Announced::All;
    }
    let found = section.each("proxy_protocol", "an address", |value| match value {
        Value::Text(text) => super::scalar::address(text),
        _ => super::scalar::address(""),
    });
    Announced::On(values(found))
}

/// A size that is held in memory for each connection, within bounds that make sense.
fn bounded_size(section: &Section<'_>, name: &str, low: u64, high: u64) -> usize {
    let found = section.size(name);
    match found.place {
        Some(place) if !(low..=high).contains(&found.value) => {
            let expected = format!("expected {low} to {high} bytes");
            section.wrong(name, &place, format!("`{name}` is out of range"), &expected);
            0
        }
        _ => found.value as usize,
    }
}

fn read_admin(section: &Section<'_>, base: &Path) -> Admin {
    let listen = section.addresses("listen");
    let token = secret(section, "token");
    let open = listen.iter().find(|found| !is_loopback(found.value));
    if let (Some(open), None) = (open, section.written("token")) {
        let place = open.place.clone().unwrap_or_else(|| section.place.clone());
        section.report.add(
            Problem::error(place, "the admin API would be open to the network without a token")
                .label(format!("{} is not loopback", open.value))
                .help("add a token of at least 16 characters, best by SWITCHBACK_ADMIN_TOKEN, or listen on 127.0.0.1"),
        );
    }
    let public_url = section.parsed("public_url", "an address", |text| {
        match super::notify::is_url(text) && !text.contains(['?', '#']) {
            true => Ok(text.trim_end_matches('/').to_owned()),
            false => Err("expected for example \"https://ops.example.com\"".to_owned()),
        }
    });
    Admin {
        socket: path(section, "socket", base),
        listen: values(listen),
        token,
        public_url: public_url.map(|found| found.value),
        link_expiry: section.time_limit("link_expiry"),
    }
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Reads a secret: long enough, and of characters that travel in a header.
pub(super) fn secret(section: &Section<'_>, name: &str) -> Option<String> {
    let found = section.text(name)?;
    let fit = found.value.bytes().all(|byte| byte.is_ascii_graphic());
    if found.value.len() >= SECRET_LENGTH && fit {
        return Some(found.value);
    }
    let place = found.place.unwrap_or_else(|| section.place.clone());
    let expected =
        format!("expected at least {SECRET_LENGTH} letters, digits or signs, without spaces");
    section.wrong(
        name,
        &place,
        format!("`{name}` is too easy to guess or not plain text"),
        &expected,
    );
    None
}

fn read_docker(section: &Section<'_>) -> String {
    let found = section.parsed("docker", "the address of a Docker Engine", |text| {
        let known = ["unix:///", "tcp://", "http://"]
            .iter()
            .any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()));
        if known {
            Ok(text.to_owned())
        } else {
            Err("expected \"unix:///var/run/docker.sock\", or tcp:// and an address".to_owned())
        }
    });
    found.map_or_else(String::new, |found| found.value)
}

fn read_log(section: &Section<'_>) -> LogSettings {
    let format = match section.choice("format") {
        "json" => LogFormat::Json,
        "text" => LogFormat::Text,
        _ => LogFormat::Auto,
    };
    LogSettings { format, filter: text(section, "filter") }
}
