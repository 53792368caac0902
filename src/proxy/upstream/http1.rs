//! An HTTP/1.1 connection that is driven by whoever uses it.
//!
//! hyper splits a client connection in two: a sender, and a future that moves the bytes. The usual
//! way is to spawn that future, which costs two task switches per request. Here the exchange that
//! uses a connection polls it in its own task, and an idle connection is polled by nobody; that its
//! peer closed it is noticed at its next use, before anything is written.
//!
//! Both halves wake each other through a [`Relay`]: while they are being polled a wake only asks for
//! another round, otherwise it goes to the task of the present user.
//!
//! A connection whose answer came before its request was sent is handed to a task of its own
//! ([`Connection::until_idle`]): sending must go on while a slow client holds up the answer.

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::proxy::body::RequestBody;
use crate::proxy::clock::Tick;
use crate::proxy::error::Failure;
use crate::proxy::exchange::{Exchange, Fired};

/// Bytes of buffer that a connection may grow to, each way. 64 KiB is what nginx's and HAProxy's
/// defaults add up to, and what one read of a large body takes.
pub const BUFFER: usize = 64 * 1024;
/// How often the halves may ask for another round within one poll, before others get their turn.
const ROUNDS: u32 = 8;

/// Wakes on behalf of both halves.
#[derive(Debug, Default)]
struct Relay {
    /// The halves are being polled.
    inside: AtomicBool,
    /// Meanwhile one of them woke the other.
    again: AtomicBool,
    user: Mutex<Option<Waker>>,
}

impl Relay {
    fn enter(&self, context: &Context<'_>) {
        // Relaxed throughout: all of this happens on the worker's one thread; a wake from elsewhere
        // could at worst cost one spurious poll.
        self.inside.store(true, Ordering::Relaxed);
        self.again.store(false, Ordering::Relaxed);
        let mut user = self.user.lock().unwrap_or_else(PoisonError::into_inner);
        if !user.as_ref().is_some_and(|user| user.will_wake(context.waker())) {
            *user = Some(context.waker().clone());
        }
    }

    /// Whether another round was asked for.
    fn leave(&self) -> bool {
        self.inside.store(false, Ordering::Relaxed);
        self.again.load(Ordering::Relaxed)
    }
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.inside.load(Ordering::Relaxed) {
            self.again.store(true, Ordering::Relaxed);
        } else if let Some(user) = self.user.lock().unwrap_or_else(PoisonError::into_inner).as_ref()
        {
            user.wake_by_ref();
        }
    }
}

type Driver = http1::Connection<TokioIo<TcpStream>, RequestBody>;

/// What became of a request.
pub type Sent = Result<Response<Incoming>, Unanswered>;

/// Why a request was not answered.
#[derive(Debug)]
pub enum Unanswered {
    /// Nothing of it was written: here it is again, and why.
    NotSent(Box<Request<RequestBody>>, hyper::Error),
    /// Something of it was written.
    Broken(hyper::Error),
    /// The worker's tick ended it.
    Fired(Fired),
}

/// An HTTP/1.1 connection.
pub struct Connection {
    /// `None` once it has ended.
    driver: Option<Driver>,
    /// The driver has ended, and only its parts are of use.
    ended: bool,
    sender: http1::SendRequest<RequestBody>,
    relay: Arc<Relay>,
    waker: Waker,
    idle_since: Tick,
    used: bool,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Connection {
    /// Makes a connection of a stream.
    pub async fn new(stream: TcpStream) -> Result<Box<Self>, Failure> {
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(BUFFER)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(Failure::Broken)?;
        let relay = Arc::new(Relay::default());
        Ok(Box::new(Self {
            driver: Some(driver),
            ended: false,
            sender,
            waker: Waker::from(Arc::clone(&relay)),
            relay,
            idle_since: 0,
            used: false,
        }))
    }

    /// Whether it can take a request.
    pub fn is_ready(&self) -> bool {
        !self.ended && self.sender.is_ready()
    }

    /// Whether it has served a request before: then the peer may have closed it unnoticed.
    pub fn is_used(&self) -> bool {
        self.used
    }

    /// It idles from now on.
    pub fn rest(&mut self, now: Tick) {
        self.idle_since = now;
        self.used = true;
    }

    /// Since when it idles.
    pub fn idle_since(&self) -> Tick {
        self.idle_since
    }

    /// Moves bytes, and then asks `user` whether that helped, for as long as the halves wake each
    /// other. The user is told whether the driver has ended.
    fn drive<T>(
        &mut self,
        context: &mut Context<'_>,
        mut user: impl FnMut(&mut Context<'_>, &http1::SendRequest<RequestBody>, bool) -> Poll<T>,
    ) -> Poll<T> {
        for _ in 0..ROUNDS {
            self.relay.enter(context);
            let inner = &mut Context::from_waker(&self.waker);
            if !self.ended
                && let Some(driver) = &mut self.driver
            {
                // An error reaches the user through its own half.
                self.ended = driver.poll_without_shutdown(inner).is_ready();
            }
            let mut polled = user(inner, &self.sender, self.ended);
            if polled.is_pending() && self.ended && self.driver.is_some() {
                // Dropping the driver gives a request that it never took back to the user.
                self.driver = None;
                polled = user(inner, &self.sender, self.ended);
            }
            if !self.relay.leave() || polled.is_ready() {
                return polled;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends a request and waits for the response's headers, or for the exchange to be ended.
    ///
    /// Cancel safety: dropped midway, the connection must be dropped too.
    pub async fn send(&mut self, request: Request<RequestBody>, exchange: &Exchange) -> Sent {
        let mut answer = pin!(self.sender.try_send_request(request));
        std::future::poll_fn(|context| {
            if let Some(fired) = exchange.fired() {
                return Poll::Ready(Err(Unanswered::Fired(fired)));
            }
            let polled = self.drive(context, |inner, _, _| answer.as_mut().poll(inner));
            if polled.is_pending() {
                exchange.park(context);
            }
            polled.map_err(|error: TrySendError<_>| {
                let mut error = error;
                match error.take_message() {
                    Some(request) => Unanswered::NotSent(Box::new(request), error.into_error()),
                    None => Unanswered::Broken(error.into_error()),
                }
            })
        })
        .await
    }

    /// The next piece of a response's body.
    pub fn poll_body(
        &mut self,
        incoming: &mut Incoming,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // What is here already needs no bytes to be moved.
        self.relay.enter(context);
        let polled = Pin::new(&mut *incoming).poll_frame(&mut Context::from_waker(&self.waker));
        self.relay.leave();
        if polled.is_ready() {
            return polled;
        }
        self.drive(context, |inner, _, _| Pin::new(&mut *incoming).poll_frame(inner))
    }

    /// Moves bytes until the connection can take another request, or has ended.
    pub async fn until_idle(&mut self) {
        std::future::poll_fn(|context| {
            if self.ended {
                return Poll::Ready(());
            }
            self.drive(context, |_, sender, ended| {
                if ended || sender.is_ready() { Poll::Ready(()) } else { Poll::Pending }
            })
        })
        .await;
    }

    /// The stream, and what was read behind the response's headers, after a change of protocol.
    pub fn into_stream(mut self) -> Option<(TcpStream, Bytes)> {
        let parts = self.driver.take().filter(|_| self.ended)?.into_parts();
        Some((parts.io.into_inner(), parts.read_buf))
    }
}
