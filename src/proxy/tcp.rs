//! Plain TCP: connections instead of requests. Each is drawn to a side as a request is, claims an
//! endpoint, and then bytes go both ways untouched until it ends or its endpoint is cut.
//!
//! Nothing of the bytes is understood, so little can be judged, and it is this: a connection that
//! could not be made, that the instance reset, or that it ended before it said a word, is a fault. Any
//! other is a success, from the instance's first byte on, or after [`JUDGED_AFTER`] without one;
//! what happens to it later is not seen. A client that goes away first abandons. Latency is the time to
//! connect. A connection that could not be made is tried on another endpoint, as long as not a byte of
//! the client's was read.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::Response;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::admission::Admitted;
use super::clock::ticks;
use super::downstream::preamble::greet;
use super::exchange::{Exchange, JUDGED_AFTER, Patience, Stage};
use super::observation::{Kind, Part, Subject};
use super::ongoing::Ongoing;
use super::route::Route;
use super::turn::Turn;
use super::upstream::{announce, connect};
use super::worker::Worker;
use crate::model::id::ServiceName;
use crate::model::preamble::Ends;
use crate::model::weight::Side;
use crate::routing::endpoint::Claim;
use crate::routing::settings::Affinity;
use crate::routing::split::Ticket;
use crate::telemetry::traffic::{Count, Reason};

/// Bytes per direction and connection.
const BUFFER: usize = 16 * 1024;

/// Counts a connection's end, and whether it was a panic.
struct Life(Rc<Worker>, Admitted);

impl Drop for Life {
    fn drop(&mut self) {
        self.0.count(Count::Closed);
        if std::thread::panicking() {
            self.0.count(Count::Panics);
        }
        self.0.closed(None);
    }
}

/// Serves a connection to a service in a task of its own.
pub fn spawn(
    worker: &Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    service: &ServiceName,
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
    let (worker, service) = (Rc::clone(worker), service.clone());
    tokio::task::spawn_local(async move {
        let (mut stream, mut life) = (stream, Life(worker, admitted));
        let mut ends = (peer, None);
        if preamble {
            let worker = Rc::clone(&life.0);
            let within = worker.settings.limits.handshake;
            let greeting = greet(&worker, &mut stream, peer, &mut life.1);
            let refused = match tokio::time::timeout(within, greeting).await {
                Ok(Ok(said)) => {
                    ends = said;
                    None
                }
                Ok(Err(reason)) => Some(reason),
                Err(_) => Some(Some(Reason::HandshakeTime)),
            };
            if let Some(reason) = refused {
                reason.into_iter().for_each(|reason| worker.refuse(reason, peer));
                return;
            }
        }
        serve(&life.0, stream, ends, &service).await;
        drop(life);
    });
}

async fn serve(
    worker: &Rc<Worker>,
    client: TcpStream,
    (peer, to): (SocketAddr, Option<SocketAddr>),
    name: &ServiceName,
) {
    let arrived = Instant::now();
    let table = worker.table();
    let Some(service) = table.services.iter().position(|service| service.name == *name) else {
        worker.count(Count::Unrouted);
        return;
    };
    let route = Route { table, service, rule: None };
    let settings = &route.service().settings;
    // While it is silent, nobody knows whose turn it is.
    let idle = ticks(settings.idle_timeout);
    let patience =
        Patience { response: idle, overdue: idle, idle, upload: idle, upload_rate: 0, write: idle };
    let exchange = Exchange::new(worker.clock.clone(), patience, arrived, Weak::new(), peer.ip());
    let ongoing = Ongoing::new(worker, exchange);
    let exchange = Rc::clone(ongoing.exchange());
    let (side, session) = draw(worker, &route, peer.ip());
    let part = Part { side, is_fresh: false };
    let subject = Subject { exception: None, session, path: None };
    exchange.observe(route.clone(), part, worker.index, subject);
    let to = || to.or_else(|| client.local_addr().ok());
    let ends = if route.table.announces { to().map(|to| (peer, to)) } else { None };
    let Some((claim, upstream)) = dial(worker, &route, side, &exchange, ends).await else {
        exchange.fault();
        worker.count(Count::Synthetic);
        reset(&client);
        return;
    };
    worker.upstreams.watch(claim.endpoint());
    exchange.begin(claim.endpoint().id, false);
    // As if it had been answered well: a fault says otherwise.
    let (well, ()) = Response::new(()).into_parts();
    exchange.answered(&well, Kind::Plain);
    exchange.tunnel();
    worker.count(Count::Tunnels);
    carry(client, upstream, &exchange).await;
    drop(claim);
    drop(ongoing);
}

/// The side of a connection: a coin, or the client's address, with the hash of what keeps it there.
fn draw(worker: &Worker, route: &Route, client: IpAddr) -> (Side, Option<u32>) {
    let service = route.service();
    if service.canary.is_none() {
        return (Side::Stable, None);
    }
    let of = |key: &[u8]| {
        let (ticket, session) = Ticket::of_key(super::affinity::key(key), &service.salt);
        (ticket, Some(session))
    };
    let (ticket, session) = match (&service.settings.affinity, client.to_canonical()) {
        (Affinity::ClientAddress, IpAddr::V4(address)) => of(&address.octets()),
        // A household has a /64, and its devices change the rest at will.
        (Affinity::ClientAddress, IpAddr::V6(address)) => of(&address.octets()[..8]),
        _ => (Ticket::random((worker.random() >> 32) as u32), None),
    };
    match (ticket.side(service.canary_weight), service.stable.is_some()) {
        (Side::Stable, false) => (Side::Canary, session),
        (side, _) => (side, session),
    }
}

/// A connection to an endpoint of a side; a canary that has none leaves it to stable. The first
/// failure is the side's fault, whatever comes of it.
async fn dial(
    worker: &Worker,
    route: &Route,
    side: Side,
    exchange: &Exchange,
    ends: Option<Ends>,
) -> Option<(Claim, TcpStream)> {
    let settings = &route.service().settings;
    let mut tried = Vec::new();
    let mut retries = settings.retries;
    let mut side = side;
    loop {
        let claim = route.side(side).and_then(|entry| entry.pool.claim(worker.random(), &tried));
        let Some(claim) = claim else {
            exchange.fault();
            if side == Side::Stable || route.side(Side::Stable).is_none() {
                return None;
            }
            side = Side::Stable;
            worker.count(Count::Rescued);
            continue;
        };
        if let Ok(mut stream) = connect(claim.endpoint(), settings.connect_timeout).await
            && announce(&mut stream, claim.endpoint(), ends).await.is_ok()
        {
            worker.count(Count::UpstreamConnects);
            return Some((claim, stream));
        }
        worker.count(Count::UpstreamConnectFailures);
        exchange.fault();
        if retries == 0 {
            return None;
        }
        retries -= 1;
        worker.count(Count::Retries);
        tried.push(claim.endpoint().id);
    }
}

/// Closes with a reset: to a client of an unknown protocol a clean end may look like an answer.
fn reset(stream: &TcpStream) {
    // A refusal leaves the clean end.
    let _ = socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
}

/// What is known of one end of a connection.
#[derive(Debug, Default)]
struct End {
    spoke: Cell<bool>,
    ended: Cell<bool>,
    broke: Cell<bool>,
}

/// Moves bytes both ways until an end, and records what came of it.
async fn carry(client: TcpStream, upstream: TcpStream, exchange: &Rc<Exchange>) {
    let (here, there) = (End::default(), End::default());
    let mut client = Watched { stream: client, end: &here, exchange, turn: Turn::default() };
    let mut upstream = Watched { stream: upstream, end: &there, exchange, turn: Turn::default() };
    // It hung up on a client that had not said its last word.
    let silent = || there.ended.get() && !there.spoke.get() && !here.ended.get();
    {
        let mut moving = pin!(tokio::io::copy_bidirectional_with_sizes(
            &mut client,
            &mut upstream,
            BUFFER,
            BUFFER
        ));
        let mut judged = pin!(tokio::time::sleep(JUDGED_AFTER));
        let mut is_judged = false;
        std::future::poll_fn(|context| {
            if exchange.fired().is_some() {
                return Poll::Ready(());
            }
            exchange.park(context);
            let moved = moving.as_mut().poll(context).map(|_| ());
            // Recorded once; what comes later changes nothing.
            if !is_judged && moved.is_pending() {
                is_judged = true;
                if there.broke.get() || silent() {
                    exchange.fault();
                } else if there.spoke.get() || judged.as_mut().poll(context).is_ready() {
                    exchange.complete();
                } else {
                    is_judged = false;
                }
            }
            moved
        })
        .await;
    }
    // A reset goes on as a reset, not as the end of a message.
    if there.broke.get() || exchange.fired().is_some() {
        reset(&client.stream);
    }
    if here.broke.get() {
        reset(&upstream.stream);
    }
    if exchange.fired().is_some() {
        return;
    }
    if there.broke.get() || silent() {
        exchange.fault();
    } else if here.broke.get() && !there.spoke.get() {
        exchange.abandon();
    } else {
        exchange.complete();
    }
}

/// One end, noting what it does.
struct Watched<'a> {
    stream: TcpStream,
    end: &'a End,
    exchange: &'a Exchange,
    turn: Turn,
}

impl AsyncRead for Watched<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.turn.poll(context));
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let read = buffer.filled().len() - before;
        match &polled {
            Poll::Ready(Ok(())) if read > 0 => {
                self.turn.take(read);
                self.end.spoke.set(true);
                self.exchange.moved(Stage::Tunnel);
            }
            Poll::Ready(Ok(())) => self.end.ended.set(true),
            Poll::Ready(Err(_)) => self.end.broke.set(true),
            Poll::Pending => self.turn.pass(),
        }
        polled
    }
}

impl AsyncWrite for Watched<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        match &polled {
            Poll::Ready(Ok(_)) => self.exchange.moved(Stage::Tunnel),
            Poll::Ready(Err(_)) => self.end.broke.set(true),
            Poll::Pending => {}
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
