//! Where a service's policy meets its requests: asked before a request is forwarded, and carried out
//! on what goes upstream and on what comes back.
//!
//! The policy decides without touching anything; here is what touches. A request of a service
//! without a policy never comes here. What a policy answers itself gets the same response headers
//! as what an instance answers, so that nobody is without `Strict-Transport-Security` because of a
//! redirect.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::header::{HeaderMap, HeaderValue, STRICT_TRANSPORT_SECURITY};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Response, StatusCode, Uri};

use super::body::ResponseBody;
use super::compress::compress;
use super::credentials::Unknown;
use super::downstream::Downstream;
use super::files::{self, Asked, Said};
use super::forward_auth::{self, Answered};
use super::headers::{X_FORWARDED_PROTO, X_REQUEST_ID};
use super::ongoing::Ongoing;
use super::page::{Format, page};
use super::parcel::Head;
use super::route::{Route, Ruled};
use super::worker::Worker;
use crate::edge::coding::{Coding, choose};
use crate::edge::facts::{Facts, Kept};
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
    rule: Ruled,
    /// Whether its client's connection was encrypted.
    secure: bool,
    /// How the client would like the response to be made smaller.
    coding: Option<Coding>,
    /// What the rule asks for when the request has gone on.
    kept: Option<Box<Kept>>,
    flights: Vec<Flight>,
    /// What its client wants of a file that the app may name.
    asked: Option<Box<Asked>>,
    /// Fields in place of the request's own of these names.
    fields: Vec<(HeaderName, Vec<HeaderValue>)>,
}

/// A request that goes on, with what is to be done to it, if anything is; or the answer when it goes
/// no further.
pub type Entered = Result<Option<Passed>, Box<Response<ResponseBody>>>;

/// What is known about a request at once.
#[derive(Debug)]
pub enum Looked {
    /// All.
    Known(Entered),
    /// Something takes time: [`wait`] is to be asked.
    Waits(Option<Box<Passed>>),
}

/// Asks the policy of a request's service what takes no time. Nothing is to be done to requests that
/// no rule is about, and hardly anything is done to find that out.
pub fn look(
    worker: &Worker,
    connection: &Downstream,
    route: &mut Route,
    head: &Parts,
    arrival: &Arrival<'_>,
) -> Looked {
    let facts = facts(connection, head, arrival);
    let table = Rc::clone(&route.table);
    // In range: the index came from this very table.
    let service = &table.services[route.service];
    let refuse = |rule: Option<&Rule>, reply: Reply| {
        Looked::Known(Err(Box::new(refuse(worker, rule, &facts, head, reply))))
    };
    let Some(policy) = &service.policy else {
        if service.settings.to_https
            && let Some(location) = to_https(&facts, worker.https_port)
        {
            return refuse(None, Reply::redirect(StatusCode::PERMANENT_REDIRECT, location));
        }
        return match service.maintenance {
            Some(_) => Looked::Waits(None),
            None => Looked::Known(Ok(None)),
        };
    };
    let place = policy.place(&facts, &head.headers);
    let rule = policy.at(place);
    let led = rule.leads_to.as_ref().and_then(|lead| table.position(lead));
    let flights = if rule.admits {
        match rule.admit(&facts, &head.headers, worker.https_port, arrival.arrived) {
            Ok(flights) => flights,
            Err(reply) => return refuse(Some(rule), *reply),
        }
    } else {
        Vec::new()
    };
    let to = led.unwrap_or(route.service);
    let pauses = table.services.get(to).is_some_and(|service| service.maintenance.is_some());
    let waits = rule.waits || pauses;
    if !waits && let Some(reply) = rule.reply(&facts) {
        return refuse(Some(rule), reply);
    }
    if !waits && !rule.acts && flights.is_empty() {
        route.service = to;
        return Looked::Known(Ok(None));
    }
    let passed = Passed {
        rule: Ruled::new(Rc::clone(&table), route.service, place),
        secure: facts.secure,
        coding: choose(&rule.rules.compress, &head.headers),
        kept: (rule.keeps && !waits).then(|| Box::new(facts.keep())),
        flights,
        // On a stream that becomes a WebSocket nothing else is sent.
        asked: (!rule.rules.send_file.is_empty() && head.method != Method::CONNECT)
            .then(|| Asked::of(head)),
        fields: Vec::new(),
    };
    route.service = to;
    route.rule = Some(passed.rule.clone());
    if waits { Looked::Waits(Some(Box::new(passed))) } else { Looked::Known(Ok(Some(passed))) }
}

/// Asks what takes time: passwords, another server, the disk, a service's maintenance.
///
/// Cancel safety: dropped midway, what was counted as in flight is so no more.
pub async fn wait(
    worker: &Rc<Worker>,
    connection: &Downstream,
    route: &mut Route,
    head: &Parts,
    arrival: &Arrival<'_>,
    passed: Option<Box<Passed>>,
) -> Entered {
    let mut facts = facts(connection, head, arrival);
    let Some(mut passed) = passed else {
        if is_let_in(worker, route).await {
            return Ok(None);
        }
        worker.count(Count::Synthetic);
        let reply = Reply::later(MAINTENANCE_PAUSE);
        return Err(Box::new(answer(reply, Format::of(&head.headers), facts.request_id)));
    };
    let ruled = passed.rule.clone();
    let (rule, format) = (ruled.rule(), Format::of(&head.headers));
    let name;
    if let Some(users) = &rule.rules.users {
        match worker.credentials.check(users, &head.headers).await {
            Ok(known) => {
                name = known;
                facts.user = Some(&name);
            }
            Err(unknown) => {
                let reply = match unknown {
                    Unknown::Wrong => Reply::who(&users.realm),
                    Unknown::Busy => Reply::later(1),
                };
                return Err(Box::new(refuse(worker, Some(rule), &facts, head, reply)));
            }
        }
    }
    let dressed =
        |facts, response| Err(Box::new(dress(worker, rule, facts, passed.coding, response)));
    if let Some(auth) = &rule.rules.forward_auth {
        let stranger = (!connection.trusted).then_some(&worker.settings.client_header);
        match forward_auth::ask(&worker.questions, auth, head, &facts, stranger).await {
            Answered::Yes(fields) => passed.fields = fields,
            Answered::No(response) => {
                worker.count(Count::Denied);
                return dressed(&facts, *response);
            }
            Answered::Unknown => {
                worker.count(Count::Synthetic);
                let response = page(StatusCode::BAD_GATEWAY, format, facts.request_id.clone());
                return dressed(&facts, own_page(rule, facts.request_id, response, format));
            }
            Answered::Busy => {
                worker.count(Count::AuthBusy);
                return Err(Box::new(refuse(worker, Some(rule), &facts, head, Reply::later(1))));
            }
        }
    }
    if let Act::Files(files) = &rule.rules.act {
        // The path is changed as for an instance.
        let path = facts.uri.path();
        let changed = rule.rules.rewrite.apply(path);
        let path = changed.as_deref().unwrap_or(path);
        match Box::pin(files::answer(worker, files, path, head, facts.request_id)).await {
            Said::AskApp => {}
            Said::Answer(response) => {
                worker.count(Count::Answered);
                return dressed(&facts, *response);
            }
            Said::Status(status) => {
                let reply = Reply::of(status);
                return Err(Box::new(refuse(worker, Some(rule), &facts, head, reply)));
            }
        }
    }
    if let Some(reply) = rule.reply(&facts) {
        return Err(Box::new(refuse(worker, Some(rule), &facts, head, reply)));
    }
    if !is_let_in(worker, route).await {
        worker.count(Count::Synthetic);
        let reply = answer(Reply::later(MAINTENANCE_PAUSE), format, facts.request_id);
        return dressed(&facts, own_page(rule, facts.request_id, reply, format));
    }
    passed.kept = Some(Box::new(facts.keep()));
    Ok(Some(*passed))
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

fn facts<'a>(connection: &Downstream, head: &'a Parts, arrival: &Arrival<'a>) -> Facts<'a> {
    let said = || arrival.secure.unwrap_or_else(|| is_said_secure(&head.headers));
    Facts {
        client: arrival.client,
        host: arrival.host,
        method: &head.method,
        uri: &head.uri,
        secure: connection.secure || connection.trusted && said(),
        certificate: connection.certificate.is_some(),
        request_id: arrival.request_id,
        user: None,
    }
}

impl Passed {
    /// Who the client has shown to be.
    pub fn user(&self) -> Option<&str> {
        self.kept.as_ref()?.user.as_deref()
    }

    /// Changes a request on its way upstream, and has its exchange count for the limits on requests
    /// in flight.
    pub fn forward(&mut self, head: &mut Head, ongoing: &Ongoing) {
        if !self.flights.is_empty() {
            *ongoing.exchange().flights.borrow_mut() = std::mem::take(&mut self.flights);
        }
        let rules = &self.rule.rule().rules;
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
        if self.asked.is_some() {
            Asked::forward(&mut head.headers);
        }
        let facts = self.kept.as_ref().map(|kept| kept.facts());
        rules.request.apply(&mut head.headers, facts.as_ref());
    }

    /// The file that an instance's answer names, where the rule lets it name any.
    #[inline]
    pub async fn file(
        &self,
        worker: &Rc<Worker>,
        response: Response<ResponseBody>,
        is_own: Option<Format>,
    ) -> (Response<ResponseBody>, Option<Format>) {
        match &self.asked {
            Some(asked) if is_own.is_none() => {
                let places = &self.rule.rule().rules.send_file;
                Box::pin(asked.answer(worker, places, response)).await
            }
            _ => (response, is_own),
        }
    }

    /// The response to the client: an instance's, or a page in this format in place of one.
    pub fn back(
        &self,
        worker: &Worker,
        mut response: Response<ResponseBody>,
        format: Option<Format>,
    ) -> Response<ResponseBody> {
        let rule = self.rule.rule();
        let facts = self.kept.as_ref().map(|kept| kept.facts());
        if let (Some(format), Some(facts)) = (format, &facts) {
            response = own_page(rule, facts.request_id, response, format);
        }
        match &facts {
            Some(facts) => dress(worker, rule, facts, self.coding, response),
            None => {
                name_fields(rule, self.secure, None, response.headers_mut());
                response
            }
        }
    }
}

/// Puts the service's own page in place of one of the proxy's.
fn own_page(
    rule: &Rule,
    id: &HeaderValue,
    mut response: Response<ResponseBody>,
    format: Format,
) -> Response<ResponseBody> {
    if format == Format::Html
        && let Some(page) = rule.page(response.status())
    {
        let body = fill(&page.body, response.status(), id.to_str().unwrap_or("-"));
        response.headers_mut().insert(CONTENT_TYPE, page.kind.clone());
        *response.body_mut() = ResponseBody::full(body);
    }
    response
}

/// The answer to a request that goes no further, by this rule if there is one.
fn refuse(
    worker: &Worker,
    rule: Option<&Rule>,
    facts: &Facts<'_>,
    head: &Parts,
    reply: Reply,
) -> Response<ResponseBody> {
    worker.count(match reply.status.as_u16() {
        429 | 503 if reply.retry_after.is_some() => Count::Limited,
        401 | 403 | 405 => Count::Denied,
        _ => Count::Answered,
    });
    let (plain, format) = (reply.body.is_none(), Format::of(&head.headers));
    let mut response = answer(reply, format, facts.request_id);
    let Some(rule) = rule else { return response };
    if plain {
        response = own_page(rule, facts.request_id, response, format);
    }
    dress(worker, rule, facts, choose(&rule.rules.compress, &head.headers), response)
}

/// Does to a response what its request's rule says.
fn dress(
    worker: &Worker,
    rule: &Rule,
    facts: &Facts<'_>,
    coding: Option<Coding>,
    mut response: Response<ResponseBody>,
) -> Response<ResponseBody> {
    name_fields(rule, facts.secure, Some(facts), response.headers_mut());
    if rule.rules.compress.is_empty() {
        return response;
    }
    compress(worker, facts.method, coding, response)
}

fn name_fields(rule: &Rule, secure: bool, facts: Option<&Facts<'_>>, headers: &mut HeaderMap) {
    if let Some(hsts) = rule.rules.hsts.as_ref().filter(|_| secure) {
        headers.insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
    rule.response.apply(headers, facts);
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
fn answer(reply: Reply, format: Format, id: &HeaderValue) -> Response<ResponseBody> {
    let mut response = match reply.body {
        Some((body, kind)) => {
            let mut response = Response::new(ResponseBody::full(body));
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response.headers_mut().insert(X_REQUEST_ID, id.clone());
            response
        }
        None if reply.location.is_some() || has_no_body(reply.status) => {
            let mut response = Response::new(ResponseBody::Empty);
            response.headers_mut().insert(X_REQUEST_ID, id.clone());
            response
        }
        None => page(reply.status, format, id.clone()),
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
