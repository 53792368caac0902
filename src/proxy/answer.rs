//! An upstream's response on its way to the client: the head rewritten, the body handed on.

use std::rc::Rc;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SET_COOKIE, UPGRADE};
use http::{Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::body::{ResponseBody, Source, Stream};
use super::chunked::Piece;
use super::downstream::Downstream;
use super::downstream::busy::Busy;
use super::error::Failure;
use super::exchange::Held;
use super::forward::Answer;
use super::headers::{Asked, REVISION, X_REQUEST_ID, strip_response};
use super::observation::Kind;
use super::ongoing::Ongoing;
use super::tunnel::{self, Carrier, Tunnel};
use super::upstream::http1::Connection;
use super::upstream::line::{Line, Shared};
use super::worker::Worker;
use crate::telemetry::traffic::Count;

/// What the proxy adds to a response.
#[derive(Debug)]
pub struct Given {
    /// `X-Request-ID`
    pub request_id: HeaderValue,
    /// The affinity cookie of a user who came without.
    pub set_cookie: Option<HeaderValue>,
    /// Whether the revision that answered is told.
    pub revision: bool,
    /// What becomes of the client's stream when a WebSocket begins on it. HTTP/2 only.
    pub upgrade: Option<OnUpgrade>,
}

/// Makes the client's response of an upstream's.
pub fn answer(
    worker: &Rc<Worker>,
    connection: &Rc<Downstream>,
    got: Answer,
    ongoing: Ongoing,
    given: Given,
    asked: Asked,
) -> Result<Response<ResponseBody>, Failure> {
    let Answer { mut head, incoming, held, revision, side: _ } = got;
    let kind = match head.status {
        StatusCode::SWITCHING_PROTOCOLS => Kind::Endless,
        _ => Kind::of(&head.headers),
    };
    ongoing.exchange().answered(&head, kind);
    strip_response(&mut head.headers);
    head.headers.insert(X_REQUEST_ID, given.request_id);
    if let Some(cookie) = given.set_cookie {
        head.headers.append(SET_COOKIE, cookie);
    }
    if given.revision {
        head.headers.insert(REVISION, HeaderValue::from(revision.0));
    }
    // hyper writes the version that the client speaks.
    head.version = http::Version::HTTP_11;
    head.extensions.clear();
    let switches = asked.websocket && head.status == StatusCode::SWITCHING_PROTOCOLS;
    let body = if let Some(upgrade) = given.upgrade {
        if switches {
            begin_stream(worker, connection, upgrade, held, ongoing)?;
            head.status = StatusCode::OK;
            head.headers.remove(SEC_WEBSOCKET_ACCEPT);
            ResponseBody::Empty
        } else if head.status.is_success() {
            // The client would take it for an open WebSocket.
            ongoing.exchange().fault();
            return Err(Failure::Unasked);
        } else {
            body(worker, incoming, held, ongoing)
        }
    } else if switches {
        let tunnel = open_tunnel(worker, held, ongoing)?;
        *connection.tunnel.borrow_mut() = Some(tunnel);
        head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        ResponseBody::Empty
    } else {
        body(worker, incoming, held, ongoing)
    };
    Ok(Response::from_parts(head, body))
}

/// The body, as what it is by now: often all of it came with the head.
pub fn body(
    worker: &Rc<Worker>,
    incoming: Option<Incoming>,
    mut held: Held,
    ongoing: Ongoing,
) -> ResponseBody {
    match (incoming, held.connection.take()) {
        (None, Some(Line::Own(connection))) => by_line(worker, connection, held, ongoing),
        (Some(incoming), _) if incoming.is_end_stream() => {
            ongoing.complete_with(held);
            ResponseBody::Empty
        }
        (Some(incoming), _) => {
            ongoing.exchange().stream(held);
            ResponseBody::Stream(Stream::new(Source::Multiplexed(incoming), None, ongoing))
        }
        (None, _) => ResponseBody::Empty,
    }
}

fn by_line(
    worker: &Rc<Worker>,
    mut connection: Box<Connection>,
    mut held: Held,
    ongoing: Ongoing,
) -> ResponseBody {
    let exchange = ongoing.exchange();
    if connection.is_sending() {
        let (ended, source) = (connection.is_end(), Source::Line(connection.length()));
        let shared = Shared::new(worker, held.claim.endpoint(), connection, exchange);
        held.connection = Some(Line::Shared(shared));
        if ended {
            ongoing.complete_with(held);
            return ResponseBody::Empty;
        }
        exchange.stream(held);
        return ResponseBody::Stream(Stream::new(source, None, ongoing));
    }
    // What is wrong with it is told when it is asked for again.
    let first = match connection.take_piece() {
        Ok(Piece::Data(bytes)) => {
            exchange.saw(&bytes);
            Some(bytes)
        }
        _ => None,
    };
    let (ended, source) = (connection.is_end(), Source::Line(connection.length()));
    held.connection = Some(Line::Own(connection));
    if ended {
        ongoing.complete_with(held);
        return first.map_or(ResponseBody::Empty, ResponseBody::full);
    }
    exchange.stream(held);
    ResponseBody::Stream(Stream::new(source, first, ongoing))
}

/// The upstream's half of a tunnel. A connection of HTTP/1.1 begins it when the 101 is sent.
fn open_tunnel(worker: &Worker, mut held: Held, ongoing: Ongoing) -> Result<Tunnel, Failure> {
    let (stream, behind) = match held.connection.take() {
        Some(Line::Own(upstream)) => {
            let (stream, behind) = upstream.into_stream();
            (Carrier::Left(stream), behind)
        }
        Some(Line::Stream(stream)) => (Carrier::Right(TokioIo::new(*stream)), Bytes::new()),
        Some(Line::Shared(_)) | None => return Err(Failure::Unasked),
    };
    worker.count(Count::Tunnels);
    ongoing.exchange().stream(held);
    ongoing.exchange().tunnel();
    Ok(Tunnel { stream, behind, ongoing, entry: None })
}

/// A tunnel on a stream of HTTP/2, which begins when its 200 is sent.
fn begin_stream(
    worker: &Worker,
    connection: &Rc<Downstream>,
    upgrade: OnUpgrade,
    held: Held,
    ongoing: Ongoing,
) -> Result<(), Failure> {
    let tunnel = open_tunnel(worker, held, ongoing)?;
    let busy = Busy::more(connection);
    tokio::task::spawn_local(async move {
        // A client that went meanwhile has no stream to be upgraded.
        if let Ok(stream) = upgrade.await {
            tunnel::run(TokioIo::new(stream), Bytes::new(), tunnel).await;
        }
        drop(busy);
    });
    Ok(())
}
