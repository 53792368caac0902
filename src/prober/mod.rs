//! The active prober: asks an instance whether it is well, before its first traffic and for as long
//! as it lives, and says why when it is not.
//!
//! [`probe`] asks once; [`watch`] asks on and on and reports when it changes its mind. It decides
//! nothing about routes or rollouts, and knows no runtime: who has one adds what the runtime sees
//! ([`Diagnosis::wants_a_closer_look`]).
//!
//! Invariants: one probe never takes longer than its timeout nor reads more than
//! [`BODY_BYTES`]; every `false` carries a diagnosis; the first event is the first conclusion, so a
//! new instance is neither healthy nor unhealthy until `rise` successes or `fall` failures in a row.

pub mod call;
mod diagnosis;
mod question;
pub mod smoke;
mod watch;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

pub use self::diagnosis::Diagnosis;
pub use self::watch::{EngineHealth, ProbeEvent, Target, watch};
use crate::model::instance::Instance;
use crate::model::preamble::Preamble;
use crate::model::revision::{ProbeKind, ProbeSpec, Speech};

/// Of an answer's body, what is read at most: its first line explains, the rest only lets the app
/// finish what it writes.
pub const BODY_BYTES: usize = 64 * 1024;

/// What one probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeResult {
    /// Whether the instance is well.
    pub healthy: bool,
    /// Why.
    pub diagnosis: Diagnosis,
    /// How long it took.
    pub took: Duration,
}

/// Asks an instance once, within `spec.timeout`.
///
/// `ProbeKind::Auto` asks `GET /` and accepts any answer below 500; who knows of an engine's own
/// health check gives it to [`watch`] instead.
///
/// Cancel safety: dropping it closes its connection.
pub async fn probe(
    instance: &Instance,
    spec: &ProbeSpec,
    speech: impl Into<Speech>,
) -> ProbeResult {
    let Speech { protocol, preamble } = speech.into();
    let begun = Instant::now();
    let address = instance.address;
    let diagnosis = match timeout(spec.timeout, connect(address, preamble)).await {
        Err(_) => Diagnosis::ConnectTimedOut { address, after: spec.timeout },
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Diagnosis::Refused { address }
        }
        Ok(Err(error)) => Diagnosis::Unreachable { address, reason: error.to_string() },
        Ok(Ok(stream)) => match &spec.kind {
            ProbeKind::Tcp => Diagnosis::Accepts { address },
            ProbeKind::Http { path, host } => {
                let ask = question::Question { address, path, host: host.as_deref(), protocol };
                question::ask(stream, &ask, begun, spec.timeout).await
            }
            ProbeKind::Auto => {
                let ask = question::Question { address, path: "/", host: None, protocol };
                question::ask(stream, &ask, begun, spec.timeout).await
            }
        },
    };
    let healthy = match (&spec.kind, &diagnosis) {
        (_, Diagnosis::Accepts { .. }) => true,
        (ProbeKind::Auto, Diagnosis::Answer { status, .. }) => *status < 500,
        (_, Diagnosis::Answer { status, .. }) => (200..300).contains(status),
        _ => false,
    };
    ProbeResult { healthy, diagnosis, took: begun.elapsed() }
}

/// A connection that begins as an instance wants it to: by saying that it is our own.
async fn connect(address: SocketAddr, preamble: Preamble) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    let mut bytes = Vec::new();
    preamble.write(None, &mut bytes);
    stream.write_all(&bytes).await?;
    Ok(stream)
}

#[cfg(test)]
mod tests;
