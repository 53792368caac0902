//! The line to the Docker Engine: finds it, agrees on a version of its API, gives every call a
//! deadline, and turns what goes wrong into one sentence with the cure.
//!
//! Knows nothing of containers. Invariants: no request is sent without a version the engine speaks
//! (but the question for its version); no call outlives its deadline; after a broken or hung call
//! the version is asked for again, since the engine that comes back may be another one.

use std::error::Error as _;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker};
use http::Uri;
use http::uri::PathAndQuery;
use tokio::time::timeout;

use crate::runtime::RuntimeError;

/// What any question that the engine answers from memory may take. It takes milliseconds; seconds
/// mean that it hangs.
pub const ANSWER: Duration = Duration::from_secs(10);

/// The newest API version whose words we know: that of the models we are built with.
const NEWEST: Version = Version(1, 53);

/// The oldest API version that is tested: Docker 20.10, of December 2020.
const OLDEST: Version = Version(1, 41);

/// Deadlines are ours, per call; the client's own only has to be longer than all of them.
const NEVER_SECONDS: u64 = 24 * 60 * 60;

/// A version of the Engine API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Where the engine listens, in the words of `DOCKER_HOST`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// `unix://` and the path of a socket.
    Unix(String),
    /// `tcp://` or `http://` and host:port, without TLS.
    Tcp(String),
}

impl Host {
    /// Parses it; the error is one sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let known = match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Some(Self::Unix(path.to_owned())),
            Some(("tcp" | "http", address)) => {
                let address = address.trim_end_matches('/');
                (!address.is_empty()).then(|| match address.rsplit_once(':') {
                    Some((_, port)) if port.parse::<u16>().is_ok() => Self::Tcp(address.to_owned()),
                    // The port of the Engine without TLS (IANA: docker).
                    _ => Self::Tcp(format!("{address}:2375")),
                })
            }
            None if text.starts_with('/') => Some(Self::Unix(text.to_owned())),
            _ => None,
        };
        known.ok_or_else(|| {
            format!(
                "{text:?} is not a Docker host: use unix:///path/to/docker.sock or tcp://HOST:PORT"
            )
        })
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => f.write_str(path),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// What went wrong with a call.
#[derive(Debug)]
pub enum Trouble {
    /// The engine answered, and refused.
    Refused {
        /// HTTP status.
        status: u16,
        /// In the engine's words.
        message: String,
    },
    /// Anything else.
    Other(RuntimeError),
}

impl From<Trouble> for RuntimeError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Refused { message, .. } => {
                Self::Failed(format!("the Docker Engine refuses: {}", message.trim()))
            }
            Trouble::Other(error) => error,
        }
    }
}

/// The line to one engine.
#[derive(Debug)]
pub struct Client {
    host: Host,
    agreed: Mutex<Option<Docker>>,
}

impl Client {
    /// A client that has not yet spoken to its engine.
    pub const fn new(host: Host) -> Self {
        Self { host, agreed: Mutex::new(None) }
    }

    /// Where the engine listens.
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// Makes a call within a deadline. `what` completes "while …".
    ///
    /// Cancel safety: dropped midway, the engine may still do what it was asked.
    pub async fn call<T, F>(
        &self,
        what: &str,
        deadline: Duration,
        call: impl FnOnce(Docker) -> F,
    ) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, bollard::errors::Error>>,
    {
        let docker = self.engine().await.map_err(Trouble::Other)?;
        let trouble = match timeout(deadline, call(docker)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => self.explain(error),
            Err(_) => Trouble::Other(self.hung(what, deadline)),
        };
        if is_about_the_line(&trouble) {
            *self.agreed.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        Err(trouble)
    }

    /// The engine, with the version agreed.
    ///
    /// Cancel safety: may be dropped at any time.
    pub async fn engine(&self) -> Result<Docker, RuntimeError> {
        // A panic elsewhere leaves a whole value or none.
        let agreed = self.agreed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(docker) = agreed {
            return Ok(docker);
        }
        let docker = self.connect(None)?;
        let said = match timeout(ANSWER, docker.version()).await {
            Ok(Ok(said)) => said,
            Ok(Err(error)) => return Err(self.explain(error).into()),
            Err(_) => return Err(self.hung("asking for its version", ANSWER)),
        };
        let read = |text: Option<String>| text.as_deref().and_then(Version::parse);
        let version = agree(read(said.api_version), read(said.min_api_version))
            .map_err(RuntimeError::Failed)?;
        tracing::debug!(host = %self.host, %version, "agreed with the Docker Engine");
        let docker = self.connect(Some(version))?;
        *self.agreed.lock().unwrap_or_else(PoisonError::into_inner) = Some(docker.clone());
        Ok(docker)
    }

    fn connect(&self, version: Option<Version>) -> Result<Docker, RuntimeError> {
        let connected = match &self.host {
            Host::Unix(path) => Docker::connect_with_unix(path, NEVER_SECONDS, API_DEFAULT_VERSION),
            Host::Tcp(address) => Docker::connect_with_http(
                &format!("tcp://{address}"),
                NEVER_SECONDS,
                API_DEFAULT_VERSION,
            ),
        };
        let docker = connected.map_err(|error| RuntimeError::from(self.explain(error)))?;
        let Some(version) = version else { return Ok(docker) };
        // bollard 0.21 builds the version into the path and then loses it; unversioned requests are
        // deprecated and get whatever the engine's newest is.
        Ok(docker.with_request_modifier(move |request| {
            let (mut parts, body) = request.into_parts();
            parts.uri = versioned(&parts.uri, version);
            http::Request::from_parts(parts, body)
        }))
    }

    fn hung(&self, what: &str, deadline: Duration) -> RuntimeError {
        RuntimeError::Unreachable(format!(
            "the Docker Engine at {} did not answer within {deadline:?} while {what}: it hangs; look at its log (journalctl -u docker) and restart it",
            self.host
        ))
    }

    /// Says what went wrong.
    pub fn explain(&self, error: bollard::errors::Error) -> Trouble {
        use bollard::errors::Error;
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                Trouble::Refused { status: status_code, message }
            }
            Error::SocketNotFoundError(_) => self.unreachable(&io::ErrorKind::NotFound.into()),
            Error::DockerStreamError { error } => Trouble::Other(RuntimeError::Failed(error)),
            error @ (Error::JsonDataError { .. } | Error::JsonSerdeError { .. }) => {
                Trouble::Other(RuntimeError::Failed(format!(
                    "the Docker Engine at {} answered what Switchback does not understand ({error}): is it a Docker Engine?",
                    self.host
                )))
            }
            error => {
                if let Error::IOError { err } = &error {
                    return self.unreachable(err);
                }
                let mut cause = error.source();
                while let Some(inner) = cause {
                    if let Some(io) = inner.downcast_ref::<io::Error>() {
                        return self.unreachable(io);
                    }
                    cause = inner.source();
                }
                Trouble::Other(RuntimeError::Unreachable(format!(
                    "the connection to the Docker Engine at {} broke: {error}",
                    self.host
                )))
            }
        }
    }

    fn unreachable(&self, error: &io::Error) -> Trouble {
        let host = &self.host;
        let sentence = match (error.kind(), host) {
            (io::ErrorKind::NotFound, _) => format!(
                "there is no Docker socket at {host}: start Docker, or set [runtime] docker (or DOCKER_HOST) to where it listens"
            ),
            (io::ErrorKind::ConnectionRefused, Host::Unix(_)) => format!(
                "nothing listens on the Docker socket {host}: start Docker (systemctl start docker)"
            ),
            (io::ErrorKind::ConnectionRefused, Host::Tcp(_)) => format!(
                "nothing listens on {host}: start Docker there, or set [runtime] docker (or DOCKER_HOST) to where it listens"
            ),
            (io::ErrorKind::PermissionDenied, _) => format!(
                "no permission to use the Docker socket {host}: run Switchback as a member of the group docker (usermod -aG docker USER), or as root"
            ),
            _ => format!("the connection to the Docker Engine at {host} broke: {error}"),
        };
        Trouble::Other(RuntimeError::Unreachable(sentence))
    }
}

/// Whether the next call should begin anew.
fn is_about_the_line(trouble: &Trouble) -> bool {
    match trouble {
        Trouble::Refused { status, message } => {
            *status == 400 && message.contains("client version")
        }
        Trouble::Other(RuntimeError::Unreachable(_)) => true,
        Trouble::Other(_) => false,
    }
}

/// The version to speak with an engine that speaks `least` to `most`.
fn agree(most: Option<Version>, least: Option<Version>) -> Result<Version, String> {
    let Some(most) = most else {
        return Err("what answers is not a Docker Engine: it names no API version".to_owned());
    };
    if let Some(least) = least.filter(|least| *least > NEWEST) {
        return Err(format!(
            "the Docker Engine speaks API {least} and newer, this Switchback {NEWEST} at most: upgrade Switchback"
        ));
    }
    if most < OLDEST {
        return Err(format!(
            "the Docker Engine speaks API {most} at most, Switchback needs {OLDEST}: upgrade Docker to 20.10 or newer"
        ));
    }
    Ok(most.min(NEWEST))
}

/// The same URI, with the version before its path unless there is one.
fn versioned(uri: &Uri, version: Version) -> Uri {
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let digit = path.strip_prefix("/v").and_then(|rest| rest.chars().next());
    if digit.is_some_and(|first| first.is_ascii_digit()) {
        return uri.clone();
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = format!("/v{version}{path}").parse().ok();
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_written_as_docker_writes_them() {
        let unix = |path: &str| Ok(Host::Unix(path.to_owned()));
        assert_eq!(Host::parse("unix:///var/run/docker.sock"), unix("/var/run/docker.sock"));
        assert_eq!(Host::parse("/run/podman.sock"), unix("/run/podman.sock"));
        assert_eq!(Host::parse("tcp://10.0.0.5:2376"), Ok(Host::Tcp("10.0.0.5:2376".to_owned())));
        assert_eq!(Host::parse("http://proxy/"), Ok(Host::Tcp("proxy:2375".to_owned())));
        for bad in ["", "ssh://me@host", "unix://relative", "docker", "tcp://"] {
            assert!(Host::parse(bad).unwrap_err().contains("is not a Docker host"), "{bad}");
        }
    }

    #[test]
    fn versions_are_agreed_or_refused_with_the_cure() {
        let v = Version::parse;
        assert_eq!(agree(v("1.41"), v("1.12")), Ok(Version(1, 41)));
        assert_eq!(agree(v("1.60"), v("1.44")), Ok(NEWEST));
        assert_eq!(agree(v("1.47"), None), Ok(Version(1, 47)));
        assert!(agree(v("1.99"), v("1.60")).unwrap_err().contains("upgrade Switchback"));
        assert!(agree(v("1.39"), v("1.12")).unwrap_err().contains("upgrade Docker"));
        assert!(agree(None, None).unwrap_err().contains("not a Docker Engine"));
    }

    #[test]
    fn requests_carry_the_version_once() {
        let uri: Uri = "unix://2f72/containers/json?all=true".parse().unwrap();
        let once = versioned(&uri, Version(1, 41));
        assert_eq!(once.to_string(), "unix://2f72/v1.41/containers/json?all=true");
        assert_eq!(versioned(&once, Version(1, 41)), once);
        let volumes: Uri = "unix://2f72/volumes".parse().unwrap();
        assert_eq!(versioned(&volumes, Version(1, 41)).path(), "/v1.41/volumes");
    }
}
