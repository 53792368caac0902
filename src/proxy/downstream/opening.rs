//! From an accepted connection to one that may be served: the TLS handshake, or a look at the first
//! bytes.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use rustls::HandshakeKind;
use tokio::net::TcpStream;

use super::stream::Transport;
use super::{Secure, Worker};
use crate::proxy::tls::{ACME_ALPN, ClientCertificate, client_of};
use crate::telemetry::traffic::Count;

/// What every HTTP/2 connection with prior knowledge begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of the first read: most requests' heads, which come at once.
const FIRST: usize = 1024;

/// A connection that may be served.
pub(super) struct Opened {
    pub(super) transport: Transport,
    /// Whether it speaks HTTP/2.
    pub(super) multiplexed: bool,
    /// What was read of it to find that out.
    pub(super) first: Bytes,
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
        let first = tokio::select! {
            biased;
            sniffed = sniff(&stream) => sniffed?,
            () = worker.closing_began() => return None,
        };
        let multiplexed = first.starts_with(PREFACE);
        return Some(Opened { transport: Transport::Plain(stream), multiplexed, first, announced });
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
            let transport = Transport::Tls(Box::new(stream));
            Some(Opened { transport, multiplexed, first: Bytes::new(), announced })
        }
        Err(_) => {
            worker.count(Count::TlsFailures);
            None
        }
    }
}

/// Reads the first bytes, at least as many as tell whether they are HTTP/2's preface.
async fn sniff(stream: &TcpStream) -> Option<Bytes> {
    let mut read = Vec::new();
    loop {
        stream.readable().await.ok()?;
        // Not kept while it waits.
        let mut some = [0; FIRST];
        match stream.try_read(&mut some) {
            Ok(0) => return None,
            Ok(count) => read.extend_from_slice(&some[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
        let seen = read.len().min(PREFACE.len());
        if seen == PREFACE.len() || read[..seen] != PREFACE[..seen] {
            return Some(Bytes::from(read));
        }
    }
}
