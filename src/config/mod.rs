//! From text to meaning.
//!
//! ```text
//!  file ─┐                    ┌─ unknown keys
//!  vars ─┼─ raw (a tree) ─────┤                       ┌─ Config, whole
//!  flags ┘   with places      └─ reader, by the ──────┤
//!                                key table            └─ Problems, all of them
//! ```
//!
//! [`parse`] is pure: it is handed the text, the variables and a way to read further files, and
//! gives a [`Config`] that is valid in itself or everything that is wrong with it, never a half. It
//! opens no socket, loads no certificate and asks no engine; whoever uses a path finds out whether it
//! can be read. [`load`] is the one module here that touches files.

mod access_log;
mod affinity;
pub mod change;
mod container;
mod cross;
mod daemon;
mod document;
pub mod env_file;
mod exceptions;
mod exchange;
mod group;
mod hardening;
mod hooks;
pub mod image;
pub mod keeping;
pub mod keys;
pub mod labels;
mod listen_keys;
pub mod load;
mod mirror;
mod networks;
pub mod notify;
mod policy;
pub mod problem;
pub mod raw;
mod reader;
mod rollout_keys;
mod route;
pub mod scalar;
pub mod schema;
mod secrets;
mod service;
pub mod show;
mod source;
mod tcp;
pub mod tls;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use document::Document;
use http::HeaderName;

use crate::edge::addresses::AddressSet;
use crate::edge::rules::Spec;
use crate::model::id::ServiceName;
use crate::model::revision::{RevisionSpec, Source};
use crate::rollout::plan::Plan;
use crate::routing::settings::ServiceSettings;
use crate::routing::table::Route;

use crate::model::network::Network;
use keeping::{Build, Keeping};
use problem::Problems;
use reader::Report;
use tls::{Acme, Tls};

/// Everything that was configured. Valid in itself: routes do not collide, times make sense, every
/// service has one source.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where visitors connect.
    pub listen: Listen,
    /// Certificates; `None` when there can be none, and then `listen.https` is empty.
    pub tls: Option<Tls>,
    /// Certificates by themselves.
    pub acme: Option<Acme>,
    /// The operator's window.
    pub admin: Admin,
    /// Who is told what happens.
    pub notify: Vec<notify::Notify>,
    /// What must survive a restart.
    pub state: State,
    /// What launches instances.
    pub runtime: RuntimeSettings,
    /// What is logged.
    pub log: LogSettings,
    /// What is written about each request; `None` when nothing is.
    pub access_log: Option<AccessLog>,
    /// The services, in the order of the file.
    pub services: Vec<Service>,
    /// The file that this was read from, to be archived with a checkpoint.
    pub text: FileText,
}

/// What a configuration file says, letter for letter. Has secrets, and is not shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct FileText(pub Arc<str>);

impl std::fmt::Debug for FileText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileText({} bytes)", self.0.len())
    }
}

impl Config {
    /// A service by its name.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.services.iter().find(|service| service.name == *name)
    }
}

/// `[listen]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Addresses for cleartext; empty when off.
    pub http: Vec<SocketAddr>,
    /// Addresses for TLS; empty when off or without a certificate.
    pub https: Vec<SocketAddr>,
    /// Whether HTTP/3 is spoken beside TLS.
    pub http3: bool,
    /// Threads of the data plane; 0 is one per core.
    pub workers: usize,
    /// Whose `X-Forwarded-*` headers are believed.
    pub trusted_proxies: Vec<Network>,
    /// Which of their headers says who the client is.
    pub client_header: HeaderName,
    /// Where each connection begins with a PROXY protocol header.
    pub proxy_protocol: Announced,
    /// Whom the limit on connections of one address does not count.
    pub connections_exempt: AddressSet,
    /// What one visitor may ask of us.
    pub limits: Limits,
}

/// On which addresses each connection begins with a PROXY protocol header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announced {
    /// On all that we listen on.
    All,
    /// On these.
    On(Vec<SocketAddr>),
}

impl Announced {
    /// Whether on this one.
    #[must_use]
    pub fn is_on(&self, address: SocketAddr) -> bool {
        match self {
            Self::All => true,
            Self::On(addresses) => addresses.contains(&address),
        }
    }
}

/// What one visitor may ask of us. `None` is no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// From accepting a connection to the end of the TLS handshake.
    pub handshake_timeout: Duration,
    /// For the whole header of a request.
    pub header_timeout: Duration,
    /// Between two reads of a body.
    pub body_timeout: Duration,
    /// Without progress while a response is written.
    pub write_timeout: Duration,
    /// How long an idle connection is kept.
    pub keep_alive: Duration,
    /// Requests on one HTTP/1.1 connection; ten times as many with HTTP/2.
    pub keep_alive_requests: u32,
    /// Header fields of a request.
    pub max_headers: usize,
    /// Bytes of a request's header.
    pub max_header_size: usize,
    /// Bytes of a request's path and query.
    pub max_target: usize,
    /// Requests at a time on one HTTP/2 connection.
    pub max_streams: u32,
    /// Bytes of one header field.
    pub max_header_line: usize,
    /// Whether names of fields may have underscores.
    pub underscores: bool,
    /// Bytes per second that a body must have; 0 is any.
    pub body_rate: u64,
    /// Connections at a time.
    pub max_connections: usize,
    /// Connections at a time from one address; 0 is any number.
    pub max_connections_per_address: u32,
    /// Age at which a connection is asked to end.
    pub max_age: Duration,
    /// Bytes of memory that we may use; `None` is what there is.
    pub memory: Option<u64>,
    /// Bytes on disk for request bodies that are read in advance.
    pub buffer_disk: u64,
}

/// `[admin]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Admin {
    /// Path of the Unix socket.
    pub socket: PathBuf,
    /// TCP addresses; empty when off. When one is not loopback there is a token.
    pub listen: Vec<SocketAddr>,
    /// The token that TCP clients must send. Secret.
    pub token: Option<String>,
    /// Where people reach links from outside, without a slash at its end.
    pub public_url: Option<String>,
    /// How long a link can be used.
    pub link_expiry: Duration,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin")
            .field("socket", &self.socket)
            .field("listen", &self.listen)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("public_url", &self.public_url)
            .field("link_expiry", &self.link_expiry)
            .finish()
    }
}

/// `[state]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The state directory.
    pub dir: PathBuf,
    /// Where checkpoints are archived.
    pub checkpoints: PathBuf,
    /// Where secrets of instances lie while these run, apart from everything else; below `dir` when none.
    pub secrets: Option<PathBuf>,
    /// How long the audit log goes back.
    pub audit_keep: Duration,
}

/// `[runtime]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeSettings {
    /// The Docker Engine: `unix://` and a path, or `tcp://` and an address.
    pub docker: String,
    /// Whether labels of containers make services.
    pub labels: bool,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// How lines look.
    pub format: LogFormat,
    /// Levels, in the words of tracing's `EnvFilter`.
    pub filter: String,
}

/// `[access_log]`.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    /// The file; `None` is standard output.
    pub file: Option<PathBuf>,
    /// Whether in the combined format instead of JSON.
    pub combined: bool,
    /// The share of requests, above 0 and at most 1.
    pub sample: f64,
    /// Names of fields that are left out.
    pub hide: Vec<&'static str>,
    /// The size beyond which the file is rotated; 0 is never.
    pub rotate_size: u64,
    /// When it is rotated as well.
    pub rotate_every: RotateEvery,
    /// How many rotated files are kept.
    pub keep: usize,
}

/// When a file is rotated by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotateEvery {
    /// Not by time.
    Never,
    /// With the hour.
    Hour,
    /// With the day.
    Day,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One object per line.
    Json,
}

/// `[service.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// What leads to it; at least one, unless it speaks plain TCP.
    pub routes: Vec<Route>,
    /// Where it listens when it speaks plain TCP; else empty.
    pub listen: Vec<SocketAddr>,
    /// How its requests are treated.
    pub settings: ServiceSettings,
    /// What is done to them besides.
    pub policy: Spec,
    /// What a deploy starts from: the source as it stands in the file, and the run settings.
    pub template: RevisionSpec,
    /// How its rollouts are carried out.
    pub plan: Plan,
    /// What is kept of it.
    pub keeping: Keeping,
    /// How its image is made from source.
    pub build: Build,
    /// The group of services that it is deployed with.
    pub group: Option<ServiceName>,
}

impl Service {
    /// Whether it has no instances, because its routes answer everything.
    #[must_use]
    pub fn answers_alone(&self) -> bool {
        matches!(&self.template.source, Source::Endpoints(addresses) if addresses.is_empty())
    }
}

/// What [`parse`] works on.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// The path of the file as messages shall call it; relative paths within are resolved against
    /// its directory.
    pub name: &'a Path,
    /// What the file says.
    pub text: &'a str,
    /// The environment. `SWITCHBACK_*` comes before the file: the path of a key in capitals with
    /// `_` between its parts, such as `SWITCHBACK_LISTEN_HTTP` or `SWITCHBACK_SERVICE_WEB_STEPS`.
    pub variables: &'a BTreeMap<String, String>,
    /// `--set path.of.key=value`, which comes before the environment.
    pub flags: &'a [String],
    /// Reads a file that the configuration names (`env_file`); an error is one sentence.
    pub read: &'a dyn Fn(&Path) -> Result<String, String>,
}

/// A configuration and what was noticed on the way.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// The meaning.
    pub config: Config,
    /// What may not be meant.
    pub warnings: Problems,
    /// The tree it was read from, for `config show`.
    pub document: Document,
}

/// Reads a configuration. Gives all problems at once.
pub fn parse(input: &Input<'_>) -> Result<Parsed, Problems> {
    let report = Report::default();
    let document = document::assemble(input, &report);
    let config = document.as_ref().map(|document| meaning(document, input, &report));
    let mut problems = report.into_problems();
    problems.arrange();
    match (config, document) {
        (Some(config), Some(document)) if problems.errors() == 0 => {
            Ok(Parsed { config, warnings: problems, document })
        }
        _ => Err(problems),
    }
}

/// Reads the tree. The result is whole only if nothing was reported.
fn meaning(document: &Document, input: &Input<'_>, report: &Report) -> Config {
    let top = document.top(report);
    let base = input.name.parent().unwrap_or(Path::new(""));
    let mut config = daemon::read(&top, base, input.read);
    let context = policy::Context {
        base,
        file: input.read,
        https: !config.listen.https.is_empty(),
        proxied: !config.listen.trusted_proxies.is_empty(),
    };
    let read = service::read(document, context, report);
    cross::check(&config, &top, &read);
    config.notify = notify::read(document, base, input.read, report);
    config.text = FileText(input.text.into());
    config.services = read.into_iter().map(|read| read.service).collect();
    config
}

#[cfg(test)]
mod tests;
