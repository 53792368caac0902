//! Bytes both ways after a 101: WebSockets.
//!
//! Nothing of the client's goes to the instance before its 101: what was read behind the request waits
//! until the tunnel begins. A tunnel holds its claim; it ends when either side
//! ends, when nothing moves for the service's idle timeout, and when its endpoint is cut.

use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderValue;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::either::Either;

use super::exchange::{Exchange, Stage};
use super::logged::Entry;
use super::ongoing::Ongoing;

/// What bytes go over on the instance's side.
pub type Carrier = Either<TcpStream, TokioIo<Upgraded>>;

/// What a server makes of a WebSocket's key (RFC 6455, 4.2.2).
pub fn accept(key: &HeaderValue) -> Option<HeaderValue> {
    const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let said = [key.as_bytes(), MAGIC].concat();
    let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, &said);
    HeaderValue::try_from(STANDARD.encode(digest)).ok()
}

/// Bytes per direction. WebSocket messages are small; 16 KiB is one TLS record.
const BUFFER: usize = 16 * 1024;

/// The upstream's half of a tunnel.
#[derive(Debug)]
pub struct Tunnel {
    /// The connection that answered 101, or the stream that became one.
    pub stream: Carrier,
    /// What was read behind the 101.
    pub behind: Bytes,
    /// The exchange, with the claim.
    pub ongoing: Ongoing,
    /// What the access log is told at its end.
    pub entry: Option<Box<Entry>>,
}

/// Moves bytes both ways until an end.
pub async fn run<C>(mut client: C, behind: Bytes, tunnel: Tunnel)
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let exchange = Rc::clone(tunnel.ongoing.exchange());
    let mut upstream = Watched { stream: tunnel.stream, exchange: Rc::clone(&exchange) };
    let mut moving = pin!(Box::pin(async {
        upstream.write_all(&behind).await?;
        client.write_all(&tunnel.behind).await?;
        client.flush().await?;
        tokio::io::copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER, BUFFER).await
    }));
    std::future::poll_fn(|context| {
        if exchange.fired().is_some() {
            return Poll::Ready(());
        }
        exchange.park(context);
        moving.as_mut().poll(context).map(|_| ())
    })
    .await;
    tunnel.ongoing.complete();
}

/// The upstream's stream, telling the exchange when bytes move.
struct Watched {
    stream: Carrier,
    exchange: Rc<Exchange>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if polled.is_ready() {
            self.exchange.moved(Stage::Tunnel);
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        if polled.is_ready() {
            self.exchange.moved(Stage::Tunnel);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_answered_as_the_standard_says() {
        // RFC 6455, 1.3.
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept(&key).expect("a value"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
