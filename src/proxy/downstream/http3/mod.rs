//! HTTP/3 with clients: QUIC in place of TCP and TLS, and then the same handler as everybody's.
//!
//! ```text
//! UDP port ─▶ lane (a socket of each worker) ─▶ QUIC ─▶ HTTP/3 ─▶ a task per request ─▶ handler
//!               └─ what names another lane goes there
//! ```
//!
//! quinn speaks QUIC and h3 HTTP/3; here are the door with its limits, the deadlines, the drain and the
//! end. Whatever a client may do on HTTP/2 it may do here, and no more: no early data, which anybody
//! could replay, no WebSocket (RFC 9220), which the library does not know, no push.
//!
//! A client whose address changes keeps its connection, and counts as who it was when it came.

mod connection;
mod meter;
mod request;
mod steering;
mod streams;
mod transport;
mod upload;

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use quinn::{ConnectionError, Endpoint, Incoming, ServerConfig, TokioRuntime, VarInt};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use self::steering::{Inbox, Steered};
use self::transport::{endpoint_config, server_config};
pub use self::upload::Upload;
use super::{Downstream, Life, Secure};
use crate::proxy::admission::Admitted;
use crate::proxy::limits::Limits;
use crate::proxy::slots::Slots;
use crate::proxy::tls::certificate_of;
use crate::proxy::worker::Worker;
use crate::telemetry::traffic::{Count, Reason};

/// Handshakes of one lane under way from which on clients must show first that their address is theirs
/// (RFC 9000, 8.1.2): a round trip more for them, and nothing kept for who lies. HAProxy's threshold.
const RETRY_FROM: usize = if cfg!(test) { 4 } else { 100 };
/// For the last packets to go out when everything has ended.
const FLUSH: Duration = Duration::from_millis(200);

/// Where interim answers to a request are told.
pub type Hints = mpsc::Sender<(StatusCode, HeaderMap)>;

/// A worker's part of a UDP port.
#[derive(Debug)]
pub struct Lane {
    socket: UdpSocket,
    lane: usize,
    inboxes: Arc<[Inbox]>,
    config: ServerConfig,
    certificates: Secure,
}

/// A worker's part of HTTP/3; by default none.
#[derive(Debug, Default)]
pub struct Part {
    /// Its lanes, of all ports.
    pub lanes: Vec<Lane>,
    /// What visitors by TLS are told.
    pub alt_svc: Option<HeaderValue>,
}

impl Part {
    /// What the worker remembers of it.
    pub fn spoken(&self) -> Spoken {
        Spoken { alt_svc: self.alt_svc.clone(), endpoints: RefCell::default() }
    }
}

/// What a worker has to do with HTTP/3.
#[derive(Debug)]
pub struct Spoken {
    /// What visitors by TLS are told of it, if it is spoken.
    pub alt_svc: Option<HeaderValue>,
    endpoints: RefCell<Vec<Endpoint>>,
}

/// Takes a UDP port, for so many workers. Sockets that are `held` are used, all of them. Each lane
/// comes with a second handle on its socket, to be handed over.
///
/// # Errors
/// When the port cannot be had.
pub fn lanes(
    address: SocketAddr,
    workers: usize,
    held: Vec<UdpSocket>,
    certificates: &Secure,
    limits: &Limits,
) -> io::Result<Vec<(Lane, UdpSocket)>> {
    let sockets = steering::ports(address, workers, held)?;
    let inboxes: Arc<[Inbox]> = sockets.iter().map(|_| Inbox::default()).collect();
    let config = server_config(certificates.quic(), limits)?;
    let lane = |(lane, socket): (usize, UdpSocket)| {
        let again = socket.try_clone()?;
        let (inboxes, config) = (Arc::clone(&inboxes), config.clone());
        let certificates = Arc::clone(certificates);
        Ok((Lane { socket, lane, inboxes, config, certificates }, again))
    };
    sockets.into_iter().enumerate().map(lane).collect()
}

/// What the connections of a lane share.
struct Door {
    worker: Rc<Worker>,
    endpoint: Endpoint,
    config: ServerConfig,
    certificates: Secure,
    /// Handshakes under way.
    shaking: Cell<usize>,
    /// Connections from their first packet to their end.
    open: Cell<usize>,
    ended: Notify,
    connections: RefCell<Slots<quinn::Connection>>,
}

/// Serves a worker's lanes, in tasks that end when a drain has ended what is on them.
pub fn begin(worker: &Rc<Worker>, part: Part, tasks: &mut JoinSet<()>) {
    for lane in part.lanes {
        tasks.spawn_local(serve(Rc::clone(worker), lane));
    }
}

/// Serves a lane until a drain has ended what is on it.
async fn serve(worker: Rc<Worker>, lane: Lane) {
    let (door, steered) = match open(&worker, lane) {
        Ok(opened) => opened,
        Err(error) => {
            tracing::error!(worker = worker.index, %error, "HTTP/3 cannot be served");
            return;
        }
    };
    loop {
        let incoming = tokio::select! {
            biased;
            incoming = door.endpoint.accept() => incoming,
            () = worker.drain_began() => break,
        };
        // None comes when the endpoint is closed: a second signal.
        let Some(incoming) = incoming else { return };
        enter(&door, incoming);
    }
    let is_handed_over = !worker.closes_idle();
    if is_handed_over {
        part(&door, &steered);
    }
    let ending = async {
        while door.open.get() > 0 {
            door.ended.notified().await;
        }
        let _ = tokio::time::timeout(FLUSH, door.endpoint.wait_idle()).await;
    };
    let mut ending = std::pin::pin!(ending);
    loop {
        tokio::select! {
            () = &mut ending => return,
            // Who hears nothing asks again, and then the heir; who is told no goes on by TCP at once.
            Some(incoming) = door.endpoint.accept() => match is_handed_over {
                true => incoming.ignore(),
                false => incoming.refuse(),
            },
        }
    }
}

fn open(worker: &Rc<Worker>, lane: Lane) -> io::Result<(Rc<Door>, Arc<Steered>)> {
    let Lane { socket, lane, inboxes, config, certificates } = lane;
    let endpoint_config = endpoint_config(lane, inboxes.len());
    let steered = Arc::new(Steered::new(socket, lane, inboxes)?);
    let runtime = Arc::new(TokioRuntime);
    let (socket, first) = (Arc::clone(&steered), Some(config.clone()));
    let endpoint = Endpoint::new_with_abstract_socket(endpoint_config, first, socket, runtime)?;
    worker.http3.endpoints.borrow_mut().push(endpoint.clone());
    let door = Door {
        worker: Rc::clone(worker),
        endpoint,
        config,
        certificates,
        shaking: Cell::default(),
        open: Cell::default(),
        ended: Notify::new(),
        connections: RefCell::default(),
    };
    Ok((Rc::new(door), steered))
}

/// Ends what is left at a drain's deadline, so that clients need not find out by silence.
pub async fn cut(worker: &Worker) {
    let endpoints = worker.http3.endpoints.take();
    for endpoint in &endpoints {
        endpoint.close(code(h3::error::Code::H3_NO_ERROR), b"");
    }
    let gone = async {
        for endpoint in &endpoints {
            endpoint.wait_idle().await;
        }
    };
    let _ = tokio::time::timeout(FLUSH, gone).await;
}

/// Another process has the port: those that are here are kept on sockets of their own.
fn part(door: &Door, steered: &Steered) {
    let connections = door.connections.borrow();
    let clients: Vec<_> =
        connections.iter().map(|quic| (quic.local_ip(), quic.remote_address())).collect();
    let lost = steered.part(&clients);
    for quic in connections.iter().filter(|quic| lost.contains(&quic.remote_address())) {
        quic.close(code(h3::error::Code::H3_NO_ERROR), b"");
    }
}

/// A client's first packet has come.
fn enter(door: &Rc<Door>, incoming: Incoming) {
    let worker = &door.worker;
    // Nobody is asked about a name for who may not be there.
    let must_show = door.shaking.get() >= RETRY_FROM || door.certificates.is_on_demand();
    if must_show && !incoming.remote_address_validated() {
        // It comes again with a proof; nothing is kept until then.
        let _ = incoming.retry();
        return;
    }
    let peer = incoming.remote_address();
    worker.count(Count::Accepted);
    match worker.accepted(peer) {
        Ok(admitted) => {
            let listed = Listed::new(door);
            tokio::task::spawn_local(connected(listed, incoming, peer, admitted));
        }
        Err(reason) => {
            worker.count(Count::Closed);
            worker.refuse(reason, peer);
            incoming.refuse();
        }
    }
}

/// A connection in its door's list.
struct Listed {
    door: Rc<Door>,
    shakes: bool,
    slot: Option<usize>,
}

impl Listed {
    /// One of which the first packet has come.
    fn new(door: &Rc<Door>) -> Self {
        door.open.set(door.open.get() + 1);
        door.shaking.set(door.shaking.get() + 1);
        Self { door: Rc::clone(door), shakes: true, slot: None }
    }

    /// The handshake is over, well or not.
    fn shaken(&mut self) {
        if std::mem::take(&mut self.shakes) {
            self.door.shaking.set(self.door.shaking.get() - 1);
        }
    }

    /// It is established.
    fn keep(&mut self, quic: &quinn::Connection) {
        self.slot = Some(self.door.connections.borrow_mut().insert(quic.clone()));
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.shaken();
        if let Some(slot) = self.slot {
            self.door.connections.borrow_mut().remove(slot);
        }
        self.door.open.set(self.door.open.get() - 1);
        self.door.ended.notify_one();
    }
}

async fn connected(mut listed: Listed, incoming: Incoming, peer: SocketAddr, admitted: Admitted) {
    let door = Rc::clone(&listed.door);
    let worker = &door.worker;
    let mut life = Life { worker: Rc::clone(worker), slot: None, admitted };
    let quic = shake(&door, incoming, peer).await;
    listed.shaken();
    let Some(quic) = quic else { return };
    worker.count(Count::TlsHandshakes);
    listed.keep(&quic);
    let port = door.endpoint.local_addr().map_or(0, |local| local.port());
    let local = quic.local_ip().map(|ip| SocketAddr::new(ip, port));
    let certificate = quic.peer_identity().and_then(|chain| certificate_of(&*chain));
    let connection = Downstream::by_quic(worker, peer, local, certificate);
    life.slot = Some(worker.connection_began(Rc::clone(&connection)));
    Box::pin(connection::serve(worker, &connection, quic)).await;
}

/// Shakes hands, with the certificates of this moment.
async fn shake(door: &Door, incoming: Incoming, peer: SocketAddr) -> Option<quinn::Connection> {
    let worker = &door.worker;
    let until = Instant::now() + worker.settings.limits.handshake;
    let mut config = door.config.clone();
    let (crypto, noted) = door.certificates.quic_once().ok()?;
    config.crypto = crypto;
    let connecting = incoming.accept_with(Arc::new(config)).ok()?;
    match timeout_at(until, connecting).await {
        Ok(Ok(quic)) => {
            if noted.is_resumed() {
                worker.count(Count::TlsResumed);
            }
            Some(quic)
        }
        Ok(Err(ConnectionError::TransportError(_) | ConnectionError::ConnectionClosed(_))) => {
            worker.count(Count::TlsFailures);
            if let Some(name) = noted.take_unknown() {
                // It counts as a connection meanwhile: nobody has more asked than he may connect.
                let _ = timeout_at(until, door.certificates.want(name)).await;
            }
            None
        }
        Ok(Err(_)) => None,
        Err(_) => {
            worker.refuse(Reason::HandshakeTime, peer);
            None
        }
    }
}

fn code(code: h3::error::Code) -> VarInt {
    VarInt::from_u64(code.value()).unwrap_or(VarInt::MAX)
}
