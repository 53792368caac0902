//! What a revision is: an immutable image (or command, or addresses) with its run settings.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::hardening::Hardening;
use super::id::RevisionId;
use super::preamble::Preamble;
use super::secret::Secrets;

/// A revision: what to run, numbered within its service and never edited afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Its number.
    pub id: RevisionId,
    /// What to run.
    pub spec: RevisionSpec,
    /// Seconds since the Unix epoch at which it was first deployed.
    pub created: u64,
    /// The source that it was built from, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// The source that a revision was built from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// The commit, in full; none where the directory is no repository.
    pub commit: Option<String>,
    /// The branch, tag or commit that was asked for.
    pub reference: Option<String>,
    /// Where the repository is, without credentials.
    pub repository: Option<String>,
    /// Whether the work tree had changes that no commit holds.
    pub dirty: bool,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let commit = self
            .commit
            .as_deref()
            .map_or("no commit", |commit| commit.get(..COMMIT_SHOWN).unwrap_or(commit));
        f.write_str(commit)?;
        if let Some(reference) = self.reference.as_ref().filter(|name| !commit.starts_with(*name)) {
            write!(f, " of {reference}")?;
        }
        if self.dirty {
            f.write_str(", with changes that are not committed")?;
        }
        Ok(())
    }
}

/// The digits of a commit that people are shown: Git's own short form has 7 and grows.
pub const COMMIT_SHOWN: usize = 12;

/// Everything that is needed to launch instances of a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionSpec {
    /// Where instances come from.
    pub source: Source,
    /// How many instances.
    pub replicas: u32,
    /// The port on which an instance listens. Ignored for `Source::Endpoints`;
    /// 0 for `Source::Command`, where a free port is chosen for each instance.
    pub port: u16,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Where the secrets are that an instance finds in files.
    #[serde(default, skip_serializing_if = "Secrets::is_empty")]
    pub secrets: Secrets,
    /// HTTP/1.1 or HTTP/2 with prior knowledge towards the instance.
    pub protocol: UpstreamProtocol,
    /// What each connection to the instance begins with.
    #[serde(default, skip_serializing_if = "Preamble::is_none")]
    pub preamble: Preamble,
    /// How health is asked.
    pub probe: ProbeSpec,
    /// What an instance gets to stop by itself before it is killed.
    #[serde(with = "duration_millis")]
    pub stop_grace: Duration,
    /// Settings that only the `docker` runtime understands.
    #[serde(default)]
    pub container: ContainerSpec,
}

impl RevisionSpec {
    /// What is spoken to an instance.
    #[must_use]
    pub fn speech(&self) -> Speech {
        Speech { protocol: self.protocol, preamble: self.preamble }
    }

    /// How many instances there are: as many as addresses when those are given, else `replicas`.
    #[must_use]
    pub fn instances(&self) -> u32 {
        match &self.source {
            Source::Endpoints(addresses) => u32::try_from(addresses.len()).unwrap_or(u32::MAX),
            Source::Image(_) | Source::Command(_) => self.replicas.max(1),
        }
    }
}

/// Where the instances of a revision come from; decides the runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A container image reference (runtime `docker`).
    Image(String),
    /// A command line; `{port}` is replaced in every argument (runtime `process`).
    Command(Vec<String>),
    /// Addresses that somebody else runs (runtime `static`).
    Endpoints(Vec<SocketAddr>),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(image) => f.write_str(image),
            Self::Command(words) => f.write_str(&words.join(" ")),
            Self::Endpoints(addresses) => {
                let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                f.write_str(&texts.join(", "))
            }
        }
    }
}

/// What is spoken to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamProtocol {
    /// HTTP/1.1 over a pool of kept-alive connections.
    #[default]
    Http1,
    /// HTTP/2 with prior knowledge, in cleartext.
    H2c,
}

/// What is spoken to an instance, from a connection's first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Speech {
    /// The protocol.
    pub protocol: UpstreamProtocol,
    /// What comes before it.
    pub preamble: Preamble,
}

impl From<UpstreamProtocol> for Speech {
    fn from(protocol: UpstreamProtocol) -> Self {
        Self { protocol, preamble: Preamble::None }
    }
}

/// How the health of an instance is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeSpec {
    /// What is asked.
    pub kind: ProbeKind,
    /// From the start of one probe to the start of the next.
    #[serde(with = "duration_millis")]
    pub interval: Duration,
    /// How long one probe may take.
    #[serde(with = "duration_millis")]
    pub timeout: Duration,
    /// Successes in a row before an instance becomes healthy.
    pub rise: u32,
    /// Failures in a row before an instance becomes unhealthy.
    pub fall: u32,
    /// How long a new instance has to become healthy.
    #[serde(with = "duration_millis")]
    pub deadline: Duration,
}

/// What a probe asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeKind {
    /// `GET path`; any status of 200 to 299 is healthy. `host` is the Host header, else the address.
    Http {
        /// Path and query.
        path: String,
        /// Host header.
        host: Option<String>,
    },
    /// A TCP connection that is accepted.
    Tcp,
    /// The image's own HEALTHCHECK when it has one, else `GET /` on which any answer below 500 counts,
    /// which is what can be asked of an app nobody described.
    Auto,
}

/// What the Docker Engine is told beyond the image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// The image id (`sha256:…`) that the typed reference meant when the revision was prepared. What
    /// runs is this, so that a tag that moves later does not change a revision.
    pub image_id: Option<String>,
    /// The digest (`sha256:…`) under which the registry has the image; none for one that was made here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Whether the registry is asked for the tag even if the image is here.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pull_always: bool,
    /// Volumes that were restored: what the configuration calls a source, and the volume that stands
    /// in its place. Later revisions inherit this from stable.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub restored: BTreeMap<String, String>,
    /// What else a container was told that this was adopted from, in the Engine's words. Later revisions
    /// inherit this from stable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adopted: Option<serde_json::Value>,
    /// Replaces the image's CMD.
    pub args: Vec<String>,
    /// Bind mounts and volumes in Docker's words: `source:/target[:ro]`.
    pub volumes: Vec<String>,
    /// Networks to join; the first is the one on which instances are reached. Empty: `bridge`.
    pub networks: Vec<String>,
    /// Whether the service has a network of its own, which comes before these.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub own_network: bool,
    /// Labels beside our own.
    pub labels: BTreeMap<String, String>,
    /// Memory limit in bytes; 0 is unlimited.
    pub memory: u64,
    /// CPU limit in thousandths of a core; 0 is unlimited.
    pub cpu_millis: u64,
    /// Process limit; 0 is unlimited.
    pub pids: u64,
    /// User to run as, in Docker's words.
    pub user: Option<String>,
    /// What it may not do.
    pub hardening: Hardening,
}

/// Serialises a `Duration` as whole milliseconds.
pub mod duration_millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes whole milliseconds.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    /// Reads whole milliseconds.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Ok(Duration::from_millis(u64::deserialize(deserializer)?))
    }
}
