//! A file on its way to a client: what is small as a whole, the rest piece by piece. What the kernel has
//! in memory is read by the worker itself, what it has not by a thread that may wait for a disk.
//!
//! An open file is a thing of which a machine has few: there are at most [`MOST`] of them on a worker,
//! and one whose client takes nothing is closed after as long as any client may stall; when somebody
//! else needs its place, sooner.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::future::Future as _;
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

use super::cached::{Cached, Not, PIECE};
use super::open::Opened;
use crate::proxy::body::ResponseBody;
use crate::proxy::clock::{Clock, Tick, ticks};
use crate::proxy::error::BodyError;
use crate::proxy::places::{Place, Places};
use crate::proxy::slots::Slots;

/// Files that a worker may have open.
pub const MOST: usize = if cfg!(test) { 64 } else { 1024 };
/// Without progress for so long, a file is closed if another one wants its place.
const LEFT_ALONE: Duration = Duration::from_secs(1);
/// So long nothing is said after it was said that a file cannot be had.
const SILENT: Duration = Duration::from_secs(10);

/// The files that a worker has open.
#[derive(Debug)]
pub struct OpenFiles {
    places: Places,
    shared: Rc<Shared>,
}

/// What those who send files know of one another.
#[derive(Debug, Default)]
struct Shared {
    list: RefCell<Slots<Rc<Open>>>,
    cached: Cached,
    /// When it was last said that a file cannot be had.
    told: Cell<Option<Tick>>,
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
        Self { places: Places::new(MOST), shared: Rc::default() }
    }
}

impl OpenFiles {
    /// The right to have one open. When all are taken, who has made no progress for longest gives up
    /// its own: a few clients that take nothing must not keep everybody else from every file.
    pub fn enter(&self, now: Tick) -> Option<Place> {
        self.places.enter().or_else(|| {
            let list = self.shared.list.borrow();
            let longest = list.iter().filter(|open| open.is_open()).min_by_key(|o| o.touched.get());
            let longest =
                longest.filter(|open| now.saturating_sub(open.touched.get()) >= ticks(LEFT_ALONE));
            longest?.file.borrow_mut().take();
            self.places.enter()
        })
    }

    /// Whether it may be said again that files cannot be had: what is wrong with a disk, a right or an app is
    /// wrong for each request.
    pub fn may_tell(&self, now: Tick) -> bool {
        let told = &self.shared.told;
        let may = told.get().is_none_or(|told| now.saturating_sub(told) >= ticks(SILENT));
        if may {
            told.set(Some(now));
        }
        may
    }

    /// Closes those that nobody took anything of for so many ticks.
    pub fn tick(&self, now: Tick, patience: Tick) {
        for open in self.shared.list.borrow().iter() {
            if now.saturating_sub(open.touched.get()) >= patience {
                open.file.borrow_mut().take();
            }
        }
        self.shared.cached.tick(now);
    }

    /// What is known of the kernel's caches.
    pub fn cached(&self) -> &Cached {
        &self.shared.cached
    }
}

/// So many bytes of a file, from there on. What is small is here before it is announced: errors are
/// those of reading it.
///
/// Cancel safety: may be dropped at any time.
pub async fn part(
    files: &OpenFiles,
    clock: &Clock,
    opened: Opened,
    (from, length): (u64, u64),
    place: Place,
) -> io::Result<ResponseBody> {
    if let Some(whole) = &opened.whole {
        // Within: they were counted by what is here.
        let (from, length) = (from as usize, length as usize);
        return Ok(ResponseBody::full(whole.slice(from..from + length)));
    }
    let (mut file, mut asks) = (opened.file, opened.local.is_some());
    if length <= PIECE as u64 {
        let length = length as usize;
        if asks {
            match files.shared.cached.read(&file, from, length) {
                Ok(bytes) if bytes.len() == length => return Ok(ResponseBody::Full(bytes)),
                Err(Not::Ever) => asks = false,
                Ok(_) | Err(Not::Now) => {}
            }
        }
        let reading = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; length];
            let read = file.read_exact_at(&mut bytes, from);
            (file, read.map(|()| bytes))
        });
        let (back, read) = reading.await.map_err(io::Error::other)?;
        match read {
            Ok(bytes) => return Ok(ResponseBody::Full(bytes.into())),
            // Changed meanwhile, it is broken off.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => file = back,
            Err(error) => return Err(error),
        }
    }
    let open = Rc::new(Open {
        file: RefCell::new(Some((Arc::new(file), place))),
        touched: Cell::new(clock.now()),
    });
    let slot = files.shared.list.borrow_mut().insert(Rc::clone(&open));
    Ok(ResponseBody::File(Box::new(FileBody {
        open,
        at: from,
        left: length,
        asks,
        reading: None,
        clock: clock.clone(),
        shared: Rc::clone(&files.shared),
        slot,
    })))
}

/// A part of a file.
#[derive(Debug)]
pub struct FileBody {
    open: Rc<Open>,
    at: u64,
    left: u64,
    /// The kernel can be asked for what it has of it in memory.
    asks: bool,
    reading: Option<JoinHandle<io::Result<Vec<u8>>>>,
    clock: Clock,
    shared: Rc<Shared>,
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
            let (at, wanted) = (self.at, self.left.min(PIECE as u64) as usize);
            let file = self.open.file.borrow();
            let Some((file, _)) = &*file else {
                return Poll::Ready(Some(Err(BodyError::Stalled)));
            };
            if self.asks {
                match self.shared.cached.read(file, at, wanted) {
                    Ok(bytes) => {
                        self.at += bytes.len() as u64;
                        self.left -= bytes.len() as u64;
                        return Poll::Ready(Some(Ok(Frame::data(bytes))));
                    }
                    Err(not) => self.asks = not == Not::Now,
                }
            }
            let file = Arc::clone(file);
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
        self.shared.list.borrow_mut().remove(self.slot);
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
