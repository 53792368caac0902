//! An exchange in its worker's list, from its beginning to its end.

use std::rc::Rc;

use super::exchange::{Exchange, Held};
use super::worker::Worker;

/// An exchange in the worker's list. Dropped before it is complete, it was abandoned.
#[derive(Debug)]
pub struct Ongoing {
    worker: Rc<Worker>,
    exchange: Rc<Exchange>,
    slot: usize,
}

impl Ongoing {
    /// Puts an exchange into the worker's list.
    pub fn new(worker: &Rc<Worker>, exchange: Exchange) -> Self {
        let exchange = Rc::new(exchange);
        let slot = worker.exchanges.borrow_mut().insert(Rc::clone(&exchange));
        Self { worker: Rc::clone(worker), exchange, slot }
    }

    /// The exchange.
    #[inline]
    pub fn exchange(&self) -> &Rc<Exchange> {
        &self.exchange
    }

    /// The upstream's last byte is here: the outcome is recorded, the connection and the claim are
    /// given back.
    pub fn complete(self) {
        if let Some(held) = self.exchange.held.take() {
            self.complete_with(held);
        } else {
            self.exchange.complete();
        }
    }

    /// Like [`Self::complete`], of an answer that was here as a whole.
    pub fn complete_with(self, held: Held) {
        self.exchange.complete();
        if let Some(connection) = held.connection {
            connection.give_back(&self.worker, held.claim.endpoint());
        }
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        self.worker.exchanges.borrow_mut().remove(self.slot);
        self.exchange.abandon();
        drop(self.exchange.held.take());
    }
}
