//! The bytes of an HTTP/1.1 connection with a client: heads and bodies in, answers out.
//!
//! A wire is shared by the loop that serves the connection and by the body of the request that is on
//! its way. They take turns: while a body has not ended, only its [`Reader`] reads; then only the loop
//! does, to learn that the client went, or to read the next head. Nothing is read for a request before
//! the one before it is answered, so that bytes behind it wait in the kernel and not here.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use tokio::io::AsyncWrite;
use tokio_util::io::poll_read_buf;

use super::framing::Framing;
use super::head::{Progress, RequestHead, read_request};
use super::stream::Io;
use super::upload::UploadError;
use crate::proxy::chunked::{Decoder, Piece};
use crate::proxy::limits::Limits;
use crate::telemetry::traffic::Reason;

/// Bytes of buffer that a connection may grow to, each way: what one read of a large body takes.
const BUFFER: usize = 64 * 1024;
/// Bytes that a connection reads at a time until it knows better: a head and a small body.
const ROOM: usize = 8 * 1024;
/// Room below which reading waits for no more of it.
const LEAST_ROOM: usize = 1024;

/// How far the request's body is.
#[derive(Debug)]
enum Reading {
    /// Read to its end.
    Done,
    /// So many bytes are missing.
    Length(u64),
    /// It comes in chunks.
    Chunked(Decoder),
    /// Nothing that can be relied on.
    Broken,
}

/// What came instead of a head.
#[derive(Debug)]
pub enum NoHead {
    /// The client is done.
    Closed,
    /// The connection broke, perhaps within a head.
    Broken,
    /// What came is refused.
    Refused(Reason),
}

/// The bytes of a connection.
pub struct Wire {
    inner: RefCell<Inner>,
}

struct Inner {
    /// `None` once it is taken away.
    io: Option<Io>,
    read: BytesMut,
    progress: Progress,
    reading: Reading,
    /// A reader is around that may still read.
    has_reader: bool,
    /// A 100 is due before the body is read.
    expects: bool,
    /// The final answer has begun: only the loop writes.
    answering: bool,
    /// Bytes to be written: heads, small pieces, what frames chunks.
    out: Vec<u8>,
    /// How many of them are written.
    written: usize,
    /// A large piece to be written behind them.
    piece: Bytes,
    /// What was written may wait in TLS.
    unflushed: bool,
    /// An empty map of the last exchange, for its room.
    spare: HeaderMap,
    /// The loop, when it waits for the reader.
    waker: Option<Waker>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

impl Wire {
    /// The bytes of a stream.
    pub fn new(io: Io) -> Rc<Self> {
        let inner = Inner {
            io: Some(io),
            read: BytesMut::new(),
            progress: Progress::default(),
            reading: Reading::Done,
            has_reader: false,
            expects: false,
            answering: false,
            out: Vec::new(),
            written: 0,
            piece: Bytes::new(),
            unflushed: false,
            spare: HeaderMap::new(),
            waker: None,
        };
        Rc::new(Self { inner: RefCell::new(inner) })
    }

    /// The stream, and what was read and not used. A reader that is still around reads no more.
    pub fn take(&self) -> Option<(Io, Bytes)> {
        let mut inner = self.inner.borrow_mut();
        let read = std::mem::take(&mut inner.read);
        // Nothing would still be a handle on the buffer, for as long as the connection is parked.
        let unread = if read.is_empty() { Bytes::new() } else { read.freeze() };
        inner.io.take().map(|io| (io, unread))
    }

    /// The next request's head. Errors when there is none.
    pub fn poll_head(
        &self,
        context: &mut Context<'_>,
        limits: &Limits,
    ) -> Poll<Result<RequestHead, NoHead>> {
        let inner = &mut *self.inner.borrow_mut();
        inner.answering = false;
        loop {
            if !inner.read.is_empty() {
                let (read, progress) = (&mut inner.read, &mut inner.progress);
                match read_request(read, progress, limits, &mut inner.spare) {
                    Ok(Some(head)) => return Poll::Ready(Ok(head)),
                    Ok(None) => {}
                    Err(reason) => return Poll::Ready(Err(NoHead::Refused(reason))),
                }
            }
            match ready!(inner.poll_fill(context, ROOM)) {
                Ok(0) if inner.read.is_empty() => return Poll::Ready(Err(NoHead::Closed)),
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(Err(NoHead::Broken)),
            }
        }
    }

    /// Whether nothing of a next request was read.
    pub fn is_between(&self) -> bool {
        self.inner.borrow().read.is_empty()
    }

    /// Begins to read a request's body; `None` when there is none.
    pub fn reader(self: &Rc<Self>, framing: Framing, expects: bool) -> Option<Reader> {
        let mut inner = self.inner.borrow_mut();
        let missing = match framing {
            Framing::Length(0) => return None,
            Framing::Length(length) => {
                inner.reading = Reading::Length(length);
                Some(length)
            }
            Framing::Chunked => {
                inner.reading = Reading::Chunked(Decoder::strict());
                None
            }
        };
        inner.has_reader = true;
        inner.expects = expects && inner.read.is_empty();
        Some(Reader { wire: Rc::clone(self), missing, ended: false })
    }

    /// Whether the request's body was read to its end.
    pub fn is_read(&self) -> bool {
        matches!(self.inner.borrow().reading, Reading::Done)
    }

    /// Whether the rest of the request's body will be read by somebody.
    pub fn is_being_read(&self) -> bool {
        let inner = self.inner.borrow();
        inner.has_reader && !inner.expects && !matches!(inner.reading, Reading::Broken)
    }

    /// Returns when the body was read to its end, or will not be: then with `false`.
    pub fn poll_read_out(&self, context: &mut Context<'_>) -> Poll<bool> {
        let mut inner = self.inner.borrow_mut();
        match inner.reading {
            Reading::Done => Poll::Ready(true),
            Reading::Broken => Poll::Ready(false),
            _ if !inner.has_reader => Poll::Ready(false),
            _ => {
                inner.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Ready when the client went while its answer is made. Costs no system call while nothing is
    /// known to have come.
    pub fn poll_gone(&self, context: &mut Context<'_>) -> Poll<()> {
        let inner = &mut *self.inner.borrow_mut();
        if !matches!(inner.reading, Reading::Done) || !inner.read.is_empty() {
            return Poll::Pending;
        }
        match ready!(inner.poll_fill(context, ROOM)) {
            Ok(1..) => Poll::Pending,
            Ok(0) | Err(_) => Poll::Ready(()),
        }
    }

    /// Hands what is to be written to `write`, who adds to it.
    pub fn write<T>(&self, write: impl FnOnce(&mut Out<'_>) -> T) -> T {
        // Taken out meanwhile: what `write` drops may be a reader of this wire.
        let (mut bytes, mut piece) = {
            let inner = &mut *self.inner.borrow_mut();
            (std::mem::take(&mut inner.out), std::mem::take(&mut inner.piece))
        };
        let written = write(&mut Out { bytes: &mut bytes, piece: &mut piece });
        let inner = &mut *self.inner.borrow_mut();
        (inner.out, inner.piece) = (bytes, piece);
        written
    }

    /// The final answer begins: a 100 would come too late. Whether one is still due, so that nobody
    /// knows whether the body will come.
    pub fn answer_begins(&self) -> bool {
        let mut inner = self.inner.borrow_mut();
        inner.answering = true;
        std::mem::take(&mut inner.expects)
    }

    /// Keeps an empty map's room for the next request.
    pub fn keep(&self, mut headers: HeaderMap) {
        headers.clear();
        self.inner.borrow_mut().spare = headers;
    }

    /// Writes all there is to be written.
    pub fn poll_write(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.borrow_mut().poll_write(context)
    }

    /// Reads away what is left of a body that nobody wants, at most `most` bytes of it. Whether its end
    /// was found.
    pub fn poll_drain(&self, context: &mut Context<'_>, most: &mut usize) -> Poll<bool> {
        let inner = &mut *self.inner.borrow_mut();
        loop {
            match inner.take_piece() {
                Ok(Piece::Data(bytes)) => match most.checked_sub(bytes.len()) {
                    Some(left) => *most = left,
                    None => return Poll::Ready(false),
                },
                Ok(Piece::Trailers(_) | Piece::End) => return Poll::Ready(true),
                Ok(Piece::Wanting) => match ready!(inner.poll_fill(context, ROOM)) {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return Poll::Ready(false),
                },
                Err(_) => return Poll::Ready(false),
            }
        }
    }
}

/// What is to be written.
pub struct Out<'a> {
    /// Heads, small pieces, what frames chunks.
    pub bytes: &'a mut Vec<u8>,
    /// A large piece to be written behind them.
    pub piece: &'a mut Bytes,
}

impl Inner {
    fn poll_fill(&mut self, context: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        let Some(io) = &mut self.io else { return Poll::Ready(Ok(0)) };
        let least = if wanted > ROOM { ROOM } else { LEAST_ROOM };
        if self.read.capacity() - self.read.len() < least {
            self.read.reserve(wanted);
        }
        poll_read_buf(Pin::new(io), context, &mut self.read)
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(io) = &mut self.io else { return Poll::Ready(Ok(())) };
        while self.written < self.out.len() || !self.piece.is_empty() {
            let rest = self.out.get(self.written..).unwrap_or_default();
            let stream = Pin::new(&mut *io);
            let sent = if self.piece.is_empty() {
                stream.poll_write(context, rest)
            } else {
                stream
                    .poll_write_vectored(context, &[IoSlice::new(rest), IoSlice::new(&self.piece)])
            };
            let sent = ready!(sent)?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            let of_out = sent.min(self.out.len() - self.written);
            self.written += of_out;
            self.piece.advance(sent - of_out);
        }
        self.out.clear();
        self.written = 0;
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// The next piece of the body, if it was read already.
    fn take_piece(&mut self) -> Result<Piece, &'static str> {
        let piece = match &mut self.reading {
            Reading::Done => return Ok(Piece::End),
            Reading::Broken => return Err("the body broke before"),
            Reading::Length(_) if self.read.is_empty() => return Ok(Piece::Wanting),
            Reading::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(self.read.len());
                *left -= here as u64;
                if *left == 0 {
                    self.reading = Reading::Done;
                }
                Piece::Data(self.read.split_to(here).freeze())
            }
            Reading::Chunked(decoder) => {
                let piece = decoder.next(&mut self.read)?;
                if matches!(piece, Piece::Data(_)) {
                    decoder.look_for_end(&mut self.read);
                }
                if decoder.is_end() {
                    self.reading = Reading::Done;
                }
                piece
            }
        };
        Ok(piece)
    }

    fn missing(&self) -> usize {
        let missing = match &self.reading {
            Reading::Length(left) => *left,
            Reading::Chunked(decoder) => decoder.missing(),
            Reading::Done | Reading::Broken => 0,
        };
        usize::try_from(missing).unwrap_or(BUFFER).clamp(ROOM, BUFFER)
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Result<Piece, UploadError>> {
        loop {
            match self.take_piece() {
                Ok(Piece::Wanting) => {}
                Ok(piece) => return Poll::Ready(Ok(piece)),
                Err(what) => return Poll::Ready(Err(UploadError::Malformed(what))),
            }
            if std::mem::take(&mut self.expects) {
                self.out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            if !self.answering && self.written < self.out.len() {
                // What does not go shows itself when the answer is written.
                let _ = self.poll_write(context);
            }
            let wanted = self.missing();
            match ready!(self.poll_fill(context, wanted)) {
                Ok(1..) => {}
                Ok(0) => return Poll::Ready(Err(UploadError::Closed)),
                Err(error) => return Poll::Ready(Err(UploadError::Io(error))),
            }
        }
    }
}

/// Reads a request's body off a wire.
#[derive(Debug)]
pub struct Reader {
    wire: Rc<Wire>,
    /// Bytes that are missing, if that was said.
    missing: Option<u64>,
    ended: bool,
}

impl Reader {
    /// Whether it was read to its end.
    pub fn is_end(&self) -> bool {
        self.ended
    }

    /// Bytes that are missing, if that was said.
    pub fn missing(&self) -> Option<u64> {
        self.missing
    }

    /// The next piece.
    pub fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let inner = &mut *self.wire.inner.borrow_mut();
        let piece = ready!(inner.poll_piece(context));
        self.ended = matches!(inner.reading, Reading::Done);
        let frame = match piece {
            Ok(Piece::Data(bytes)) => {
                if let Some(missing) = &mut self.missing {
                    *missing = missing.saturating_sub(bytes.len() as u64);
                }
                Some(Ok(Frame::data(bytes)))
            }
            Ok(Piece::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Ok(Piece::End | Piece::Wanting) => None,
            Err(error) => {
                (inner.reading, self.ended) = (Reading::Broken, true);
                Some(Err(error))
            }
        };
        if self.ended
            && let Some(waker) = inner.waker.take()
        {
            waker.wake();
        }
        Poll::Ready(frame)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut inner = self.wire.inner.borrow_mut();
        inner.has_reader = false;
        if let Some(waker) = inner.waker.take() {
            waker.wake();
        }
    }
}
