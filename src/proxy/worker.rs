//! A worker: one thread, one runtime, and everything that requests on it share.
//!
//! Nothing here is shared between threads but the live table, the counters and the settings. Its
//! tick, every 100 ms, watches deadlines, closes idle connections and cuts what must end.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::Settings;
use super::admission::{Admission, Admitted, Pressure};
use super::clock::{Clock, DATE, TICK, Tick, date, ticks};
use super::compress;
use super::credentials::Credentials;
use super::downstream::{self, Downstream, Secure};
use super::exchange::Exchange;
use super::files::OpenFiles;
use super::forward_auth::Questions;
use super::forwarded::is_trusted;
use super::ids::{Mint, Names};
use super::memory;
use super::places::Places;
use super::refusals::Refusals;
use super::route::Snapshot;
use super::slots::Slots;
use super::tcp;
use super::upstream::Upstreams;
use crate::model::id::ServiceName;
use crate::routing::live::{Live, Reader};
use crate::telemetry::access_log::{AccessLog, Lines};
use crate::telemetry::traffic::{Count, Reason, Traffic};

/// Ticks between two looks at the clients' connections: their deadlines are seconds.
const CONNECTION_TICKS: Tick = if cfg!(test) { 1 } else { 10 };
/// Ticks between two lines about refusals: an attack must not fill a disk.
const REFUSAL_TICKS: Tick = 100;
/// Ticks between two looks at the memory that is used. Envoy looks every 250 ms.
const MEMORY_TICKS: Tick = 3;
/// How long accepting pauses after an error, such as too many open files: long enough not to spin,
/// short enough not to be felt.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Of the files that a process may have open, those that are held back for connections to instances: an
/// eighth, and at most so many.
const RESERVED_FILES: u64 = 512;

/// Requests that may wait on one worker for the end of a maintenance, of all services together; more
/// are answered at once. What is kept of one that waits is a few KiB.
const WAITING: usize = 10_000;

/// What the proxy asks of its workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Serve.
    Run,
    /// Accept no more, let what runs finish until then, and end.
    Drain(Instant),
    /// Another process accepts on the same sockets: accept no more at once, answer what comes on open
    /// connections until then, and end.
    HandOver(Instant),
}

/// What is spoken on a listener.
#[derive(Debug, Clone)]
pub enum Spoken {
    /// HTTP in the clear.
    Http,
    /// HTTP over TLS.
    Https(Secure),
    /// Nothing that we know, to this service.
    Tcp(ServiceName),
}

/// How a listener is entered.
#[derive(Debug, Clone)]
pub struct Entrance {
    /// What is spoken on it.
    pub spoken: Spoken,
    /// Whether each connection begins with a preamble.
    pub preamble: bool,
}

/// What a worker starts with.
#[derive(Debug)]
pub struct Start {
    /// Its number: its shard of every scorecard.
    pub index: usize,
    /// Where visitors find https.
    pub https_port: u16,
    /// How it works.
    pub settings: Arc<Settings>,
    /// Who may connect; shared by all workers.
    pub admission: Arc<Admission>,
    /// The door by which decisions come.
    pub live: Live,
    /// Where it counts.
    pub traffic: Arc<Traffic>,
    /// Its own listening sockets.
    pub listeners: Vec<(std::net::TcpListener, Entrance)>,
    /// Its part of HTTP/3.
    #[cfg(feature = "http3")]
    pub http3: downstream::http3::Part,
    /// What is asked of it.
    pub commands: watch::Receiver<Command>,
}

/// What requests on one thread share.
#[derive(Debug)]
pub struct Worker {
    /// Its number: its shard of every scorecard.
    pub index: usize,
    /// Where visitors find https.
    pub https_port: u16,
    /// How it works.
    pub settings: Arc<Settings>,
    admission: Arc<Admission>,
    pressure: Cell<Pressure>,
    /// Its coarse clock.
    pub clock: Clock,
    /// Its connections to endpoints.
    pub upstreams: Upstreams,
    /// Lines of the access log, if there is one.
    pub lines: Option<Lines>,
    /// Places for requests that wait for the end of a maintenance.
    pub waiting: Places,
    /// Places for bodies that are made smaller.
    pub encoders: Places,
    /// The files that it has open.
    pub files: OpenFiles,
    /// What it knows of passwords.
    pub credentials: Credentials,
    /// What it asks others about requests.
    pub questions: Questions,
    pub(super) traffic: Arc<Traffic>,
    reader: RefCell<Reader>,
    table: RefCell<Snapshot>,
    random: RefCell<fastrand::Rng>,
    mint: RefCell<Mint>,
    /// What is on its way.
    pub exchanges: RefCell<Slots<Rc<Exchange>>>,
    connections: RefCell<Slots<Rc<Downstream>>>,
    /// What it has to do with HTTP/3.
    #[cfg(feature = "http3")]
    pub http3: downstream::http3::Spoken,
    refusals: RefCell<Refusals>,
    told_of_accept: Cell<Option<Tick>>,
    /// Files beyond which there is no room for clients.
    most_files: Cell<u64>,
    date: Cell<[u8; DATE]>,
    /// Connections from their accept to their end.
    open: Cell<usize>,
    draining: Cell<bool>,
    /// Another process accepts in its place.
    handed_over: Cell<bool>,
    /// Wakes those that wait for a connection's first byte when a drain begins.
    drain_began: Notify,
    connection_ended: Notify,
}

impl Worker {
    fn new(start: &Start) -> Rc<Self> {
        let clock = Clock::default();
        let mut reader = start.live.reader();
        let table = Rc::new(Arc::clone(reader.load()));
        Rc::new(Self {
            index: start.index,
            https_port: start.https_port,
            settings: Arc::clone(&start.settings),
            admission: Arc::clone(&start.admission),
            pressure: Cell::default(),
            upstreams: Upstreams::new(clock.clone()),
            clock,
            waiting: Places::new(WAITING),
            encoders: Places::new(compress::MOST),
            files: OpenFiles::default(),
            credentials: Credentials::new(std::array::from_fn(|_| fastrand::u64(..))),
            questions: Questions::default(),
            lines: start.settings.log.as_ref().map(AccessLog::lines),
            traffic: Arc::clone(&start.traffic),
            reader: RefCell::new(reader),
            table: RefCell::new(table),
            random: RefCell::new(fastrand::Rng::new()),
            mint: RefCell::default(),
            exchanges: RefCell::default(),
            connections: RefCell::default(),
            #[cfg(feature = "http3")]
            http3: start.http3.spoken(),
            refusals: RefCell::default(),
            told_of_accept: Cell::default(),
            most_files: Cell::new(u64::MAX),
            date: Cell::new(date()),
            open: Cell::new(0),
            draining: Cell::new(false),
            handed_over: Cell::new(false),
            drain_began: Notify::new(),
            connection_ended: Notify::new(),
        })
    }

    /// Adds one to a counter.
    #[inline]
    pub fn count(&self, count: Count) {
        self.traffic.add(self.index, count);
    }

    /// Counts a refusal, and remembers it for the log.
    pub fn refuse(&self, reason: Reason, peer: SocketAddr) {
        self.traffic.refuse(self.index, reason);
        self.refusals.borrow_mut().note(reason, peer);
    }

    /// The moment as answers tell it, to the second.
    pub fn date(&self) -> [u8; DATE] {
        self.date.get()
    }

    /// The live table. One atomic load and a compare while nothing changed.
    #[inline]
    pub fn table(&self) -> Snapshot {
        let mut reader = self.reader.borrow_mut();
        let live = reader.load();
        let mut table = self.table.borrow_mut();
        if !Arc::ptr_eq(&table, live) {
            *table = Rc::new(Arc::clone(live));
        }
        Rc::clone(&table)
    }

    /// Random bits.
    #[inline]
    pub fn random(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }

    /// The names of a request.
    pub fn names(
        &self,
        traceparent: Option<&http::HeaderValue>,
        request_id: Option<&http::HeaderValue>,
    ) -> Names {
        self.mint.borrow_mut().names(traceparent, request_id, || self.random())
    }

    /// Whether it accepts no more, and clients are told to go elsewhere.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Whether a connection on which nothing happens is to be closed. Not after a handover: a client
    /// may send its next request at this very moment, and is told on its answer.
    pub fn closes_idle(&self) -> bool {
        self.draining.get() && !self.handed_over.get()
    }

    /// Returns when a drain begins that closes what is idle.
    ///
    /// Cancel safety: may be dropped at any time.
    pub async fn closing_began(&self) {
        loop {
            let notified = self.drain_began.notified();
            if self.closes_idle() {
                return;
            }
            notified.await;
        }
    }

    /// Returns when a drain begins.
    ///
    /// Cancel safety: may be dropped at any time.
    pub async fn drain_began(&self) {
        let notified = self.drain_began.notified();
        if !self.is_draining() {
            notified.await;
        }
    }

    /// A connection was accepted: it is admitted, or the reason why not.
    pub fn accepted(&self, peer: SocketAddr) -> Result<Admitted, Reason> {
        let admitted = self.admission.admit(peer.ip(), self.is_exempt(peer))?;
        self.open.set(self.open.get() + 1);
        Ok(admitted)
    }

    /// A connection that was admitted is another client's than it seemed.
    pub fn counts_for(&self, admitted: &mut Admitted, client: SocketAddr) -> Result<(), Reason> {
        if self.is_exempt(client) { Ok(()) } else { admitted.count_for(client.ip()) }
    }

    /// Whether a client's connections are not counted by its address: proxies speak for many.
    fn is_exempt(&self, peer: SocketAddr) -> bool {
        is_trusted(&self.settings.trusted_proxies, peer.ip())
            || self.settings.connections_exempt.contains(peer.ip())
    }

    /// How pressed for memory the process is.
    #[inline]
    pub fn pressure(&self) -> Pressure {
        self.pressure.get()
    }

    /// A connection to be watched; the slot is to be given to [`Self::closed`].
    pub fn connection_began(&self, connection: Rc<Downstream>) -> usize {
        self.connections.borrow_mut().insert(connection)
    }

    /// A connection has ended, with its slot if it came so far.
    pub fn closed(&self, slot: Option<usize>) {
        if let Some(slot) = slot {
            self.connections.borrow_mut().remove(slot);
        }
        self.open.set(self.open.get() - 1);
        self.connection_ended.notify_one();
    }

    fn tick(&self) {
        self.clock.advance();
        if let Some(lines) = &self.lines {
            lines.hand_over();
        }
        let cut = self.upstreams.tick();
        let is_cut = |endpoint| cut.contains(&endpoint);
        // Firing wakes and drops, but calls nobody back: the borrow is safe.
        for exchange in self.exchanges.borrow().iter() {
            exchange.tick(&is_cut);
        }
        self.date.set(date());
        if self.index == 0 && self.clock.now().is_multiple_of(MEMORY_TICKS) {
            memory::give_back();
            if let Some(used) = memory::used() {
                self.admission.uses(used);
            }
        }
        self.pressure.set(self.admission.pressure());
        if self.clock.now().is_multiple_of(REFUSAL_TICKS) {
            self.refusals.borrow_mut().tell();
        }
        if self.clock.now().is_multiple_of(CONNECTION_TICKS) {
            for connection in self.connections.borrow().iter() {
                connection.tick(self.pressure.get());
            }
            self.look_at_files();
            self.files.tick(self.clock.now(), ticks(self.settings.limits.write_stall));
        }
    }

    /// A connection could not be accepted. When there are no more files, who only waits is let go: its
    /// file is of more use to who wants something.
    fn accept_failed(&self, error: &std::io::Error) {
        self.count(Count::AcceptFailures);
        let now = self.clock.now();
        if self.told_of_accept.get().is_none_or(|told| now - told >= REFUSAL_TICKS) {
            self.told_of_accept.set(Some(now));
            tracing::warn!(%error, "connections cannot be accepted");
        }
        let code = rustix::io::Errno::from_io_error(error);
        if matches!(code, Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE)) {
            self.make_room();
        }
    }

    /// Whether a new file's number says that few are left: the lowest that is free is given out.
    fn is_short_of_files(&self, number: RawFd) -> bool {
        u64::try_from(number).is_ok_and(|number| number >= self.most_files.get())
    }

    /// Files that may be open before some are held back for connections to instances.
    fn look_at_files(&self) {
        let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        self.most_files.set(most - (most / 8).min(RESERVED_FILES));
    }

    fn make_room(&self) {
        for connection in self.connections.borrow().iter() {
            connection.spare();
        }
    }

    fn begin_drain(&self, handed_over: bool) {
        self.draining.set(true);
        self.handed_over.set(handed_over);
        self.drain_began.notify_waiters();
        for connection in self.connections.borrow().iter() {
            connection.wake();
        }
    }
}

/// Serves until it is told to end. Called on the worker's own thread.
pub fn run(start: Start) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    let worker = Worker::new(&start);
    runtime.block_on(serve(worker, start))
}

async fn serve(worker: Rc<Worker>, start: Start) -> std::io::Result<()> {
    let Start { listeners, mut commands, .. } = start;
    let mut accepting = tokio::task::JoinSet::new();
    #[cfg(feature = "http3")]
    downstream::http3::begin(&worker, start.http3, &mut accepting);
    for (listener, entrance) in listeners {
        let listener = TcpListener::from_std(listener)?;
        accepting.spawn_local(accept(Rc::clone(&worker), listener, entrance));
    }
    let ticking = Rc::clone(&worker);
    tokio::task::spawn_local(async move {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            ticking.tick();
        }
    });
    // An error means that the proxy is gone, and with it the reason to run.
    let mut command = commands.wait_for(|command| *command != Command::Run).await.map(|c| *c);
    loop {
        worker.begin_drain(matches!(command, Ok(Command::HandOver(_))));
        let (Ok(Command::Drain(deadline)) | Ok(Command::HandOver(deadline))) = command else {
            return Ok(());
        };
        // Each listener takes what the kernel has queued for it, and closes; what is queued for a
        // listener that another process has too is left to that one.
        let drained = async {
            while accepting.join_next().await.is_some() {}
            while worker.open.get() > 0 {
                worker.connection_ended.notified().await;
            }
        };
        tokio::select! {
            _ = tokio::time::timeout_at(deadline, drained) => {
                #[cfg(feature = "http3")]
                downstream::http3::cut(&worker).await;
                return Ok(());
            }
            sooner = commands.changed() => {
                command = sooner.map(|()| *commands.borrow_and_update());
            }
        }
    }
}

fn enter(
    worker: &Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    spoken: &Spoken,
    preamble: bool,
) {
    match spoken {
        Spoken::Http => downstream::spawn(worker, stream, peer, None, preamble),
        Spoken::Https(secure) => downstream::spawn(worker, stream, peer, Some(secure), preamble),
        Spoken::Tcp(service) => tcp::spawn(worker, stream, peer, service, preamble),
    }
}

async fn accept(worker: Rc<Worker>, listener: TcpListener, entrance: Entrance) {
    let Entrance { spoken, preamble } = entrance;
    let mut hurries = None;
    let mut enter = |stream: TcpStream, peer| {
        // Looked at once: the listener hands it on, or it does not. A refusal costs latency at most.
        let hands_on = || stream.nodelay().unwrap_or(false);
        let _ = *hurries.get_or_insert_with(hands_on) || stream.set_nodelay(true).is_err();
        enter(&worker, stream, peer, &spoken, preamble);
    };
    loop {
        if worker.handed_over.get() {
            break;
        }
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            () = worker.drain_began() => break,
        };
        match accepted {
            Ok((stream, peer)) if worker.is_short_of_files(stream.as_raw_fd()) => {
                worker.make_room();
                enter(stream, peer);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            Ok((stream, peer)) => enter(stream, peer),
            // One bad connection or too many files must not end the loop.
            Err(error) => {
                worker.accept_failed(&error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
}
