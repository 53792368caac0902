//! A file on its way to a client, piece by piece.
//!
//! An open file is a thing of which a machine has few: there are at most [`MOST`] of them on a worker,
//! and one whose client takes nothing is closed after as long as any client may stall; when somebody
//! else needs its place, sooner.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::task::JoinHandle;

use super::open::{Opened, SMALL};
use crate::proxy::body::ResponseBody;
use crate::proxy::clock::{Clock, Tick, ticks};
use crate::proxy::error::BodyError;
use crate::proxy::places::{Place, Places};
use crate::proxy::slots::Slots;
use crate::proxy::worker::Worker;

/// Files that a worker may have open.
pub const MOST: usize = if cfg!(test) { 64 } else { 1024 };
/// Without progress for so long, a file is closed if another one wants its place.
const LEFT_ALONE: Duration = Duration::from_secs(1);

/// The files that a worker has open.
#[derive(Debug)]
pub struct OpenFiles {
    places: Places,
    list: Rc<RefCell<Slots<Rc<Open>>>>,
}

#[derive(Debug)]
struct Open {
    /// `None` once it is closed for want of progress. Whoever asked for it may not be told before it
    /// wants more, which may be never: the place is free at once.
    file: RefCell<Option<(Arc<File>, Place)>>,
    touched: Cell<Tick>,
}

impl Open {
    fn is_open(&self) -> bool {
        self.file.borrow().is_some()
    }
}

impl Default for OpenFiles {
    fn default() -> Self {
        Self { places: Places::new(MOST), list: Rc::default() }
    }
}

impl OpenFiles {
    /// The right to have one open. When all are taken, who has made no progress for longest gives up
    /// its own: a few clients that take nothing must not keep everybody else from every file.
    pub fn enter(&self, now: Tick) -> Option<Place> {
        self.places.enter().or_else(|| {
            let list = self.list.borrow();
            let longest = list.iter().filter(|open| open.is_open()).min_by_key(|o| o.touched.get());
            let longest =
                longest.filter(|open| now.saturating_sub(open.touched.get()) >= ticks(LEFT_ALONE));
            longest?.file.borrow_mut().take();
            self.places.enter()
        })
    }

    /// Closes those that nobody took anything of for so many ticks.
    pub fn tick(&self, now: Tick, patience: Tick) {
        for open in self.list.borrow().iter() {
            if now.saturating_sub(open.touched.get()) >= patience {
                open.file.borrow_mut().take();
            }
        }
    }
}

/// So many bytes of a file, from there on.
pub fn part(worker: &Worker, opened: Opened, from: u64, length: u64, place: Place) -> ResponseBody {
    if let Some(whole) = &opened.whole {
        // Within: they were counted by what is here.
        let (from, length) = (from as usize, length as usize);
        return ResponseBody::full(whole.slice(from..from + length));
    }
    let open = Rc::new(Open {
        file: RefCell::new(Some((Arc::new(opened.file), place))),
        touched: Cell::new(worker.clock.now()),
    });
    let list = Rc::clone(&worker.files.list);
    let slot = list.borrow_mut().insert(Rc::clone(&open));
    let clock = worker.clock.clone();
    let body = FileBody { open, at: from, left: length, reading: None, clock, list, slot };
    ResponseBody::File(Box::new(body))
}

/// A part of a file.
#[derive(Debug)]
pub struct FileBody {
    open: Rc<Open>,
    at: u64,
    left: u64,
    reading: Option<JoinHandle<io::Result<Vec<u8>>>>,
    clock: Clock,
    list: Rc<RefCell<Slots<Rc<Open>>>>,
    slot: usize,
}

impl FileBody {
    /// Bytes that are still to come.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The next piece.
    pub fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.open.touched.set(self.clock.now());
        if self.reading.is_none() {
            let file = self.open.file.borrow().as_ref().map(|(file, _)| Arc::clone(file));
            let Some(file) = file else { return Poll::Ready(Some(Err(BodyError::Stalled))) };
            let (at, wanted) = (self.at, self.left.min(SMALL) as usize);
            self.reading = Some(tokio::task::spawn_blocking(move || read(&file, at, wanted)));
        }
        let Some(reading) = &mut self.reading else { return Poll::Pending };
        let read = ready!(Pin::new(reading).poll(context));
        self.reading = None;
        Poll::Ready(Some(match read.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(bytes) => {
                self.at += bytes.len() as u64;
                self.left -= bytes.len() as u64;
                Ok(Frame::data(bytes.into()))
            }
            Err(error) => Err(BodyError::Own(error)),
        }))
    }
}

impl Drop for FileBody {
    fn drop(&mut self) {
        self.list.borrow_mut().remove(self.slot);
    }
}

/// Some bytes of a file, at least one: it was announced that they are there.
fn read(file: &File, at: u64, wanted: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; wanted];
    loop {
        match file.read_at(&mut bytes, at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                bytes.truncate(read);
                return Ok(bytes);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
