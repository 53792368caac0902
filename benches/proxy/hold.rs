//! Connections that have served a request and idle, held by a program of its own, because one process
//! may hold only so many: `--hold PORT COUNT http1|tls|http2`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Stdio};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Result;
use crate::insecure;
use crate::peers::us;
use crate::process::{Cores, pinned};

/// What is spoken on a held connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    /// HTTP/1.1.
    Http1,
    /// HTTP/1.1 over TLS 1.3.
    Tls,
    /// HTTP/2 over TLS 1.3.
    Http2,
}

impl Speech {
    /// All.
    pub const ALL: [Self; 3] = [Self::Http1, Self::Tls, Self::Http2];

    /// The word on the holder's command line.
    fn word(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Tls => "tls",
            Self::Http2 => "http2",
        }
    }

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Tls => "HTTP/1.1 over TLS",
            Self::Http2 => "HTTP/2 over TLS",
        }
    }
}

/// Connections, held until this is dropped.
#[derive(Debug)]
pub struct Holder(Child);

impl Holder {
    /// Begins to open connections.
    pub fn begin(port: u16, connections: usize, speech: Speech) -> Result<Self> {
        let mut command = pinned(Cores::Load, &us()?);
        command.args(["--hold", &port.to_string(), &connections.to_string(), speech.word()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.spawn().map(Self).map_err(|error| error.to_string())
    }

    /// Waits until each has been served.
    pub fn await_all(&mut self) -> Result<()> {
        let mut line = String::new();
        if let Some(said) = self.0.stdout.take() {
            BufReader::new(said).read_line(&mut line).map_err(|error| error.to_string())?;
        }
        if line.trim() == "ready" { Ok(()) } else { Err("idle connections were refused".into()) }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// The program: connects, asks once on each connection, and waits for its input's end.
pub fn main(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let mut number = || arguments.next().and_then(|text| text.parse::<usize>().ok());
    let (Some(port), Some(count)) = (number(), number()) else {
        return Err("--hold needs a port, a number, and what is spoken".into());
    };
    let port = u16::try_from(port).map_err(|error| error.to_string())?;
    let word = arguments.next().unwrap_or_default();
    let speech = Speech::ALL.into_iter().find(|speech| speech.word() == word);
    let speech = speech.ok_or("nobody speaks that")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(async {
        let protocol = if speech == Speech::Http2 { "h2" } else { "http/1.1" };
        let connector = TlsConnector::from(insecure::client(protocol, false)?);
        let mut held: Vec<Box<dyn std::any::Any>> = Vec::with_capacity(count);
        for _ in 0..count {
            let fail = |error: std::io::Error| error.to_string();
            let stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(fail)?;
            let _ = stream.set_nodelay(true);
            held.push(match speech {
                Speech::Http1 => Box::new(by_http1(stream).await?),
                Speech::Tls | Speech::Http2 => {
                    let stream =
                        connector.connect(insecure::name()?, stream).await.map_err(fail)?;
                    if speech == Speech::Tls {
                        Box::new(by_http1(stream).await?)
                    } else {
                        Box::new(by_http2(stream).await?)
                    }
                }
            });
        }
        println!("ready");
        std::io::stdout().flush().map_err(|error| error.to_string())?;
        // Pings and settings are answered meanwhile.
        let waiting = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0]));
        let _ = waiting.await;
        drop(held);
        Ok(())
    })
}

async fn by_http1<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> Result<S> {
    let fail = |error: std::io::Error| error.to_string();
    let request = b"GET / HTTP/1.1\r\nhost: app.example\r\naccept: */*\r\n\r\n";
    stream.write_all(request).await.map_err(fail)?;
    let mut answer = [0; 4096];
    let read = stream.read(&mut answer).await.map_err(fail)?;
    if answer[..read].starts_with(b"HTTP/1.1 200") {
        Ok(stream)
    } else {
        Err("an answer that is not 200".into())
    }
}

async fn by_http2(
    stream: tokio_rustls::client::TlsStream<TcpStream>,
) -> Result<hyper::client::conn::http2::SendRequest<Empty<Bytes>>> {
    let fail = |error: hyper::Error| error.to_string();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(fail)?;
    tokio::spawn(connection);
    let request = http::Request::get("https://localhost/").body(Empty::new());
    let request = request.map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(fail)?;
    if answer.status() != http::StatusCode::OK {
        return Err("an answer that is not 200".into());
    }
    let _ = answer.into_body().collect().await.map_err(fail)?;
    Ok(sender)
}
