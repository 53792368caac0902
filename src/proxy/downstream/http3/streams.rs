//! Streams of QUIC as the library that speaks HTTP/3 wants them.
//!
//! It reads whole frames into memory however long they say they are, and reads on while it still holds
//! some. So what comes is metered here: a stream may bring so many bytes that lead to nothing, and is
//! given more only when what it brought is used up. What ends before its time is reset, so that half
//! an answer is never taken for a whole one.

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use quinn::{ConnectionError, ReadError, VarInt, WriteError};

use super::meter::Meter;

/// Bytes on the streams of a client's own signals (settings, priorities) for a start, and for each
/// request more: a browser sends some 20 about each.
const SIGNALS: usize = 16 * 1024;
const SIGNALS_PER_REQUEST: usize = 256;

/// A future that is said to be ready at the end of the answer's stream: stopped by the client, or taken
/// to its last byte.
pub type Stopped = Pin<Box<dyn Future<Output = ()>>>;

/// A request's stream, for whoever serves it.
pub struct Handle {
    /// What it brings.
    pub meter: Rc<Meter>,
    /// The end of its answer.
    pub stopped: Stopped,
}

type Opening<T> = Option<Pin<Box<dyn Future<Output = Result<T, ConnectionError>>>>>;
type Pair = (quinn::SendStream, quinn::RecvStream);

/// A client's connection.
pub struct Link {
    connection: quinn::Connection,
    pairs: Opening<Pair>,
    singles: Opening<quinn::RecvStream>,
    opening: Opener,
    /// Bytes that a request's stream may bring for nothing.
    most: usize,
    signals: Rc<Meter>,
    newest: Rc<RefCell<Option<Handle>>>,
}

impl Link {
    /// A connection whose requests may bring so many bytes for nothing.
    pub fn new(connection: quinn::Connection, most: usize) -> Self {
        let opening = Opener { connection: connection.clone(), pair: None, single: None };
        Self {
            connection,
            pairs: None,
            singles: None,
            opening,
            most,
            signals: Meter::new(SIGNALS),
            newest: Rc::default(),
        }
    }

    /// Where the stream that was accepted last is left.
    pub fn newest(&self) -> Rc<RefCell<Option<Handle>>> {
        Rc::clone(&self.newest)
    }

    /// What its own signals bring.
    pub fn signals(&self) -> Rc<Meter> {
        Rc::clone(&self.signals)
    }
}

fn poll_one<T: 'static, F>(
    waiting: &mut Opening<T>,
    connection: &quinn::Connection,
    begin: impl FnOnce(quinn::Connection) -> F,
    context: &mut Context<'_>,
) -> Poll<Result<T, ConnectionErrorIncoming>>
where
    F: Future<Output = Result<T, ConnectionError>> + 'static,
{
    let future = waiting.get_or_insert_with(|| Box::pin(begin(connection.clone())));
    let got = ready!(future.as_mut().poll(context));
    *waiting = None;
    Poll::Ready(got.map_err(lost))
}

impl quic::Connection<Bytes> for Link {
    type RecvStream = Receiving;
    type OpenStreams = Opener;

    fn poll_accept_recv(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Receiving, ConnectionErrorIncoming>> {
        let begin = |connection: quinn::Connection| async move { connection.accept_uni().await };
        let stream = ready!(poll_one(&mut self.singles, &self.connection, begin, context))?;
        Poll::Ready(Receiving::new(stream, Rc::clone(&self.signals)))
    }

    fn poll_accept_bidi(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Both, ConnectionErrorIncoming>> {
        let begin = |connection: quinn::Connection| async move { connection.accept_bi().await };
        let pair = ready!(poll_one(&mut self.pairs, &self.connection, begin, context))?;
        let both = Both::new(pair, self.most)?;
        let end = both.sending.stream.stopped();
        let stopped = Box::pin(async move {
            let _ = end.await;
        });
        let meter = Rc::clone(&both.sending.meter);
        *self.newest.borrow_mut() = Some(Handle { meter, stopped });
        self.signals.allow(SIGNALS_PER_REQUEST);
        Poll::Ready(Ok(both))
    }

    fn opener(&self) -> Opener {
        self.opening.clone()
    }
}

impl quic::OpenStreams<Bytes> for Link {
    type BidiStream = Both;
    type SendStream = Sending;

    fn poll_open_bidi(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Both, StreamErrorIncoming>> {
        self.opening.poll_open_bidi(context)
    }

    fn poll_open_send(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Sending, StreamErrorIncoming>> {
        self.opening.poll_open_send(context)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.opening.close(code, reason);
    }
}

/// Opens streams of our own.
pub struct Opener {
    connection: quinn::Connection,
    pair: Opening<Pair>,
    single: Opening<quinn::SendStream>,
}

impl Clone for Opener {
    fn clone(&self) -> Self {
        Self { connection: self.connection.clone(), pair: None, single: None }
    }
}

impl quic::OpenStreams<Bytes> for Opener {
    type BidiStream = Both;
    type SendStream = Sending;

    fn poll_open_bidi(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Both, StreamErrorIncoming>> {
        let begin = |connection: quinn::Connection| async move { connection.open_bi().await };
        let pair = ready!(poll_one(&mut self.pair, &self.connection, begin, context));
        let both = pair.and_then(|pair| Both::new(pair, usize::MAX));
        Poll::Ready(both.map_err(of_connection))
    }

    fn poll_open_send(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Sending, StreamErrorIncoming>> {
        let begin = |connection: quinn::Connection| async move { connection.open_uni().await };
        let single = ready!(poll_one(&mut self.single, &self.connection, begin, context));
        let sending = single.and_then(|stream| Sending::new(stream, Meter::new(0)));
        Poll::Ready(sending.map_err(of_connection))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.connection.close(number(code.value()), reason);
    }
}

/// A stream both ways: a request and its answer.
pub struct Both {
    sending: Sending,
    receiving: Receiving,
}

impl Both {
    fn new((sending, receiving): Pair, most: usize) -> Result<Self, ConnectionErrorIncoming> {
        let meter = Meter::new(most);
        let sending = Sending::new(sending, Rc::clone(&meter))?;
        Ok(Self { sending, receiving: Receiving::new(receiving, meter)? })
    }
}

impl quic::BidiStream<Bytes> for Both {
    type SendStream = Sending;
    type RecvStream = Receiving;

    fn split(self) -> (Sending, Receiving) {
        (self.sending, self.receiving)
    }
}

impl quic::RecvStream for Both {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.receiving.poll_data(context)
    }

    fn stop_sending(&mut self, code: u64) {
        self.receiving.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.receiving.recv_id()
    }
}

impl quic::SendStream<Bytes> for Both {
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.sending.poll_ready(context)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.sending.send_data(data)
    }

    fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.sending.poll_finish(context)
    }

    fn reset(&mut self, code: u64) {
        self.sending.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.sending.send_id()
    }
}

/// What the client says.
pub struct Receiving {
    stream: quinn::RecvStream,
    id: StreamId,
    meter: Rc<Meter>,
}

impl Receiving {
    fn new(stream: quinn::RecvStream, meter: Rc<Meter>) -> Result<Self, ConnectionErrorIncoming> {
        Ok(Self { id: id(stream.id())?, stream, meter })
    }
}

impl quic::RecvStream for Receiving {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        if self.meter.is_shut() {
            // Whoever shut it asks again.
            return Poll::Pending;
        }
        // Waits nowhere but in the stream itself: it may be begun anew at each poll.
        let chunk = ready!(pin!(self.stream.read_chunk(usize::MAX, true)).poll(context));
        self.meter.was_read();
        Poll::Ready(match chunk {
            Ok(Some(chunk)) if self.meter.came(chunk.bytes.len()) => Ok(Some(chunk.bytes)),
            Ok(Some(_)) => Err(StreamErrorIncoming::StreamTerminated {
                error_code: Code::H3_EXCESSIVE_LOAD.value(),
            }),
            Ok(None) => {
                self.meter.end();
                Ok(None)
            }
            Err(ReadError::Reset(code)) => {
                Err(StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() })
            }
            Err(ReadError::ConnectionLost(error)) => Err(of_connection(lost(error))),
            Err(error) => Err(StreamErrorIncoming::Unknown(Box::new(error))),
        })
    }

    fn stop_sending(&mut self, code: u64) {
        // Refused when the client has ended it already: then there is nothing to stop.
        let _ = self.stream.stop(number(code));
    }

    fn recv_id(&self) -> StreamId {
        self.id
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        // RFC 9114, 4.1: the rest is not needed, and nothing is wrong with it.
        let _ = self.stream.stop(number(Code::H3_NO_ERROR.value()));
    }
}

/// What the client is answered.
pub struct Sending {
    stream: quinn::SendStream,
    id: StreamId,
    writing: Option<WriteBuf<Bytes>>,
    ended: bool,
    meter: Rc<Meter>,
}

impl Sending {
    fn new(stream: quinn::SendStream, meter: Rc<Meter>) -> Result<Self, ConnectionErrorIncoming> {
        Ok(Self { id: id(stream.id())?, stream, writing: None, ended: false, meter })
    }
}

impl quic::SendStream<Bytes> for Sending {
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        if let Some(data) = &mut self.writing {
            while data.has_remaining() {
                let writing = Pin::new(&mut self.stream).poll_write(context, data.chunk());
                let written = ready!(writing).map_err(unwritten)?;
                data.advance(written);
                self.meter.wrote(written);
            }
            self.writing = None;
        }
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if self.writing.is_some() {
            let why = "a second piece before the first was taken".to_owned();
            return Err(of_connection(ConnectionErrorIncoming::InternalError(why)));
        }
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.ended = true;
        let finished = self.stream.finish();
        Poll::Ready(finished.map_err(|error| StreamErrorIncoming::Unknown(Box::new(error))))
    }

    fn reset(&mut self, code: u64) {
        self.ended = true;
        // Refused when it has ended already.
        let _ = self.stream.reset(number(code));
    }

    fn send_id(&self) -> StreamId {
        self.id
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        // Dropped by itself, it would look finished.
        if let (false, Some(code)) = (self.ended, self.meter.breaks()) {
            let _ = self.stream.reset(number(code.value()));
        }
    }
}

fn number(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

/// The one library's id as the other's; both have 62 bits.
fn id(id: quinn::StreamId) -> Result<StreamId, ConnectionErrorIncoming> {
    let strange = |_| ConnectionErrorIncoming::InternalError("an id of no stream".to_owned());
    StreamId::try_from(u64::from(id)).map_err(strange)
}

fn lost(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(closed) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: closed.error_code.into() }
        }
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        error => ConnectionErrorIncoming::Undefined(Arc::new(error)),
    }
}

fn of_connection(connection_error: ConnectionErrorIncoming) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error }
}

fn unwritten(error: WriteError) -> StreamErrorIncoming {
    match error {
        WriteError::Stopped(code) => {
            StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() }
        }
        WriteError::ConnectionLost(error) => of_connection(lost(error)),
        error => StreamErrorIncoming::Unknown(Box::new(error)),
    }
}
