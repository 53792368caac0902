//! A client's connection: from accept to close.
//!
//! ```text
//! accept ─▶ preamble ─▶ TLS handshake, or a look at the first bytes ─▶ HTTP/1.1 ─▶ tunnel
//!                  (all under one deadline)                          └▶ HTTP/2
//! UDP ─▶ QUIC handshake ─────────────────────────────────────────────▶ HTTP/3
//! ```
//!
//! HTTP/1.1 is read and written here ([`persistent`] and what it uses); HTTP/2 is hyper's, beside a gauge
//! of the frames that come; HTTP/3, where it is built in, has a room of its own (`http3`). Here are the deadlines, the drain, and the end: an answer to a malformed
//! request is not lost to a reset, because what the client still sends is read for a while. A panic
//! ends one connection and is counted.

pub mod busy;
mod framing;
mod gauge;
mod head;
mod http2;
#[cfg(feature = "http3")]
pub mod http3;
mod opening;
mod outgoing;
mod persistent;
pub mod preamble;
mod reply;
pub mod stream;
pub mod upload;
pub mod wire;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Waker};

use http::HeaderValue;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use self::busy::Busy;
use self::gauge::{Gauge, Wrong};
use self::opening::{Opened, open};
use self::outgoing::Owed;
use self::stream::{Io, Transport};
use self::wire::Wire;
use super::admission::{Admitted, Pressure};
use super::clock::{Clock, Tick, ticks};
use super::forwarded::{address_value, is_trusted};
use super::limits::Limits;
use super::tls::{Certificates, ClientCertificate};
use super::tunnel::Tunnel;
use super::worker::Worker;
use crate::telemetry::traffic::{Count, Reason};

/// Ticks of silence after which an HTTP/1.1 connection gives its buffers back; the tick that finds out
/// comes once a second. Pages load their parts within less, people read for longer.
const PARK_AFTER: Tick = if cfg!(test) { 1 } else { 10 };
/// How a listener secures its connections.
pub type Secure = Arc<Certificates>;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Between requests.
    Idle,
    /// A request's head has begun and is not complete. HTTP/1.1 only.
    Head,
    /// Requests are being served.
    Busy,
}

/// Why a connection must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doom {
    /// Nothing was said for too long.
    Idle,
    /// A head, or a header block, is not complete in time.
    Head,
    /// The client takes nothing of what waits for it.
    Stalled,
    /// A flood of frames. HTTP/2 only.
    Flood,
    /// A frame that is none. HTTP/2 only.
    Malformed,
}

/// What is known about a client's connection, shared by its parts.
#[derive(Debug)]
pub struct Downstream {
    /// Whom we talk to: the client, or a proxy before us.
    pub peer: SocketAddr,
    /// The address that the client connected to, where an instance is told.
    pub local: Option<SocketAddr>,
    /// Its address as a header value.
    pub peer_value: HeaderValue,
    /// Whether what it says about the client is believed.
    pub trusted: bool,
    /// Whether it came by TLS.
    pub secure: bool,
    /// The certificate that the client has shown.
    pub certificate: Option<Rc<ClientCertificate>>,
    /// Set by the handler with a 101; taken when hyper has let go of the connection.
    pub tunnel: RefCell<Option<Tunnel>>,
    /// Where interim answers are written; only HTTP/1.1 has them here.
    wire: RefCell<Weak<Wire>>,
    takes_interim: Cell<bool>,
    multiplexed: bool,
    /// How the client behaves. HTTP/2 only, and boxed: who speaks HTTP/1.1 need not keep room for it.
    gauge: Option<Box<RefCell<Gauge>>>,
    /// When it is old enough to end.
    old_at: Tick,
    clock: Clock,
    limits: Deadlines,
    /// What it is doing.
    pub(super) phase: Cell<Phase>,
    since: Cell<Tick>,
    blocked: Cell<Option<Tick>>,
    /// What it is owed on its streams. HTTP/2 only, and boxed.
    owed: Option<Box<RefCell<Owed>>>,
    /// It waits without hyper: its task need not look around for being quiet.
    pub(super) parked: Cell<bool>,
    /// Why it must end.
    pub(super) doom: Cell<Option<Doom>>,
    active: Cell<u32>,
    served: Cell<u32>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Deadlines {
    keep_alive: Tick,
    header_read: Tick,
    write_stall: Tick,
    requests: u32,
}

impl Deadlines {
    fn of(limits: &Limits, multiplexed: bool) -> Self {
        Self {
            keep_alive: ticks(limits.keep_alive),
            header_read: ticks(limits.header_read),
            write_stall: ticks(limits.write_stall),
            requests: if multiplexed { limits.requests_http2 } else { limits.requests_http1 },
        }
    }

    /// Pressed for memory, nobody may idle for long, nor take long over what was begun.
    fn under(self, pressure: Pressure) -> Self {
        if pressure == Pressure::None {
            return self;
        }
        Self {
            keep_alive: self.keep_alive / 8,
            header_read: self.header_read / 2,
            write_stall: self.write_stall / 2,
            ..self
        }
    }
}

impl Downstream {
    fn new(worker: &Worker, peer: SocketAddr, opened: &Opened, is_nobodys: bool) -> Rc<Self> {
        let multiplexed = opened.multiplexed;
        let local = || worker.table().announces.then(|| opened.local()).flatten();
        let gauge = multiplexed.then(|| Box::new(RefCell::new(Gauge::new(worker.clock.now()))));
        Rc::new(Self {
            local: opened.announced.or_else(local),
            trusted: !is_nobodys && is_trusted(&worker.settings.trusted_proxies, peer.ip()),
            secure: matches!(opened.transport, Transport::Tls(_)),
            certificate: opened.certificate(),
            gauge,
            owed: multiplexed.then(Box::default),
            ..Self::plain(worker, peer, multiplexed)
        })
    }

    /// A connection by QUIC; `local` is our own end of it.
    #[cfg(feature = "http3")]
    fn by_quic(
        worker: &Worker,
        peer: SocketAddr,
        local: Option<SocketAddr>,
        certificate: Option<Rc<ClientCertificate>>,
    ) -> Rc<Self> {
        let local = local.filter(|_| worker.table().announces);
        Rc::new(Self { local, secure: true, certificate, ..Self::plain(worker, peer, true) })
    }

    /// What all connections begin with.
    fn plain(worker: &Worker, peer: SocketAddr, multiplexed: bool) -> Self {
        Self {
            peer,
            local: None,
            peer_value: address_value(peer.ip()),
            trusted: is_trusted(&worker.settings.trusted_proxies, peer.ip()),
            secure: false,
            certificate: None,
            tunnel: RefCell::new(None),
            wire: RefCell::default(),
            takes_interim: Cell::new(false),
            multiplexed,
            gauge: None,
            old_at: worker.clock.now() + old_age(worker),
            clock: worker.clock.clone(),
            limits: Deadlines::of(&worker.settings.limits, multiplexed),
            phase: Cell::new(Phase::Idle),
            since: Cell::new(worker.clock.now()),
            blocked: Cell::new(None),
            owed: None,
            parked: Cell::new(false),
            doom: Cell::new(None),
            active: Cell::new(0),
            served: Cell::new(0),
            waker: RefCell::new(None),
        }
    }

    /// An instance sent an interim answer. Whoever cannot take it does without (RFC 9110, 15.2).
    pub fn interim(&self, status: http::StatusCode, headers: &http::HeaderMap) {
        if self.takes_interim.get()
            && let Some(wire) = self.wire.borrow().upgrade()
        {
            wire.write(|out| reply::write_interim(status, headers, out.bytes));
        }
    }

    /// Does something else from now on.
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(self.clock.now());
    }

    /// These bytes came. The error is why the client is to be sent away.
    #[inline]
    pub fn read(&self, bytes: &[u8]) -> Result<(), Wrong> {
        if let Some(gauge) = &self.gauge {
            if let Err(wrong) = gauge.borrow_mut().came(bytes, self.clock.now()) {
                let flood = wrong == Wrong::Flood;
                self.doom.set(Some(if flood { Doom::Flood } else { Doom::Malformed }));
                return Err(wrong);
            }
        } else if self.phase.get() == Phase::Idle {
            self.enter(Phase::Head);
        }
        Ok(())
    }

    /// These bytes went.
    #[inline]
    pub fn went(&self, bytes: &[u8]) {
        if let Some(gauge) = &self.gauge {
            gauge.borrow_mut().went(bytes);
        }
    }

    /// Whether a frame of our own can be sent. HTTP/2 only.
    pub fn is_between_frames(&self) -> bool {
        self.gauge.as_ref().is_some_and(|gauge| gauge.borrow().is_between())
    }

    /// Bytes went, or would not go.
    #[inline]
    pub fn wrote(&self, went: bool) {
        if went {
            self.blocked.set(None);
        } else if self.blocked.get().is_none() {
            self.blocked.set(Some(self.clock.now()));
        }
    }

    /// Whether this is the connection's last request.
    pub fn is_last(&self) -> bool {
        self.served.get() >= self.limits.requests || self.is_old()
    }

    fn is_old(&self) -> bool {
        self.clock.now() >= self.old_at
    }

    /// One look of the worker's tick.
    pub fn tick(&self, pressure: Pressure) {
        let now = self.clock.now();
        let quiet = now.saturating_sub(self.since.get());
        let limits = self.limits.under(pressure);
        let incomplete = self.gauge.as_ref().and_then(|gauge| gauge.borrow().incomplete_since());
        let doom = match self.phase.get() {
            _ if incomplete
                .is_some_and(|since| now.saturating_sub(since) >= limits.header_read) =>
            {
                Doom::Head
            }
            Phase::Idle if quiet >= limits.keep_alive || self.is_old() => Doom::Idle,
            Phase::Head if quiet >= limits.header_read => Doom::Head,
            _ if self.is_stalled(now, limits.write_stall) => Doom::Stalled,
            _ => match self.blocked.get() {
                Some(since) if now.saturating_sub(since) >= limits.write_stall => Doom::Stalled,
                _ => {
                    if self.is_quiet() && !self.multiplexed && !self.parked.get() {
                        self.wake();
                    }
                    return;
                }
            },
        };
        self.doom.set(Some(doom));
        self.wake();
    }

    /// Ends it if nothing was said for a while: what it holds is needed elsewhere.
    pub fn spare(&self) {
        if self.is_quiet() {
            self.doom.set(Some(Doom::Idle));
            self.wake();
        }
    }

    /// Whether more is done for this client than its streams account for: those that were reset may
    /// still be worked on (CVE-2025-8671).
    fn is_overworked(&self, streams: u32) -> bool {
        self.active.get() > streams.saturating_mul(2)
    }

    fn is_stalled(&self, now: Tick, patience: Tick) -> bool {
        self.owed.as_ref().is_some_and(|owed| owed.borrow().is_stalled(now, patience))
    }

    /// Whether nothing was said for so long that its buffers are better given back.
    pub(super) fn is_quiet(&self) -> bool {
        self.phase.get() == Phase::Idle
            && self.blocked.get().is_none()
            && self.clock.now().saturating_sub(self.since.get()) >= PARK_AFTER
    }

    /// Has the connection's task look around.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Has this task woken when it must look around.
    pub(super) fn park(&self, context: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
    }
}

/// Ticks after which a connection is old: less up to a tenth, so that those that began together do
/// not end together.
fn old_age(worker: &Worker) -> Tick {
    let age = ticks(worker.settings.limits.max_age);
    age - worker.random() % (age / 10 + 1)
}

/// Counts a connection's end, and whether it was a panic.
struct Life {
    worker: Rc<Worker>,
    slot: Option<usize>,
    admitted: Admitted,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.worker.count(Count::Closed);
        if std::thread::panicking() {
            self.worker.count(Count::Panics);
        }
        self.worker.closed(self.slot);
    }
}

/// Serves a connection in a task of its own.
pub fn spawn(
    worker: &Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    secure: Option<&Secure>,
    preamble: bool,
) {
    worker.count(Count::Accepted);
    let admitted = match worker.accepted(peer) {
        Ok(admitted) => admitted,
        Err(reason) => {
            worker.count(Count::Closed);
            worker.refuse(reason, peer);
            return;
        }
    };
    tokio::task::spawn_local(serve(
        Rc::clone(worker),
        stream,
        peer,
        (secure.cloned(), preamble),
        admitted,
    ));
}

async fn serve(
    worker: Rc<Worker>,
    mut stream: TcpStream,
    mut peer: SocketAddr,
    (secure, preamble): (Option<Secure>, bool),
    admitted: Admitted,
) {
    let mut life = Life { worker: Rc::clone(&worker), slot: None, admitted };
    let opening = Box::pin(async {
        let mut announced = None;
        if preamble {
            match preamble::greet(&worker, &mut stream, peer, &mut life.admitted).await {
                Ok((client, to)) => (peer, announced) = (client, to),
                Err(reason) => {
                    reason.into_iter().for_each(|reason| worker.refuse(reason, peer));
                    return None;
                }
            }
        }
        open(&worker, stream, secure, announced).await
    });
    let opened = tokio::time::timeout(worker.settings.limits.handshake, opening).await;
    if opened.is_err() {
        worker.refuse(Reason::HandshakeTime, peer);
    }
    let Ok(Some(opened)) = opened else { return };
    // Where a preamble does not say whose the bytes are, they are not the word of whoever forwards them.
    let is_nobodys = preamble && opened.announced.is_none();
    let connection = Downstream::new(&worker, peer, &opened, is_nobodys);
    let Opened { transport, multiplexed, first, .. } = opened;
    life.slot = Some(worker.connection_began(Rc::clone(&connection)));
    let io = Io::new(transport, first, Rc::clone(&connection));
    if multiplexed {
        Box::pin(http2::serve(&worker, &connection, TokioIo::new(io))).await;
    } else {
        persistent::serve(&worker, &connection, io).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn under_pressure_clients_have_less_time() {
        let usual = Deadlines::of(&Limits::default(), false);
        assert_eq!(usual.under(Pressure::None), usual);
        let pressed = usual.under(Pressure::High);
        assert_eq!(pressed.keep_alive, usual.keep_alive / 8);
        assert_eq!(pressed.header_read, usual.header_read / 2);
        assert_eq!(pressed.write_stall, usual.write_stall / 2);
        assert_eq!(pressed.requests, usual.requests);
    }
}
