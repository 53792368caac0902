//! What a stream brings, held against what came of it. No input or output here.

use std::cell::Cell;
use std::rc::Rc;

use h3::error::Code;

/// What becomes of a stream's reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// It is read when asked for.
    Open,
    /// It is read once, and then the gate is shut.
    Once,
    /// It is not read: what was read is not used up.
    Shut,
}

/// What is known of a request's stream besides what comes by it.
#[derive(Debug)]
pub struct Meter {
    /// Bytes that it may still bring before something comes of them.
    left: Cell<usize>,
    most: usize,
    gate: Cell<Gate>,
    /// The client has said all.
    ended: Cell<bool>,
    /// The client brought too much of nothing.
    flooded: Cell<bool>,
    /// Bytes of the answer that QUIC took.
    written: Cell<u64>,
    /// With what the answer is broken off when it is dropped unfinished; nothing: it is whole.
    breaks: Cell<Option<Code>>,
}

impl Meter {
    /// It may bring so many bytes for nothing.
    pub fn new(most: usize) -> Rc<Self> {
        Rc::new(Self {
            left: Cell::new(most),
            most,
            gate: Cell::new(Gate::Open),
            ended: Cell::new(false),
            flooded: Cell::new(false),
            written: Cell::new(0),
            breaks: Cell::new(None),
        })
    }

    /// Something came of what was read.
    pub fn used(&self) {
        self.left.set(self.most);
    }

    /// Whether it is read from now on.
    pub fn set_gate(&self, gate: Gate) {
        self.gate.set(gate);
    }

    /// Whether the gate is shut, perhaps because it was used.
    pub fn is_shut(&self) -> bool {
        self.gate.get() == Gate::Shut
    }

    /// Whether the client has said all.
    pub fn is_ended(&self) -> bool {
        self.ended.get()
    }

    /// Whether the client brought too much of nothing.
    pub fn is_flooded(&self) -> bool {
        self.flooded.get()
    }

    /// Bytes of the answer that QUIC took.
    pub fn written(&self) -> u64 {
        self.written.get()
    }

    /// An answer that is dropped unfinished is broken off like this from now on.
    pub fn breaks_with(&self, code: Code) {
        self.breaks.set(Some(code));
    }

    /// It was read: a gate that was open for once is shut.
    pub fn was_read(&self) {
        if self.gate.get() == Gate::Once {
            self.gate.set(Gate::Shut);
        }
    }

    /// The client has said all.
    pub fn end(&self) {
        self.ended.set(true);
    }

    /// It may bring so many bytes more.
    pub fn allow(&self, bytes: usize) {
        self.left.set(self.left.get().saturating_add(bytes));
    }

    /// QUIC took so many bytes of the answer.
    pub fn wrote(&self, bytes: usize) {
        self.written.set(self.written.get() + bytes as u64);
    }

    /// With what an unfinished answer is broken off.
    pub fn breaks(&self) -> Option<Code> {
        self.breaks.get()
    }

    /// So many bytes came. Whether that is still well.
    pub fn came(&self, bytes: usize) -> bool {
        match self.left.get().checked_sub(bytes) {
            Some(left) => self.left.set(left),
            None => self.flooded.set(true),
        }
        !self.flooded.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_brings_so_much_for_nothing() {
        let meter = Meter::new(10);
        assert!(meter.came(6) && meter.came(4));
        assert!(!meter.came(1) && meter.is_flooded());
        let meter = Meter::new(10);
        assert!(meter.came(10));
        meter.used();
        assert!(meter.came(10) && !meter.is_flooded());
    }
}
