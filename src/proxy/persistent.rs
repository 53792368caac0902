//! HTTP/1.1 with a client: hyper serves its requests, and between them the connection is parked.
//!
//! ```text
//! attend (hyper) ──quiet for a second──▶ park (a bare socket) ──readable──▶ attend
//!       │                                  │
//!       └── done, failed, doomed ──────────┴──▶ tunnel, or close
//! ```
//!
//! hyper lets go of a connection only between two messages, and nothing is on the wire then: the
//! client notices nothing. What hyper read and did not use is read again.

use std::convert::Infallible;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::downstream::{Busy, Doom, Downstream, Phase};
use super::handler;
use super::stream::Io;
use super::tunnel;
use super::upstream::http1::BUFFER;
use super::worker::Worker;
use crate::telemetry::traffic::Count;

/// How long, and for how many bytes, what a client still sends is read after our last word, so that
/// a reset does not take that word from it (RFC 9112, 9.6).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 64 * 1024;

/// Serves a connection to its end.
pub async fn serve(worker: &Rc<Worker>, connection: &Rc<Downstream>, mut io: Io) {
    let ended = loop {
        // Boxed, so that a parked connection keeps no room for hyper's state.
        let (ended, back, unread) = Box::pin(attend(worker, connection, io)).await;
        io = back;
        match ended {
            // Empty lines between requests are nothing (RFC 9112, 2.2).
            Ended::Rests if !unread.iter().all(|byte| matches!(byte, b'\r' | b'\n')) => {
                // A head that began behind the last request.
                connection.enter(Phase::Head);
                io.unread(unread);
            }
            Ended::Rests => {
                // Empty, but a handle on hyper's buffer.
                drop(unread);
                connection.parked.set(true);
                let parked = park(worker, connection, &io).await;
                connection.parked.set(false);
                if let Some(ended) = parked {
                    break ended;
                }
            }
            Ended::Done => {
                if let Some(tunnel) = connection.tunnel.take() {
                    connection.phase.set(Phase::Busy);
                    return Box::pin(tunnel::run(io, unread, tunnel)).await;
                }
                break ended;
            }
            ended => break ended,
        }
    };
    match ended {
        Ended::Done | Ended::Rests => close(&mut io, worker.is_draining()).await,
        Ended::Failed => close(&mut io, true).await,
        Ended::Doomed(Doom::Head) => {
            worker.count(Count::Refused);
            let answer = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\
                           content-length: 0\r\n\r\n";
            let _ = tokio::time::timeout(LINGER, io.write_all(answer)).await;
            close(&mut io, true).await;
        }
        Ended::Doomed(Doom::Idle) => close(&mut io, false).await,
        Ended::Doomed(Doom::Stalled) => {}
    }
}

/// Why hyper let go of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// All was said.
    Done,
    /// Nothing was said for a while; it goes on when the client does.
    Rests,
    /// It broke, or what came was not HTTP.
    Failed,
    /// A deadline passed.
    Doomed(Doom),
}

/// Has hyper serve a connection until one of them lets go. What hyper read and did not use comes
/// back too.
async fn attend(worker: &Rc<Worker>, connection: &Rc<Downstream>, io: Io) -> (Ended, Io, Bytes) {
    let service = service_fn(|request| {
        let (worker, connection) = (Rc::clone(worker), Rc::clone(connection));
        let busy = Busy::new(&connection);
        // Boxed, because hyper wants to move it.
        Box::pin(async move {
            let response = handler::handle(&worker, &connection, request).await;
            Ok::<_, Infallible>(response.map(|body| super::body::Outgoing::new(body, busy)))
        })
    });
    let mut builder = http1::Builder::new();
    // Header deadlines are the tick's: hyper's would cost a timer per request.
    builder.header_read_timeout(None).max_buf_size(BUFFER);
    builder.max_header_size(worker.settings.limits.header_bytes);
    let mut http = builder.serve_connection(TokioIo::new(io), service);
    let (mut told, mut rests) = (false, false);
    let ended = std::future::poll_fn(|context| {
        if let Some(doom) = connection.doom.get() {
            return Poll::Ready(Ended::Doomed(doom));
        }
        connection.park(context);
        // A request that is here already is served: hyper is told after it has looked.
        let mut polled = http.poll_without_shutdown(context);
        if polled.is_pending() && !told && (worker.is_draining() || connection.is_quiet()) {
            (told, rests) = (true, !worker.is_draining());
            // Between two messages hyper ends at once, and says nothing to the client. Within one it
            // ends after it: then the connection closes.
            std::pin::Pin::new(&mut http).graceful_shutdown();
            polled = http.poll_without_shutdown(context);
            rests &= polled.is_ready();
        }
        polled.map(|ended| match ended {
            Ok(()) if rests => Ended::Rests,
            Ok(()) => Ended::Done,
            Err(_) => Ended::Failed,
        })
    })
    .await;
    let parts = http.into_parts();
    (ended, parts.io.into_inner(), parts.read_buf)
}

/// Waits on the bare socket until the client goes on, or until the connection must end: an idle
/// client costs a socket and some hundred bytes instead of two buffers.
async fn park(worker: &Worker, connection: &Downstream, io: &Io) -> Option<Ended> {
    std::future::poll_fn(|context| {
        if let Some(doom) = connection.doom.get() {
            return Poll::Ready(Some(Ended::Doomed(doom)));
        }
        connection.park(context);
        // A request that is here already is served, also while a drain begins.
        if io.poll_readable(context).is_ready() {
            return Poll::Ready(None);
        }
        if worker.is_draining() { Poll::Ready(Some(Ended::Done)) } else { Poll::Pending }
    })
    .await
}

/// Says that nothing more will come, and reads what the client still sends for a while.
async fn close(io: &mut Io, linger: bool) {
    let closing = async {
        if io.shutdown().await.is_err() || !linger {
            return;
        }
        let mut scratch = [0; 1024];
        let mut left = LINGER_BYTES;
        while let Ok(read @ 1..) = io.read(&mut scratch).await {
            left = left.saturating_sub(read);
            if left == 0 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, Box::pin(closing)).await;
}
