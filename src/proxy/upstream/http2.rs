//! An HTTP/2 connection with prior knowledge, shared by all requests of a worker to an endpoint.
//!
//! A task of its own drives it. It ends when the peer ends it, when its endpoint is cut, and when
//! the last handle on it is gone.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::time::Duration;

use http::Response;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use super::{Broken, Unanswered};
use crate::proxy::body::RequestBody;
use crate::proxy::error::Failure;
use crate::proxy::exchange::Exchange;
use crate::proxy::parcel::Parcel;

/// Bytes that an upstream may send ahead on a stream.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Bytes that an upstream may send ahead on all streams together.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// How often a peer's settings are looked for.
const SETTINGS_PAUSE: Duration = Duration::from_millis(2);

/// Spawns on the worker's own thread.
#[derive(Debug, Clone, Copy)]
pub struct Local;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// What drives a connection.
type Driver = Pin<Box<http2::Connection<TokioIo<TcpStream>, RequestBody, Local>>>;

/// A handle on a shared connection.
#[derive(Debug, Clone)]
pub struct Multiplexed {
    sender: http2::SendRequest<RequestBody>,
    /// Knows what the peer has said in its settings; its task owns it.
    driver: Weak<RefCell<Driver>>,
    task: AbortHandle,
}

impl Multiplexed {
    /// Makes a connection of a stream, and a task that drives it.
    pub async fn new(stream: TcpStream) -> Result<Self, Failure> {
        let (sender, driver) = http2::Builder::new(Local)
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Failure::Broken(Broken::Http2(error)))?;
        let owned = Rc::new(RefCell::new(Box::pin(driver)));
        let driver = Rc::downgrade(&owned);
        let task = tokio::task::spawn_local(async move {
            // An error reaches each request through its own stream.
            let _ = std::future::poll_fn(|context| owned.borrow_mut().as_mut().poll(context)).await;
        });
        Ok(Self { sender, driver, task: task.abort_handle() })
    }

    /// Whether it takes no more requests.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether the peer takes WebSockets on streams (RFC 8441, 3). It says so in its first frame, which
    /// a new connection may still wait for.
    pub async fn takes_websockets(&self, within: Duration) -> bool {
        let until = tokio::time::Instant::now() + within;
        // Asked each time: settings that arrive do not wake what is polled here.
        let says = |driver: Rc<RefCell<Driver>>| {
            driver.try_borrow().is_ok_and(|driver| driver.is_extended_connect_protocol_enabled())
        };
        while !self.driver.upgrade().is_some_and(says) {
            if self.sender.is_closed() || tokio::time::Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(SETTINGS_PAUSE).await;
        }
        true
    }

    /// Ends it, whatever it carries.
    pub fn abort(&self) {
        self.task.abort();
    }

    /// Sends a request and waits for the response's headers, or for the exchange to be ended. A
    /// request that may be sent again comes back.
    ///
    /// Cancel safety: dropped midway, the stream is reset.
    pub async fn send(
        &mut self,
        parcel: Box<Parcel>,
        exchange: &Exchange,
    ) -> Result<(Response<Incoming>, Option<Box<Parcel>>), Unanswered> {
        let (asked, mut copy) = (parcel.asked, parcel.copy());
        let request = parcel.into_request();
        let mut answer = std::pin::pin!(self.sender.try_send_request(request));
        let response = std::future::poll_fn(|context| {
            if let Some(fired) = exchange.fired() {
                return std::task::Poll::Ready(Err(Unanswered::Fired(
                    fired,
                    copy.take().map(Box::new),
                )));
            }
            exchange.park(context);
            answer.as_mut().poll(context).map_err(|mut error| match error.take_message() {
                Some(request) => {
                    let parcel = Parcel::from_request(request, asked);
                    Unanswered::NotSent(Box::new(parcel), Broken::Http2(error.into_error()))
                }
                None => {
                    let copy = copy.take().map(Box::new);
                    Unanswered::Broken(copy, Broken::Http2(error.into_error()))
                }
            })
        })
        .await?;
        Ok((response, copy.map(Box::new)))
    }
}
