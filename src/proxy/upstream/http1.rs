//! An HTTP/1.1 connection that is driven by whoever uses it.
//!
//! Not hyper's client connection: that one moves each request and response through channels between
//! a sender and a driver, and a third of all instructions of a proxied request went there. Here the
//! exchange that uses a connection writes and reads in its own task. A request's head goes from its
//! fields straight into bytes and is kept by the caller, who may send it again.
//!
//! An idle connection is polled by nobody; that its peer closed it is noticed at its next use,
//! before anything is written. Sending goes on while the answer is awaited; when the answer comes
//! before the request is sent, a task of its own sends the rest ([`super::line`]), because a slow
//! client must not hold up its own upload.

mod again;
mod state;

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::header::HeaderMap;
use http::{Method, StatusCode};
use http_body::{Body, Frame};
use socket2::SockRef;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

use self::state::State;
use super::head::{Framing, ResponseHead, Sending, read_response, write_request};
use super::{Broken, Unanswered};
use crate::proxy::body::RequestBody;
use crate::proxy::chunked::{Decoder, Piece, end_chunk, write_end, write_size};
use crate::proxy::clock::Tick;
use crate::proxy::exchange::Exchange;
use crate::proxy::parcel::Parcel;

/// Bytes of buffer that a connection may grow to, each way. 64 KiB is what nginx's and HAProxy's
/// defaults add up to, and what one read of a large body takes.
pub const BUFFER: usize = 64 * 1024;
/// Bytes that a connection reads at a time until it knows better: a head and a small body.
const ROOM: usize = 8 * 1024;
/// Room below which reading waits for no more of it.
const LEAST_ROOM: usize = 1024;
/// Bytes of a request that are gathered before they are written.
const GATHER: usize = 16 * 1024;
/// Pieces up to this size are copied behind the head; larger ones are written from where they are.
const COPIED: usize = 4 * 1024;

/// Interim responses to one request: each costs the client a write.
const MOST_INTERIMS: u32 = 16;

/// A request's body on its way.
#[derive(Debug)]
struct Upload {
    body: RequestBody,
    sending: Sending,
}

/// An HTTP/1.1 connection.
pub struct Connection {
    stream: TcpStream,
    read: BytesMut,
    /// Bytes to be written: a head, small pieces, what frames chunks.
    out: Vec<u8>,
    /// How many of them are written.
    written: usize,
    /// A large piece to be written behind them.
    piece: Bytes,
    /// The piece is a chunk, and a line's end belongs behind it.
    chunk: bool,
    upload: Option<Upload>,
    state: State,
    keep_alive: bool,
    /// Interim responses to the request that is on its way.
    interims: u32,
    /// What the peer did to our sending; it may have answered all the same.
    refused: Option<io::Error>,
    /// An empty map of the last exchange, for its room.
    spare: HeaderMap,
    /// The buffers grew beyond what an idle connection keeps.
    grown: bool,
    idle_since: Tick,
    used: bool,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Connection {
    /// Makes a connection of a stream.
    pub fn new(stream: TcpStream) -> Box<Self> {
        Box::new(Self {
            stream,
            read: BytesMut::new(),
            out: Vec::new(),
            written: 0,
            piece: Bytes::new(),
            chunk: false,
            upload: None,
            state: State::Idle,
            keep_alive: true,
            interims: 0,
            refused: None,
            spare: HeaderMap::new(),
            grown: false,
            idle_since: 0,
            used: false,
        })
    }

    /// It takes one request: it was begun in the name of one client.
    pub fn once(mut self: Box<Self>) -> Box<Self> {
        self.keep_alive = false;
        self
    }

    /// Whether it can take a request.
    pub fn is_ready(&self) -> bool {
        self.keep_alive && self.is_end() && !self.is_sending() && self.read.is_empty()
    }

    /// Whether the answer was read to its end.
    pub fn is_end(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Whether some of the request is not written yet.
    pub fn is_sending(&self) -> bool {
        self.upload.is_some() || self.written < self.out.len() || !self.piece.is_empty()
    }

    /// How many bytes of the answer's body are missing, if that was said.
    pub fn length(&self) -> Option<u64> {
        match self.state {
            State::Idle => Some(0),
            State::Length(left) => Some(left),
            _ => None,
        }
    }

    /// Whether it has served a request before: then the peer may have closed it unnoticed.
    pub fn is_used(&self) -> bool {
        self.used
    }

    /// Since when it idles.
    pub fn idle_since(&self) -> Tick {
        self.idle_since
    }

    /// Sends a request and waits for the response's head, or for the exchange to be ended. The request
    /// comes back: its fields' room is of use ([`Self::recycle`]), or it is sent once more elsewhere.
    ///
    /// Cancel safety: dropped midway, the connection must be dropped too.
    pub async fn send(
        &mut self,
        mut parcel: Box<Parcel>,
        exchange: &Exchange,
    ) -> Result<(ResponseHead, Box<Parcel>), Unanswered> {
        let replayable = parcel.is_replayable();
        let mut begun = false;
        let answered = poll_fn(|context| {
            if let Some(fired) = exchange.fired() {
                return Poll::Ready(Err(Some(fired)));
            }
            if !begun {
                if self.used && !self.is_quiet(context, replayable) {
                    return Poll::Ready(Err(None));
                }
                begun = true;
                self.begin(&mut parcel);
            }
            let polled = self.poll_head(&parcel.head.method, exchange, context);
            if polled.is_pending() {
                exchange.park(context);
            }
            polled.map(Ok)
        })
        .await;
        match answered {
            Ok(Ok(head)) => Ok((head, parcel)),
            Ok(Err(broken)) => {
                self.state = State::Broken;
                Err(Unanswered::Broken(replayable.then_some(parcel), broken))
            }
            Err(Some(fired)) => {
                Err(Unanswered::Fired(fired, (replayable || !begun).then_some(parcel)))
            }
            Err(None) => Err(Unanswered::NotSent(parcel, Broken::Closed)),
        }
    }

    /// Whether the peer neither closed it nor said what nobody asked for. Costs no system call while
    /// nothing is known to have come; a request that may be sent only once is worth one, because the
    /// close of an instance that died may have arrived since the worker last looked.
    pub fn is_quiet(&mut self, context: &mut Context<'_>, replayable: bool) -> bool {
        if self.poll_fill(context, ROOM).is_ready() {
            return false;
        }
        let waits = |error: io::Error| error.kind() == io::ErrorKind::WouldBlock;
        let peek = || SockRef::from(&self.stream).peek(&mut [MaybeUninit::uninit()]);
        replayable || peek().is_err_and(waits)
    }

    fn begin(&mut self, parcel: &mut Parcel) {
        self.out.clear();
        self.written = 0;
        let sending = write_request(parcel, &mut self.out);
        self.state = State::Waiting;
        self.interims = 0;
        if sending != Sending::Nothing {
            let body = std::mem::replace(&mut parcel.body, RequestBody::Empty);
            self.upload = Some(Upload { body, sending });
        }
    }

    fn poll_head(
        &mut self,
        method: &Method,
        exchange: &Exchange,
        context: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, Broken>> {
        if self.is_sending()
            && let Poll::Ready(Err(broken)) = self.poll_send(context)
        {
            return Poll::Ready(Err(broken));
        }
        loop {
            if !self.read.is_empty() {
                let head = read_response(&mut self.read, method, &mut self.spare);
                match head.map_err(Broken::Malformed)? {
                    Some(mut head) if head.is_interim() => {
                        self.interims += 1;
                        if self.interims > MOST_INTERIMS {
                            let what = "it sent too many interim responses";
                            return Poll::Ready(Err(Broken::Malformed(what)));
                        }
                        // Its 100 is told nobody: the client's own connection says when to go on.
                        if head.status != StatusCode::CONTINUE {
                            exchange.interim(head.status, &mut head.headers);
                        }
                        head.headers.clear();
                        self.spare = head.headers;
                        continue;
                    }
                    Some(head) => {
                        self.keep_alive &= head.keep_alive;
                        self.state = match head.framing {
                            Framing::Length(0) => State::Idle,
                            Framing::Length(length) => State::Length(length),
                            Framing::Chunked => State::Chunked(Decoder::default()),
                            Framing::Rest => State::Rest,
                        };
                        return Poll::Ready(Ok(head));
                    }
                    None if self.read.len() >= BUFFER => {
                        return Poll::Ready(Err(Broken::Malformed(
                            "a response's head is too long",
                        )));
                    }
                    None => {}
                }
            }
            if ready!(self.poll_fill(context, ROOM)).map_err(|error| self.blame(error))? == 0 {
                let closed = self.refused.take().map_or(Broken::Closed, Broken::Io);
                return Poll::Ready(Err(closed));
            }
        }
    }

    /// Why reading failed: what failed before, when sending, says more.
    fn blame(&mut self, error: io::Error) -> Broken {
        Broken::Io(self.refused.take().unwrap_or(error))
    }

    fn poll_fill(&mut self, context: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        let least = if wanted > ROOM { ROOM } else { LEAST_ROOM };
        if self.read.capacity() - self.read.len() < least {
            self.read.reserve(wanted);
            self.grown |= wanted > ROOM;
        }
        poll_read_buf(Pin::new(&mut self.stream), context, &mut self.read)
    }

    /// The next piece of the answer's body, if it was read already.
    pub fn take_piece(&mut self) -> Result<Piece, &'static str> {
        match &mut self.state {
            State::Idle => Ok(Piece::End),
            State::Waiting | State::Broken => Err("there is no body"),
            State::Length(_) | State::Rest if self.read.is_empty() => Ok(Piece::Wanting),
            State::Rest => Ok(Piece::Data(self.read.split().freeze())),
            State::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(self.read.len());
                *left -= here as u64;
                if *left == 0 {
                    self.state = State::Idle;
                }
                Ok(Piece::Data(self.read.split_to(here).freeze()))
            }
            State::Chunked(decoder) => {
                let piece = decoder.next(&mut self.read)?;
                if matches!(piece, Piece::Data(_)) {
                    decoder.look_for_end(&mut self.read);
                }
                if decoder.is_end() {
                    self.state = State::Idle;
                }
                Ok(piece)
            }
        }
    }

    /// The next piece of the answer's body.
    pub fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let broken = loop {
            match self.take_piece() {
                Ok(Piece::Data(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Ok(Piece::Trailers(trailers)) => {
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Ok(Piece::End) => return Poll::Ready(None),
                Ok(Piece::Wanting) => {}
                Err(_) if matches!(self.state, State::Broken) => break Broken::Closed,
                Err(what) => break Broken::Malformed(what),
            }
            let wanted = match &self.state {
                State::Length(left) => usize::try_from(*left).unwrap_or(BUFFER),
                State::Chunked(decoder) => usize::try_from(decoder.missing()).unwrap_or(BUFFER),
                _ => ROOM,
            };
            match ready!(self.poll_fill(context, wanted.clamp(ROOM, BUFFER))) {
                Ok(0) if matches!(self.state, State::Rest) => {
                    self.state = State::Idle;
                    return Poll::Ready(None);
                }
                Ok(0) => break Broken::Closed,
                Ok(_) => {}
                Err(error) => break self.blame(error),
            }
        };
        self.state = State::Broken;
        Poll::Ready(Some(Err(broken)))
    }

    /// Sends what there is of the request. Ready when all is written, or when the peer takes no more
    /// of it; an error is the client's.
    pub fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            let waits = match self.gather(context) {
                Ok(waits) => waits,
                Err(broken) => {
                    self.stop_sending();
                    return Poll::Ready(Err(broken));
                }
            };
            if let Err(error) = ready!(self.poll_write(context)) {
                self.refused = Some(error);
                self.stop_sending();
                return Poll::Ready(Ok(()));
            }
            if self.upload.is_none() && !self.is_sending() {
                return Poll::Ready(Ok(()));
            }
            if waits && !self.is_sending_bytes() {
                return Poll::Pending;
            }
        }
    }

    fn is_sending_bytes(&self) -> bool {
        self.written < self.out.len() || !self.piece.is_empty()
    }

    fn stop_sending(&mut self) {
        self.keep_alive = false;
        self.upload = None;
        self.out.clear();
        self.written = 0;
        self.piece = Bytes::new();
    }

    /// Takes from the body what can be written at once. Whether the body has no more at the moment.
    fn gather(&mut self, context: &mut Context<'_>) -> Result<bool, Broken> {
        while self.piece.is_empty()
            && self.out.len() < GATHER
            && let Some(upload) = &mut self.upload
        {
            let frame = match Pin::new(&mut upload.body).poll_frame(context) {
                Poll::Pending => return Ok(true),
                Poll::Ready(frame) => frame.transpose().map_err(|_| Broken::Upload)?,
            };
            let (bytes, trailers) = match frame.map(Frame::into_data) {
                Some(Ok(bytes)) => (Some(bytes), None),
                Some(Err(frame)) => (None, frame.into_trailers().ok()),
                None => (None, None),
            };
            let ended = bytes.is_none() || upload.body.is_end_stream();
            if let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) {
                match &mut upload.sending {
                    Sending::Length(left) => {
                        *left = left.checked_sub(bytes.len() as u64).ok_or(Broken::Upload)?;
                    }
                    Sending::Chunked(_) => {
                        write_size(bytes.len(), &mut self.out);
                        self.chunk = true;
                    }
                    Sending::Nothing => {}
                }
                if bytes.len() <= COPIED {
                    self.out.extend_from_slice(&bytes);
                    end_chunk(&mut self.chunk, &mut self.out);
                } else {
                    self.piece = bytes;
                }
            }
            if ended && (self.piece.is_empty() || !self.chunk) {
                match &upload.sending {
                    Sending::Length(1..) => return Err(Broken::Upload),
                    Sending::Chunked(announced) => {
                        let trailers = trailers.iter().flatten();
                        let announced = trailers.filter(|(name, _)| announced.contains(name));
                        write_end(announced, &mut self.out);
                    }
                    Sending::Length(0) | Sending::Nothing => {}
                }
                self.upload = None;
            }
        }
        Ok(false)
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.is_sending_bytes() {
            let rest = self.out.get(self.written..).unwrap_or_default();
            let stream = Pin::new(&mut self.stream);
            let sent = if self.piece.is_empty() {
                stream.poll_write(context, rest)
            } else {
                let both = [IoSlice::new(rest), IoSlice::new(&self.piece)];
                stream.poll_write_vectored(context, &both)
            };
            let sent = ready!(sent)?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_out = sent.min(self.out.len() - self.written);
            self.written += of_out;
            self.piece.advance(sent - of_out);
        }
        self.out.clear();
        self.written = 0;
        end_chunk(&mut self.chunk, &mut self.out);
        Poll::Ready(Ok(()))
    }

    /// The stream, and what was read behind the response's head, after a change of protocol.
    pub fn into_stream(self: Box<Self>) -> (TcpStream, Bytes) {
        let connection = *self;
        (connection.stream, connection.read.freeze())
    }
}
