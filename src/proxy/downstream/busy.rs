//! A request that is being served keeps its connection from being idle.

use std::rc::Rc;

use super::{Downstream, Phase};

/// A request is being served on a connection, until its response's body is dropped.
#[derive(Debug)]
pub struct Busy(Rc<Downstream>);

impl Busy {
    /// A request begins on this connection.
    pub fn new(connection: &Rc<Downstream>) -> Self {
        connection.served.set(connection.served.get().saturating_add(1));
        Self::more(connection)
    }

    /// What a request began goes on.
    pub fn more(connection: &Rc<Downstream>) -> Self {
        connection.active.set(connection.active.get() + 1);
        connection.phase.set(Phase::Busy);
        Self(Rc::clone(connection))
    }

    /// The connection.
    pub(super) fn connection(&self) -> &Rc<Downstream> {
        &self.0
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let active = self.0.active.get() - 1;
        self.0.active.set(active);
        if active == 0 {
            self.0.enter(Phase::Idle);
        }
    }
}
