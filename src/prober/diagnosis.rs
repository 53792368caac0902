//! Why an instance is well or not, in one sentence that says what to change.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::model::instance::Exit;
use crate::model::revision::UpstreamProtocol;

/// What a probe, or whoever else knows, found out about an instance. Its display is one sentence
/// without a full stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Diagnosis {
    /// It accepts TCP connections.
    Accepts {
        /// Where.
        address: SocketAddr,
    },
    /// It answered.
    Answer {
        /// What was asked.
        path: String,
        /// Status code.
        status: u16,
        /// Where a redirect leads.
        location: Option<String>,
        /// The first line of the body that says anything.
        line: Option<String>,
    },
    /// Nothing listens there.
    Refused {
        /// Where.
        address: SocketAddr,
    },
    /// There is no way there.
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// In the kernel's words.
        reason: String,
    },
    /// The connection was neither accepted nor refused.
    ConnectTimedOut {
        /// Where.
        address: SocketAddr,
        /// The timeout.
        after: Duration,
    },
    /// The connection was accepted and then nothing came.
    AnswerTimedOut {
        /// What was asked.
        path: String,
        /// The timeout.
        after: Duration,
    },
    /// The connection was closed before an answer.
    Closed {
        /// What was asked.
        path: String,
    },
    /// What came is not the protocol that was spoken.
    NotHttp {
        /// What was spoken.
        protocol: UpstreamProtocol,
        /// What was wrong with the answer.
        reason: String,
    },
    /// The path or host to ask cannot be asked.
    Unaskable {
        /// Why.
        reason: String,
    },
    /// The engine's own health check.
    Engine {
        /// What it says.
        healthy: bool,
    },
    /// The instance ended.
    Ended(Exit),
}

impl Diagnosis {
    /// Whether the runtime, which can look into the instance, may know more.
    #[must_use]
    pub const fn wants_a_closer_look(&self) -> bool {
        matches!(
            self,
            Self::Refused { .. }
                | Self::Unreachable { .. }
                | Self::ConnectTimedOut { .. }
                | Self::Engine { healthy: false }
        )
    }
}

impl Diagnosis {
    /// Whether the app is up and fails, perhaps for something that it may not do: its output may say.
    #[must_use]
    pub const fn may_be_hindered(&self) -> bool {
        matches!(
            self,
            Self::Answer { status: 500.., .. } | Self::Closed { .. } | Self::AnswerTimedOut { .. }
        )
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepts { address } => write!(f, "{address} accepts connections"),
            Self::Answer { path, status, location: Some(location), .. }
                if (300..400).contains(status) =>
            {
                write!(
                    f,
                    "GET {path} answers {status} to {location}: probe a path that answers 200, or set probe.host"
                )
            }
            Self::Answer { path, status, line, .. } => {
                write!(f, "GET {path} answers {status}")?;
                if let Some(line) = line {
                    write!(f, " ({line})")?;
                }
                match status {
                    200..300 => Ok(()),
                    401 | 403 | 404 | 405 => {
                        f.write_str(": probe a path that answers 200 to anybody")
                    }
                    400 | 421 => f.write_str(": if the app wants a certain host, set probe.host"),
                    _ => Ok(()),
                }
            }
            Self::Refused { address } if address.ip().is_loopback() => {
                write!(f, "nothing listens on {address}; is the app up, and is that its port?")
            }
            Self::Refused { address } => write!(
                f,
                "nothing listens on {address}; does the app listen on 127.0.0.1 only? it must listen on 0.0.0.0"
            ),
            Self::Unreachable { address, reason } => {
                write!(f, "{address} cannot be reached: {reason}")
            }
            Self::ConnectTimedOut { address, after } => write!(
                f,
                "{address} did not accept a connection within {after:?}; is the network reachable from here, and the app alive?"
            ),
            Self::AnswerTimedOut { path, after } => write!(
                f,
                "GET {path} was not answered within {after:?}; the app accepted the connection and then hung"
            ),
            Self::Closed { path } => {
                write!(f, "GET {path} was not answered: the app closed the connection")
            }
            Self::NotHttp { protocol: UpstreamProtocol::Http1, reason } => write!(
                f,
                "what listens there does not speak HTTP/1.1 ({reason}): check the port, set protocol = \"h2c\" for gRPC, or probe with tcp"
            ),
            Self::NotHttp { protocol: UpstreamProtocol::H2c, reason } => write!(
                f,
                "what listens there does not speak HTTP/2 in cleartext ({reason}): check the port, or leave out protocol = \"h2c\""
            ),
            Self::Unaskable { reason } => write!(f, "the probe cannot be sent: {reason}"),
            Self::Engine { healthy: true } => f.write_str("the image's HEALTHCHECK passes"),
            Self::Engine { healthy: false } => f.write_str("the image's HEALTHCHECK fails"),
            Self::Ended(exit) => write!(f, "the instance {exit}"),
        }
    }
}
