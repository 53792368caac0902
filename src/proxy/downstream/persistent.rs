//! HTTP/1.1 with a client: one request after another, and between them the connection is parked.
//!
//! ```text
//! attend (a wire) ──quiet for a second──▶ park (a bare socket) ──readable──▶ attend
//!       │                                  │
//!       └── done, failed, doomed ──────────┴──▶ tunnel, or close
//! ```
//!
//! Not hyper's server connection, for three reasons. It takes a bare line feed for a line's end, keeps
//! one of two equal lengths, and removes a length beside a transfer coding before anybody sees it: a
//! guard before it would have to follow where messages end, and two parsers that follow the same
//! messages are what smuggling is made of. It sends no interim answer. And it moves bodies through
//! channels. Here there is one parser, and everything that it finds doubtful ends the connection.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Version};
use http_body::{Body, Frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::busy::Busy;
use super::head::RequestHead;
use super::reply::{Sending, Wanted, write_refusal, write_response};
use super::stream::Io;
use super::upload::ClientBody;
use super::wire::{NoHead, Out, Wire};
use super::{Doom, Downstream, Phase};
use crate::proxy::body::ResponseBody;
use crate::proxy::check;
use crate::proxy::chunked::{write_end, write_size};
use crate::proxy::handler;
use crate::proxy::logged;
use crate::proxy::tunnel;
use crate::proxy::worker::Worker;
use crate::telemetry::traffic::Reason;

/// How long, and for how many bytes, what a client still sends is read after our last word, so that
/// a reset does not take that word from it (RFC 9112, 9.6).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 64 * 1024;
/// Bytes of an answer that are gathered before they are written.
const GATHER: usize = 16 * 1024;
/// Pieces up to this size are copied behind the head; larger ones are written from where they are.
const COPIED: usize = 4 * 1024;

/// Serves a connection to its end.
pub async fn serve(worker: &Rc<Worker>, connection: &Rc<Downstream>, mut io: Io) {
    let ended = loop {
        // Boxed, so that a parked connection keeps no room for a request's state.
        let (ended, back) = Box::pin(attend(worker, connection, io)).await;
        let Some((back, unread)) = back else { return };
        io = back;
        match ended {
            // Half of an empty line between requests is nothing yet.
            Ended::Rests if !unread.is_empty() => io.unread(unread),
            Ended::Rests => {
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
        Ended::Lingers => close(&mut io, true).await,
        Ended::Failed | Ended::Doomed(Doom::Idle) => close(&mut io, false).await,
        Ended::Refused(reason) => refuse(worker, connection, &mut io, reason).await,
        Ended::Doomed(Doom::Head) => {
            refuse(worker, connection, &mut io, Reason::HeaderTime).await;
        }
        Ended::Doomed(Doom::Flood | Doom::Malformed) => {}
        Ended::Doomed(Doom::Stalled) => {
            worker.refuse(Reason::WriteTime, connection.peer);
            io.reset();
        }
        // Where the end of an answer is the end of the connection, only a reset says that it broke.
        Ended::Broken => io.reset(),
    }
}

/// Why a connection is served no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// All was said.
    Done,
    /// All was said, and the client may still be sending.
    Lingers,
    /// Nothing was said for a while; it goes on when the client does.
    Rests,
    /// The client went, or an answer broke off.
    Failed,
    /// An answer broke off that has no other end than the connection's.
    Broken,
    /// What came is refused.
    Refused(Reason),
    /// A deadline passed.
    Doomed(Doom),
}

/// Serves requests until something else is to be done. The stream comes back, with what was read and
/// not used.
async fn attend(
    worker: &Rc<Worker>,
    connection: &Rc<Downstream>,
    io: Io,
) -> (Ended, Option<(Io, Bytes)>) {
    let wire = Wire::new(io);
    *connection.wire.borrow_mut() = Rc::downgrade(&wire);
    let ended = {
        let mut serving = pin!(converse(worker, connection, &wire));
        std::future::poll_fn(|context| {
            if let Some(doom) = connection.doom.get() {
                return Poll::Ready(Ended::Doomed(doom));
            }
            connection.park(context);
            serving.as_mut().poll(context)
        })
        .await
    };
    (ended, wire.take())
}

async fn converse(worker: &Rc<Worker>, connection: &Rc<Downstream>, wire: &Rc<Wire>) -> Ended {
    let limits = &worker.settings.limits;
    loop {
        let head = std::future::poll_fn(|context| {
            // A request that is here already is served, also while a drain begins.
            let polled = wire.poll_head(context, limits);
            if polled.is_pending() && wire.is_between() {
                if worker.closes_idle() {
                    return Poll::Ready(Err(Ended::Done));
                }
                if connection.is_quiet() {
                    return Poll::Ready(Err(Ended::Rests));
                }
            }
            polled.map(|head| {
                head.map_err(|instead| match instead {
                    NoHead::Closed => Ended::Done,
                    NoHead::Broken => Ended::Failed,
                    NoHead::Refused(reason) => Ended::Refused(reason),
                })
            })
        })
        .await;
        let ended = match head {
            Ok(head) => exchange(worker, connection, wire, head).await,
            Err(ended) => Some(ended),
        };
        if let Some(ended) = ended {
            return ended;
        }
        if !wire.is_between() {
            connection.enter(Phase::Head);
        }
    }
}

/// One request and its answer. `None` when the connection goes on.
async fn exchange(
    worker: &Rc<Worker>,
    connection: &Rc<Downstream>,
    wire: &Rc<Wire>,
    head: RequestHead,
) -> Option<Ended> {
    let _busy = Busy::new(connection);
    let wanted = Wanted {
        bodiless: head.method == Method::HEAD,
        version: head.version,
        trailers: head.trailers,
        keep_alive: head.keep_alive,
    };
    let body = wire.reader(head.framing, head.expects).map_or(ClientBody::Empty, ClientBody::Wire);
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = head.uri;
    *request.version_mut() = head.version;
    *request.headers_mut() = head.headers;
    connection.takes_interim.set(wanted.version == Version::HTTP_11);
    let response = {
        let mut handling = pin!(handler::handle(worker, connection, request));
        std::future::poll_fn(|context| {
            if let Poll::Ready(response) = handling.as_mut().poll(context) {
                return Poll::Ready(Some(response));
            }
            match wire.poll_write(context) {
                Poll::Ready(Err(_)) => Poll::Ready(None),
                _ => wire.poll_gone(context).map(|()| None),
            }
        })
        .await
    };
    let Some(response) = response else { return Some(Ended::Failed) };
    connection.takes_interim.set(false);
    let sure = is_sure(wire).await;
    let keep_alive = sure && !connection.is_last() && !worker.is_draining();
    let (head, body) = response.into_parts();
    let length = body.size_hint().exact();
    let (sending, keep_alive) = wire
        .write(|out| write_response(&head, length, wanted, keep_alive, &worker.date(), out.bytes));
    wire.keep(head.headers);
    let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let mut answer = Answer { body, sending, trailers: wanted.trailers, tail: false, at: At::Body };
    let answered = std::future::poll_fn(|context| answer.poll(wire, context)).await;
    drop(answer);
    match answered {
        Err(Unfinished) if sending == Sending::Rest => return Some(Ended::Broken),
        Err(Unfinished) => return Some(Ended::Failed),
        Ok(()) if switches => return Some(Ended::Done),
        Ok(()) if !keep_alive && wire.is_read() && wire.is_between() => return Some(Ended::Done),
        Ok(()) if !keep_alive => return Some(Ended::Lingers),
        Ok(()) => {}
    }
    if wire.is_read() || read_out(worker, wire).await { None } else { Some(Ended::Lingers) }
}

/// Whether it is certain where the next request will begin. What is here already of a body that nobody
/// wants is read away.
async fn is_sure(wire: &Wire) -> bool {
    if wire.answer_begins() {
        // It waits to be told to send its body; or it does not, and sends.
        return false;
    }
    if wire.is_read() || wire.is_being_read() {
        return true;
    }
    let mut most = LINGER_BYTES;
    std::future::poll_fn(|context| Poll::Ready(wire.poll_drain(context, &mut most))).await
        == Poll::Ready(true)
}

/// Waits for the rest of a body whose answer is written already. Whether its end came.
async fn read_out(worker: &Worker, wire: &Wire) -> bool {
    let reading = async {
        if std::future::poll_fn(|context| wire.poll_read_out(context)).await {
            return true;
        }
        let mut most = LINGER_BYTES;
        let draining = std::future::poll_fn(|context| wire.poll_drain(context, &mut most));
        tokio::time::timeout(LINGER, draining).await == Ok(true)
    };
    let patience = worker.settings.limits.body_stall;
    tokio::time::timeout(patience, Box::pin(reading)).await == Ok(true)
}

/// An answer could not be written to its end.
#[derive(Debug)]
struct Unfinished;

/// How far an answer is.
#[derive(Debug, PartialEq, Eq)]
enum At {
    Body,
    /// All is gathered.
    End,
    /// The body broke; what came before it is still written.
    Broken,
}

/// An answer on its way to the client.
struct Answer {
    body: ResponseBody,
    sending: Sending,
    trailers: bool,
    /// A line's end belongs behind the piece that is being written.
    tail: bool,
    at: At,
}

impl Answer {
    fn poll(&mut self, wire: &Wire, context: &mut Context<'_>) -> Poll<Result<(), Unfinished>> {
        loop {
            let waits = wire.write(|out| self.gather(context, out));
            match wire.poll_write(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Unfinished)),
                Poll::Pending => return Poll::Pending,
            }
            match self.at {
                At::Broken => return Poll::Ready(Err(Unfinished)),
                At::End if !self.tail => return Poll::Ready(Ok(())),
                _ if waits => return wire.poll_gone(context).map(|()| Err(Unfinished)),
                _ => {}
            }
        }
    }

    /// Takes from the body what can be written at once. Whether the body has no more at the moment.
    fn gather(&mut self, context: &mut Context<'_>, out: &mut Out<'_>) -> bool {
        loop {
            if !out.piece.is_empty() {
                return false;
            }
            if std::mem::take(&mut self.tail) {
                out.bytes.extend_from_slice(b"\r\n");
            }
            if self.at != At::Body || out.bytes.len() >= GATHER {
                return false;
            }
            if matches!(self.sending, Sending::Nothing | Sending::Length(0)) {
                self.at = At::End;
                return false;
            }
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Pending => return true,
                Poll::Ready(Some(Ok(frame))) => self.take(frame, out),
                Poll::Ready(Some(Err(_))) => self.at = At::Broken,
                Poll::Ready(None) => self.end(None, out),
            }
        }
    }

    fn take(&mut self, frame: Frame<Bytes>, out: &mut Out<'_>) {
        let bytes = match frame.into_data() {
            Ok(bytes) if bytes.is_empty() => return,
            Ok(bytes) => bytes,
            Err(frame) => return self.end(frame.into_trailers().ok().as_ref(), out),
        };
        match &mut self.sending {
            Sending::Length(left) => match left.checked_sub(bytes.len() as u64) {
                Some(less) => *left = less,
                // More than was announced would be read as the next answer.
                None => {
                    self.at = At::Broken;
                    return;
                }
            },
            Sending::Chunked => write_size(bytes.len(), out.bytes),
            Sending::Nothing | Sending::Rest => {}
        }
        let chunked = self.sending == Sending::Chunked;
        if bytes.len() <= COPIED {
            out.bytes.extend_from_slice(&bytes);
            if chunked {
                out.bytes.extend_from_slice(b"\r\n");
                if self.body.is_end_stream() {
                    self.end(None, out);
                }
            }
        } else {
            (*out.piece, self.tail) = (bytes, chunked);
        }
    }

    fn end(&mut self, trailers: Option<&http::HeaderMap>, out: &mut Out<'_>) {
        self.at = match self.sending {
            Sending::Length(1..) => At::Broken,
            Sending::Chunked => {
                write_end(trailers.filter(|_| self.trailers).into_iter().flatten(), out.bytes);
                At::End
            }
            _ => At::End,
        };
    }
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
        if worker.closes_idle() { Poll::Ready(Some(Ended::Done)) } else { Poll::Pending }
    })
    .await
}

/// The answer to what is no request.
async fn refuse(worker: &Worker, connection: &Downstream, io: &mut Io, reason: Reason) {
    worker.refuse(reason, connection.peer);
    let mut answer = Vec::new();
    let status = check::status(reason);
    write_refusal(status, &worker.date(), &mut answer);
    logged::refused(worker, connection, "HTTP/1.1", status);
    if matches!(tokio::time::timeout(LINGER, io.write_all(&answer)).await, Ok(Ok(()))) {
        close(io, true).await;
    }
}

/// Says that nothing more will come, and reads what the client still sends for a while.
async fn close(io: &mut Io, linger: bool) {
    if !linger && io.ends_by_itself() {
        return;
    }
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
