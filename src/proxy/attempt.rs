//! One attempt of a request: a connection to the endpoint that was claimed, and what comes of it.

use std::rc::Rc;

use http::header::{HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY};
use http::response::Parts;
use http::{Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::body::RequestBody;
use super::dial::{dial, multiplex};
use super::error::Failure;
use super::exchange::{Exchange, Fired, Held};
use super::parcel::Parcel;
use super::route::Route;
use super::shield;
use super::tunnel;
use super::upstream::http1::Connection;
use super::upstream::line::Line;
use super::upstream::{Broken, Unanswered};
use super::worker::Worker;
use crate::model::revision::UpstreamProtocol;
use crate::routing::endpoint::Claim;

/// What an attempt came to.
pub struct Arrived {
    /// The response's head.
    pub head: Parts,
    /// A body that comes by another way than what is held.
    pub incoming: Option<Incoming>,
    /// The claim, and the connection if it is HTTP/1.1.
    pub held: Held,
    /// The request, if the answer is worth a second look and it may be sent again.
    pub again: Option<Box<Parcel>>,
}

/// An attempt that failed.
pub struct Failed {
    /// How.
    pub failure: Failure,
    /// The request, if it may be sent again.
    pub parcel: Option<Box<Parcel>>,
}

/// Sends a request by one claim.
pub async fn attempt(
    worker: &Rc<Worker>,
    route: &Route,
    claim: Claim,
    parcel: Box<Parcel>,
    exchange: &Rc<Exchange>,
) -> Result<Arrived, Failed> {
    match claim.endpoint().protocol {
        UpstreamProtocol::Http1 => by_http1(worker, route, claim, parcel, exchange).await,
        UpstreamProtocol::H2c => Box::pin(by_http2(worker, route, claim, parcel, exchange)).await,
    }
}

async fn by_http1(
    worker: &Rc<Worker>,
    route: &Route,
    claim: Claim,
    mut parcel: Box<Parcel>,
    exchange: &Rc<Exchange>,
) -> Result<Arrived, Failed> {
    let mut idle = worker.upstreams.take_idle(claim.endpoint());
    loop {
        let mut connection = match idle.take() {
            Some(connection) => connection,
            None => match Box::pin(dial(worker, route, &claim, exchange)).await {
                Ok(stream) if !claim.endpoint().preamble.is_none() => {
                    Connection::new(stream).once()
                }
                Ok(stream) => Connection::new(stream),
                Err(failure) => return Err(Failed { failure, parcel: Some(parcel) }),
            },
        };
        let (websocket, replayable) = (parcel.asked.websocket, parcel.is_replayable());
        let uploads = !matches!(parcel.body, RequestBody::Empty);
        exchange.begin(claim.endpoint().id, uploads);
        let sent = connection.send(parcel, exchange).await;
        let stale = connection.is_used();
        match sent {
            Ok((head, _)) if head.status == StatusCode::SWITCHING_PROTOCOLS && !websocket => {
                return Err(Failed { failure: Failure::Unasked, parcel: None });
            }
            Ok((answered, sent)) => {
                let (mut head, ()) = Response::new(()).into_parts();
                (head.status, head.headers) = (answered.status, answered.headers);
                let again = if shield::is_doubtful(head.status) {
                    replayable.then_some(sent)
                } else {
                    // The request is not needed any more, but its fields' room is.
                    connection.recycle(sent.head.headers);
                    None
                };
                let held = Held { claim, connection: Some(Line::Own(connection)) };
                return Ok(Arrived { head, incoming: None, held, again });
            }
            Err(unanswered) => match judge(unanswered, exchange) {
                // The peer closed it while it idled. Only a new connection says how the endpoint is.
                Failed { failure: Failure::Broken(_), parcel: Some(again) } if stale => {
                    exchange.begin_again();
                    parcel = again;
                }
                failed => return Err(failed),
            },
        }
    }
}

async fn by_http2(
    worker: &Rc<Worker>,
    route: &Route,
    claim: Claim,
    mut parcel: Box<Parcel>,
    exchange: &Rc<Exchange>,
) -> Result<Arrived, Failed> {
    let mut shared = worker.upstreams.multiplexed(claim.endpoint());
    loop {
        let (mut connection, stale) = match shared.take() {
            Some(connection) => (connection, true),
            None => match multiplex(worker, route, &claim, exchange).await {
                Ok(connection) => (connection, false),
                Err(failure) => return Err(Failed { failure, parcel: Some(parcel) }),
            },
        };
        let uploads = !matches!(parcel.body, RequestBody::Empty);
        let websocket = parcel.asked.websocket;
        if websocket && !connection.takes_websockets(route.connect_timeout()).await {
            let broken = Broken::Malformed("it takes no WebSockets over HTTP/2");
            return Err(Failed { failure: Failure::Broken(broken), parcel: None });
        }
        let accept = parcel.head.headers.get(SEC_WEBSOCKET_KEY).and_then(tunnel::accept);
        exchange.begin(claim.endpoint().id, uploads);
        match connection.send(parcel, exchange).await {
            Ok((response, _)) if websocket && response.status().is_success() => {
                return opened(claim, response, accept).await;
            }
            Ok((response, copy)) => {
                let (head, incoming) = response.into_parts();
                let again = copy.filter(|_| shield::is_doubtful(head.status));
                let held = Held { claim, connection: None };
                return Ok(Arrived { head, incoming: Some(incoming), held, again });
            }
            Err(unanswered) => match judge(unanswered, exchange) {
                Failed { failure: Failure::Broken(_), parcel: Some(again) }
                    if stale && connection.is_closed() =>
                {
                    exchange.begin_again();
                    parcel = again;
                }
                failed => return Err(failed),
            },
        }
    }
}

/// A WebSocket on a stream, told as HTTP/1.1 tells it.
async fn opened(
    claim: Claim,
    response: Response<Incoming>,
    accept: Option<HeaderValue>,
) -> Result<Arrived, Failed> {
    let (mut head, incoming) = response.into_parts();
    let upgrade = head.extensions.remove::<OnUpgrade>();
    drop(incoming);
    let upgraded = match upgrade {
        Some(upgrade) => upgrade.await,
        None => return Err(Failed { failure: Failure::Unasked, parcel: None }),
    };
    let stream = upgraded
        .map_err(|error| Failed { failure: Failure::Broken(Broken::Http2(error)), parcel: None })?;
    head.status = StatusCode::SWITCHING_PROTOCOLS;
    if let Some(accept) = accept {
        head.headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    let held = Held { claim, connection: Some(Line::Stream(Box::new(stream))) };
    Ok(Arrived { head, incoming: None, held, again: None })
}

/// What an unanswered request came to.
fn judge(unanswered: Unanswered, exchange: &Exchange) -> Failed {
    let (failure, parcel) = match unanswered {
        Unanswered::Fired(Fired::Upstream, parcel) => (Failure::Timeout, parcel),
        Unanswered::Fired(Fired::Downstream, _) => (Failure::UploadStall, None),
        // Its instance is gone, or may take no more of our time; another one has time.
        Unanswered::Fired(Fired::Cut, parcel) => (Failure::Cut, parcel),
        _ if exchange.is_upload_broken() => match exchange.upload_refused() {
            Some(reason) => (Failure::UploadRefused(reason), None),
            None => (Failure::Upload, None),
        },
        Unanswered::NotSent(parcel, broken) => (Failure::Broken(broken), Some(parcel)),
        Unanswered::Broken(parcel, broken) => (Failure::Broken(broken), parcel),
    };
    let parcel = parcel.and_then(|mut parcel| parcel.rewind().then_some(parcel));
    Failed { failure, parcel }
}
