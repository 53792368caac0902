//! An upstream's response on its way to the client: the head rewritten, the body handed on.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use http::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, SET_COOKIE, UPGRADE};
use http::{Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;

use super::body::{ResponseBody, Stream};
use super::downstream::Downstream;
use super::error::Failure;
use super::exchange::Held;
use super::forward::Answer;
use super::headers::{Asked, REVISION, X_REQUEST_ID, strip_response};
use super::tunnel::Tunnel;
use super::worker::{Ongoing, Worker};
use crate::analysis::scorecard::Row;
use crate::routing::settings::ServiceSettings;
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
}

/// Makes the client's response of an upstream's.
pub async fn answer(
    worker: &Rc<Worker>,
    connection: &Rc<Downstream>,
    got: Answer,
    ongoing: Ongoing,
    given: Given,
    asked: Asked,
) -> Result<Response<ResponseBody>, Failure> {
    let Answer { response, held, revision, route } = got;
    let (mut head, incoming) = response.into_parts();
    let endless = head.status == StatusCode::SWITCHING_PROTOCOLS || is_events(&head.headers);
    ongoing.exchange().answered(row(&route.service().settings, head.status), endless);
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
    let body = if asked.websocket && head.status == StatusCode::SWITCHING_PROTOCOLS {
        begin_tunnel(worker, connection, held, ongoing).await?;
        head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        ResponseBody::Empty
    } else {
        body(worker, incoming, held, ongoing)
    };
    Ok(Response::from_parts(head, body))
}

/// How an answer counts.
fn row(settings: &ServiceSettings, status: StatusCode) -> Row {
    if settings.errors.is_error(status.as_u16()) {
        Row::Failure
    } else if status.is_client_error() {
        Row::Rejected
    } else {
        Row::Success
    }
}

/// An event stream has no end to wait for.
fn is_events(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// The body, as what it is by now: often all of it came with the head.
fn body(
    worker: &Rc<Worker>,
    mut incoming: Incoming,
    mut held: Held,
    ongoing: Ongoing,
) -> ResponseBody {
    // The connection has read all of the answer when it is ready for another request.
    let all_read = match &held.connection {
        Some(connection) => connection.is_ready(),
        None => incoming.is_end_stream(),
    };
    if all_read {
        if incoming.is_end_stream() {
            ongoing.exchange().stream(held);
            ongoing.complete();
            return ResponseBody::Empty;
        }
        let mut nobody = Context::from_waker(Waker::noop());
        if let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut incoming).poll_frame(&mut nobody)
            && let Ok(bytes) = frame.into_data()
        {
            if incoming.is_end_stream() {
                ongoing.exchange().stream(held);
                ongoing.complete();
                return ResponseBody::full(bytes);
            }
            ongoing.exchange().stream(held);
            return ResponseBody::Stream(Stream::new(incoming, Some(bytes), ongoing));
        }
    } else if !ongoing.exchange().is_sent()
        && let Some(mut connection) = held.connection.take()
    {
        // Sending goes on while the client reads: a task of its own sees to both.
        let endpoint = std::sync::Arc::clone(held.claim.endpoint());
        let (driving, id) = (Rc::clone(worker), endpoint.id);
        let task = tokio::task::spawn_local(async move {
            connection.until_idle().await;
            driving.upstreams.give_back(&endpoint, connection);
        });
        worker.upstreams.driven(id, task.abort_handle());
    }
    ongoing.exchange().stream(held);
    ResponseBody::Stream(Stream::new(incoming, None, ongoing))
}

/// Leaves the upstream's half of a tunnel with the client's connection, which begins it when hyper
/// has sent the 101.
async fn begin_tunnel(
    worker: &Worker,
    connection: &Downstream,
    mut held: Held,
    ongoing: Ongoing,
) -> Result<(), Failure> {
    let Some(mut upstream) = held.connection.take() else { return Err(Failure::Unasked) };
    upstream.until_idle().await;
    let Some((stream, behind)) = upstream.into_stream() else { return Err(Failure::Unasked) };
    worker.count(Count::Tunnels);
    ongoing.exchange().stream(held);
    ongoing.exchange().tunnel();
    *connection.tunnel.borrow_mut() = Some(Tunnel { stream, behind, ongoing });
    Ok(())
}
