//! A request's way through the proxy.
//!
//! ```text
//! client ─▶ downstream (TLS, ALPN, HTTP)
//!              │ request
//!              ▼
//!           handle ─ look ─▶ check ──refused──▶ page 400 405 413 414 417 431 508
//!              │ one look over the header fields
//!              ▼
//!           table.load() once ─▶ route(host, path) ──none──▶ page 404
//!              │ service
//!              ▼
//!           gate: the service's policy, if it has one ──no──▶ 3xx 401 403 405 429, or an answer
//!              │
//!              ▼
//!           choice: coin, affinity's hash, or a tester's wish ─▶ side
//!              │
//!              ▼
//!           rewrite: hop-by-hop off, forwarded and ids on ─▶ parcel
//!              │
//!              ▼
//!           forward: pool.claim() ─▶ connection ─▶ send ──failed──▶ again, or page 502 503 504
//!              │ response's headers: its row and its latency are known
//!              ▼
//!           answer: hop-by-hop off, id and cookie on ─▶ client
//!              │ body: the claim rides on it
//!              ▼
//!           last byte ─▶ scorecard.record(row, latency), connection and claim given back
//! ```
//!
//! A change of protocol leaves the drawing at the response's headers: the claim goes into the tunnel.

use std::rc::Rc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

#[cfg(feature = "http3")]
use http::header::ALT_SVC;
use http::header::{
    ALLOW, CONNECTION, EXPECT, HeaderMap, HeaderValue, MAX_FORWARDS, SEC_WEBSOCKET_KEY,
};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::upgrade::OnUpgrade;

use super::admission::Pressure;
use super::affinity;
use super::answer::{Given, answer};
use super::body::{RequestBody, ResponseBody};
use super::check::{self, Checked, check};
use super::choice::{Asker, Choice};
use super::downstream::Downstream;
use super::downstream::upload::ClientBody;
use super::error::{Failure, Fault};
use super::exchange::Exchange;
use super::forward::forward;
use super::forwarded::{self, Believed, Provenance};
use super::gate::{self, Arrival, Looked, is_said_secure};
use super::headers::{
    Found, Seen, X_CLIENT_CERT_FINGERPRINT, X_CLIENT_CERT_SUBJECT, X_REQUEST_ID, drop_underscores,
    strip_request,
};
use super::ids::Names;
use super::logged::Entry;
use super::mirror;
use super::ongoing::Ongoing;
use super::page::{Format, page};
use super::parcel::{Added, Head, Parcel};
use super::route::Route;
use super::tester;
use super::tls::ACME_PATH;
use super::worker::Worker;
use crate::telemetry::traffic::{Count, Reason};

/// What the upstream is told of a client that named no host: HTTP/1.0 need not.
const NO_HOST: HeaderValue = HeaderValue::from_static("localhost");

/// Answers a request.
pub async fn handle(
    worker: &Rc<Worker>,
    connection: &Rc<Downstream>,
    request: Request<ClientBody>,
) -> Response<ResponseBody> {
    worker.count(Count::Requests);
    let multiplexed = request.version() > Version::HTTP_11;
    #[cfg(feature = "http3")]
    let is_http3 = request.version() == Version::HTTP_3;
    let mut entry = Entry::begin(worker, connection, &request);
    let mut response = route(worker, connection, request, &mut entry).await;
    if let Some(entry) = entry {
        response = entry.respond(connection, response);
    }
    if !multiplexed && (connection.is_last() || worker.is_draining()) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    #[cfg(feature = "http3")]
    if let Some(elsewhere) =
        worker.http3.alt_svc.as_ref().filter(|_| connection.secure && !is_http3)
    {
        // What the app says of itself stands.
        response.headers_mut().entry(ALT_SVC).or_insert_with(|| elsewhere.clone());
    }
    response
}

async fn route(
    worker: &Rc<Worker>,
    connection: &Rc<Downstream>,
    request: Request<ClientBody>,
    entry: &mut Option<Box<Entry>>,
) -> Response<ResponseBody> {
    let arrived = entry.as_ref().map_or_else(Instant::now, |entry| entry.arrived());
    let (mut head, body) = request.into_parts();
    // Only a CONNECT of HTTP/2 comes with it, and only a WebSocket's passes the check.
    let upgrade = head.extensions.remove::<OnUpgrade>();
    if head.version > Version::HTTP_11 && !worker.settings.limits.underscores {
        // In HTTP/1.1 they are dropped while they are read.
        drop_underscores(&mut head.headers);
    }
    let seen = Seen::look(&head.headers);
    let names = worker.names(seen.traceparent, seen.request_id.filter(|_| connection.trusted));
    if worker.pressure() == Pressure::Full {
        return refuse(worker, connection, &head, Reason::Memory, names);
    }
    let (host, path) = match check(&head, &seen, &worker.settings.limits) {
        Ok(Checked::Route(host, path)) => (host, path),
        Ok(Checked::Ping) => return ping(names),
        Err(reason) => return refuse(worker, connection, &head, reason, names),
    };
    if is_last_hop(&head) {
        return ping(names);
    }
    if let Some(tls) = &worker.settings.tls
        && head.uri.path().starts_with(ACME_PATH)
        && let Some(answer) = tls.challenges().answer(head.uri.path())
    {
        return Response::new(ResponseBody::full(answer.into()));
    }
    let table = worker.table();
    let Some(service) = table.service_of(host, &path) else {
        worker.count(Count::Unrouted);
        return page(StatusCode::NOT_FOUND, Format::of(&head.headers), names.request_id);
    };
    let mut route = Route { table, service, rule: None };
    if let Err(reason) = admit(&route, connection, &body) {
        return refuse(worker, connection, &head, reason, names);
    }
    let provenance = provenance(worker, connection, &head);
    let client = provenance.client;
    if let Some(entry) = entry {
        entry.routed(&route, client);
    }
    let mut passed = None;
    // What is off costs these looks.
    let service = route.service();
    if service.policy.is_some()
        || service.maintenance.is_some()
        || service.settings.to_https && !connection.secure
    {
        let secure = provenance.secure;
        let arrival = Arrival { client, host, secure, request_id: &names.request_id, arrived };
        let entered = match gate::look(worker, connection, &mut route, &head, &arrival) {
            Looked::Known(entered) => entered,
            Looked::Waits(found) => {
                let more = gate::wait(worker, connection, &mut route, &head, &arrival, found);
                Box::pin(more).await
            }
        };
        match entered {
            Ok(found) => {
                if let (Some(entry), Some(found)) = (entry.as_mut(), &found) {
                    entry.user(found.user());
                }
                passed = found;
            }
            Err(answer) => return *answer,
        }
        // It may have been led to a service that asks for more.
        if let Err(reason) = admit(&route, connection, &body) {
            return refuse(worker, connection, &head, reason, names);
        }
    }
    let max_body = route.service().settings.max_body;
    let asker = Asker {
        headers: &head.headers,
        found: seen.found,
        cookies: (seen.cookies, seen.cookie),
        client,
        secure: connection.secure,
    };
    let choice = Choice::new(route.service(), &asker, || worker.random(), unix_now);
    // A reference count, no parsing: pages are rarely needed.
    let accept = seen.accept.cloned();
    let rewriting = Rewriting {
        found: seen.found,
        crumbs: seen.cookies > 1,
        set_host: seen.host.is_none() || head.uri.authority().is_some(),
        host: host_value(&head, &seen, host),
        provenance,
        secure: connection.secure,
        believed: connection.trusted.then_some(&worker.settings.client_header),
        tells_forwarded: route.service().settings.forwarded,
        strip_cookie: choice.strip_cookie,
        max_body,
        opens: upgrade.as_ref().map(|_| websocket_key(|| worker.random())),
    };
    let request_id = names.request_id.clone();
    let patience = route.patience(&worker.settings.limits);
    let exchange =
        Exchange::new(worker.clock.clone(), patience, arrived, Rc::downgrade(connection), client);
    #[cfg(feature = "http3")]
    exchange.hints_go_to(head.extensions.remove());
    let ongoing = Ongoing::new(worker, exchange);
    let mut parcel = rewriting.rewrite(worker, head, body, names, &ongoing);
    if worker.settings.tls.as_ref().is_some_and(|tls| tls.asks_clients()) {
        tell_certificate(&mut parcel.head.headers, connection);
    }
    let asked = parcel.asked;
    let passing = passed.as_mut();
    let (response, is_own) = match forward(worker, route, &choice, parcel, passing, &ongoing).await
    {
        Ok(got) => {
            if let Some(entry) = entry {
                entry.served(&got);
            }
            let twin = mirror::answered(ongoing.exchange(), &got);
            let given = Given {
                request_id: request_id.clone(),
                set_cookie: choice.set_cookie,
                revision: worker.settings.revision_header,
                upgrade,
            };
            match answer(worker, connection, got, ongoing, given, asked) {
                Ok(response) => match twin {
                    None => (response, None),
                    Some(twin) => (mirror::follow(worker, response, twin), None),
                },
                Err(failure) => failed(worker, connection, &failure, accept.as_ref(), request_id),
            }
        }
        Err(failure) => {
            mirror::failed(worker, ongoing.exchange(), &failure);
            failed(worker, connection, &failure, accept.as_ref(), request_id)
        }
    };
    match passed {
        None => response,
        Some(passed) => {
            let (response, is_own) = passed.file(worker, response, is_own).await;
            passed.back(worker, response, is_own)
        }
    }
}

/// Whether its service takes a request from this client, as far as the head tells.
#[inline]
fn admit(route: &Route, connection: &Downstream, body: &ClientBody) -> Result<(), Reason> {
    let settings = &route.service().settings;
    if settings.client_certificate && connection.certificate.is_none() {
        return Err(Reason::Certificate);
    }
    // Longer than it may be is told before anything of it is read.
    if body.size_hint().lower() > settings.max_body {
        return Err(Reason::BodySize);
    }
    Ok(())
}

/// Tells who the client is by its certificate. What others say about it is not believed.
fn tell_certificate(headers: &mut HeaderMap, connection: &Downstream) {
    if let Some(certificate) = &connection.certificate {
        headers.insert(X_CLIENT_CERT_SUBJECT, certificate.subject.clone());
        headers.insert(X_CLIENT_CERT_FINGERPRINT, certificate.fingerprint.clone());
    } else if !connection.trusted {
        headers.remove(X_CLIENT_CERT_SUBJECT);
        headers.remove(X_CLIENT_CERT_FINGERPRINT);
    }
}

/// Marks the answer to a malformed request of HTTP/2 or HTTP/3: its stream is to be reset.
#[derive(Debug, Clone, Copy)]
pub struct Malformed;

/// What is to be changed on a request's head, gathered while it can still be looked at.
struct Rewriting<'a> {
    found: Found,
    crumbs: bool,
    host: HeaderValue,
    /// The host is not in its field yet, or something else is.
    set_host: bool,
    provenance: Provenance,
    secure: bool,
    /// Which of a trusted peer's fields is believed.
    believed: Option<&'a Believed>,
    tells_forwarded: bool,
    strip_cookie: bool,
    max_body: u64,
    /// It opens a WebSocket on a stream of HTTP/2: with this key, in the words of HTTP/1.1.
    opens: Option<HeaderValue>,
}

impl Rewriting<'_> {
    fn rewrite(
        self,
        worker: &Worker,
        head: Parts,
        body: ClientBody,
        names: Names,
        ongoing: &Ongoing,
    ) -> Box<Parcel> {
        let may_upgrade = head.version == Version::HTTP_11;
        let mut head = Head { method: head.method, uri: head.uri, headers: head.headers };
        head.normalise(self.set_host.then(|| self.host.clone()));
        let mut asked = strip_request(&mut head.headers, self.found);
        // RFC 9110, 7.8 and RFC 6455, 4.1: nothing else opens one, and no body is cut off by it.
        asked.websocket &= may_upgrade && head.method == Method::GET && body.is_end_stream();
        if let Some(key) = self.opens {
            asked.websocket = true;
            head.method = Method::GET;
            head.headers.insert(SEC_WEBSOCKET_KEY, key);
        }
        if self.found.has(Found::EXPECT) {
            // Answered when the upstream's connection first asks for the body.
            head.headers.remove(EXPECT);
        }
        if head.method == Method::OPTIONS {
            one_hop_less(&mut head.headers);
        }
        if self.crumbs {
            head.join_cookies();
        }
        if self.strip_cookie {
            affinity::strip_cookie(&mut head.headers, tester::COOKIE);
        }
        let Provenance { chain, secure, host, .. } = self.provenance;
        let keeps = |field| self.believed.is_some() && self.found.has(field);
        let (keeps_proto, keeps_host) =
            (keeps(Found::FORWARDED_PROTO), keeps(Found::FORWARDED_HOST));
        let keeps_proto = keeps_proto && secure.is_none();
        let keeps_host = keeps_host && host.is_none();
        let secure = secure.unwrap_or(self.secure);
        let host = host.unwrap_or(self.host);
        let forwarded = if self.tells_forwarded {
            let secure = if keeps_proto { is_said_secure(&head.headers) } else { secure };
            forwarded::write(&head.headers, &chain, self.believed, secure, &host)
        } else {
            None
        };
        let is_doubtful = self.found.has(Found::HEARSAY)
            || matches!(worker.settings.client_header, Believed::Field(_));
        if self.believed.is_none() && is_doubtful {
            forwarded::drop_hearsay(&mut head.headers, &worker.settings.client_header);
        }
        let proto = if secure { "https" } else { "http" };
        let added = Added {
            proto: (!keeps_proto).then_some(proto),
            host: (!keeps_host).then_some(host),
            forwarded_for: chain,
            forwarded,
            request_id: names.request_id,
            traceparent: names.traceparent,
        };
        let body = if body.is_end_stream() {
            RequestBody::Empty
        } else {
            let exchange = Rc::clone(ongoing.exchange());
            RequestBody::Stream { incoming: body, exchange, left: self.max_body }
        };
        // Boxed: it goes through many hands.
        Box::new(Parcel { head, body, asked, added: Some(added), kept: None })
    }
}

/// The host as upstreams are told it.
fn host_value(head: &Parts, seen: &Seen<'_>, host: &str) -> HeaderValue {
    match seen.host {
        Some(value) if head.uri.authority().is_none() => value.clone(),
        None if host.is_empty() => NO_HOST,
        _ => HeaderValue::from_str(host).unwrap_or(NO_HOST),
    }
}

/// By whom a request came, and who sent it first.
fn provenance(worker: &Worker, connection: &Downstream, head: &Parts) -> Provenance {
    let peer = connection.peer.ip();
    if connection.trusted {
        let settings = &worker.settings;
        let (trusted, believed) = (&settings.trusted_proxies, &settings.client_header);
        Provenance::read(&head.headers, peer, trusted, believed)
    } else {
        Provenance::of_peer(connection.peer_value.clone(), peer)
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// `OPTIONS *` asks about the proxy itself.
fn ping(names: Names) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(X_REQUEST_ID, names.request_id);
    response
}

fn refuse(
    worker: &Worker,
    connection: &Downstream,
    head: &Parts,
    reason: Reason,
    names: Names,
) -> Response<ResponseBody> {
    worker.refuse(reason, connection.peer);
    let status = check::status(reason);
    if head.version > Version::HTTP_11 && matches!(reason, Reason::Malformed | Reason::Host) {
        let mut response = Response::new(ResponseBody::Empty);
        // The stream is reset; the log says what it would have been.
        *response.status_mut() = status;
        response.extensions_mut().insert(Malformed);
        return response;
    }
    let mut response = page(status, Format::of(&head.headers), names.request_id);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let methods = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        response.headers_mut().insert(ALLOW, methods);
    }
    if head.version <= Version::HTTP_11 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A page for a request that no instance answered, and the format that it is in.
fn failed(
    worker: &Worker,
    connection: &Downstream,
    failure: &Failure,
    accept: Option<&HeaderValue>,
    request_id: HeaderValue,
) -> (Response<ResponseBody>, Option<Format>) {
    match failure.refusal() {
        Some(reason) => worker.refuse(reason, connection.peer),
        None if failure.fault() == Fault::Downstream => {}
        None => worker.count(Count::Synthetic),
    }
    let format = Format::of_accept(accept);
    (page(failure.status(), format, request_id), Some(format))
}

/// What stands for 16 random bytes in Base64 (RFC 6455, 4.1): the last of 22 digits has two bits.
fn websocket_key(mut random: impl FnMut() -> u64) -> HeaderValue {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut key = *b"AAAAAAAAAAAAAAAAAAAAAA==";
    for digits in key[..20].chunks_mut(10) {
        let mut bits = random();
        for digit in digits {
            *digit = DIGITS[(bits & 63) as usize];
            bits >>= 6;
        }
    }
    HeaderValue::from_bytes(&key).unwrap_or(NO_HOST)
}

/// The answer to who has more done for it than it may.
pub fn turn_away() -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Empty);
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

/// Whether an OPTIONS request is to go no further than here (RFC 9110, 7.6.2).
fn is_last_hop(head: &Parts) -> bool {
    head.method == Method::OPTIONS
        && head.headers.get(MAX_FORWARDS).is_some_and(|hops| hops.as_bytes() == b"0")
}

fn one_hop_less(headers: &mut HeaderMap) {
    let hops = headers.get(MAX_FORWARDS).and_then(|hops| hops.to_str().ok()?.parse::<u32>().ok());
    if let Some(hops) = hops {
        headers.insert(MAX_FORWARDS, HeaderValue::from(hops.saturating_sub(1)));
    }
}
