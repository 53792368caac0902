//! A request's attempts: claim an endpoint, get a connection, send; and what to do when that fails.
//!
//! A request is tried again when nothing of it was sent, or when it may be sent twice
//! ([`Parcel::is_replayable`]), at most `retries` times and within a [budget], on another endpoint of its
//! side. That its
//! instance was cut off is such a failure too: it died and was replaced, or its drain's time is up.
//! What the canary still fails is sent to stable ([`shield`]), also when it was answered, with an
//! error. The first attempt's fault counts all the same: the user is spared, the verdict is not. An
//! asset that one revision does not have is asked of the other one.
//!
//! A reused connection that turns out to be closed is nobody's fault
//! and no retry: the same endpoint is asked once more over a new one.
//!
//! [budget]: crate::routing::retries

use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;
use http::response::Parts;
use hyper::body::Incoming;

use super::attempt::{Arrived, attempt};
use super::body::RequestBody;
use super::choice::Choice;
use super::error::{Failure, Fault};
use super::exchange::{Exchange, Held};
use super::gate::{self, Passed};
use super::gather::gather;
use super::mirror;
use super::observation::{Kind, Part, Subject};
use super::ongoing::Ongoing;
use super::parcel::Parcel;
use super::route::Route;
use super::shield::{self, covers_failure, covers_status};
use super::upstream::line::Line;
use super::worker::Worker;
use crate::model::id::RevisionId;
use crate::model::weight::Side;
use crate::routing::endpoint::{Claim, EndpointId};
use crate::routing::retries::Load;
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
    let ahead = route.service().settings.buffer_requests;
    if ahead > 0 && !matches!(parcel.body, RequestBody::Empty) {
        Box::pin(gather(&worker.settings.spool, &mut parcel, exchange, ahead)).await?;
        // It may have taken long.
        route = reload(worker, &route).unwrap_or(route);
    }
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
    if let (Some(subject), true) = (&subject, route.service().mirror.is_some()) {
        exchange.copied.replace(mirror::copy(worker, &route, choice, &parcel, subject));
    }
    let mut retries = route.retries();
    let (mut tried, mut reloads, mut crossed) = (Tried::default(), 0, false);
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
            // Its instances were stopped while it was on its way: it waits like those that came later.
            if tried.count == 0 && route.service().maintenance.is_some() {
                exchange.forget();
                if !Box::pin(gate::is_let_in(worker, &mut route)).await {
                    return Err(last);
                }
                side = choice.side(route.service());
                is_fresh = choice.is_fresh(route.service());
                observe(&route, side, is_fresh);
                continue;
            }
            exchange.fault();
            let refuge = side.other();
            // Nothing to ask is no failed attempt: no budget has to cover it.
            let may_cross = !crossed
                && route.side(refuge).is_some()
                && (tried.count == 0
                    || (side == Side::Canary
                        && covers_failure(&route, choice, &last, &parcel.head)
                        && shield::spend(worker, &route)));
            if !may_cross {
                return Err(last);
            }
            crossed = true;
            side = refuge;
            continue;
        };
        match side {
            _ if crossed => {}
            Side::Stable => shield::earn(worker, &route),
            Side::Canary => shield::keep_body(&route, choice, &mut parcel),
        }
        let endpoint = claim.endpoint().id;
        let failed = match attempt(worker, &route, claim, parcel, exchange).await {
            Ok(Arrived { head, incoming, held, again }) => {
                let status = head.status;
                let got = Answer { head, incoming, held, revision, side };
                let Some(mut again) = again.filter(|_| !crossed) else {
                    if crossed && side == Side::Stable && !status.is_server_error() {
                        worker.count(Count::Rescued);
                    }
                    return Ok(got);
                };
                if status == StatusCode::NOT_FOUND {
                    let found = by_other(worker, &route, got, side, choice, again, exchange);
                    return Ok(Box::pin(found).await);
                }
                if side != Side::Canary
                    || !covers_status(&route, choice, status, &again.head)
                    || !again.rewind()
                    || !shield::spend(worker, &route)
                {
                    return Ok(got);
                }
                exchange.answered(&got.head, Kind::Plain);
                exchange.complete();
                dismiss(worker, got.held);
                parcel = again;
                (side, crossed) = (Side::Stable, true);
                exchange.begin_again();
                continue;
            }
            Err(failed) => failed,
        };
        match failed.failure.fault() {
            Fault::Upstream => exchange.fault(),
            Fault::Downstream => exchange.abandon(),
            Fault::Proxy => exchange.forget(),
        }
        let Some(again) = failed.parcel else {
            return Err(failed.failure);
        };
        tried.add(endpoint);
        if retries > 0 && failed.failure.is_quick() && has_budget(worker, &route, &failed.failure) {
            retries -= 1;
            worker.count(Count::Retries);
        } else if side == Side::Canary
            && !crossed
            && covers_failure(&route, choice, &failed.failure, &again.head)
            && shield::spend(worker, &route)
        {
            (side, crossed) = (Side::Stable, true);
        } else {
            return Err(failed.failure);
        }
        exchange.begin_again();
        parcel = again;
        last = failed.failure;
    }
}

/// Whether one more of the service's requests may be sent again. One that never was costs no instance more
/// than it would have.
fn has_budget(worker: &Worker, route: &Route, failure: &Failure) -> bool {
    if matches!(failure, Failure::Connect(_) | Failure::ConnectTimeout) {
        return true;
    }
    let service = route.service();
    let load = Load {
        second: shield::second(worker),
        requests: worker.traffic.of(worker.index, Count::Requests),
        in_flight: worker.exchanges.borrow().len() as u64,
        workers: worker.settings.workers.max(1) as u64,
    };
    let share = service.settings.retry_budget;
    let has = worker.upstreams.retries.borrow_mut().spend(&service.name, share, load);
    if !has {
        worker.count(Count::RetriesRefused);
    }
    has
}

/// Asks the other revision for an asset that this one does not have. What it has not either stays the
/// 404 that it was.
async fn by_other(
    worker: &Rc<Worker>,
    route: &Route,
    got: Answer,
    side: Side,
    choice: &Choice,
    mut parcel: Box<Parcel>,
    exchange: &Rc<Exchange>,
) -> Answer {
    let service = route.service();
    let found = service.side(side.other()).or(service.warm.as_ref()).filter(|_| {
        choice.is_observation()
            && parcel.head.is_safe()
            && service.settings.assets.covers(parcel.head.uri.path())
    });
    let Some(entry) = found else { return got };
    let (revision, claim) = (entry.revision, entry.pool.claim(worker.random(), &[]));
    let Some(claim) = claim.filter(|_| parcel.rewind()) else { return got };
    let first = got.held.claim.endpoint().id;
    exchange.answered(&got.head, Kind::Plain);
    let aside = exchange.set_aside();
    exchange.begin_again();
    match attempt(worker, route, claim, parcel, exchange).await {
        Ok(Arrived { head, incoming, held, .. }) if !head.status.is_client_error() => {
            // It says nothing about either revision: the page came from the other one.
            drop(aside);
            dismiss(worker, got.held);
            worker.count(Count::AssetsFound);
            Answer { head, incoming, held, revision, side: side.other() }
        }
        other => {
            if let Ok(arrived) = other {
                dismiss(worker, arrived.held);
            }
            aside.record();
            exchange.begin_again();
            exchange.begin(first, false);
            got
        }
    }
}

/// Gives back what an answer came by that nobody wants.
fn dismiss(worker: &Worker, held: Held) {
    if let Some(Line::Own(mut connection)) = held.connection
        && connection.skip_body()
    {
        worker.upstreams.give_back(held.claim.endpoint(), connection);
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
