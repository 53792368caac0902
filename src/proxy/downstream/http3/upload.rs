//! A request's body by HTTP/3.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::error::StreamError;
use h3::server::RequestStream;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};

use super::Hints;
use super::meter::{Gate, Meter};
use super::streams::Receiving;
use crate::proxy::downstream::upload::UploadError;

/// What is to be read next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Data,
    Trailers,
    Nothing,
}

/// A body as it comes.
pub struct Upload {
    stream: RequestStream<Receiving, Bytes>,
    meter: Rc<Meter>,
    next: Next,
    /// A piece that is here already.
    first: Option<Bytes>,
    /// What came behind the end of the data, when that was looked at early.
    trailers: Option<HeaderMap>,
    /// Bytes that must still come, where that was said.
    missing: Option<u64>,
    /// Where the client is told to go on, if it waits for that.
    waits: Option<Hints>,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Upload {
    /// The body of a request whose head is read, and that announced so many bytes.
    pub fn new(
        stream: RequestStream<Receiving, Bytes>,
        meter: Rc<Meter>,
        length: Option<u64>,
    ) -> Self {
        meter.used();
        meter.set_gate(Gate::Shut);
        Self {
            stream,
            meter,
            next: Next::Data,
            first: None,
            trailers: None,
            missing: length,
            waits: None,
        }
    }

    /// The client waits to be told that it may send.
    pub fn waits_for(&mut self, hints: Hints) {
        self.waits = Some(hints);
    }

    /// Looks for the first piece, or the end: only then it is known whether there is a body.
    pub fn poll_first(&mut self, context: &mut Context<'_>) -> Poll<Result<(), UploadError>> {
        if self.first.is_some() || self.next == Next::Nothing {
            return Poll::Ready(Ok(()));
        }
        if self.next == Next::Data {
            match ready!(self.poll_piece(context)) {
                None => {}
                Some(Ok(bytes)) => {
                    self.first = Some(bytes);
                    return Poll::Ready(Ok(()));
                }
                Some(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        match ready!(self.poll_trailers(context)) {
            None => {}
            Some(Ok(trailers)) => self.trailers = Some(trailers),
            Some(Err(error)) => return Poll::Ready(Err(error)),
        }
        Poll::Ready(Ok(()))
    }

    /// The next piece; none is the end of the data, and of the body if no trailers come.
    fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, UploadError>>> {
        while self.next == Next::Data {
            // What was read is used up before more is read.
            let polled = match self.stream.poll_recv_data(context) {
                Poll::Pending => {
                    self.meter.set_gate(Gate::Once);
                    match self.stream.poll_recv_data(context) {
                        // It was read, and that was not enough.
                        Poll::Pending if self.meter.is_shut() => continue,
                        polled => polled,
                    }
                }
                polled => polled,
            };
            let polled = polled.map(|got| {
                got.map(|piece| piece.map(|mut data| data.copy_to_bytes(data.remaining())))
            });
            match ready!(polled) {
                Ok(Some(bytes)) if bytes.is_empty() => {}
                Ok(Some(bytes)) => {
                    self.meter.used();
                    return Poll::Ready(Some(self.measured(bytes)));
                }
                // The library says so of an empty frame too.
                Ok(None) if !self.meter.is_ended() => {}
                Ok(None) => {
                    self.next = Next::Trailers;
                    if self.missing.is_some_and(|missing| missing > 0) {
                        return Poll::Ready(Some(Err(self.broke("the body is shorter than said"))));
                    }
                }
                Err(error) => {
                    self.next = Next::Nothing;
                    return Poll::Ready(Some(Err(what(&error))));
                }
            }
        }
        Poll::Ready(None)
    }

    /// A piece, if the body was said to be that long (RFC 9114, 4.1.2).
    fn measured(&mut self, bytes: Bytes) -> Result<Bytes, UploadError> {
        if let Some(missing) = &mut self.missing {
            match missing.checked_sub(bytes.len() as u64) {
                Some(less) => *missing = less,
                None => return Err(self.broke("the body is longer than said")),
            }
        }
        Ok(bytes)
    }

    fn broke(&mut self, why: &'static str) -> UploadError {
        self.next = Next::Nothing;
        UploadError::Malformed(why)
    }

    fn poll_trailers(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<HeaderMap, UploadError>>> {
        self.meter.set_gate(Gate::Open);
        let trailers = ready!(self.stream.poll_recv_trailers(context));
        self.next = Next::Nothing;
        Poll::Ready(match trailers {
            Ok(trailers) => trailers.map(Ok),
            Err(error) => Some(Err(what(&error))),
        })
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let this = self.get_mut();
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if let Some(hints) = this.waits.take() {
            // Full, there is something else to be told: the client goes on by itself.
            let _ = hints.try_send((StatusCode::CONTINUE, HeaderMap::new()));
        }
        if let Some(piece) = ready!(this.poll_piece(context)) {
            return Poll::Ready(Some(piece.map(Frame::data)));
        }
        if this.next == Next::Trailers {
            let trailers = ready!(this.poll_trailers(context));
            return Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)));
        }
        Poll::Ready(this.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        let ended = self.next == Next::Nothing || self.missing == Some(0);
        ended && self.first.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().map_or(0, |bytes| bytes.len() as u64);
        match self.missing {
            Some(missing) => SizeHint::with_exact(missing + first),
            None if self.is_end_stream() => SizeHint::with_exact(0),
            None => SizeHint::default(),
        }
    }
}

fn what(error: &StreamError) -> UploadError {
    match error {
        StreamError::HeaderTooBig { .. } => UploadError::Malformed("the trailers are too large"),
        StreamError::StreamError { .. } => UploadError::Malformed("the trailers are malformed"),
        _ => UploadError::Closed,
    }
}
