//! Reads the preamble of a connection, on listeners where each begins with one: who the client is,
//! said by whoever forwards its bytes.
//!
//! Only networks that are trusted may say it; others are sent away. Nothing behind the preamble is
//! read here.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::model::preamble::{Ends, LONGEST, Progress, read};
use crate::proxy::admission::Admitted;
use crate::proxy::forwarded::is_trusted;
use crate::proxy::worker::Worker;
use crate::telemetry::traffic::Reason;

/// Who is at the other end, and the address that they connected to, if that was said. The error is why
/// the peer is sent away; `None` when it went by itself before it said a word, as probes do.
pub async fn greet(
    worker: &Worker,
    stream: &mut TcpStream,
    peer: SocketAddr,
    admitted: &mut Admitted,
) -> Result<(SocketAddr, Option<SocketAddr>), Option<Reason>> {
    if !is_trusted(&worker.settings.trusted_proxies, peer.ip()) {
        return Err(Some(Reason::Preamble));
    }
    match take(stream).await? {
        Some((from, to)) => {
            worker.counts_for(admitted, from).map_err(Some)?;
            Ok((from, Some(to)))
        }
        None => Ok((peer, None)),
    }
}

async fn take(stream: &mut TcpStream) -> Result<Option<Ends>, Option<Reason>> {
    let mut bytes = vec![0; LONGEST];
    let mut have = 0;
    loop {
        let seen = stream.peek(&mut bytes[have..]).await.map_err(|_| None)?;
        if seen == 0 {
            return Err((have > 0).then_some(Reason::Preamble));
        }
        let progress = read(&bytes[..have + seen]).map_err(|_| Some(Reason::Preamble))?;
        let until = match progress {
            Progress::More => have + seen,
            Progress::Done { length, .. } => length,
        };
        // They are here already.
        stream.read_exact(&mut bytes[have..until]).await.map_err(|_| None)?;
        have = until;
        if let Progress::Done { ends, .. } = progress {
            return Ok(ends);
        }
    }
}
