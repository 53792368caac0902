//! Responses on their way to a client of HTTP/2, and those of which it takes nothing.
//!
//! A stream whose window is shut is nobody's business to the library: it waits, and the body with it, for
//! as long as the client answers pings. What waits there has a limit here, as what waits for a whole
//! connection has (`send_timeout` of nginx holds for each stream, too).

use std::cell::RefMut;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::Busy;
use crate::proxy::body::ResponseBody;
use crate::proxy::clock::Tick;
use crate::proxy::error::BodyError;
use crate::proxy::slots::Slots;

/// Streams of which a client may take nothing, while it takes something of others: a browser leaves a
/// film that is paused alone. With more it is sent away.
const MOST_STALLED: usize = 16;

/// The responses that a connection owes its client, each with when something of it last went; `None` while
/// it waits for whoever makes it.
#[derive(Debug, Default)]
pub(super) struct Owed(Slots<Option<Tick>>);

impl Owed {
    /// Whether the client takes so little that it only holds things up.
    pub(super) fn is_stalled(&self, now: Tick, patience: Tick) -> bool {
        let is_stalled =
            |went: &&Option<Tick>| went.is_some_and(|went| now.saturating_sub(went) >= patience);
        let stalled = self.0.iter().filter(is_stalled).count();
        stalled > MOST_STALLED || stalled > 0 && stalled == self.0.iter().count()
    }
}

/// A response's body, and the fact that its connection is busy with it.
#[derive(Debug)]
pub struct Outgoing {
    body: ResponseBody,
    slot: usize,
    busy: Busy,
}

impl Outgoing {
    /// A body on a connection.
    pub fn new(body: ResponseBody, busy: Busy) -> Self {
        let connection = busy.connection();
        let owed = connection.owed.as_ref();
        let slot = owed.map(|owed| owed.borrow_mut().0.insert(Some(connection.clock.now())));
        Self { body, slot: slot.unwrap_or_default(), busy }
    }

    fn owed(&self) -> Option<RefMut<'_, Owed>> {
        self.busy.connection().owed.as_ref().map(|owed| owed.borrow_mut())
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    /// Only called when the client takes more.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let went = polled.is_ready().then(|| self.busy.connection().clock.now());
        if let Some(mut owed) = self.owed()
            && let Some(last) = owed.0.get_mut(self.slot)
        {
            *last = went;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Some(mut owed) = self.owed() {
            owed.0.remove(self.slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_nothing_of_anything_or_of_much_is_stalled() {
        let mut owed = Owed::default();
        assert!(!owed.is_stalled(100, 10));
        let first = owed.0.insert(Some(90));
        assert!(!owed.is_stalled(99, 10) && owed.is_stalled(100, 10));
        // It is not the client's doing that nothing comes.
        owed.0.insert(None);
        assert!(!owed.is_stalled(100, 10));
        for _ in 0..MOST_STALLED {
            owed.0.insert(Some(0));
        }
        assert!(owed.is_stalled(100, 10));
        *owed.0.get_mut(first).expect("a stream") = Some(100);
        assert!(!owed.is_stalled(100, 10));
    }
}
