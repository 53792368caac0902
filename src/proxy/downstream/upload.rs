//! A client's request body, whatever protocol it comes by.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::wire::Reader;
use crate::proxy::gather::Gathered;

/// A client's request body.
#[derive(Debug)]
pub enum ClientBody {
    /// None.
    Empty,
    /// By HTTP/1.1.
    Wire(Reader),
    /// By HTTP/2.
    Http2(Incoming),
    /// By HTTP/3.
    #[cfg(feature = "http3")]
    Http3(Box<super::http3::Upload>),
    /// Any of these, read in advance.
    Gathered(Box<Gathered>),
}

/// Why a client's body ends before its end.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The client hung up.
    #[error("the client closed the connection")]
    Closed,
    /// The network broke it.
    #[error(transparent)]
    Io(std::io::Error),
    /// Its chunks are no chunks.
    #[error("{0}")]
    Malformed(&'static str),
    /// HTTP/2 says why.
    #[error(transparent)]
    Http2(hyper::Error),
    /// It is larger than is allowed.
    #[error("the body is larger than is allowed")]
    TooLarge,
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Wire(reader) => reader.poll_frame(context),
            Self::Http2(incoming) => Pin::new(incoming)
                .poll_frame(context)
                .map(|frame| frame.map(|frame| frame.map_err(UploadError::Http2))),
            #[cfg(feature = "http3")]
            Self::Http3(upload) => Pin::new(upload).poll_frame(context),
            Self::Gathered(gathered) => gathered.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Wire(reader) => reader.is_end(),
            Self::Http2(incoming) => incoming.is_end_stream(),
            #[cfg(feature = "http3")]
            Self::Http3(upload) => upload.is_end_stream(),
            Self::Gathered(gathered) => gathered.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Wire(reader) => {
                reader.missing().map_or_else(SizeHint::default, SizeHint::with_exact)
            }
            Self::Http2(incoming) => incoming.size_hint(),
            #[cfg(feature = "http3")]
            Self::Http3(upload) => upload.size_hint(),
            Self::Gathered(gathered) => gathered.size_hint(),
        }
    }
}
