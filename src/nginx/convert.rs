//! From directives to tables: the daemon's own, upstreams, servers.

use std::collections::BTreeMap;

use super::answers::{Answer, Taker};
use super::passes::{self, Pass};
use super::routes::place_all;
use super::server;
use super::sheet::{Sheet, quoted};
use super::syntax::Directive;

/// Directives that need nothing here: we do it by ourselves, or have nothing that it could be about.
const SILENT: [&str; 79] = [
    "brotli_types",
    "brotli_comp_level",
    "brotli_static",
    "brotli_min_length",
    "zstd_types",
    "zstd_comp_level",
    "log_not_found",
    "limit_conn_log_level",
    "autoindex",
    "user",
    "pid",
    "events",
    "worker_rlimit_nofile",
    "error_log",
    "load_module",
    "pcre_jit",
    "types",
    "default_type",
    "sendfile",
    "tcp_nopush",
    "tcp_nodelay",
    "server_tokens",
    "log_format",
    "charset",
    "types_hash_max_size",
    "types_hash_bucket_size",
    "server_names_hash_bucket_size",
    "keepalive",
    "server_names_hash_max_size",
    "map_hash_bucket_size",
    "variables_hash_max_size",
    "zone",
    "resolver",
    "ssl_ciphers",
    "ssl_prefer_server_ciphers",
    "ssl_session_cache",
    "ssl_session_timeout",
    "ssl_session_tickets",
    "ssl_dhparam",
    "ssl_ecdh_curve",
    "ssl_stapling",
    "ssl_stapling_verify",
    "ssl_trusted_certificate",
    "ssl_buffer_size",
    "http2",
    "http2_push_preload",
    "proxy_http_version",
    "proxy_buffering",
    "proxy_request_buffering",
    "proxy_buffers",
    "proxy_buffer_size",
    "proxy_busy_buffers_size",
    "proxy_max_temp_file_size",
    "proxy_redirect",
    "proxy_send_timeout",
    "proxy_next_upstream",
    "proxy_next_upstream_timeout",
    "proxy_socket_keepalive",
    "proxy_headers_hash_max_size",
    "proxy_headers_hash_bucket_size",
    "gzip_vary",
    "gzip_proxied",
    "gzip_comp_level",
    "gzip_buffers",
    "gzip_http_version",
    "gzip_disable",
    "gzip_static",
    "real_ip_recursive",
    "open_file_cache",
    "client_body_buffer_size",
    "client_header_buffer_size",
    "reset_timedout_connection",
    "least_conn",
    "keepalive_time",
    "limit_req_status",
    "limit_conn_status",
    "limit_req_log_level",
    "proxy_pass_header",
    "client_body_temp_path",
];

/// A server of an upstream.
#[derive(Debug, Clone)]
pub struct Server {
    pub address: String,
    pub weight: u32,
    pub line: usize,
}

/// What names stand for.
#[derive(Debug, Default)]
pub struct Names {
    /// Upstreams.
    pub upstreams: BTreeMap<String, Vec<Server>>,
    /// By variable: what it splits by, and its parts with their percentages; 0 is the rest.
    pub splits: BTreeMap<String, (String, Vec<(f64, String)>)>,
    /// Rates by zone: what they are counted by, and how many.
    pub rates: BTreeMap<String, (String, String)>,
    /// What connections are counted by, by zone.
    pub counts: BTreeMap<String, String>,
    /// What is passed on to instances.
    pub passes: Vec<Pass>,
    /// Whether clients must show certificates to some of the servers with TLS only.
    pub some_verify: bool,
    /// Whether some servers listen on the usual ports, for everybody.
    pub is_public: bool,
    /// What is answered.
    pub answers: Vec<Answer>,
    /// Services that have instances.
    pub takers: Vec<Taker>,
    /// Names of services that are taken.
    taken: BTreeMap<String, String>,
}

impl Names {
    /// The name of a service: what is wished, or that with a number when another one has it.
    pub fn service(&mut self, wished: &str, key: &str) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let text: String = wished.chars().map(plain).collect();
        let parts: Vec<&str> = text.split('-').filter(|part| !part.is_empty()).collect();
        let base: String = if parts.is_empty() { "web".to_owned() } else { parts.join("-") };
        let base: String = base.chars().take(55).collect();
        let base = base.trim_end_matches('-');
        let mut name = base.to_owned();
        for number in 2.. {
            match self.taken.get(&name) {
                None => {
                    self.taken.insert(name.clone(), key.to_owned());
                    break;
                }
                Some(owner) if owner == key => break,
                Some(_) => name = format!("{base}-{number}"),
            }
        }
        name
    }
}

/// Converts a file: the main one, or one of a site.
pub fn all(directives: &[Directive], sheet: &mut Sheet) {
    let mut names = Names::default();
    learn(directives, &mut names, sheet);
    server::survey(directives, &mut names);
    level(directives, &mut names, sheet, false);
    passes::all(&mut names, sheet);
    place_all(&mut names, sheet);
    if sheet.gathers("listen", "proxy_protocol") && !sheet.gathers("listen", "trusted_proxies") {
        sheet.gather("listen", "trusted_proxies", "private", 0);
        let what = "`proxy_protocol`: who may send it is said by `trusted_proxies`; \"private\" is written";
        sheet.leave(0, what);
    }
}

/// Learns what names stand for, wherever they are defined.
fn learn(directives: &[Directive], names: &mut Names, sheet: &mut Sheet) {
    for one in directives {
        match one.name.as_str() {
            "http" | "stream" => learn(one.inner(), names, sheet),
            "upstream" => {
                let servers = one.inner().iter().filter(|inner| inner.name == "server");
                let servers = servers.map(|inner| server(inner, sheet)).collect();
                names.upstreams.insert(one.word(0).to_owned(), servers);
            }
            "split_clients" => {
                let part = |inner: &Directive| {
                    let share = inner.name.trim_end_matches('%').parse().unwrap_or(0.0);
                    (share, inner.word(0).to_owned())
                };
                let parts = one.inner().iter().map(part).collect();
                let split = (one.word(0).to_owned(), parts);
                names.splits.insert(one.word(1).to_owned(), split);
            }
            "limit_req_zone" => {
                let zone = named(one, "zone=").split(':').next().unwrap_or("").to_owned();
                names.rates.insert(zone, (one.word(0).to_owned(), named(one, "rate=").to_owned()));
            }
            "limit_conn_zone" => {
                let zone = named(one, "zone=").split(':').next().unwrap_or("").to_owned();
                names.counts.insert(zone, one.word(0).to_owned());
            }
            _ => {}
        }
    }
}

/// The word that begins with this, without it.
pub fn named<'a>(directive: &'a Directive, begins: &str) -> &'a str {
    directive.words.iter().find_map(|word| word.strip_prefix(begins)).unwrap_or("")
}

fn server(directive: &Directive, sheet: &mut Sheet) -> Server {
    let line = directive.line;
    for word in directive.words.iter().skip(1) {
        let known = ["weight=", "max_fails=", "fail_timeout=", "max_conns="];
        if !known.iter().any(|begins| word.starts_with(begins)) {
            sheet.leave(
                line,
                &format!("`{word}` of a server: instances are probed, and all are used"),
            );
        }
    }
    let weight = named(directive, "weight=").parse().unwrap_or(1);
    Server { address: directive.word(0).to_owned(), weight, line }
}

fn level(directives: &[Directive], names: &mut Names, sheet: &mut Sheet, in_stream: bool) {
    // What stands beside the servers holds for all of them.
    let is_server = |one: &&Directive| one.name == "server";
    let beside: Vec<Directive> = directives.iter().filter(|one| !is_server(one)).cloned().collect();
    for one in directives {
        match one.name.as_str() {
            "http" => level(one.inner(), names, sheet, false),
            "stream" => level(one.inner(), names, sheet, true),
            "server" if in_stream => stream(one, names, sheet),
            "server" => server::http(one, &beside, names, sheet),
            "upstream" | "split_clients" | "limit_req_zone" | "limit_conn_zone" => {}
            // What is none of the daemon's is inherited by the servers.
            _ => {
                daemon(one, sheet);
            }
        }
    }
}

/// A duration as ours are written.
pub fn duration(text: &str) -> String {
    let text = text.trim();
    if text.ends_with(|c: char| c.is_ascii_digit()) { format!("{text}s") } else { text.to_owned() }
}

/// A size as ours are written.
pub fn size(text: &str) -> String {
    let lower = text.trim().to_ascii_lowercase();
    for (letter, unit) in [('k', "KiB"), ('m', "MiB"), ('g', "GiB")] {
        if let Some(number) = lower.strip_suffix(letter) {
            return quoted(&format!("{number}{unit}"));
        }
    }
    lower
}

/// What concerns the daemon as a whole, wherever it stands.
pub fn daemon(one: &Directive, sheet: &mut Sheet) -> bool {
    let line = one.line;
    let mut set = |header: &str, name: &str, value: &str| sheet.set(header, name, value, line);
    match one.name.as_str() {
        "worker_processes" => {
            let workers = one.word(0).parse::<u32>().unwrap_or(0);
            set("listen", "workers", &workers.to_string());
        }
        "keepalive_timeout" => set("listen", "keep_alive", &quoted(&duration(one.word(0)))),
        "keepalive_requests" => set("listen", "keep_alive_requests", one.word(0)),
        "client_header_timeout" => set("listen", "header_timeout", &quoted(&duration(one.word(0)))),
        "client_body_timeout" => set("listen", "body_timeout", &quoted(&duration(one.word(0)))),
        "send_timeout" => set("listen", "write_timeout", &quoted(&duration(one.word(0)))),
        "large_client_header_buffers" => set("listen", "max_target", &size(one.word(1))),
        "http2_max_concurrent_streams" => set("listen", "max_streams", one.word(0)),
        "set_real_ip_from" => {
            sheet.gather("listen", "trusted_proxies", one.word(0), line);
        }
        // The address of the PROXY protocol is taken wherever that is spoken.
        "real_ip_header" if one.word(0).eq_ignore_ascii_case("proxy_protocol") => {}
        "real_ip_header" if one.word(0).eq_ignore_ascii_case("x-forwarded-for") => {}
        "real_ip_header" => set("listen", "client_header", &quoted(one.word(0))),
        "access_log" => match one.word(0) {
            "off" => {}
            path => {
                set("access_log", "to", &quoted(path));
                set("access_log", "format", &quoted("combined"));
            }
        },
        "ssl_protocols" => {
            let old = one.words.iter().any(|word| word == "TLSv1.2");
            set("tls", "min_version", &quoted(if old { "1.2" } else { "1.3" }));
        }
        "include" => {
            let what = format!("`include {}`: import that file too", one.word(0));
            if !one.word(0).ends_with("mime.types")
                && !one.word(0).ends_with("modules-enabled/*.conf")
                && !one.word(0).ends_with("options-ssl-nginx.conf")
                && !one.word(0).ends_with("fastcgi_params")
                && !one.word(0).ends_with("snippets/fastcgi-php.conf")
            {
                sheet.leave(line, &what);
            }
        }
        "worker_connections" | "multi_accept" | "use" => {}
        "map" if one.word(0) == "$http_upgrade" => {}
        name if SILENT.contains(&name) => {}
        _ => return false,
    }
    true
}

/// A server of `stream {}`.
fn stream(one: &Directive, names: &mut Names, sheet: &mut Sheet) {
    let find = |name: &str| one.inner().iter().find(|inner| inner.name == name);
    let Some(pass) = find("proxy_pass") else {
        sheet.leave(one.line, "this server of `stream` passes nothing on");
        return;
    };
    let name = names.service(pass.word(0), &format!("tcp {} {}", one.line, pass.word(0)));
    let header = format!("tcp.{name}");
    for inner in one.inner() {
        let time = || quoted(&duration(inner.word(0)));
        match inner.name.as_str() {
            "listen" => {
                let text = inner.word(0);
                let address =
                    if text.contains(':') { text.to_owned() } else { format!("0.0.0.0:{text}") };
                if inner.words.iter().any(|word| word == "udp") {
                    sheet.leave(inner.line, "`udp`: only TCP is forwarded");
                    return;
                }
                if inner.words.iter().any(|word| word == "proxy_protocol") {
                    sheet.gather("listen", "proxy_protocol", &address, inner.line);
                }
                sheet.gather(&header, "listen", &address, inner.line);
            }
            "proxy_pass" => super::location::endpoints(&header, inner, pass.word(0), names, sheet),
            "proxy_protocol" => {
                if inner.word(0) == "on" {
                    sheet.set(&header, "proxy_protocol", "\"v1\"", inner.line);
                }
            }
            "set_real_ip_from" => {
                sheet.gather("listen", "trusted_proxies", inner.word(0), inner.line);
            }
            "proxy_connect_timeout" => sheet.set(&header, "connect_timeout", &time(), inner.line),
            "proxy_timeout" => sheet.set(&header, "idle_timeout", &time(), inner.line),
            "allow" | "deny" => sheet.gather(&header, &inner.name, inner.word(0), inner.line),
            name if SILENT.contains(&name) => {}
            name => sheet.leave(inner.line, &format!("`{name}` of `stream`")),
        }
    }
}
