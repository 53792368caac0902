//! One GET over a fresh connection, in HTTP/1.1 or h2c.
//!
//! A fresh connection each time, because that is what a new visitor needs; closed at the end, and
//! never taken from the proxy's pools, so that a probe tells of the instance and not of us.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, LOCATION, USER_AGENT};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::{BODY_BYTES, Diagnosis};
use crate::model::revision::UpstreamProtocol;

/// How an app's log tells our probes from visitors.
const AGENT: &str = concat!("switchback-probe/", env!("CARGO_PKG_VERSION"));

/// Of a body's first line or a redirect's target, what a sentence can hold.
const QUOTED_CHARACTERS: usize = 120;

/// What is asked.
pub(super) struct Question<'a> {
    pub(super) address: SocketAddr,
    pub(super) path: &'a str,
    pub(super) host: Option<&'a str>,
    pub(super) protocol: UpstreamProtocol,
}

/// Asks, and diagnoses the answer. `begun` is when the whole probe began, `limit` what it may take.
///
/// Cancel safety: dropping it closes the connection.
pub(super) async fn ask(
    stream: TcpStream,
    question: &Question<'_>,
    begun: Instant,
    limit: Duration,
) -> Diagnosis {
    let deadline = begun + limit;
    let request = match request(question) {
        Ok(request) => request,
        Err(error) => return Diagnosis::Unaskable { reason: error.to_string() },
    };
    let path = || question.path.to_owned();
    let mut answer = match timeout_at(deadline, exchange(stream, request, question.protocol)).await
    {
        Err(_) => return Diagnosis::AnswerTimedOut { path: path(), after: limit },
        // An HTTP/1 server that is spoken to in HTTP/2 mostly hangs up: no silence, a refusal.
        Ok(Err(error)) if question.protocol == UpstreamProtocol::Http1 && silent(&error) => {
            return Diagnosis::Closed { path: path() };
        }
        Ok(Err(error)) => {
            return Diagnosis::NotHttp { protocol: question.protocol, reason: error.to_string() };
        }
        Ok(Ok(answer)) => answer,
    };
    let status = answer.response.status().as_u16();
    let location = answer.response.headers().get(LOCATION);
    let location = location.map(|value| quote(&String::from_utf8_lossy(value.as_bytes())));
    // The status is the answer; the body explains it, as far as it comes in time.
    let mut body = Vec::new();
    let _as_far_as_it_came =
        timeout_at(deadline, read(answer.response.body_mut(), &mut body)).await;
    let text = String::from_utf8_lossy(&body);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    let line = line.filter(|_| !(200..300).contains(&status)).map(quote);
    Diagnosis::Answer { path: path(), status, location, line }
}

fn request(question: &Question<'_>) -> Result<Request<Empty<Bytes>>, http::Error> {
    let address = question.address.to_string();
    let host = question.host.unwrap_or(&address);
    let request = Request::get("/").header(USER_AGENT, AGENT).header(ACCEPT, "*/*");
    match question.protocol {
        UpstreamProtocol::Http1 => request
            .uri(question.path)
            .header(HOST, host)
            .header(CONNECTION, "close")
            .body(Empty::new()),
        UpstreamProtocol::H2c => {
            let parts = Uri::builder().scheme("http").authority(host);
            request.uri(parts.path_and_query(question.path).build()?).body(Empty::new())
        }
    }
}

/// The answer, and the task that moves its bytes; dropping it closes the connection.
struct Answer {
    response: Response<Incoming>,
    _connection: tokio_util::task::AbortOnDropHandle<()>,
}

async fn exchange(
    stream: TcpStream,
    request: Request<Empty<Bytes>>,
    protocol: UpstreamProtocol,
) -> hyper::Result<Answer> {
    // The last word comes with the response; an error of the connection is told there too.
    match protocol {
        UpstreamProtocol::Http1 => {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            let task = tokio::spawn(async move { drop(connection.await) });
            let _connection = tokio_util::task::AbortOnDropHandle::new(task);
            Ok(Answer { response: sender.send_request(request).await?, _connection })
        }
        UpstreamProtocol::H2c => {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                    .await?;
            let task = tokio::spawn(async move { drop(connection.await) });
            let _connection = tokio_util::task::AbortOnDropHandle::new(task);
            Ok(Answer { response: sender.send_request(request).await?, _connection })
        }
    }
}

async fn read(body: &mut Incoming, into: &mut Vec<u8>) {
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data() {
            let room = BODY_BYTES.saturating_sub(into.len());
            into.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
            if into.len() >= BODY_BYTES {
                return;
            }
        }
    }
}

/// Closed or reset without a byte of an answer.
fn silent(error: &hyper::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            use std::io::ErrorKind::{
                BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof,
            };
            return matches!(
                io.kind(),
                BrokenPipe | ConnectionReset | ConnectionAborted | UnexpectedEof
            );
        }
        cause = inner.source();
    }
    error.is_incomplete_message() || error.is_closed() || error.is_canceled()
}

/// Fit for a sentence: one line, printable, not too long.
fn quote(text: &str) -> String {
    let mut quoted: String =
        text.trim().chars().filter(|c| !c.is_control()).take(QUOTED_CHARACTERS).collect();
    if text.trim().chars().count() > QUOTED_CHARACTERS {
        quoted.push('…');
    }
    quoted
}
