//! A request's attempts: claim an endpoint, get a connection, send; and what to do when that fails.
//!
//! A request is tried again when nothing of it was sent, or when it may be sent twice
//! ([`Parcel::is_replayable`]), at most `retries` times, on another endpoint of its side; a canary
//! without another one leaves it to stable. The first attempt's fault counts all the same: the user
//! is spared, the verdict is not. A reused connection that turns out to be closed is nobody's fault
//! and no retry: the same endpoint is asked once more over a new one.

use std::rc::Rc;
use std::sync::Arc;

use http::{Response, StatusCode};
use hyper::body::Incoming;

use super::choice::Choice;
use super::error::{Failure, Fault};
use super::exchange::{Exchange, Fired, Held, Route};
use super::parcel::Parcel;
use super::upstream::connect;
use super::upstream::http1::{Connection, Sent, Unanswered};
use super::upstream::http2::Multiplexed;
use super::worker::{Ongoing, Worker};
use crate::model::id::RevisionId;
use crate::model::revision::UpstreamProtocol;
use crate::model::weight::Side;
use crate::routing::endpoint::{Claim, EndpointId};
use crate::telemetry::traffic::Count;

/// Endpoints that one request may fail on: more than anyone configures as `retries`.
const MOST_TRIED: usize = 8;
/// How often a request looks at a newer table when its own leads to a pool that drains.
const RELOADS: u32 = 2;

/// An answer, and what it came by.
#[derive(Debug)]
pub struct Answer {
    /// The response, body unread.
    pub response: Response<Incoming>,
    /// The claim, and the connection if it is HTTP/1.1.
    pub held: Held,
    /// Who answered.
    pub revision: RevisionId,
    /// The service, in the table by which it was answered.
    pub route: Route,
}

/// An attempt that failed.
struct Failed {
    failure: Failure,
    /// The request, if it may be sent again. Boxed: failures are rare, and answers small.
    parcel: Option<Box<Parcel>>,
}

/// Endpoints that failed a request.
#[derive(Default)]
struct Tried {
    ids: [Option<EndpointId>; MOST_TRIED],
    count: usize,
}

impl Tried {
    fn add(&mut self, id: EndpointId) {
        if let Some(free) = self.ids.get_mut(self.count) {
            *free = Some(id);
            self.count += 1;
        }
    }

    fn list(&self) -> Vec<EndpointId> {
        self.ids.iter().flatten().copied().collect()
    }
}

/// Claims an endpoint of a side that did not fail this request before.
fn claim(worker: &Worker, route: &Route, side: Side, tried: &Tried) -> Option<(Claim, RevisionId)> {
    let entry = route.side(side)?;
    let claim = if tried.count == 0 {
        entry.pool.claim(worker.random(), &[])
    } else {
        entry.pool.claim(worker.random(), &tried.list())
    };
    Some((claim?, entry.revision))
}

/// The service of a request in the live table, if that has changed.
fn reload(worker: &Worker, route: &Route) -> Option<Route> {
    let table = worker.table();
    if Arc::ptr_eq(&table, &route.table) {
        return None;
    }
    let name = &route.service().name;
    let service = table.services.iter().position(|service| service.name == *name)?;
    Some(Route { table, service })
}

fn other(side: Side) -> Side {
    match side {
        Side::Stable => Side::Canary,
        Side::Canary => Side::Stable,
    }
}

/// Sends a request to an endpoint of the side that was chosen for it, and answers what came of it.
///
/// Cancel safety: dropped midway, the claim is given back and the connection closed.
pub async fn forward(
    worker: &Rc<Worker>,
    mut route: Route,
    choice: &Choice,
    mut parcel: Parcel,
    ongoing: &Ongoing,
) -> Result<Answer, Failure> {
    let exchange = ongoing.exchange();
    let mut side = choice.side(route.service());
    let observe = |route: &Route, side| {
        if choice.is_observation() {
            exchange.observe(route.clone(), side, worker.index);
        }
    };
    observe(&route, side);
    let mut retries = route.service().settings.retries;
    let mut tried = Tried::default();
    let mut reloads = 0;
    let mut rescuing = false;
    let mut last = Failure::Unavailable;
    loop {
        let Some((claim, revision)) = claim(worker, &route, side, &tried) else {
            if tried.count == 0
                && reloads < RELOADS
                && let Some(newer) = reload(worker, &route)
            {
                reloads += 1;
                route = newer;
                side = choice.side(route.service());
                exchange.forget();
                observe(&route, side);
                continue;
            }
            exchange.fault();
            let refuge = other(side);
            let may_cross = !rescuing && (tried.count == 0 || side == Side::Canary);
            if !may_cross || route.side(refuge).is_none() {
                return Err(last);
            }
            rescuing = true;
            side = refuge;
            continue;
        };
        let endpoint = claim.endpoint().id;
        let failed = match attempt(worker, &route, claim, parcel, exchange).await {
            Ok((response, held)) => {
                if rescuing && side == Side::Stable {
                    worker.count(Count::Rescued);
                }
                return Ok(Answer { response, held, revision, route });
            }
            Err(failed) => failed,
        };
        match failed.failure.fault() {
            Fault::Upstream => exchange.fault(),
            Fault::Downstream => exchange.abandon(),
            Fault::Proxy => exchange.forget(),
        }
        let Some(again) = failed.parcel.filter(|_| retries > 0) else {
            return Err(failed.failure);
        };
        retries -= 1;
        worker.count(Count::Retries);
        tried.add(endpoint);
        exchange.begin_again();
        parcel = *again;
        last = failed.failure;
    }
}

async fn attempt(
    worker: &Rc<Worker>,
    route: &Route,
    claim: Claim,
    parcel: Parcel,
    exchange: &Rc<Exchange>,
) -> Result<(Response<Incoming>, Held), Failed> {
    match claim.endpoint().protocol {
        UpstreamProtocol::Http1 => by_http1(worker, route, claim, parcel, exchange).await,
        UpstreamProtocol::H2c => Box::pin(by_http2(worker, route, claim, parcel, exchange)).await,
    }
}

async fn by_http1(
    worker: &Rc<Worker>,
    route: &Route,
    claim: Claim,
    mut parcel: Parcel,
    exchange: &Rc<Exchange>,
) -> Result<(Response<Incoming>, Held), Failed> {
    let mut idle = worker.upstreams.take_idle(claim.endpoint());
    loop {
        let mut connection = match idle.take() {
            Some(connection) => connection,
            None => match Box::pin(open(worker, route, &claim)).await {
                Ok(connection) => connection,
                Err(failure) => return Err(Failed { failure, parcel: Some(Box::new(parcel)) }),
            },
        };
        let asked = parcel.asked;
        let copy = parcel.copy();
        let uploads = !matches!(parcel.body, super::body::RequestBody::Empty);
        exchange.begin(claim.endpoint().id, uploads);
        let sent = connection.send(parcel.into_request(UpstreamProtocol::Http1), exchange).await;
        let stale = connection.is_used();
        match judge(sent, asked, copy, exchange) {
            Ok(response)
                if response.status() == StatusCode::SWITCHING_PROTOCOLS && !asked.websocket =>
            {
                return Err(Failed { failure: Failure::Unasked, parcel: None });
            }
            Ok(response) => {
                let connection = Some(connection);
                return Ok((response, Held { claim, connection }));
            }
            // The peer closed it while it idled. Only a new connection says how the endpoint is.
            Err(Failed { failure: Failure::Broken(_), parcel: Some(again) }) if stale => {
                parcel = *again;
            }
            Err(failed) => return Err(failed),
        }
    }
}

async fn by_http2(
    worker: &Rc<Worker>,
    route: &Route,
    claim: Claim,
    mut parcel: Parcel,
    exchange: &Rc<Exchange>,
) -> Result<(Response<Incoming>, Held), Failed> {
    let mut shared = worker.upstreams.multiplexed(claim.endpoint());
    loop {
        let (mut connection, stale) = match shared.take() {
            Some(connection) => (connection, true),
            None => match multiplex(worker, route, &claim).await {
                Ok(connection) => (connection, false),
                Err(failure) => return Err(Failed { failure, parcel: Some(Box::new(parcel)) }),
            },
        };
        let asked = parcel.asked;
        let copy = parcel.copy();
        let uploads = !matches!(parcel.body, super::body::RequestBody::Empty);
        exchange.begin(claim.endpoint().id, uploads);
        let sent = connection.send(parcel.into_request(UpstreamProtocol::H2c), exchange).await;
        match judge(sent, asked, copy, exchange) {
            Ok(response) => return Ok((response, Held { claim, connection: None })),
            Err(Failed { failure: Failure::Broken(_), parcel: Some(again) })
                if stale && connection.is_closed() =>
            {
                parcel = *again;
            }
            Err(failed) => return Err(failed),
        }
    }
}

/// What a sent request came to.
fn judge(
    sent: Sent,
    asked: super::headers::Asked,
    copy: Option<Parcel>,
    exchange: &Exchange,
) -> Result<Response<Incoming>, Failed> {
    let failed =
        |failure, parcel: Option<Parcel>| Err(Failed { failure, parcel: parcel.map(Box::new) });
    match sent {
        Ok(response) => Ok(response),
        Err(Unanswered::Fired(Fired::Upstream)) => failed(Failure::Timeout, None),
        Err(Unanswered::Fired(Fired::Downstream)) => failed(Failure::UploadStall, None),
        Err(Unanswered::Fired(Fired::Cut)) => failed(Failure::Cut, None),
        Err(_) if exchange.is_upload_broken() => failed(Failure::Upload, None),
        Err(Unanswered::NotSent(request, error)) => {
            failed(Failure::Broken(error), Some(Parcel::from_request(*request, asked)))
        }
        Err(Unanswered::Broken(error)) => failed(Failure::Broken(error), copy),
    }
}

async fn open(worker: &Worker, route: &Route, claim: &Claim) -> Result<Box<Connection>, Failure> {
    let stream = dial(worker, route, claim).await?;
    Connection::new(stream).await
}

async fn multiplex(worker: &Worker, route: &Route, claim: &Claim) -> Result<Multiplexed, Failure> {
    let stream = dial(worker, route, claim).await?;
    let connection = Multiplexed::new(stream).await?;
    worker.upstreams.share(claim.endpoint(), &connection);
    Ok(connection)
}

async fn dial(
    worker: &Worker,
    route: &Route,
    claim: &Claim,
) -> Result<tokio::net::TcpStream, Failure> {
    let timeout = route.service().settings.connect_timeout;
    let connected = connect(claim.endpoint(), timeout).await;
    worker.count(match connected {
        Ok(_) => Count::UpstreamConnects,
        Err(_) => Count::UpstreamConnectFailures,
    });
    connected
}
