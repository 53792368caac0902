//! A client's byte stream: TCP or TLS, telling its connection when bytes move.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::Downstream;
use super::gauge::Wrong;
use crate::proxy::turn::Turn;

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
    /// Its connection has not been told of that.
    untold: bool,
    connection: Rc<Downstream>,
    /// Of bytes in both directions.
    turn: Turn,
}

impl Io {
    /// A stream that tells this connection when bytes move; these were read of it already.
    pub fn new(transport: Transport, first: Bytes, connection: Rc<Downstream>) -> Self {
        Self { transport, unread: first, untold: true, connection, turn: Turn::default() }
    }

    /// Gives bytes back that were read: they come first at the next read.
    pub fn unread(&mut self, bytes: Bytes) {
        (self.unread, self.untold) = (bytes, false);
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

    /// Whether closing it says all that a shutdown would say.
    pub fn ends_by_itself(&self) -> bool {
        matches!(self.transport, Transport::Plain(_))
    }

    fn tcp(&self) -> &TcpStream {
        match &self.transport {
            Transport::Plain(stream) => stream,
            Transport::Tls(stream) => stream.get_ref().0,
        }
    }

    /// Tells an HTTP/2 client why it is sent away, if that can be said at once: between two frames.
    fn say_goodbye(&mut self, wrong: Wrong, context: &mut Context<'_>) {
        let goaway = wrong.goaway();
        if !self.connection.is_between_frames() {
            return;
        }
        // What does not go now need not go.
        let _ = match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(context, &goaway).is_ready(),
            Transport::Tls(stream) => {
                Pin::new(&mut *stream).poll_write(context, &goaway).is_ready()
                    && Pin::new(stream).poll_flush(context).is_ready()
            }
        };
    }

    fn wrote(&mut self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.connection.wrote(polled.is_ready());
        match &polled {
            Poll::Ready(Ok(sent)) => self.turn.take(*sent),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.turn.pass(),
        }
        polled
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.turn.poll(context));
        let before = buffer.filled().len();
        let polled = if self.unread.is_empty() {
            match &mut self.transport {
                Transport::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
                Transport::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
            }
        } else {
            let here = self.unread.len().min(buffer.remaining());
            buffer.put_slice(&self.unread.split_to(here));
            if !self.untold {
                return Poll::Ready(Ok(()));
            }
            // It came just now, as if from the network.
            Poll::Ready(Ok(()))
        };
        let read = buffer.filled().len() - before;
        match &polled {
            Poll::Ready(_) => self.turn.take(read),
            Poll::Pending => self.turn.pass(),
        }
        if polled.is_ready() && read > 0 {
            let read = self.connection.read(&buffer.filled()[before..]);
            if let Err(wrong) = read {
                self.say_goodbye(wrong, context);
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
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
        ready!(self.turn.poll(context));
        let polled = match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        };
        if let Poll::Ready(Ok(sent)) = &polled {
            self.connection.went(&bytes[..*sent]);
        }
        self.wrote(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.turn.poll(context));
        let polled = match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
        };
        if let Poll::Ready(Ok(sent)) = &polled {
            let mut left = *sent;
            for part in bytes {
                let here = left.min(part.len());
                self.connection.went(&part[..here]);
                left -= here;
            }
        }
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
