//! A connection of HTTP/3, from its handshake to its end.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h3::error::Code;
use h3::server::RequestResolver;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::streams::Link;
use super::{code, request};
use crate::proxy::clock::{Tick, ticks};
use crate::proxy::downstream::{Busy, Doom, Downstream};
use crate::proxy::worker::Worker;
use crate::telemetry::traffic::Reason;

/// Bytes besides those of its head that a request may bring before something comes of them.
const FRAMES: usize = 16 * 1024;
/// Requests that a client gives up in a second, and in the life of a connection: what is allowed of
/// RST_STREAM on HTTP/2. Each may have begun work that is thrown away (CVE-2023-44487).
const MOST_GIVEN_UP: u32 = 100;
const MOST_GIVEN_UP_EVER: u32 = 10_000;
/// What was on its way when a client was told to go elsewhere is waited for: so many round trips, but
/// not less and not more than this. Then it is told which request was the last (RFC 9114, 5.2), so that
/// it may ask again elsewhere for what comes after, and that is waited for as well.
const GRACE_TRIPS: u32 = 3;
const LEAST_GRACE: Duration = Duration::from_millis(200);
/// When the port changes hands: what two processes read by turns is sent again.
const LEAST_OF_HANDOVER: Duration = Duration::from_millis(500);
const MOST_GRACE: Duration = Duration::from_secs(1);
/// For a word about the connection itself to be taken.
const WORD: Duration = Duration::from_secs(1);

/// What the requests of a connection share.
pub struct Shared {
    /// Their worker.
    pub worker: Rc<Worker>,
    /// Their client.
    pub connection: Rc<Downstream>,
    given_up: Cell<(Tick, u32)>,
    given_up_ever: Cell<u32>,
}

impl Shared {
    fn new(worker: &Rc<Worker>, connection: &Rc<Downstream>) -> Rc<Self> {
        Rc::new(Self {
            worker: Rc::clone(worker),
            connection: Rc::clone(connection),
            given_up: Cell::new((worker.clock.now(), 0)),
            given_up_ever: Cell::new(0),
        })
    }

    /// The client has given up a request before it was answered.
    pub fn gave_up(&self) {
        let now = self.worker.clock.now();
        let (since, count) = self.given_up.get();
        let is_over = now.saturating_sub(since) >= ticks(Duration::from_secs(1));
        let (since, count) = if is_over { (now, 1) } else { (since, count + 1) };
        self.given_up.set((since, count));
        let ever = self.given_up_ever.get().saturating_add(1);
        self.given_up_ever.set(ever);
        if count > MOST_GIVEN_UP || ever > MOST_GIVEN_UP_EVER {
            self.doom(Doom::Flood);
        }
    }

    /// The connection must end.
    pub fn doom(&self, doom: Doom) {
        self.connection.doom.set(Some(doom));
        self.connection.wake();
    }
}

enum Next {
    Request(Box<RequestResolver<Link, Bytes>>),
    /// It is to be told to go elsewhere.
    Tell,
    /// Everything is answered.
    End,
    /// The client has gone, or broke the protocol.
    Gone,
    Doomed(Doom),
}

/// Serves a connection to its end.
pub async fn serve(worker: &Rc<Worker>, connection: &Rc<Downstream>, quic: quinn::Connection) {
    let limits = &worker.settings.limits;
    let link = Link::new(quic.clone(), limits.header_bytes.saturating_add(FRAMES));
    let (newest, signals) = (link.newest(), link.signals());
    let mut builder = h3::server::builder();
    builder.max_field_section_size(limits.header_bytes as u64).send_grease(false);
    // It needs room for three streams, which the client may not give.
    let Ok(Ok(mut http)) = timeout(limits.handshake, builder.build(link)).await else {
        quic.close(code(Code::H3_INTERNAL_ERROR), b"");
        return;
    };
    let shared = Shared::new(worker, connection);
    let mut until = None;
    let mut told_last = false;
    loop {
        let next = {
            let mut accepting = pin!(http.accept());
            let mut grace = pin!(until.map(sleep_until));
            let told = until.is_some();
            std::future::poll_fn(|context| {
                match connection.doom.take() {
                    // A second time: the client does not hang up although it was told to.
                    Some(Doom::Idle) if told => return Poll::Ready(Next::End),
                    Some(Doom::Idle) => return Poll::Ready(Next::Tell),
                    Some(doom) => return Poll::Ready(Next::Doomed(doom)),
                    None => {}
                }
                if (worker.is_draining() || connection.is_last()) && !told {
                    return Poll::Ready(Next::Tell);
                }
                connection.park(context);
                if let Poll::Ready(next) = accepting.as_mut().poll(context) {
                    return Poll::Ready(match next {
                        Ok(Some(resolver)) => Next::Request(Box::new(resolver)),
                        Ok(None) | Err(_) => Next::Gone,
                    });
                }
                if signals.is_flooded() {
                    return Poll::Ready(Next::Doomed(Doom::Flood));
                }
                match grace.as_mut().as_pin_mut().map(|grace| grace.poll(context)) {
                    Some(Poll::Ready(())) if connection.active.get() == 0 => Poll::Ready(Next::End),
                    _ => Poll::Pending,
                }
            })
            .await
        };
        let doom = match next {
            Next::Request(resolver) => {
                let Some(handle) = newest.borrow_mut().take() else { continue };
                let busy = Busy::new(connection);
                if connection.is_overworked(limits.streams) {
                    connection.doom.set(Some(Doom::Flood));
                    continue;
                }
                let shared = Rc::clone(&shared);
                tokio::task::spawn_local(request::serve(shared, resolver, handle, busy));
                continue;
            }
            Next::Tell | Next::End if !told_last => {
                // What is on its way may still come; what comes later is sent back unread.
                told_last = matches!(next, Next::End);
                let streams = usize::try_from(limits.streams).unwrap_or(usize::MAX);
                let streams = if told_last { 0 } else { streams };
                if !matches!(timeout(WORD, http.shutdown(streams)).await, Ok(Ok(()))) {
                    break;
                }
                let parts = worker.is_draining() && !worker.closes_idle();
                let least = if parts { LEAST_OF_HANDOVER } else { LEAST_GRACE };
                let grace = (quic.rtt() * GRACE_TRIPS).clamp(least, MOST_GRACE);
                until = Some(Instant::now() + grace);
                continue;
            }
            Next::Tell | Next::End | Next::Gone => break,
            Next::Doomed(doom) => doom,
        };
        let (reason, with) = match doom {
            Doom::Head => (Reason::HeaderTime, Code::H3_REQUEST_INCOMPLETE),
            Doom::Stalled => (Reason::WriteTime, Code::H3_EXCESSIVE_LOAD),
            Doom::Malformed => (Reason::Malformed, Code::H3_GENERAL_PROTOCOL_ERROR),
            Doom::Flood | Doom::Idle => (Reason::Flood, Code::H3_EXCESSIVE_LOAD),
        };
        worker.refuse(reason, connection.peer);
        quic.close(code(with), b"");
        break;
    }
    if let (true, Some(until)) = (told_last, until) {
        // What was sent back unread is told before the connection is closed over it.
        let _ = timeout_at(until, quic.closed()).await;
    }
    // The first word about the end counts.
    quic.close(code(Code::H3_NO_ERROR), b"");
}
