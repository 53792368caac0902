//! A request's body that is kept as it passes, so that the request can be sent again.
//!
//! It flows on as it comes: keeping costs a reference per piece and delays nothing. A body that turns
//! out larger than was allowed, or that ends with trailers, is let go of and cannot be sent again.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::body::within;
use super::downstream::upload::{ClientBody, UploadError};

/// A body on its way, and what has passed of it.
#[derive(Debug)]
pub struct Kept {
    incoming: RefCell<ClientBody>,
    /// Bytes that the client may still send.
    left: Cell<u64>,
    pieces: RefCell<Vec<Bytes>>,
    /// Bytes that may still be kept; `None` when that was too little.
    room: Cell<Option<usize>>,
    /// Only the reading begun last may take from the client.
    readings: Cell<u32>,
}

impl Kept {
    /// Keeps up to `room` bytes of a body that may have `left`.
    pub fn new(incoming: ClientBody, left: u64, room: usize) -> Rc<Self> {
        Rc::new(Self {
            incoming: RefCell::new(incoming),
            left: Cell::new(left),
            pieces: RefCell::default(),
            room: Cell::new(Some(room)),
            readings: Cell::new(0),
        })
    }

    /// Whether all that has passed is still here.
    pub fn is_whole(&self) -> bool {
        self.room.get().is_some()
    }

    /// A reading from the beginning. Earlier ones get nothing more.
    pub fn read(self: &Rc<Self>) -> Reading {
        self.readings.set(self.readings.get() + 1);
        Reading { kept: Rc::clone(self), number: self.readings.get(), at: 0 }
    }
}

/// The body from its beginning.
#[derive(Debug)]
pub struct Reading {
    kept: Rc<Kept>,
    number: u32,
    at: usize,
}

impl Reading {
    /// What is read.
    pub fn kept(&self) -> &Rc<Kept> {
        &self.kept
    }

    /// The next piece: what passed before, then what comes. `Err(None)` when a later reading has
    /// taken over.
    pub fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Option<UploadError>>>> {
        let kept = &self.kept;
        if self.number != kept.readings.get() {
            return Poll::Ready(Some(Err(None)));
        }
        if let Some(piece) = kept.pieces.borrow().get(self.at) {
            self.at += 1;
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        let mut left = kept.left.get();
        let polled = Pin::new(&mut *kept.incoming.borrow_mut())
            .poll_frame(context)
            .map(|frame| frame.map(|frame| frame.and_then(|frame| within(frame, &mut left))));
        kept.left.set(left);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let bytes = frame.data_ref();
            let left = kept.room.get().zip(bytes).and_then(|(room, b)| room.checked_sub(b.len()));
            kept.room.set(left);
            let mut pieces = kept.pieces.borrow_mut();
            match (left, bytes) {
                (Some(_), Some(bytes)) => {
                    pieces.push(bytes.clone());
                    self.at += 1;
                }
                _ => {
                    pieces.clear();
                    self.at = 0;
                }
            }
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(Some)))
    }

    /// Whether nothing is left to read.
    pub fn is_end_stream(&self) -> bool {
        self.at >= self.kept.pieces.borrow().len() && self.kept.incoming.borrow().is_end_stream()
    }

    /// What is left to read.
    pub fn size_hint(&self) -> SizeHint {
        let again: usize = self
            .kept
            .pieces
            .borrow()
            .get(self.at..)
            .unwrap_or_default()
            .iter()
            .map(Bytes::len)
            .sum();
        let rest = self.kept.incoming.borrow().size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + again as u64);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + again as u64);
        }
        hint
    }
}
