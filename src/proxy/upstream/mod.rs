//! A worker's own connections to endpoints.
//!
//! A connection belongs to an endpoint's number, never to an address, and to one worker. Idle
//! HTTP/1.1 connections wait in a stack: the one used last is used next, so that the others age and
//! are closed. HTTP/2 has one connection per endpoint, which all requests of the worker share.
//! Nothing here chooses an endpoint, retries or judges.

mod head;
pub mod http1;
pub mod http2;
pub mod line;

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use self::http1::Connection;
use self::http2::Multiplexed;
use super::clock::{Clock, Tick, ticks};
use super::error::Failure;
use super::exchange::Fired;
use super::parcel::Parcel;
use crate::model::preamble::Ends;
use crate::routing::endpoint::{Endpoint, EndpointId};
use crate::routing::retries::Retries;

/// How long a connection may idle. Below the keep-alive of common servers (gunicorn 2 to 5 s, Node
/// and uvicorn 5 s), so that the one who closes is us; linkerd2-proxy has the same.
pub const IDLE: Duration = Duration::from_secs(3);
/// Idle connections kept per endpoint and worker: beyond this a burst's leftovers are closed. More than
/// a worker has requests at a time on a busy day, because making a connection anew costs six times as
/// much as a request; those that are not needed age and go.
pub const IDLE_CAP: usize = 1024;
/// Ticks after which an idle connection gives its buffers back.
const LEAN_AFTER: Tick = 10;

/// Why a connection, or a stream of it, is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The instance closed it.
    #[error("it was closed")]
    Closed,
    /// The network broke it.
    #[error(transparent)]
    Io(std::io::Error),
    /// What came was not HTTP.
    #[error("{0}")]
    Malformed(&'static str),
    /// The client broke off what it sent.
    #[error("the client broke off its request")]
    Upload,
    /// HTTP/2 says why.
    #[error(transparent)]
    Http2(hyper::Error),
}

/// Why a request was not answered, and the request if it may be sent again.
#[derive(Debug)]
pub enum Unanswered {
    /// Nothing of it was sent.
    NotSent(Box<Parcel>, Broken),
    /// Something of it was sent.
    Broken(Option<Box<Parcel>>, Broken),
    /// The worker's tick ended it; the request if it may be sent again.
    Fired(Fired, Option<Box<Parcel>>),
}

type Map<V> = HashMap<EndpointId, V, BuildHasherDefault<rapidhash::fast::RapidHasher<'static>>>;

/// A worker's connections, by endpoint.
#[derive(Debug)]
pub struct Upstreams {
    clock: Clock,
    idle_ticks: Tick,
    upstreams: RefCell<Map<Upstream>>,
    /// Tasks that drive a connection of their own accord, so that a cut can end them.
    drivers: RefCell<Vec<(EndpointId, AbortHandle)>>,
    /// What was sent again.
    pub retries: RefCell<Retries>,
}

#[derive(Debug)]
struct Upstream {
    endpoint: Arc<Endpoint>,
    #[expect(
        clippy::vec_box,
        reason = "connections move between here and exchanges; a pointer moves cheaper"
    )]
    idle: Vec<Box<Connection>>,
    multiplexed: Option<Multiplexed>,
}

impl Upstreams {
    /// No connections yet.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            idle_ticks: ticks(IDLE),
            upstreams: RefCell::default(),
            drivers: RefCell::default(),
            retries: RefCell::default(),
        }
    }

    fn with<T>(&self, endpoint: &Arc<Endpoint>, act: impl FnOnce(&mut Upstream) -> T) -> T {
        let mut upstreams = self.upstreams.borrow_mut();
        let upstream = upstreams.entry(endpoint.id).or_insert_with(|| Upstream {
            endpoint: Arc::clone(endpoint),
            idle: Vec::new(),
            multiplexed: None,
        });
        act(upstream)
    }

    /// Looks after an endpoint from now on, so that it is known when it is cut.
    pub fn watch(&self, endpoint: &Arc<Endpoint>) {
        self.with(endpoint, |_| {});
    }

    /// An idle connection to this endpoint, the one used last.
    pub fn take_idle(&self, endpoint: &Arc<Endpoint>) -> Option<Box<Connection>> {
        self.with(endpoint, |upstream| {
            while let Some(connection) = upstream.idle.pop() {
                if connection.is_ready() {
                    return Some(connection);
                }
            }
            None
        })
    }

    /// Gives a connection back. It is closed when it cannot take another request, when its endpoint
    /// drains, or when enough are idle.
    pub fn give_back(&self, endpoint: &Arc<Endpoint>, mut connection: Box<Connection>) {
        if !connection.is_ready() || endpoint.is_draining() {
            return;
        }
        connection.rest(self.clock.now());
        // A closed connection is dropped outside of the borrow: it may own a request's body.
        let surplus = self.with(endpoint, |upstream| {
            if upstream.idle.len() < IDLE_CAP {
                upstream.idle.push(connection);
                None
            } else {
                Some(connection)
            }
        });
        drop(surplus);
    }

    /// The shared HTTP/2 connection to this endpoint, if it is open.
    pub fn multiplexed(&self, endpoint: &Arc<Endpoint>) -> Option<Multiplexed> {
        self.with(endpoint, |upstream| {
            if upstream.multiplexed.as_ref().is_some_and(Multiplexed::is_closed) {
                upstream.multiplexed = None;
            }
            upstream.multiplexed.clone()
        })
    }

    /// Shares a new HTTP/2 connection, unless another one was faster.
    pub fn share(&self, endpoint: &Arc<Endpoint>, connection: &Multiplexed) {
        self.with(endpoint, |upstream| {
            upstream.multiplexed.get_or_insert_with(|| connection.clone());
        });
    }

    /// Remembers a task that drives a connection, so that a cut can end it.
    pub fn driven(&self, endpoint: EndpointId, task: AbortHandle) {
        self.drivers.borrow_mut().push((endpoint, task));
    }

    /// One look of the worker's tick: closes what idled too long, what belongs to a draining
    /// endpoint, and everything of an endpoint that is cut. Returns the endpoints that are cut.
    pub fn tick(&self) -> Vec<EndpointId> {
        let now = self.clock.now();
        let mut cut = Vec::new();
        let mut closing = Vec::new();
        self.upstreams.borrow_mut().retain(|id, upstream| {
            let draining = upstream.endpoint.is_draining();
            let is_fresh = |since: Tick| !draining && now.saturating_sub(since) < self.idle_ticks;
            let fresh = upstream.idle.iter().position(|idle| is_fresh(idle.idle_since()));
            let stale = fresh.unwrap_or(upstream.idle.len());
            // The stack is ordered by age, so the stale ones are its bottom, and the quiet ones next.
            closing.extend(upstream.idle.drain(..stale));
            for idle in &mut upstream.idle {
                if now.saturating_sub(idle.idle_since()) < LEAN_AFTER {
                    break;
                }
                idle.give_buffers_back();
            }
            if upstream.endpoint.is_cut() {
                cut.push(*id);
                if let Some(connection) = upstream.multiplexed.take() {
                    connection.abort();
                }
            }
            if draining && upstream.endpoint.in_flight() == 0 {
                upstream.multiplexed = None;
            }
            // Nobody else knows the endpoint any more: no table, no claim.
            Arc::strong_count(&upstream.endpoint) > 1
        });
        drop(closing);
        self.drivers.borrow_mut().retain(|(endpoint, task)| {
            if cut.contains(endpoint) {
                task.abort();
            }
            !task.is_finished()
        });
        cut
    }
}

/// Tells an endpoint that wants to know who is at the other end of a new connection.
pub async fn announce(
    stream: &mut TcpStream,
    endpoint: &Endpoint,
    ends: Option<Ends>,
) -> Result<(), Failure> {
    if endpoint.preamble.is_none() {
        return Ok(());
    }
    let mut bytes = Vec::new();
    endpoint.preamble.write(ends, &mut bytes);
    // There is room for some hundred bytes in a socket that nothing was written to.
    stream.write_all(&bytes).await.map_err(Failure::Connect)
}

/// A TCP connection to an endpoint, made in time or not at all.
pub async fn connect(endpoint: &Endpoint, timeout: Duration) -> Result<TcpStream, Failure> {
    let connected = tokio::time::timeout(timeout, TcpStream::connect(endpoint.address)).await;
    let failure = match connected {
        Ok(Ok(stream)) => {
            endpoint.connected();
            // A refusal costs latency at most; the connection is good without it.
            let _ = stream.set_nodelay(true);
            return Ok(stream);
        }
        Ok(Err(error)) => Failure::Connect(error),
        Err(_) => Failure::ConnectTimeout,
    };
    endpoint.connect_failed();
    Err(failure)
}
