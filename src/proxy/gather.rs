//! Request bodies that are read before an instance is asked for, so that a slow client holds up
//! nobody but itself (`buffer_requests`).
//!
//! The first bytes stay in memory, more lie in a file without a name ([`super::spool`]). What is
//! larger than was asked for, and what the disk has no room for, goes on as it comes: a request is
//! never refused for want of room.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::task::JoinHandle;

use super::body::RequestBody;
use super::downstream::upload::{ClientBody, UploadError};
use super::error::Failure;
use super::exchange::{Exchange, Fired};
use super::parcel::Parcel;
use super::spool::{Spool, Spooled};

/// Bytes of a body that stay in memory: what nginx and HAProxy have as a buffer for one request, and
/// more than nearly every form.
const IN_MEMORY: usize = 64 * 1024;
/// Bytes that are written to a file, and read from it, at a time.
const PIECE: usize = 64 * 1024;

/// A body of which the beginning is here, and perhaps all.
#[derive(Debug)]
pub struct Gathered {
    early: Bytes,
    spooled: Option<Reading>,
    /// What the disk did not take, or not yet.
    late: Bytes,
    /// What comes behind what is here.
    rest: Rest,
}

#[derive(Debug)]
enum Rest {
    /// Nothing.
    End,
    /// Trailers.
    Trailers(Option<http::HeaderMap>),
    /// What the client still sends.
    Coming(ClientBody),
}

/// A file that is read from its beginning.
#[derive(Debug)]
struct Reading {
    file: Arc<Spooled>,
    at: u64,
    next: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Reading {
    fn left(&self) -> u64 {
        self.file.length() - self.at
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, UploadError>> {
        let (file, at) = (&self.file, self.at);
        let next = self.next.get_or_insert_with(|| {
            let file = Arc::clone(file);
            tokio::task::spawn_blocking(move || file.read(at, PIECE))
        });
        let read = ready!(Pin::new(next).poll(context));
        self.next = None;
        let read = read.unwrap_or_else(|error| Err(io::Error::other(error)));
        Poll::Ready(read.map_err(UploadError::Io).inspect(|bytes| self.at += bytes.len() as u64))
    }
}

impl Gathered {
    /// The next piece.
    pub fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        if !self.early.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.early)))));
        }
        if let Some(reading) = &mut self.spooled {
            let read = ready!(reading.poll(context));
            if read.is_err() || reading.left() == 0 {
                self.spooled = None;
            }
            return Poll::Ready(Some(read.map(Frame::data)));
        }
        if !self.late.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.late)))));
        }
        match &mut self.rest {
            Rest::End => Poll::Ready(None),
            Rest::Trailers(trailers) => {
                Poll::Ready(trailers.take().map(|t| Ok(Frame::trailers(t))))
            }
            Rest::Coming(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn here(&self) -> u64 {
        let in_memory = (self.early.len() + self.late.len()) as u64;
        in_memory + self.spooled.as_ref().map_or(0, Reading::left)
    }

    /// Whether nothing is left.
    pub fn is_end_stream(&self) -> bool {
        self.here() == 0
            && match &self.rest {
                Rest::End | Rest::Trailers(None) => true,
                Rest::Trailers(Some(_)) => false,
                Rest::Coming(body) => body.is_end_stream(),
            }
    }

    /// What is left. With trailers, no length is told: they come behind chunks only.
    pub fn size_hint(&self) -> SizeHint {
        let here = self.here();
        let rest = match &self.rest {
            Rest::End | Rest::Trailers(None) => SizeHint::with_exact(0),
            Rest::Trailers(Some(_)) => SizeHint::default(),
            Rest::Coming(body) => body.size_hint(),
        };
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(here));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(here));
        }
        hint
    }
}

/// Reads up to `most` bytes of a request's body before it goes on.
///
/// The exchange watches the client meanwhile, as it does while an instance waits for a body.
///
/// Cancel safety: dropped midway, what was read is gone with the request.
pub async fn gather(
    spool: &Arc<Spool>,
    parcel: &mut Parcel,
    exchange: &Rc<Exchange>,
    most: u64,
) -> Result<(), Failure> {
    if parcel.asked.websocket || !matches!(parcel.body, RequestBody::Stream { .. }) {
        return Ok(());
    }
    let mut body = std::mem::replace(&mut parcel.body, RequestBody::Empty);
    let mut gathering = Gathering::default();
    exchange.gathers();
    let end = loop {
        if gathering.bytes >= most || gathering.is_stuck {
            break None;
        }
        let next = poll_fn(|context| {
            if let Some(fired) = exchange.fired() {
                return Poll::Ready(Err(fired));
            }
            let polled = Pin::new(&mut body).poll_frame(context);
            if polled.is_pending() {
                exchange.park(context);
            }
            polled.map(Ok)
        });
        match next.await {
            Ok(None) => break Some(Rest::End),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(bytes) => gathering.take(spool, &bytes).await?,
                Err(frame) => break Some(Rest::Trailers(frame.into_trailers().ok())),
            },
            Ok(Some(Err(_))) => {
                return Err(exchange
                    .upload_refused()
                    .map_or(Failure::Upload, Failure::UploadRefused));
            }
            Err(Fired::Downstream) => return Err(Failure::UploadStall),
            Err(Fired::Upstream) => return Err(Failure::Timeout),
            Err(Fired::Cut) => return Err(Failure::Cut),
        }
    };
    if let RequestBody::Stream { incoming, exchange, left } = body {
        let gathered = gathering.bytes;
        let all = gathering.done(end.unwrap_or(Rest::Coming(incoming)));
        if !all.is_end_stream() {
            let incoming = ClientBody::Gathered(Box::new(all));
            // What is here was counted already.
            let left = left.saturating_add(gathered);
            parcel.body = RequestBody::Stream { incoming, exchange, left };
        }
    }
    exchange.begin_again();
    Ok(())
}

/// What is here so far.
#[derive(Debug, Default)]
struct Gathering {
    bytes: u64,
    early: BytesMut,
    spooled: Option<Spooled>,
    /// To be written when it is enough.
    waiting: BytesMut,
    /// The disk takes no more.
    is_stuck: bool,
}

impl Gathering {
    /// Copied, because a piece that is kept would keep the whole buffer that it came in.
    async fn take(&mut self, spool: &Arc<Spool>, bytes: &[u8]) -> Result<(), Failure> {
        self.bytes += bytes.len() as u64;
        let is_early = self.waiting.is_empty() && self.spooled.is_none();
        if is_early && self.early.len() + bytes.len() <= IN_MEMORY {
            self.early.extend_from_slice(bytes);
            return Ok(());
        }
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= PIECE { self.write(spool).await } else { Ok(()) }
    }

    /// Puts what waits into the file. An error is that what was there is lost.
    async fn write(&mut self, spool: &Arc<Spool>) -> Result<(), Failure> {
        let (spool, file) = (Arc::clone(spool), self.spooled.take());
        let waiting = std::mem::take(&mut self.waiting);
        let written = tokio::task::spawn_blocking(move || {
            let mut file = match file.map_or_else(|| Spooled::new(&spool), Ok) {
                Ok(file) => file,
                Err(error) => return (None, waiting, Some(error)),
            };
            match file.append(&waiting) {
                Ok(()) => (Some(file), BytesMut::new(), None),
                Err(error) => (Some(file), waiting, Some(error)),
            }
        });
        // Only a runtime that ends lets go of what it was given.
        let (file, waiting, error) = written.await.map_err(|_| Failure::Cut)?;
        (self.spooled, self.waiting) = (file, waiting);
        if let Some(error) = error {
            self.is_stuck = true;
            if error.kind() != io::ErrorKind::StorageFull {
                tracing::warn!(%error, "request bodies cannot be kept on disk, and go on as they come");
            }
        }
        Ok(())
    }

    fn done(self, rest: Rest) -> Gathered {
        let spooled = self.spooled.filter(|file| file.length() > 0);
        let spooled = spooled.map(|file| Reading { file: Arc::new(file), at: 0, next: None });
        Gathered { early: self.early.freeze(), spooled, late: self.waiting.freeze(), rest }
    }
}
