//! Whose turn it is: a large body lets others in between.
//!
//! A worker is one thread, and what moves a body goes on for as long as one side sends and the other
//! takes. Tokio's own measure is a number of reads and writes, which for large pieces is megabytes:
//! beside 16 clients that downloaded 8 MiB each as fast as they could, one small request in a hundred
//! waited for 0.7 s and more; by turns it was 4 to 6 ms.

use std::pin::pin;
use std::task::{Context, Poll};

/// Bytes that are passed on before it is somebody else's turn: one piece, some 60 µs. With 256 KiB others
/// waited three times as long, and bodies were no faster.
const MOVED: usize = 64 * 1024;

/// What one connection, or one body, has had of its turn.
#[derive(Debug)]
pub struct Turn {
    taken: usize,
    most: usize,
}

impl Default for Turn {
    fn default() -> Self {
        Self::of(MOVED)
    }
}

impl Turn {
    /// One that lasts for so many bytes.
    pub fn of(most: usize) -> Self {
        Self { taken: 0, most }
    }

    /// So many bytes are passed on.
    pub fn take(&mut self, bytes: usize) {
        self.taken += bytes;
    }

    /// It waits for something, and others have theirs.
    pub fn pass(&mut self) {
        self.taken = 0;
    }

    /// Ready while it lasts. Pending once when it is over; the task is woken after whoever else has
    /// something to do.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.taken < self.most {
            return Poll::Ready(());
        }
        self.pass();
        // Polled once, it wakes by itself.
        pin!(tokio::task::yield_now()).poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn two_bodies_that_never_wait_go_by_turns() {
        let [mine, theirs] = [Cell::new(0), Cell::new(0)];
        let moves = async |ours: &Cell<usize>, others: &Cell<usize>| {
            let mut turn = Turn::default();
            for _ in 0..64 {
                poll_fn(|context| turn.poll(context)).await;
                turn.take(64 * 1024);
                ours.set(ours.get() + 64 * 1024);
                assert!(ours.get() <= others.get() + MOVED, "more than a turn before the other");
            }
        };
        tokio::join!(moves(&mine, &theirs), moves(&theirs, &mine));
        assert_eq!((mine.get(), theirs.get()), (4 << 20, 4 << 20));
    }

    #[tokio::test]
    async fn who_waits_begins_anew() {
        let mut turn = Turn::default();
        let mut over = 0;
        for _ in 0..8 {
            turn.take(MOVED / 2);
            if futures_util::poll!(poll_fn(|context| turn.poll(context))).is_pending() {
                over += 1;
            }
            turn.pass();
        }
        assert_eq!(over, 0);
        turn.take(MOVED);
        assert!(futures_util::poll!(poll_fn(|context| turn.poll(context))).is_pending());
        assert!(futures_util::poll!(poll_fn(|context| turn.poll(context))).is_ready());
    }
}
