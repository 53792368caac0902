//! An HTTP/1.1 connection in the hands of an exchange: its own, or shared with the task that sends
//! the rest of a request whose answer has begun.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use hyper::upgrade::Upgraded;
use tokio::task::AbortHandle;

use super::Broken;
use super::http1::Connection;
use crate::proxy::exchange::Exchange;
use crate::proxy::worker::Worker;
use crate::routing::endpoint::Endpoint;

/// A connection in the hands of an exchange.
#[derive(Debug)]
pub enum Line {
    /// Only in these hands.
    Own(Box<Connection>),
    /// Still sending, in a task of its own.
    Shared(Shared),
    /// A stream of HTTP/2 that has become a WebSocket's: nothing but a tunnel is made of it.
    Stream(Box<Upgraded>),
}

impl Line {
    /// The next piece of the answer's body.
    pub fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self {
            Self::Own(connection) => connection.poll_frame(context),
            Self::Shared(shared) => match shared.wire.connection.borrow_mut().as_mut() {
                Some(connection) => connection.poll_frame(context),
                None => Poll::Ready(Some(Err(Broken::Upload))),
            },
            Self::Stream(_) => Poll::Ready(None),
        }
    }

    /// Whether the answer was read to its end.
    pub fn is_end(&self) -> bool {
        match self {
            Self::Own(connection) => connection.is_end(),
            Self::Shared(shared) => {
                shared.wire.connection.borrow().as_ref().is_none_or(|c| c.is_end())
            }
            Self::Stream(_) => true,
        }
    }

    /// The answer was read: the connection goes back to the others, now or when all is sent.
    pub fn give_back(self, worker: &Worker, endpoint: &Arc<Endpoint>) {
        match self {
            Self::Own(connection) => worker.upstreams.give_back(endpoint, connection),
            Self::Stream(_) => {}
            Self::Shared(shared) => {
                shared.wire.answered.set(true);
                let sent = {
                    let mut connection = shared.wire.connection.borrow_mut();
                    connection.take_if(|connection| !connection.is_sending())
                };
                if let Some(connection) = sent {
                    worker.upstreams.give_back(endpoint, connection);
                }
            }
        }
    }
}

/// A connection shared with the task that sends on it. Dropped before the answer was read, it ends.
#[derive(Debug)]
pub struct Shared {
    wire: Rc<Wire>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Wire {
    connection: RefCell<Option<Box<Connection>>>,
    answered: Cell<bool>,
}

impl Shared {
    /// Sends the rest of a request in a task of its own: a client that reads its answer slowly must
    /// not hold up what it sends.
    pub fn new(
        worker: &Rc<Worker>,
        endpoint: &Arc<Endpoint>,
        connection: Box<Connection>,
        exchange: &Rc<Exchange>,
    ) -> Self {
        let connection = RefCell::new(Some(connection));
        let wire = Rc::new(Wire { connection, answered: Cell::new(false) });
        let (sending, exchange) = (Rc::clone(&wire), Rc::clone(exchange));
        let (driving, target) = (Rc::clone(worker), Arc::clone(endpoint));
        let task = tokio::task::spawn_local(async move {
            let sent =
                std::future::poll_fn(|context| match sending.connection.borrow_mut().as_mut() {
                    Some(connection) => connection.poll_send(context),
                    None => Poll::Ready(Ok(())),
                })
                .await;
            if sent.is_err() {
                // The client broke it off, and the instance waits for what will not come.
                drop(sending.connection.take());
                exchange.wake();
            } else if sending.answered.get()
                && let Some(connection) = sending.connection.take()
            {
                driving.upstreams.give_back(&target, connection);
            }
        });
        let task = task.abort_handle();
        worker.upstreams.driven(endpoint.id, task.clone());
        Self { wire, task }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if !self.wire.answered.get() {
            drop(self.wire.connection.take());
            self.task.abort();
        }
    }
}
