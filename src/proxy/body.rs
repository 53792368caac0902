//! Bodies both ways, as enums: no box and no dynamic call on the common path.
//!
//! Back-pressure is hyper's: a body is polled when there is room for its next piece, and nothing is
//! read ahead. The claim rides on the response's body (in its exchange) until the upstream's last
//! byte is here. Trailers pass, less what RFC 9110 forbids in them.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::compress::Compressed;
use super::downstream::upload::{ClientBody, UploadError};
use super::error::BodyError;
use super::exchange::{Exchange, Fired, Stage};
use super::files::FileBody;
use super::headers::strip_trailers;
use super::kept::Reading;
use super::logged::Entry;
use super::mirror::Compared;
use super::ongoing::Ongoing;
use super::upstream::Broken;
use crate::telemetry::traffic::Reason;

/// A request's body on its way to an upstream.
#[derive(Debug)]
pub enum RequestBody {
    /// None.
    Empty,
    /// What the client sends.
    Stream {
        /// Its pieces.
        incoming: ClientBody,
        /// The exchange that is told of progress.
        exchange: Rc<Exchange>,
        /// Bytes that it may still have.
        left: u64,
    },
    /// What the client sends, kept so that it can be sent again.
    Kept {
        /// Its pieces, from the first on.
        reading: Reading,
        /// The exchange that is told of progress.
        exchange: Rc<Exchange>,
    },
}

/// A piece of a body, if it may still have that much.
pub fn within(frame: Frame<Bytes>, left: &mut u64) -> Result<Frame<Bytes>, UploadError> {
    let bytes = frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
    *left = left.checked_sub(bytes).ok_or(UploadError::TooLarge)?;
    Ok(frame)
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let (polled, ended, exchange) = match self.get_mut() {
            Self::Empty => return Poll::Ready(None),
            Self::Stream { incoming, exchange, left } => {
                let polled = Pin::new(&mut *incoming).poll_frame(context);
                let polled = polled.map(|frame| {
                    frame.map(|frame| frame.and_then(|f| within(f, left)).map_err(Some))
                });
                (polled, incoming.is_end_stream(), exchange)
            }
            Self::Kept { reading, exchange } => {
                (reading.poll_frame(context), reading.is_end_stream(), exchange)
            }
        };
        match polled {
            Poll::Ready(Some(Ok(mut frame))) => {
                exchange.uploaded(frame.data_ref().map_or(0, |bytes| bytes.len() as u64));
                if let Some(trailers) = frame.trailers_mut() {
                    strip_trailers(trailers);
                    exchange.upload_done();
                } else if ended {
                    exchange.upload_done();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                exchange.upload_done();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(Some(error)))) => {
                exchange.upload_broke(match error {
                    UploadError::TooLarge => Some(Reason::BodySize),
                    UploadError::Malformed(_) => Some(Reason::Chunks),
                    UploadError::Closed | UploadError::Io(_) | UploadError::Http2(_) => None,
                });
                Poll::Ready(Some(Err(BodyError::Downstream(error))))
            }
            // The request was sent again elsewhere: nobody waits for this any more.
            Poll::Ready(Some(Err(None))) => Poll::Ready(Some(Err(BodyError::Cut))),
            Poll::Pending => {
                exchange.upload_waits();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream { incoming, .. } => incoming.is_end_stream(),
            Self::Kept { reading, .. } => reading.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream { incoming, .. } => incoming.size_hint(),
            Self::Kept { reading, .. } => reading.size_hint(),
        }
    }
}

/// A response's body on its way to the client.
#[derive(Debug)]
pub enum ResponseBody {
    /// None, or nothing left.
    Empty,
    /// All of it.
    Full(Bytes),
    /// As it comes from the upstream.
    Stream(Box<Stream>),
    /// Of a file.
    File(Box<FileBody>),
    /// Any of these, made smaller.
    Compressed(Box<Compressed>),
    /// What comes from the upstream, kept to be compared.
    Compared(Box<Compared>),
    /// Any of these, with the access log told of its end.
    Logged(Box<Entry>),
}

impl ResponseBody {
    /// A body that is here as a whole.
    pub fn full(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Full(bytes) }
    }
}

/// Where a body comes from.
#[derive(Debug)]
pub enum Source {
    /// The HTTP/1.1 connection that the exchange holds; so many bytes are missing, if that is known.
    Line(Option<u64>),
    /// A stream of an HTTP/2 connection.
    Multiplexed(Incoming),
}

/// A body as it comes from the upstream.
#[derive(Debug)]
pub struct Stream {
    source: Source,
    /// A piece that is here already.
    first: Option<Bytes>,
    /// `None` once it has ended.
    ongoing: Option<Ongoing>,
    /// Told one poll later, so that hyper first sends what came before.
    broken: Option<BodyError>,
}

impl Stream {
    /// A body whose exchange holds claim and connection, and its first piece if that is here.
    pub fn new(source: Source, first: Option<Bytes>, ongoing: Ongoing) -> Box<Self> {
        Box::new(Self { source, first, ongoing: Some(ongoing), broken: None })
    }

    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if let Some(broken) = self.broken.take() {
            return Poll::Ready(Some(Err(broken)));
        }
        let Some(ongoing) = &self.ongoing else { return Poll::Ready(None) };
        let exchange = ongoing.exchange();
        if let Some(fired) = exchange.fired() {
            self.ongoing = None;
            let error = if fired == Fired::Cut { BodyError::Cut } else { BodyError::Stalled };
            return Poll::Ready(Some(Err(error)));
        }
        let mut ended = false;
        let polled = {
            let mut held = exchange.held.borrow_mut();
            let line = held.as_mut().and_then(|held| held.connection.as_mut());
            match (&mut self.source, line) {
                (Source::Multiplexed(incoming), _) => Pin::new(incoming)
                    .poll_frame(context)
                    .map(|frame| frame.map(|frame| frame.map_err(Broken::Http2))),
                (Source::Line(missing), Some(line)) => {
                    let polled = line.poll_frame(context);
                    if let (Some(missing), Poll::Ready(Some(Ok(frame)))) = (missing, &polled) {
                        *missing -= frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
                    }
                    ended = line.is_end();
                    polled
                }
                // Taken away with the claim: what fired has said so above.
                (Source::Line(_), None) => Poll::Ready(Some(Err(Broken::Closed))),
            }
        };
        if let Source::Multiplexed(incoming) = &self.source {
            ended = incoming.is_end_stream();
        }
        match polled {
            Poll::Pending => {
                if exchange.stage() == Stage::Blocked {
                    exchange.moved(Stage::Streaming);
                }
                exchange.park(context);
                Poll::Pending
            }
            Poll::Ready(Some(Ok(mut frame))) => {
                exchange.moved(Stage::Blocked);
                if let Some(data) = frame.data_ref() {
                    exchange.saw(data);
                }
                if let Some(trailers) = frame.trailers_mut() {
                    exchange.trailers(trailers);
                    strip_trailers(trailers);
                    self.end();
                } else if ended {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                if exchange.is_upload_broken() {
                    exchange.abandon();
                } else {
                    exchange.fault();
                }
                self.ongoing = None;
                self.broken = Some(BodyError::Upstream(error));
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
        }
    }

    fn end(&mut self) {
        if let Some(ongoing) = self.ongoing.take() {
            ongoing.complete();
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // A body whose announced length was sent is dropped without asking for its end, which some
        // instances send behind it.
        let is_over = |incoming: &Incoming| {
            incoming.is_end_stream() || incoming.size_hint().exact() == Some(0)
        };
        if matches!(&self.source, Source::Multiplexed(incoming) if is_over(incoming)) {
            self.end();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Stream(stream) => stream.poll_next(context),
            Self::File(file) => file.poll_frame(context),
            Self::Compressed(compressed) => compressed.poll_frame(context),
            Self::Compared(compared) => compared.poll_frame(context),
            Self::Logged(logged) => logged.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(_) => false,
            Self::File(file) => file.left() == 0,
            Self::Compressed(compressed) => compressed.is_end(),
            Self::Compared(compared) => compared.body().is_end_stream(),
            Self::Logged(logged) => logged.body().is_end_stream(),
            Self::Stream(stream) => {
                stream.first.is_none()
                    && stream.broken.is_none()
                    && match &stream.source {
                        Source::Line(_) => stream.ongoing.is_none(),
                        Source::Multiplexed(incoming) => {
                            stream.ongoing.is_none() || incoming.is_end_stream()
                        }
                    }
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::File(file) => SizeHint::with_exact(file.left()),
            Self::Compressed(_) => SizeHint::default(),
            Self::Compared(compared) => compared.body().size_hint(),
            Self::Logged(logged) => logged.body().size_hint(),
            Self::Stream(stream) => match &stream.source {
                Source::Line(missing) => missing.map_or_else(SizeHint::default, |missing| {
                    let first = stream.first.as_ref().map_or(0, Bytes::len);
                    SizeHint::with_exact(missing + first as u64)
                }),
                Source::Multiplexed(incoming) => incoming.size_hint(),
            },
        }
    }
}
