//! Every key of the file, once: its name, what it takes, its default, and what it is for.
//!
//! Unknown keys, defaults, variables, the JSON Schema, `config show` and the test of the commented
//! example all read this table; nothing else lists the keys. A default is written as it would stand
//! in the file, and is read by the same code as what a person writes.

mod tcp;
mod tls;

pub use tcp::TCP;
pub use tls::{ACME, CERTIFICATE, TLS};

use Shape::{
    Address, Choice, Duration, Integer, List, Map, Named, Number, Secret, Secrets, Size, Statuses,
    Table, Tables, Text, TextOrList,
};

/// A key.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub shape: Shape,
    /// Its default as TOML; empty when it has none.
    pub default: &'static str,
    /// What it is for, in one or two sentences.
    pub doc: &'static str,
}

/// What a key takes.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// Text.
    Text,
    /// Text that is never shown.
    Secret,
    /// A whole number from the first to the second.
    Integer(i64, i64),
    /// A number from 0 to this.
    Number(f64),
    /// `"30s"`, `"1h30m"`.
    Duration,
    /// `"512MiB"`, or bytes as a number.
    Size,
    /// `"127.0.0.1:9900"`, a list of such, or `"off"`.
    Address,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of texts.
    List,
    /// One text or a list of texts.
    TextOrList,
    /// `"5xx"`, `429`, or a list of such.
    Statuses,
    /// Names and texts.
    Map,
    /// Names and texts; the texts are never shown.
    Secrets,
    /// A table with these keys.
    Table(&'static [Key]),
    /// Tables with these keys under names of the user's choice.
    Named(&'static [Key]),
    /// A list of tables with these keys.
    Tables(&'static [Key]),
}

impl Shape {
    /// The keys of the table or tables, if it is one.
    #[must_use]
    pub fn keys(self) -> Option<&'static [Key]> {
        match self {
            Table(keys) | Named(keys) | Tables(keys) => Some(keys),
            _ => None,
        }
    }

    /// Whether its value must not be shown.
    #[must_use]
    pub fn is_secret(self) -> bool {
        matches!(self, Secret | Secrets)
    }

    /// Whether a variable can hold it: everything but tables.
    #[must_use]
    pub fn fits_a_variable(self) -> bool {
        self.keys().is_none() && !matches!(self, Map | Secrets)
    }
}

const fn key(name: &'static str, shape: Shape, default: &'static str, doc: &'static str) -> Key {
    Key { name, shape, default, doc }
}

/// The keys at the top of the file.
pub const TOP: &[Key] = &[
    key("listen", Table(LISTEN), "", "Where visitors connect, and what one of them may ask of us."),
    key("tls", Table(TLS), "", "Certificates. With them, `listen.https` is opened."),
    key(
        "acme",
        Table(ACME),
        "",
        "Certificates by themselves, from Let's Encrypt or another authority; `email` is enough.",
    ),
    key("admin", Table(ADMIN), "", "The operator's window: API, metrics, dashboard."),
    key("state", Table(STATE), "", "What must survive a restart."),
    key("runtime", Table(RUNTIME), "", "What launches instances."),
    key("log", Table(LOG), "", "What is logged, and how."),
    key(
        "service",
        Named(SERVICE),
        "",
        "The services, each under a name of 1 to 63 of a-z, 0-9 and '-'.",
    ),
    key(
        "tcp",
        Named(TCP),
        "",
        "Services that speak no HTTP: plain TCP, with the same split, drain and rollouts by connection.",
    ),
];

/// `[listen]`. The limits are those of the design's edge checklist, beside which the values of
/// nginx, HAProxy and Envoy stand.
pub const LISTEN: &[Key] = &[
    key(
        "http",
        Address,
        r#""0.0.0.0:80""#,
        "Address for cleartext HTTP/1.1 and HTTP/2, a list of them, or \"off\".",
    ),
    key(
        "https",
        Address,
        r#""0.0.0.0:443""#,
        "Address for TLS, a list of them, or \"off\". Opened only when there is a certificate.",
    ),
    key("workers", Integer(0, 1024), "0", "Threads of the data plane; 0 is one per core."),
    key(
        "trusted_proxies",
        TextOrList,
        "[]",
        "Networks whose X-Forwarded-* headers are believed; from others they are replaced.",
    ),
    key(
        "handshake_timeout",
        Duration,
        r#""10s""#,
        "From accepting a connection to the end of the TLS handshake.",
    ),
    key("header_timeout", Duration, r#""10s""#, "For the whole header of a request."),
    key("body_timeout", Duration, r#""30s""#, "Between two reads of a request's body."),
    key("write_timeout", Duration, r#""60s""#, "Without progress while a response is written."),
    key("keep_alive", Duration, r#""75s""#, "How long an idle connection is kept."),
    key(
        "keep_alive_requests",
        Integer(1, 1_000_000),
        "1000",
        "Requests on one connection before it is closed; ten times as many with HTTP/2.",
    ),
    key(
        "max_headers",
        Integer(1, 10_000),
        "100",
        "Header fields of one request; more are answered 431.",
    ),
    key(
        "max_header_size",
        Size,
        r#""32KiB""#,
        "Bytes of one request's header; more are answered 431.",
    ),
    key(
        "max_target",
        Size,
        r#""8KiB""#,
        "Bytes of a request's path and query; more are answered 414.",
    ),
    key("max_streams", Integer(1, 10_000), "100", "Requests at a time on one HTTP/2 connection."),
];

/// `[admin]`.
pub const ADMIN: &[Key] = &[
    key(
        "socket",
        Text,
        r#""/run/switchback/admin.sock""#,
        "Unix socket of the admin API, with mode 0660.",
    ),
    key(
        "listen",
        Address,
        r#""127.0.0.1:9900""#,
        "TCP address of the admin API, or \"off\". Beyond loopback it needs a token.",
    ),
    key("token", Secret, "", "Bearer token that TCP clients must send; at least 16 characters."),
];

/// `[state]`.
pub const STATE: &[Key] = &[key(
    "dir",
    Text,
    r#""/var/lib/switchback""#,
    "Directory for rollouts, revisions and their history.",
)];

/// `[runtime]`.
pub const RUNTIME: &[Key] = &[
    key(
        "docker",
        Text,
        r#""unix:///var/run/docker.sock""#,
        "The Docker Engine, unix:// or tcp://. DOCKER_HOST is honoured when this is not written.",
    ),
    key(
        "labels",
        Choice(&["off", "on"]),
        r#""off""#,
        "Whether containers that somebody else runs make services by their labels: switchback.host, .port, .path, .health, .steps, .bake, .abort, .service.",
    ),
];

/// `[log]`.
pub const LOG: &[Key] = &[
    key(
        "format",
        Choice(&["auto", "text", "json"]),
        r#""auto""#,
        "\"auto\" is text on a terminal and JSON otherwise.",
    ),
    key(
        "filter",
        Text,
        r#""info""#,
        "Levels, also per module: \"info,switchback::proxy=debug\". Also set by SWITCHBACK_LOG.",
    ),
];

/// `[service.NAME]`.
pub const SERVICE: &[Key] = &[
    key(
        "host",
        TextOrList,
        "",
        "Names that lead to this service: one, a list, \"*.example.com\", or \"*\".",
    ),
    key("path", TextOrList, r#""/""#, "Path prefix, or a list of them."),
    key(
        "image",
        Text,
        "",
        "Container image to run (runtime docker). `deploy NAME:TAG` replaces the tag.",
    ),
    key(
        "command",
        List,
        "",
        "Program and arguments to run (runtime process); {port} is replaced by a free port.",
    ),
    key("endpoints", TextOrList, "", "Addresses that somebody else runs (runtime static)."),
    key("port", Integer(1, 65_535), "", "Port on which an instance listens. Needed with `image`."),
    key("replicas", Integer(1, 1_000), "1", "Instances of each revision."),
    key("protocol", Choice(&["http1", "h2c"]), r#""http1""#, "What is spoken to instances."),
    key("env", Secrets, "", "Environment variables of an instance."),
    key(
        "env_file",
        TextOrList,
        "",
        "Files of NAME=value lines, relative to this file; `env` wins.",
    ),
    key("args", List, "[]", "Replaces the image's CMD."),
    key("volumes", List, "[]", "Volumes and bind mounts, \"source:/target[:ro]\"."),
    key(
        "networks",
        TextOrList,
        "[]",
        "Docker networks to join; instances are reached on the first. None is the default bridge.",
    ),
    key("memory", Size, "0", "Memory limit of an instance; 0 is none."),
    key("cpus", Number(1_024.0), "0", "CPU limit of an instance in cores; 0 is none."),
    key("pids", Integer(0, 4_194_304), "0", "Process limit of an instance; 0 is none."),
    key("user", Text, "", "User that an instance runs as, \"name\" or \"uid:gid\"."),
    key("labels", Map, "", "Labels of the containers."),
    key("probe", Table(PROBE), "", "How the health of an instance is asked."),
    key("steps", Text, r#""5% 25% 50% 100%""#, "The canary's weights, rising to 100%."),
    key(
        "bake",
        Duration,
        r#""30s""#,
        "The least time at a step; it ends when the evidence suffices.",
    ),
    key(
        "bake_max",
        Duration,
        r#""15m""#,
        "The most time at a step; then `on_inconclusive` decides.",
    ),
    key(
        "on_inconclusive",
        Choice(&["hold", "advance", "rollback"]),
        r#""hold""#,
        "What happens when `bake_max` is over and nothing is shown.",
    ),
    key(
        "abort",
        Text,
        r#""errors > 1% or p95 > 1.5x""#,
        "Limits beyond which the canary is taken back; x is times stable, over the same time.",
    ),
    key(
        "keep_warm",
        Duration,
        r#""10m""#,
        "How long the former revision stays up after promotion, for a rollback in an instant.",
    ),
    key(
        "drain",
        Duration,
        r#""30s""#,
        "How long requests in flight may finish before they are cut.",
    ),
    key(
        "launch_deadline",
        Duration,
        r#""2m""#,
        "How long launching all instances may take, pulling the image included.",
    ),
    key("stop_grace", Duration, r#""10s""#, "From asking an instance to stop to killing it."),
    key("connect_timeout", Duration, r#""2s""#, "For a connection to an instance."),
    key(
        "response_timeout",
        Duration,
        r#""60s""#,
        "From the end of a request to the header of its response.",
    ),
    key(
        "idle_timeout",
        Duration,
        r#""5m""#,
        "Without a byte in either direction, on bodies and tunnels.",
    ),
    key(
        "retries",
        Integer(0, 10),
        "1",
        "Further endpoints that a request may be tried on, when that is safe.",
    ),
    key(
        "affinity",
        Text,
        r#""none""#,
        "What keeps a user on one side: \"none\", \"cookie\", \"cookie:NAME\", \"header:NAME\" or \"client-address\".",
    ),
    key(
        "errors",
        Statuses,
        r#""5xx""#,
        "Statuses that count as errors: \"5xx\", 429, \"500-504\", or a list.",
    ),
    key(
        "client_certificate",
        Choice(&["any", "required"]),
        r#""any""#,
        "\"required\" refuses requests without a verified client certificate (403); needs `tls.client_auth`.",
    ),
    key(
        "tester_secret",
        Secret,
        "",
        "Lets who knows it choose a side (`switchback tester-cookie`); at least 16 characters.",
    ),
];

/// `[service.NAME.probe]`.
pub const PROBE: &[Key] = &[
    key(
        "kind",
        Choice(&["auto", "http", "tcp"]),
        r#""auto""#,
        "\"auto\" asks the image's HEALTHCHECK, else GET / for anything below 500; `path` makes it http.",
    ),
    key("path", Text, "", "Path and query of an http probe, which 200 to 299 answer."),
    key("host", Text, "", "Host header of an http probe; the instance's address otherwise."),
    key("interval", Duration, r#""1s""#, "From one probe to the next."),
    key("timeout", Duration, r#""1s""#, "For one probe."),
    key("rise", Integer(1, 100), "2", "Successes in a row that make an instance healthy."),
    key("fall", Integer(1, 100), "3", "Failures in a row that make it unhealthy."),
    key(
        "deadline",
        Duration,
        r#""1m""#,
        "How long the instances of a new revision have to become healthy.",
    ),
];

/// Finds a key by its path, `listen.http` or `service.web.probe.path`; names of services are taken
/// as they come.
#[must_use]
pub fn find(path: &str) -> Option<&'static Key> {
    let mut keys = TOP;
    let mut parts = path.split('.');
    loop {
        let name = parts.next()?;
        let key = keys.iter().find(|key| key.name == name)?;
        if let Named(_) = key.shape
            && parts.next().is_none()
        {
            return Some(key);
        }
        let rest = parts.clone().next().is_some();
        match key.shape.keys() {
            _ if !rest => return Some(key),
            Some(inner) => keys = inner,
            None => return None,
        }
    }
}

/// The nearest of some names to what was typed, if any is near enough to be meant.
#[must_use]
pub fn nearest<'a>(typed: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_ascii_lowercase().replace('-', "_");
    let likeness = |name: &str| {
        let name = name.to_ascii_lowercase();
        // 0.8 is the usual border at which `hosst` is near `host` and `foo` is near nothing; one
        // slip of the finger is near however short the name.
        let likeness = strsim::jaro_winkler(&typed, &name);
        let slip = name.len() > 2 && strsim::damerau_levenshtein(&typed, &name) == 1;
        if slip { likeness.max(0.9) } else { likeness }
    };
    names
        .map(|name| (likeness(name), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_by_path() {
        for path in
            ["listen.http", "service.web.bake", "service.web.probe.path", "tls", "service.web"]
        {
            assert!(find(path).is_some(), "{path}");
        }
        for path in ["listen.htp", "service.web.probe.path.x", "x", ""] {
            assert!(find(path).is_none(), "{path}");
        }
    }

    #[test]
    fn typos_have_a_nearest_key() {
        let near = |typed: &str| nearest(typed, SERVICE.iter().map(|key| key.name));
        for (typed, meant) in [
            ("hosst", "host"),
            ("bake-max", "bake_max"),
            ("Image", "image"),
            ("replica", "replicas"),
            ("environment", "env"),
            ("step", "steps"),
            ("on_inconclusiv", "on_inconclusive"),
        ] {
            assert_eq!(near(typed), Some(meant), "{typed}");
        }
        assert_eq!(near("xyzzy"), None);
    }
}
