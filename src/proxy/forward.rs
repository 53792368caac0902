//! A request's attempts: claim an endpoint, get a connection, send; and what to do when that fails.
//!
//! A request is tried again when nothing of it was sent, or when it may be sent twice
//! ([`Parcel::is_replayable`]), at most `retries` times, on another endpoint of its side; a canary
//! without another one leaves it to stable. That its instance was cut off is such a failure too: it
//! died and was replaced, or its drain's time is up. The first attempt's fault counts all the same: the user
//! is spared, the verdict is not. A reused connection that turns out to be closed is nobody's fault
//! and no retry: the same endpoint is asked once more over a new one.

use std::rc::Rc;
use std::sync::Arc;

use http::response::Parts;
use http::{Response, StatusCode};
use hyper::body::Incoming;

use super::choice::Choice;
use super::error::{Failure, Fault};
use super::exchange::{Exchange, Fired, Held, Route};
use super::gate::Passed;
use super::observation::{Part, Subject};
use super::parcel::Parcel;
use super::upstream::http1::Connection;
use super::upstream::http2::Multiplexed;
use super::upstream::line::Line;
use super::upstream::{Unanswered, connect};
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
    /// The response's head.
    pub head: Parts,
    /// Its body, if it does not come by the connection that is held.
    pub incoming: Option<Incoming>,
    /// The claim, and the connection if it is HTTP/1.1.
    pub held: Held,
    /// Who answered.
    pub revision: RevisionId,
    /// On which side.
    pub side: Side,
}

/// What an attempt came to: a head, a body that comes by another way than what is held, and that.
type Arrived = (Parts, Option<Incoming>, Held);

/// An attempt that failed.
struct Failed {
    failure: Failure,
    /// The request, if it may be sent again.
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
fn claim(
    worker: &Worker,
    route: &Route,
    (side, is_fresh): (Side, bool),
    tried: &Tried,
) -> Option<(Claim, RevisionId)> {
    let entry = route.service().part(side, is_fresh)?;
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
    let service = table.position(name)?;
    Some(Route { table, service, rule: route.rule.clone() })
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
    mut parcel: Box<Parcel>,
    passed: Option<&mut Passed>,
    ongoing: &Ongoing,
) -> Result<Answer, Failure> {
    let exchange = ongoing.exchange();
    let mut side = choice.side(route.service());
    // By the path that the client asked for, whatever the instance is asked for.
    let subject = subject(&route, choice, &parcel);
    if let Some(passed) = passed {
        passed.forward(&mut parcel.head, ongoing);
    }
    let mut is_fresh = choice.is_fresh(route.service());
    let observe = |route: &Route, side, is_fresh| {
        if let Some(subject) = &subject {
            let part = Part { side, is_fresh };
            exchange.observe(route.clone(), part, worker.index, subject.clone());
        }
    };
    observe(&route, side, is_fresh);
    let mut retries = route.retries();
    let mut tried = Tried::default();
    let mut reloads = 0;
    let mut rescuing = false;
    let mut last = Failure::Unavailable;
    loop {
        let Some((claim, revision)) = claim(worker, &route, (side, is_fresh), &tried) else {
            if is_fresh {
                // The rest of stable answers in its place, and is not compared.
                is_fresh = false;
                if tried.count == 0 {
                    exchange.forget();
                    observe(&route, side, is_fresh);
                }
                continue;
            }
            if reloads < RELOADS
                && let Some(newer) = reload(worker, &route)
            {
                reloads += 1;
                route = newer;
                // A second attempt stays on its side: only instances may have been replaced there.
                if tried.count == 0 {
                    side = choice.side(route.service());
                    is_fresh = choice.is_fresh(route.service());
                    exchange.forget();
                    observe(&route, side, is_fresh);
                }
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
            Ok((head, incoming, held)) => {
                if rescuing && side == Side::Stable {
                    worker.count(Count::Rescued);
                }
                return Ok(Answer { head, incoming, held, revision, side });
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
        parcel = again;
        last = failed.failure;
    }
}

/// What is to be known of a request if it becomes an observation; nothing when it is none.
#[inline]
fn subject(route: &Route, choice: &Choice, parcel: &Parcel) -> Option<Subject> {
    if !choice.is_observation() {
        return None;
    }
    let service = route.service();
    // Only a rollout asks where errors are, and only then a path is kept.
    let path = service.canary.as_ref().and_then(|_| parcel.head.uri.path_and_query().cloned());
    let exception = service.settings.exception(parcel.head.uri.path());
    service.settings.rule(exception)?;
    Some(Subject { exception, session: choice.session, path })
}

async fn attempt(
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
            None => match Box::pin(dial(worker, route, &claim)).await {
                Ok(stream) => Connection::new(stream),
                Err(failure) => return Err(Failed { failure, parcel: Some(parcel) }),
            },
        };
        let websocket = parcel.asked.websocket;
        let uploads = !matches!(parcel.body, super::body::RequestBody::Empty);
        exchange.begin(claim.endpoint().id, uploads);
        let sent = connection.send(parcel, exchange).await;
        let stale = connection.is_used();
        match sent {
            Ok(head) if head.status == StatusCode::SWITCHING_PROTOCOLS && !websocket => {
                return Err(Failed { failure: Failure::Unasked, parcel: None });
            }
            Ok(answered) => {
                let (mut head, ()) = Response::new(()).into_parts();
                (head.status, head.headers) = (answered.status, answered.headers);
                let connection = Some(Line::Own(connection));
                return Ok((head, None, Held { claim, connection }));
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
            None => match multiplex(worker, route, &claim).await {
                Ok(connection) => (connection, false),
                Err(failure) => return Err(Failed { failure, parcel: Some(parcel) }),
            },
        };
        let uploads = !matches!(parcel.body, super::body::RequestBody::Empty);
        exchange.begin(claim.endpoint().id, uploads);
        match connection.send(parcel, exchange).await {
            Ok(response) => {
                let (head, incoming) = response.into_parts();
                return Ok((head, Some(incoming), Held { claim, connection: None }));
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

/// What an unanswered request came to.
fn judge(unanswered: Unanswered, exchange: &Exchange) -> Failed {
    let (failure, parcel) = match unanswered {
        Unanswered::Fired(Fired::Upstream, _) => (Failure::Timeout, None),
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
    Failed { failure, parcel }
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
    let connected = connect(claim.endpoint(), route.connect_timeout()).await;
    worker.count(match connected {
        Ok(_) => Count::UpstreamConnects,
        Err(_) => Count::UpstreamConnectFailures,
    });
    connected
}
