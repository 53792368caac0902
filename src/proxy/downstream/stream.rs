//! A client's byte stream: TCP or TLS, telling its connection when bytes move.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::Downstream;

/// TCP, or TLS over it.
#[derive(Debug)]
pub enum Transport {
    /// In the clear.
    Plain(TcpStream),
    /// Boxed: a session's state is a kilobyte.
    Tls(Box<TlsStream<TcpStream>>),
}

/// A client's byte stream.
#[derive(Debug)]
pub struct Io {
    transport: Transport,
    /// Read before, and to be read again.
    unread: Bytes,
    connection: Rc<Downstream>,
}

impl Io {
    /// A stream that tells this connection when bytes move.
    pub fn new(transport: Transport, connection: Rc<Downstream>) -> Self {
        Self { transport, unread: Bytes::new(), connection }
    }

    /// Gives bytes back that were read: they come first at the next read.
    pub fn unread(&mut self, bytes: Bytes) {
        self.unread = bytes;
    }

    /// Whether something may be read from the network.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        // An error shows itself to who reads.
        self.tcp().poll_read_ready(context).map(|_| ())
    }

    /// Has the connection end by a reset when it is dropped: nothing that was sent can then be taken
    /// for all of it.
    pub fn reset(&self) {
        // Refused, it ends like any other.
        let _ = socket2::SockRef::from(self.tcp()).set_linger(Some(std::time::Duration::ZERO));
    }

    fn tcp(&self) -> &TcpStream {
        match &self.transport {
            Transport::Plain(stream) => stream,
            Transport::Tls(stream) => stream.get_ref().0,
        }
    }

    fn wrote(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.connection.wrote(polled.is_ready());
        polled
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let here = self.unread.len().min(buffer.remaining());
            buffer.put_slice(&self.unread.split_to(here));
            return Poll::Ready(Ok(()));
        }
        let polled = match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        if polled.is_ready() && !buffer.filled().is_empty() {
            self.connection.read();
        }
        polled
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        };
        self.wrote(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
        };
        self.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(context),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
