//! From an accepted connection to one that may be served: the TLS handshake, or a look at the first
//! bytes.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use rustls::HandshakeKind;
use tokio::net::TcpStream;

use super::stream::Transport;
use super::{Secure, Worker};
use crate::proxy::tls::{ACME_ALPN, ClientCertificate, client_of};
use crate::telemetry::traffic::Count;

/// What every HTTP/2 connection with prior knowledge begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How often a preface that has begun is looked at again.
const PREFACE_PAUSE: Duration = Duration::from_millis(10);

/// A connection that may be served.
pub(super) struct Opened {
    pub(super) transport: Transport,
    /// Whether it speaks HTTP/2.
    pub(super) multiplexed: bool,
    /// Where the client connected to, by the word of whoever forwards its bytes.
    pub(super) announced: Option<SocketAddr>,
}

impl Opened {
    /// Our own end of it.
    pub(super) fn local(&self) -> Option<SocketAddr> {
        let stream = match &self.transport {
            Transport::Plain(stream) => stream,
            Transport::Tls(stream) => stream.get_ref().0,
        };
        stream.local_addr().ok()
    }

    pub(super) fn certificate(&self) -> Option<Rc<ClientCertificate>> {
        match &self.transport {
            Transport::Plain(_) => None,
            Transport::Tls(stream) => client_of(stream.get_ref().1),
        }
    }
}

/// The transport and what it speaks. `None` when there is nothing to serve.
pub(super) async fn open(
    worker: &Worker,
    stream: TcpStream,
    secure: Option<Secure>,
    announced: Option<SocketAddr>,
) -> Option<Opened> {
    let Some(certificates) = secure else {
        let multiplexed = tokio::select! {
            biased;
            sniffed = sniff(&stream) => sniffed?,
            () = worker.closing_began() => return None,
        };
        return Some(Opened { transport: Transport::Plain(stream), multiplexed, announced });
    };
    match certificates.accept(stream).await {
        Ok(stream) => {
            worker.count(Count::TlsHandshakes);
            let session = stream.get_ref().1;
            if session.handshake_kind() == Some(HandshakeKind::Resumed) {
                worker.count(Count::TlsResumed);
            }
            let protocol = session.alpn_protocol();
            if protocol == Some(ACME_ALPN) {
                // The handshake was the question, and the answer.
                return None;
            }
            let multiplexed = protocol == Some(b"h2".as_slice());
            Some(Opened { transport: Transport::Tls(Box::new(stream)), multiplexed, announced })
        }
        Err(_) => {
            worker.count(Count::TlsFailures);
            None
        }
    }
}

/// Looks at the first bytes without taking them: HTTP/2 begins with its preface.
async fn sniff(stream: &TcpStream) -> Option<bool> {
    let mut first = [0; PREFACE.len()];
    loop {
        let seen = stream.peek(&mut first).await.ok().filter(|seen| *seen > 0)?;
        if first[..seen] != PREFACE[..seen] {
            return Some(false);
        }
        if seen == PREFACE.len() {
            return Some(true);
        }
        tokio::time::sleep(PREFACE_PAUSE).await;
    }
}
