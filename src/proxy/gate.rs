//! Where a service's policy meets its requests: asked before a request is forwarded, and carried out
//! on what goes upstream and on what comes back.
//!
//! The policy decides without touching anything; here is what touches. A request of a service
//! without a policy never comes here. What a policy answers itself gets the same response headers
//! as what an instance answers, so that nobody is without `Strict-Transport-Security` because of a
//! redirect.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::header::{HeaderMap, HeaderValue, STRICT_TRANSPORT_SECURITY};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Response, StatusCode, Uri};

use super::body::ResponseBody;
use super::compress::compress;
use super::credentials::Unknown;
use super::downstream::Downstream;
use super::files::{self, Said};
use super::forward_auth::{self, Answered};
use super::headers::{X_FORWARDED_PROTO, X_REQUEST_ID};
use super::ongoing::Ongoing;
use super::page::{Format, page};
use super::parcel::Head;
use super::route::Route;
use super::worker::Worker;
use crate::edge::coding::{Coding, choose};
use crate::edge::facts::Facts;
use crate::edge::flight::Flight;
use crate::edge::policy::{Reply, Rule, to_https};
use crate::edge::rules::Act;
use crate::telemetry::traffic::Count;

/// What was taken off the path of a request, for applications that make links.
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// What a visitor of a service in maintenance is told to wait, in seconds.
const MAINTENANCE_PAUSE: u64 = 10;
/// How often those who wait look whether it is over.
const MAINTENANCE_LOOK: Duration = Duration::from_millis(100);

/// What is known of a request besides its head.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// Who asks.
    pub client: IpAddr,
    /// Whether its client's connection was encrypted, if `Forwarded` says so.
    pub secure: Option<bool>,
    /// For which host.
    pub host: &'a str,
    /// The request's id.
    pub request_id: &'a HeaderValue,
    /// When it came.
    pub arrived: Instant,
}

/// A request that its service's policy lets through, and what is still to be done to it.
#[derive(Debug)]
pub struct Passed {
    facts: Facts,
    rule: Arc<Rule>,
    flights: Vec<Flight>,
    /// How the client would like the response to be made smaller.
    coding: Option<Coding>,
    /// Fields in place of the request's own of these names.
    fields: Vec<(HeaderName, Vec<HeaderValue>)>,
}

/// Asks the policy of a request's service. The error is the answer when the request goes no further;
/// nothing is to be done to those of a service without a policy.
///
/// Cancel safety: dropped midway, what was counted as in flight is so no more.
pub async fn enter(
    worker: &Rc<Worker>,
    connection: &Downstream,
    route: &mut Route,
    head: &Parts,
    arrival: Arrival<'_>,
) -> Result<Option<Box<Passed>>, Response<ResponseBody>> {
    let arrived = arrival.arrived;
    let facts = facts(connection, head, &arrival);
    let format = Format::of(&head.headers);
    let Some(policy) = route.service().policy.clone() else {
        let settings = &route.service().settings;
        if let Some(location) =
            settings.to_https.then(|| to_https(&facts, worker.https_port)).flatten()
        {
            worker.count(Count::Answered);
            let reply = Reply::redirect(StatusCode::PERMANENT_REDIRECT, location);
            return Err(answer(reply, format, &facts));
        }
        if !is_let_in(worker, route).await {
            worker.count(Count::Synthetic);
            return Err(answer(Reply::later(MAINTENANCE_PAUSE), format, &facts));
        }
        return Ok(None);
    };
    let rule = Arc::clone(policy.rule(&facts, &head.headers));
    if let Some(lead) = &rule.leads_to
        && let Some(service) = route.table.position(lead)
    {
        route.service = service;
    }
    route.rule = Some(Arc::clone(&rule));
    let admitted = rule.admit(&facts, &head.headers, worker.https_port, arrived);
    let coding = choose(&rule.rules.compress, &head.headers);
    let mut passed =
        Box::new(Passed { facts, rule, coding, flights: Vec::new(), fields: Vec::new() });
    match admitted {
        Ok(flights) => passed.flights = flights,
        Err(reply) => return Err(passed.refuse(worker, *reply, format)),
    }
    if let Some(users) = passed.rule.rules.users.clone() {
        match worker.credentials.check(&users, &head.headers).await {
            Ok(name) => passed.facts.user = Some(name),
            Err(unknown) => {
                let reply = match unknown {
                    Unknown::Wrong => Reply::who(&users.realm),
                    Unknown::Busy => Reply::later(1),
                };
                return Err(passed.refuse(worker, reply, format));
            }
        }
    }
    if let Some(auth) = passed.rule.rules.forward_auth.clone() {
        let stranger = (!connection.trusted).then_some(&worker.settings.client_header);
        match forward_auth::ask(&auth, head, &passed.facts, stranger).await {
            Answered::Yes(fields) => passed.fields = fields,
            Answered::No(response) => {
                worker.count(Count::Denied);
                return Err(passed.back(worker, *response));
            }
            Answered::Unknown => {
                worker.count(Count::Synthetic);
                let id = passed.facts.request_id.clone();
                let response = page(StatusCode::BAD_GATEWAY, format, id);
                return Err(passed.back(worker, passed.own_page(response, format)));
            }
        }
    }
    if let Act::Files(files) = &passed.rule.rules.act {
        let path = passed.path();
        let id = &passed.facts.request_id;
        match Box::pin(files::answer(worker, files, &path, head, id)).await {
            Said::AskApp => {}
            Said::Answer(response) => {
                worker.count(Count::Answered);
                return Err(passed.back(worker, *response));
            }
            Said::Status(status) => return Err(passed.refuse(worker, Reply::of(status), format)),
        }
    }
    if let Some(reply) = passed.rule.reply(&passed.facts) {
        return Err(passed.refuse(worker, reply, format));
    }
    if !is_let_in(worker, route).await {
        worker.count(Count::Synthetic);
        let reply = answer(Reply::later(MAINTENANCE_PAUSE), format, &passed.facts);
        return Err(passed.back(worker, passed.own_page(reply, format)));
    }
    Ok(Some(passed))
}

/// Waits until a service's maintenance is over, for as long as it says; whether it is. The request
/// goes on by the table that ended it.
pub async fn is_let_in(worker: &Worker, route: &mut Route) -> bool {
    let Some(maintenance) = route.service().maintenance else { return true };
    let until = Instant::now() + maintenance.queue;
    let Some(_place) = worker.waiting.enter_among(maintenance.most as usize) else { return false };
    while Instant::now() < until && !worker.is_draining() {
        tokio::time::sleep(MAINTENANCE_LOOK.min(until - Instant::now())).await;
        let table = worker.table();
        let Some(service) = table.position(&route.service().name) else { return false };
        if table.services[service].maintenance.is_none() {
            (route.table, route.service) = (table, service);
            return true;
        }
    }
    false
}

/// Whether a proxy says that its client came by TLS; of several, the one nearest to us.
pub fn is_said_secure(headers: &HeaderMap) -> bool {
    let said = headers.get_all(X_FORWARDED_PROTO).iter().next_back();
    said.is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"))
}

fn facts(connection: &Downstream, head: &Parts, arrival: &Arrival<'_>) -> Facts {
    let said = || arrival.secure.unwrap_or_else(|| is_said_secure(&head.headers));
    let secure = connection.secure || connection.trusted && said();
    Facts {
        client: arrival.client,
        host: arrival.host.to_owned(),
        method: head.method.clone(),
        uri: head.uri.clone(),
        secure,
        request_id: arrival.request_id.clone(),
        user: None,
    }
}

impl Passed {
    /// Who the client has shown to be.
    pub fn user(&self) -> Option<&str> {
        self.facts.user.as_deref()
    }

    /// The path that a file is looked for by: changed as for an instance.
    fn path(&self) -> String {
        let uri = &self.facts.uri;
        let changed = self.rule.rules.rewrite.apply(uri.path());
        changed.unwrap_or_else(|| uri.path().to_owned())
    }

    /// Changes a request on its way upstream, and has its exchange count for the limits on requests
    /// in flight.
    pub fn forward(&mut self, head: &mut Head, ongoing: &Ongoing) {
        *ongoing.exchange().flights.borrow_mut() = std::mem::take(&mut self.flights);
        let rules = &self.rule.rules;
        if let Some(target) = rules.rewrite.apply(head.path_and_query())
            && let Ok(target) = PathAndQuery::try_from(target)
        {
            head.uri = Uri::from(target);
            if let Some(prefix) = &rules.rewrite.strip
                && let Ok(prefix) = HeaderValue::from_str(prefix)
            {
                head.headers.insert(X_FORWARDED_PREFIX, prefix);
            }
        }
        for (name, values) in self.fields.drain(..) {
            // A client's own word about what the answer did not say must not go on either.
            head.headers.remove(&name);
            for value in values {
                head.headers.append(name.clone(), value);
            }
        }
        rules.request.apply(&mut head.headers, &self.facts);
    }

    /// The response to the client, of an instance's or of the proxy's own.
    pub fn back(
        &self,
        worker: &Worker,
        mut response: Response<ResponseBody>,
    ) -> Response<ResponseBody> {
        self.dress(response.headers_mut());
        if self.rule.rules.compress.is_empty() {
            return response;
        }
        compress(worker, &self.facts.method, self.coding, response)
    }

    /// Puts the service's own page in place of one of the proxy's.
    pub fn own_page(
        &self,
        mut response: Response<ResponseBody>,
        format: Format,
    ) -> Response<ResponseBody> {
        if format == Format::Html
            && let Some(page) = self.rule.page(response.status())
        {
            let id = self.facts.request_id.to_str().unwrap_or("-");
            let body = fill(&page.body, response.status(), id);
            response.headers_mut().insert(CONTENT_TYPE, page.kind.clone());
            *response.body_mut() = ResponseBody::full(body);
        }
        response
    }

    fn refuse(&self, worker: &Worker, reply: Reply, format: Format) -> Response<ResponseBody> {
        worker.count(match reply.status.as_u16() {
            429 | 503 if reply.retry_after.is_some() => Count::Limited,
            401 | 403 | 405 => Count::Denied,
            _ => Count::Answered,
        });
        let plain = reply.body.is_none();
        let mut response = answer(reply, format, &self.facts);
        if plain {
            response = self.own_page(response, format);
        }
        self.back(worker, response)
    }

    fn dress(&self, headers: &mut HeaderMap) {
        let rules = &self.rule.rules;
        if let Some(hsts) = rules.hsts.as_ref().filter(|_| self.facts.secure) {
            headers.insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
        self.rule.response.apply(headers, &self.facts);
    }
}

/// `{status}` and `{request_id}` in a page of the service's own.
fn fill(page: &Bytes, status: StatusCode, id: &str) -> Bytes {
    let Ok(text) = std::str::from_utf8(page) else { return page.clone() };
    if !text.contains("{status}") && !text.contains("{request_id}") {
        return page.clone();
    }
    Bytes::from(text.replace("{status}", status.as_str()).replace("{request_id}", id))
}

/// An answer of the policy's.
fn answer(reply: Reply, format: Format, facts: &Facts) -> Response<ResponseBody> {
    let mut response = match reply.body {
        Some((body, kind)) => {
            let mut response = Response::new(ResponseBody::full(body));
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response.headers_mut().insert(X_REQUEST_ID, facts.request_id.clone());
            response
        }
        None if reply.location.is_some() || has_no_body(reply.status) => {
            let mut response = Response::new(ResponseBody::Empty);
            response.headers_mut().insert(X_REQUEST_ID, facts.request_id.clone());
            response
        }
        None => page(reply.status, format, facts.request_id.clone()),
    };
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    if let Some(location) = reply.location
        && let Ok(location) = HeaderValue::try_from(location)
    {
        headers.insert(LOCATION, location);
    }
    if let Some(seconds) = reply.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(realm) = reply.realm {
        let quoted = realm.replace(['"', '\\'], "");
        let challenge =
            HeaderValue::try_from(format!("Basic realm=\"{quoted}\", charset=\"UTF-8\""));
        let plain = HeaderValue::from_static("Basic realm=\"restricted\"");
        headers.insert(WWW_AUTHENTICATE, challenge.unwrap_or(plain));
    }
    if let Some(allow) = reply.allow.and_then(|allow| HeaderValue::try_from(allow).ok()) {
        headers.insert(ALLOW, allow);
    }
    response
}

/// RFC 9110, 6.4.1.
fn has_no_body(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}
