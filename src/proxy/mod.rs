//! The data plane: it takes requests, sends each to the side that the routing table says, and
//! writes what came of it on that side's scorecard.
//!
//! A thread per worker, and nothing shared between them on a request's way: each has its own
//! listening sockets, its own connections to instances, its own random numbers and its own cells in
//! every counter. Decisions come in by [`Live`] alone, evidence goes out by the scorecards alone;
//! nothing here decides about a rollout, knows a runtime, or reads a configuration.
//!
//! ```text
//!              ┌──────────── worker ────────────┐
//! clients ───▶ │ downstream ▶ handler ▶ upstream │ ───▶ instances
//!              └──────▲─────────────────┬────────┘
//!        Live (table)─┘                 └─▶ scorecards, Traffic
//! ```
//!
//! What holds: one load of the table per request; one claim per request in flight, from before its
//! first byte goes upstream until the last byte of the answer is here; one record per observed
//! request; a client's connection is never ended for a change of the table.
//!
//! No `Via` is added: it is asked of gateways by RFC 9110, but switches compression off in common
//! servers (nginx's `gzip_proxied`), and no peer adds it by default. Loops are noticed by `CDN-Loop`.

mod admission;
mod affinity;
mod answer;
mod attempt;
mod body;
mod check;
mod choice;
mod chunked;
mod clock;
mod compress;
mod credentials;
mod dial;
mod downstream;
mod error;
mod exchange;
mod files;
mod forward;
mod forward_auth;
pub mod forwarded;
mod gate;
mod gather;
mod grpc_web;
mod handler;
mod headers;
pub mod ids;
mod kept;
pub mod limits;
pub mod listener;
mod logged;
mod memory;
mod mirror;
mod observation;
mod ongoing;
mod page;
mod parcel;
mod path;
mod places;
mod refusals;
mod route;
mod shield;
mod slots;
pub mod spool;
mod tcp;
pub mod tester;
pub mod tls;
mod tunnel;
mod turn;
#[cfg(feature = "http3")]
mod udp;
mod upstream;
mod worker;

#[cfg(test)]
pub(crate) mod tests;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use self::admission::Admission;
use self::forwarded::Believed;
use self::limits::Limits;
use self::listener::{BindError, Held, Shared, listen};
use self::spool::Spool;
use self::tls::Certificates;
use self::worker::{Command, Entrance, Spoken, Start};
use crate::edge::addresses::AddressSet;
use crate::model::id::ServiceName;
use crate::model::network::Network;
use crate::routing::live::Live;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::traffic::Traffic;

/// How the proxy listens and works.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Where it listens in cleartext: HTTP/1.1, and HTTP/2 with prior knowledge.
    pub http: Vec<SocketAddr>,
    /// Where it listens with TLS.
    pub https: Vec<SocketAddr>,
    /// Where it listens for plain TCP, and to which service that leads.
    pub tcp: Vec<(SocketAddr, ServiceName)>,
    /// How many threads; 0 counts as 1. Scorecards need as many shards.
    pub workers: usize,
    /// Whether HTTP/3 is spoken on the UDP ports of `https`, where no preamble is expected. Only where it
    /// is built in.
    pub http3: bool,
    /// What it shows on `https`.
    pub tls: Option<Arc<Certificates>>,
    /// Whose word about the client is taken: `X-Forwarded-*` and `X-Request-ID`.
    pub trusted_proxies: Vec<Network>,
    /// Which of their fields says who the client is.
    pub client_header: Believed,
    /// Those of the addresses on which each connection begins with a preamble.
    pub preambles: Vec<SocketAddr>,
    /// Whom [`Limits::connections_per_address`] does not count, beside trusted proxies.
    pub connections_exempt: AddressSet,
    /// What clients may do.
    pub limits: Limits,
    /// Whether responses say which revision answered, in `X-Switchback-Revision`.
    pub revision_header: bool,
    /// Where requests are written down, if they are.
    pub log: Option<AccessLog>,
    /// Where request bodies lie that are read in advance.
    pub spool: Arc<Spool>,
}

/// A running proxy. Dropped, it ends at once.
#[derive(Debug)]
pub struct Proxy {
    addresses: Addresses,
    commands: watch::Sender<Command>,
    /// The listening sockets, to be handed over. Closed when a drain begins, or the kernel would queue
    /// connections that nobody takes.
    kept: Mutex<Vec<Held>>,
    /// Ends when the last worker has.
    running: watch::Receiver<usize>,
    threads: Vec<JoinHandle<()>>,
}

/// Where a proxy listens, with the ports that were found for port 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// In cleartext, in the order of the settings.
    pub http: Vec<SocketAddr>,
    /// With TLS, in the order of the settings.
    pub https: Vec<SocketAddr>,
    /// For plain TCP, in the order of the settings.
    pub tcp: Vec<SocketAddr>,
}

/// Takes all addresses, and starts the workers.
///
/// Errors name the address and what to do. On an error nothing is left behind.
pub fn bind(settings: Settings, live: Live, traffic: Arc<Traffic>) -> Result<Proxy, BindError> {
    take_over(settings, live, traffic, Vec::new())
}

/// Like [`bind`], with listening sockets that a former process hands over. Those whose address is not
/// asked for any more are closed.
#[expect(clippy::needless_pass_by_value, reason = "the proxy keeps handles of its own")]
pub fn take_over(
    settings: Settings,
    live: Live,
    traffic: Arc<Traffic>,
    mut held: Vec<Held>,
) -> Result<Proxy, BindError> {
    let workers = settings.workers.max(1);
    let secure = match (&settings.tls, settings.https.first()) {
        (Some(certificates), Some(_)) => Some(Arc::clone(certificates)),
        (None, Some(address)) => return Err(BindError::NoCertificates(*address)),
        (_, None) => None,
    };
    let mut addresses = Addresses::default();
    let mut listeners: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
    let mut kept = Vec::new();
    let mut ports = Vec::new();
    let mut take = |wanted: &[SocketAddr], spoken: &Spoken| {
        let is_secure = matches!(spoken, Spoken::Https(_));
        let mut taken = Vec::with_capacity(wanted.len());
        for address in wanted {
            let is_it = |held: &mut Held| held.wanted == *address && held.secure == is_secure;
            let mut ours = Vec::new();
            for found in held.extract_if(.., is_it) {
                match found.socket {
                    Shared::Tcp(socket) => ours.push(socket),
                    socket @ Shared::Udp(_) => ports.push(Held { socket, ..found }),
                }
            }
            let (bound, sockets) = listen(*address, workers, ours)?;
            taken.push(bound);
            for (index, socket) in sockets.into_iter().enumerate() {
                let failed = |source| BindError::Other { address: *address, source };
                kept.push(Held {
                    wanted: *address,
                    secure: is_secure,
                    socket: Shared::Tcp(socket.try_clone().map_err(failed)?),
                });
                if let Some(worker) = listeners.get_mut(index % workers) {
                    let preamble = settings.preambles.contains(address);
                    worker.push((socket, Entrance { spoken: spoken.clone(), preamble }));
                }
            }
        }
        Ok::<_, BindError>(taken)
    };
    addresses.http = take(&settings.http, &Spoken::Http)?;
    if let Some(secure) = &secure {
        addresses.https = take(&settings.https, &Spoken::Https(Arc::clone(secure)))?;
    }
    for (address, service) in &settings.tcp {
        addresses.tcp.extend(take(&[*address], &Spoken::Tcp(service.clone()))?);
    }
    #[cfg(feature = "http3")]
    let mut parts = udp::take(&settings, &addresses.https, secure.as_ref(), ports, &mut kept)?;
    #[cfg(not(feature = "http3"))]
    drop(ports);
    let memory = settings.limits.memory.or_else(memory::available);
    let admission = Arc::new(Admission::new(&settings.limits, memory));
    let https_port = https_port(&addresses.https);
    let settings = Arc::new(settings);
    let (commands, command) = watch::channel(Command::Run);
    let (alive, running) = watch::channel(0);
    let alive = Arc::new(alive);
    let mut threads = Vec::with_capacity(workers);
    for (index, listeners) in listeners.into_iter().enumerate() {
        let start = Start {
            index,
            https_port,
            settings: Arc::clone(&settings),
            admission: Arc::clone(&admission),
            live: live.clone(),
            traffic: Arc::clone(&traffic),
            listeners,
            #[cfg(feature = "http3")]
            http3: std::mem::take(&mut parts[index]),
            commands: command.clone(),
        };
        let alive = Arc::clone(&alive);
        let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            let life = Life::new(alive);
            if let Err(error) = worker::run(start) {
                tracing::error!(worker = index, %error, "a worker could not serve");
            }
            drop(life);
        });
        threads.push(thread.map_err(BindError::Thread)?);
    }
    Ok(Proxy { addresses, commands, kept: Mutex::new(kept), running, threads })
}

/// The port that visitors are sent to for https: the usual one if it is among those that are listened
/// on, or if none is, because a proxy before us has it.
fn https_port(https: &[SocketAddr]) -> u16 {
    const USUAL: u16 = 443;
    let usual = https.iter().any(|address| address.port() == USUAL);
    https.first().filter(|_| !usual).map_or(USUAL, SocketAddr::port)
}

/// Counts workers that run: also one that panics runs no more. The channel closes with the last.
struct Life(Arc<watch::Sender<usize>>);

impl Life {
    fn new(alive: Arc<watch::Sender<usize>>) -> Self {
        alive.send_modify(|running| *running += 1);
        Self(alive)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}

impl Proxy {
    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Accepts no more, tells clients to go elsewhere (`Connection: close`, GOAWAY), lets what is in
    /// flight finish, and cuts what is left at the deadline. Returns when all workers have ended.
    ///
    /// Cancel safety: may be dropped and called again; the drain goes on, the earlier deadline holds.
    pub async fn drain(&self, deadline: Duration) {
        self.end(Command::Drain(tokio::time::Instant::now() + deadline)).await;
    }

    /// The listening sockets, for another process to accept on. What the kernel queues for them is
    /// neither lost nor refused, whoever of the two closes them.
    pub fn sockets(&self) -> std::io::Result<Vec<Held>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let again = |held: &Held| {
            let socket = held.socket.try_clone()?;
            Ok(Held { wanted: held.wanted, secure: held.secure, socket })
        };
        kept.iter().map(again).collect()
    }

    /// Like [`Self::drain`], when another process accepts on the same sockets: open connections are
    /// answered until each has been told to go elsewhere, and closed at the deadline.
    pub async fn hand_over(&self, deadline: Duration) {
        self.end(Command::HandOver(tokio::time::Instant::now() + deadline)).await;
    }

    async fn end(&self, how: Command) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.commands.send_if_modified(|command| {
            let until = |command: &Command| match command {
                Command::Run => None,
                Command::Drain(until) | Command::HandOver(until) => Some(*until),
            };
            let sooner = until(command).is_none_or(|earlier| until(&how) < Some(earlier));
            if sooner {
                *command = how;
            }
            sooner
        });
        let mut running = self.running.clone();
        // The channel closes when the last worker's thread ends: that is an error here.
        while running.changed().await.is_ok() {}
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Closing the channel ends the workers at once; nothing is waited for, because this may be
        // an async context.
        let (closed, _) = watch::channel(Command::Run);
        self.commands = closed;
        self.threads.clear();
    }
}
