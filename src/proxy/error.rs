//! What goes wrong on a request's way, whose fault it is, and what the client is told.
//!
//! Only an upstream's fault counts against a revision. A client that hangs up is nobody's error.

use http::StatusCode;

use super::check::status;
use super::downstream::upload::UploadError;
use super::upstream::Broken;
use crate::telemetry::traffic::Reason;

/// Whose failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The client's.
    Downstream,
    /// The instance's: the only one that counts against a side.
    Upstream,
    /// Ours, or the operator's.
    Proxy,
}

/// Why a request got no answer from an instance.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nothing could be claimed.
    #[error("no instance is available")]
    Unavailable,
    /// No connection could be made.
    #[error("cannot connect to the instance: {0}")]
    Connect(std::io::Error),
    /// No connection was made in time.
    #[error("the instance did not accept a connection in time")]
    ConnectTimeout,
    /// The connection broke, or what came was not HTTP.
    #[error("the instance broke the connection: {0}")]
    Broken(Broken),
    /// It answered with a change of protocol that nobody asked for.
    #[error("the instance changed the protocol without being asked")]
    Unasked,
    /// No response headers in time.
    #[error("the instance did not answer in time")]
    Timeout,
    /// The client broke off its request body.
    #[error("the client broke off its request")]
    Upload,
    /// The client's request body is not one, or too large.
    #[error("the client's request body is refused: {}", .0.label())]
    UploadRefused(Reason),
    /// The client's request body did not go on in time.
    #[error("the client's request body stalled")]
    UploadStall,
    /// The drain deadline of the instance passed.
    #[error("the instance was drained, and its time is up")]
    Cut,
}

impl Failure {
    /// Whose failure it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unavailable
            | Self::Connect(_)
            | Self::ConnectTimeout
            | Self::Broken(_)
            | Self::Unasked
            | Self::Timeout => Fault::Upstream,
            Self::Upload | Self::UploadRefused(_) | Self::UploadStall => Fault::Downstream,
            Self::Cut => Fault::Proxy,
        }
    }

    /// Whether it came soon enough to try another endpoint: who waited for a deadline has waited long
    /// enough.
    pub fn is_quick(&self) -> bool {
        !matches!(self, Self::Timeout)
    }

    /// What the client is told.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Connect(_) | Self::Broken(_) | Self::Unasked | Self::Cut => {
                StatusCode::BAD_GATEWAY
            }
            Self::ConnectTimeout | Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Upload => StatusCode::BAD_REQUEST,
            Self::UploadRefused(reason) => status(*reason),
            Self::UploadStall => StatusCode::REQUEST_TIMEOUT,
        }
    }

    /// Why the client was refused, if it was.
    pub fn refusal(&self) -> Option<Reason> {
        match self {
            Self::UploadRefused(reason) => Some(*reason),
            Self::UploadStall => Some(Reason::BodyTime),
            _ => None,
        }
    }
}

/// Why a response body ends before its end. The client sees its connection or stream broken off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The upstream broke off.
    #[error("the upstream's body broke off: {0}")]
    Upstream(Broken),
    /// The client broke off its request body.
    #[error("the client's body broke off: {0}")]
    Downstream(UploadError),
    /// Nothing came for too long.
    #[error("the body stalled")]
    Stalled,
    /// The drain deadline of the instance passed.
    #[error("the instance was drained, and its time is up")]
    Cut,
    /// What is made here cannot be made on: a file was cut short, or there is no memory.
    #[error("the body cannot be made: {0}")]
    Own(std::io::Error),
}
