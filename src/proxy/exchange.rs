//! One request on its way: what the worker's tick must know of it, and what is written on a
//! scorecard when it ends.
//!
//! An exchange is shared by the handler, the bodies and the worker's list. The tick looks at each
//! once per 100 ms: it records an overdue answer, fires deadlines, and cuts what a drain has no more
//! patience for. A fired exchange has lost its claim and its connection already; whoever polls it
//! next only learns so.
//!
//! An observation is recorded exactly once, and only for the first attempt of a request whose side
//! was drawn:
//!
//! * an answer whose body ended: by its status, with the latency to its headers; in gRPC by the
//!   status that its trailers say (see [`super::observation`]);
//! * a body that the upstream broke off: a fault; that the client broke off: abandoned, unless the
//!   status was a failure already;
//! * a body that still runs [`JUDGED_AFTER`] behind its headers (downloads), and at once an event
//!   stream or a tunnel: as if it had ended, so that evidence is not late;
//! * no answer after the service's `overdue`: a fault, at that moment.
//!
//! Latency runs from the last byte of the request (its head, when there is no body), so that a slow
//! upload does not look like a slow instance.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Weak;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use http::response::Parts;
use http::{HeaderMap, StatusCode};

use super::clock::{Clock, Tick, ticks};
use super::downstream::Downstream;
use super::headers::strip_response;
use super::mirror::Copied;
use super::observation::{Kind, Observation, Part, Subject};
use super::route::Route;
use super::upstream::line::Line;
use crate::edge::flight::Flight;
use crate::model::preamble::Ends;
use crate::routing::endpoint::{Claim, EndpointId};
use crate::telemetry::traffic::Reason;

/// A body that runs longer than this behind its headers is judged as it stands. Long enough for a
/// page to break off within it, short against the steps of a rollout.
pub const JUDGED_AFTER: Duration = Duration::from_secs(5);

/// How long a body may be slower than its least rate: what a phone needs in a lift. Kestrel's.
const UPLOAD_GRACE: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);

/// An observation whose meaning depends on what another revision says. Dropped, it is none.
#[derive(Debug)]
pub struct SetAside {
    observation: Option<Observation>,
    endpoint: Option<EndpointId>,
}

impl SetAside {
    /// It counts as what the headers said.
    pub fn record(self) {
        if let Some(observation) = self.observation {
            observation.end(self.endpoint);
        }
    }
}

/// How far an exchange is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Finding an endpoint and a connection; has time limits of its own.
    Claiming,
    /// The request's body is on its way.
    Uploading,
    /// The request is sent, the answer is not there.
    Waiting,
    /// The answer's body waits for the upstream.
    Streaming,
    /// The answer's body waits for the client.
    Blocked,
    /// Bytes both ways.
    Tunnel,
}

/// Why an exchange was ended by the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fired {
    /// The upstream took too long.
    Upstream,
    /// The client took too long.
    Downstream,
    /// The endpoint's drain deadline has passed.
    Cut,
}

/// How long each stage may last, in ticks.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// To the response's headers.
    pub response: Tick,
    /// To count as an error already.
    pub overdue: Tick,
    /// Without a byte from the upstream, and in tunnels.
    pub idle: Tick,
    /// Without a byte of the client's body.
    pub upload: Tick,
    /// Bytes per second that a client's body must have; 0 is any.
    pub upload_rate: u64,
    /// Without the client taking a byte.
    pub write: Tick,
}

/// What a streaming exchange holds on to.
#[derive(Debug)]
pub struct Held {
    /// The right to the endpoint.
    pub claim: Claim,
    /// The HTTP/1.1 connection, when this exchange drives it.
    pub connection: Option<Line>,
}

/// One request on its way.
#[derive(Debug)]
pub struct Exchange {
    clock: Clock,
    patience: Patience,
    stage: Cell<Stage>,
    /// When the last progress of this stage was.
    touched: Cell<Tick>,
    /// When the request's last byte was sent.
    sent: Cell<Instant>,
    /// When the response's headers came.
    answered: Cell<Tick>,
    upload_waits: Cell<bool>,
    /// Ticks at which the upstream waited for the body, and bytes that came of it.
    waited: Cell<Tick>,
    came: Cell<u64>,
    upload_broken: Cell<bool>,
    refused: Cell<Option<Reason>>,
    /// Whom interim answers are told.
    client: Weak<Downstream>,
    /// Where they are told on a stream of HTTP/3.
    #[cfg(feature = "http3")]
    hints: RefCell<Option<super::downstream::http3::Hints>>,
    /// Who asks.
    source: IpAddr,
    endpoint: Cell<Option<EndpointId>>,
    fired: Cell<Option<Fired>>,
    waker: RefCell<Option<Waker>>,
    observation: RefCell<Option<Observation>>,
    /// The body says how it went.
    follows: Cell<bool>,
    /// What a streaming body holds on to; here, so that a cut can take it away.
    pub held: RefCell<Option<Held>>,
    /// A copy of the request that waits for stable's answer.
    pub copied: RefCell<Option<Box<Copied>>>,
    /// What it counts as against limits on requests in flight.
    pub flights: RefCell<Vec<Flight>>,
}

impl Exchange {
    /// A request that arrived at `arrived`.
    pub fn new(
        clock: Clock,
        patience: Patience,
        arrived: Instant,
        client: Weak<Downstream>,
        source: IpAddr,
    ) -> Self {
        let now = clock.now();
        Self {
            clock,
            patience,
            stage: Cell::new(Stage::Claiming),
            touched: Cell::new(now),
            sent: Cell::new(arrived),
            answered: Cell::new(now),
            upload_waits: Cell::new(false),
            waited: Cell::new(0),
            came: Cell::new(0),
            upload_broken: Cell::new(false),
            refused: Cell::new(None),
            client,
            #[cfg(feature = "http3")]
            hints: RefCell::default(),
            source,
            endpoint: Cell::new(None),
            fired: Cell::new(None),
            waker: RefCell::new(None),
            observation: RefCell::new(None),
            follows: Cell::new(false),
            held: RefCell::new(None),
            copied: RefCell::default(),
            flights: RefCell::default(),
        }
    }

    /// From now on this exchange is an observation of a side, written to the shard of `worker`.
    pub fn observe(&self, route: Route, part: Part, worker: usize, subject: Subject) {
        *self.observation.borrow_mut() = Some(Observation::new(route, part, worker, subject));
    }

    /// An attempt has a connection to this endpoint, and begins to send.
    pub fn begin(&self, endpoint: EndpointId, uploads: bool) {
        self.endpoint.set(Some(endpoint));
        self.enter(if uploads { Stage::Uploading } else { Stage::Waiting });
    }

    /// An attempt failed; another one begins, whatever ended the one before.
    pub fn begin_again(&self) {
        self.endpoint.set(None);
        self.fired.set(None);
        self.enter(Stage::Claiming);
    }

    /// The request's body is read before an instance is asked for.
    pub fn gathers(&self) {
        self.enter(Stage::Uploading);
    }

    fn enter(&self, stage: Stage) {
        self.stage.set(stage);
        self.touched.set(self.clock.now());
    }

    /// How far it is.
    pub fn stage(&self) -> Stage {
        self.stage.get()
    }

    /// So many bytes of the request's body went on.
    pub fn uploaded(&self, bytes: u64) {
        self.upload_waits.set(false);
        self.came.set(self.came.get().saturating_add(bytes));
        self.touched.set(self.clock.now());
    }

    /// The upstream waits for the request's body.
    pub fn upload_waits(&self) {
        self.upload_waits.set(true);
    }

    /// The request's last byte went on: from now the upstream is awaited.
    pub fn upload_done(&self) {
        if self.stage.get() == Stage::Uploading {
            self.sent.set(Instant::now());
            self.enter(Stage::Waiting);
        }
    }

    /// The client's body broke off, perhaps because it is refused.
    pub fn upload_broke(&self, refused: Option<Reason>) {
        self.upload_broken.set(true);
        self.refused.set(refused);
    }

    /// Why the client's body was refused, if it was.
    pub fn upload_refused(&self) -> Option<Reason> {
        self.refused.get()
    }

    /// Interim answers are told there.
    #[cfg(feature = "http3")]
    pub fn hints_go_to(&self, hints: Option<super::downstream::http3::Hints>) {
        *self.hints.borrow_mut() = hints;
    }

    /// The instance sent an interim answer.
    pub fn interim(&self, status: StatusCode, headers: &mut HeaderMap) {
        #[cfg(feature = "http3")]
        if let Some(hints) = &*self.hints.borrow() {
            strip_response(headers);
            // It may be left out (RFC 9110, 15.2), and is for a client that takes them too slowly.
            let _ = hints.try_send((status, headers.clone()));
            return;
        }
        if let Some(client) = self.client.upgrade() {
            strip_response(headers);
            client.interim(status, headers);
        }
    }

    /// Who asks, and which address they connected to, for an instance that is told so.
    pub fn ends(&self) -> Option<Ends> {
        let client = self.client.upgrade()?;
        // By another proxy's word only the address is known.
        let port = if client.peer.ip() == self.source { client.peer.port() } else { 0 };
        Some((SocketAddr::new(self.source, port), client.local?))
    }

    /// Whether the client broke off its body.
    pub fn is_upload_broken(&self) -> bool {
        self.upload_broken.get()
    }

    /// The response's headers came: its latency in microseconds is known, and its row, unless its
    /// trailers decide. `kind` is what its body is.
    pub fn answered(&self, head: &Parts, kind: Kind) {
        self.answered.set(self.clock.now());
        let mut observation = self.observation.borrow_mut();
        let Some(seen) = observation.as_mut() else { return };
        seen.answered(head, kind, self.age());
        self.follows.set(seen.follows());
        if kind == Kind::Endless
            && let Some(observation) = observation.take()
        {
            observation.end(self.endpoint.get());
        }
    }

    /// The trailers came, in which gRPC says how it went.
    pub fn trailers(&self, trailers: &HeaderMap) {
        if let Some(observation) = self.observation.borrow_mut().as_mut() {
            observation.trailers(trailers);
        }
    }

    /// So much of the response's body came.
    #[inline]
    pub fn saw(&self, bytes: &[u8]) {
        if self.follows.get() {
            self.follow(bytes);
        }
    }

    #[cold]
    fn follow(&self, bytes: &[u8]) {
        if let Some(observation) = self.observation.borrow_mut().as_mut() {
            observation.read(bytes);
            self.follows.set(observation.follows());
        }
    }

    /// The response's body begins. It waits for the client until that first asks for some of it, which
    /// one of HTTP/2 with its windows shut does not do.
    pub fn stream(&self, held: Held) {
        *self.held.borrow_mut() = Some(held);
        self.enter(Stage::Blocked);
    }

    /// A tunnel begins.
    pub fn tunnel(&self) {
        self.enter(Stage::Tunnel);
    }

    /// Bytes moved.
    #[inline]
    pub fn moved(&self, stage: Stage) {
        self.enter(stage);
    }

    /// The body ended as it should: the observation is what the headers and trailers said.
    pub fn complete(&self) {
        if let Some(observation) = self.observation.borrow_mut().take() {
            observation.end(self.endpoint.get());
        }
    }

    /// The body goes on, and is judged as it stands.
    fn judge(&self) {
        if let Some(observation) = self.observation.borrow_mut().take() {
            observation.end_early(self.endpoint.get());
        }
    }

    /// The upstream failed.
    pub fn fault(&self) {
        if let Some(observation) = self.observation.borrow_mut().take() {
            observation.fault(self.age());
        }
    }

    /// The client went away. An error that it was told of before remains one.
    pub fn abandon(&self) {
        if let Some(observation) = self.observation.borrow_mut().take() {
            observation.abandon(self.age());
        }
    }

    /// Takes what the headers said away, to be recorded or not when more is known.
    pub fn set_aside(&self) -> SetAside {
        let observation = self.observation.borrow_mut().take();
        SetAside { observation, endpoint: self.endpoint.get() }
    }

    /// Neither side's doing: nothing is recorded.
    pub fn forget(&self) {
        self.observation.borrow_mut().take();
    }

    /// Microseconds since the request was sent, or arrived.
    pub fn age(&self) -> u64 {
        u64::try_from(self.sent.get().elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Why it was ended, if it was.
    #[inline]
    pub fn fired(&self) -> Option<Fired> {
        self.fired.get()
    }

    /// Whoever polls this is woken when it fires.
    #[inline]
    pub fn park(&self, context: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
    }

    /// Has whoever polls this look again.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// One look of the worker's tick.
    pub fn tick(&self, is_cut: &dyn Fn(EndpointId) -> bool) {
        if self.fired.get().is_some() {
            return;
        }
        let now = self.clock.now();
        let quiet = now.saturating_sub(self.touched.get());
        let stage = self.stage.get();
        if self.endpoint.get().is_some_and(is_cut) {
            self.fire(Fired::Cut);
            return;
        }
        match stage {
            Stage::Claiming => {}
            Stage::Uploading if self.upload_waits.get() => {
                self.waited.set(self.waited.get() + 1);
                if self.is_too_slow() {
                    self.fire(Fired::Downstream);
                } else {
                    self.fire_after(quiet, self.patience.upload, Fired::Downstream);
                }
            }
            Stage::Uploading => self.fire_after(quiet, self.patience.idle, Fired::Upstream),
            Stage::Waiting => {
                if quiet >= self.patience.overdue {
                    self.fault();
                }
                self.fire_after(quiet, self.patience.response, Fired::Upstream);
            }
            Stage::Streaming | Stage::Blocked => {
                if now.saturating_sub(self.answered.get()) >= ticks(JUDGED_AFTER) {
                    self.judge();
                }
                if stage == Stage::Blocked {
                    self.fire_after(quiet, self.patience.write, Fired::Downstream);
                } else {
                    self.fire_after(quiet, self.patience.idle, Fired::Upstream);
                }
            }
            Stage::Tunnel => self.fire_after(quiet, self.patience.idle, Fired::Upstream),
        }
    }

    /// Whether the body comes so slowly that it only holds an instance up. What counts is the time in
    /// which somebody waited for it.
    fn is_too_slow(&self) -> bool {
        let waited = self.waited.get();
        waited > ticks(UPLOAD_GRACE)
            && self.came.get() < waited.saturating_mul(self.patience.upload_rate) / ticks(SECOND)
    }

    fn fire_after(&self, quiet: Tick, patience: Tick, fired: Fired) {
        if quiet >= patience {
            self.fire(fired);
        }
    }

    fn fire(&self, fired: Fired) {
        self.fired.set(Some(fired));
        match fired {
            Fired::Upstream => self.fault(),
            Fired::Downstream => self.abandon(),
            Fired::Cut => self.forget(),
        }
        // The claim and the connection go now, even if nobody polls the body any more.
        drop(self.held.borrow_mut().take());
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Drop for Exchange {
    /// An exchange that ends without a word was abandoned.
    fn drop(&mut self) {
        self.abandon();
    }
}
