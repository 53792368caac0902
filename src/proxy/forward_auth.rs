//! Asks another server whether a request may go on, before it does.
//!
//! It is asked by GET, with the client's own fields and what was asked for in `X-Forwarded-*`, as
//! nginx's `auth_request` and Traefik's `ForwardAuth` do. 2xx lets the request go on, with the fields
//! that the answer has for it; anything else is what the client gets. When nobody answers, nobody
//! goes on; and while it is slow, no more than so many wait for it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use super::body::ResponseBody;
use super::forwarded::{Believed, drop_hearsay};
use super::headers::{
    Seen, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_REQUEST_ID, strip_request,
    strip_response,
};
use super::places::{Place, Places};
use crate::edge::facts::Facts;
use crate::edge::rules::ForwardAuth;

/// For the whole question: a login that takes longer is down.
const PATIENCE: Duration = Duration::from_secs(5);
/// Questions to one server that a worker has open at a time; who comes then is told to come again. One
/// that answers in 20 ms is asked 6,400 times a second at that, and one that hangs keeps no more than
/// these waiting, each for no longer than [`PATIENCE`].
pub(super) const AT_ONCE: usize = if cfg!(test) { 4 } else { 128 };
/// The most of a refusal's body that is handed on; a page fits, and a redirect has none.
const REFUSAL: usize = 64 * 1024;

const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// By these others tell the same server what was asked for, and it may believe them first: what a client
/// says under these names would be judged in place of what it asks for.
const ORIGINALS: [&str; 5] =
    ["x-original-url", "x-original-uri", "x-original-method", "x-rewrite-url", "x-forwarded-uri"];

/// What came of a question.
pub enum Answered {
    /// The request goes on, with these fields in place of its own of these names.
    Yes(Vec<(HeaderName, Vec<HeaderValue>)>),
    /// It does not, and the client gets this.
    No(Box<Response<ResponseBody>>),
    /// Nobody said anything that makes sense.
    Unknown,
    /// As many wait for its word as may.
    Busy,
}

/// The questions that a worker has open, by whom they are put to: one that hangs is no other's trouble.
#[derive(Debug, Default)]
pub struct Questions(RefCell<HashMap<SocketAddr, Places>>);

impl Questions {
    fn begin(&self, to: SocketAddr) -> Option<Place> {
        let mut all = self.0.borrow_mut();
        all.entry(to).or_insert_with(|| Places::new(AT_ONCE)).enter()
    }
}

/// Asks about a request. Of a `stranger`, which is a client that no trusted proxy speaks for, nothing is
/// handed on that a proxy would say.
///
/// Cancel safety: dropped midway, the question is taken back.
pub async fn ask(
    questions: &Questions,
    auth: &ForwardAuth,
    head: &Parts,
    facts: &Facts<'_>,
    stranger: Option<&Believed>,
) -> Answered {
    let Some(_place) = questions.begin(auth.address) else { return Answered::Busy };
    let asked = tokio::time::timeout(PATIENCE, exchange(auth, head, facts, stranger));
    let Ok(Some((answer, body))) = asked.await else { return Answered::Unknown };
    if answer.status.is_success() {
        let of = |name: &HeaderName| {
            (name.clone(), answer.headers.get_all(name).iter().cloned().collect())
        };
        return Answered::Yes(auth.headers.iter().map(of).collect());
    }
    let mut headers = answer.headers;
    strip_response(&mut headers);
    headers.remove(CONTENT_LENGTH);
    headers.insert(X_REQUEST_ID, facts.request_id.clone());
    let mut response = Response::new(ResponseBody::full(body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = headers;
    Answered::No(Box::new(response))
}

async fn exchange(
    auth: &ForwardAuth,
    head: &Parts,
    facts: &Facts<'_>,
    stranger: Option<&Believed>,
) -> Option<(http::response::Parts, Bytes)> {
    let stream = TcpStream::connect(auth.address).await.ok()?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    // Ends with the question, however that does.
    let _connection = AbortOnDropHandle::new(tokio::task::spawn_local(connection));
    let answer = sender.send_request(question(auth, head, facts, stranger)?).await.ok()?;
    let (answer, body) = answer.into_parts();
    // Interim answers are none, and nothing is changed to another protocol here.
    if answer.status.is_informational() {
        return None;
    }
    let body = match answer.status {
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => Bytes::new(),
        status if status.is_success() => Bytes::new(),
        _ => Limited::new(body, REFUSAL).collect().await.ok()?.to_bytes(),
    };
    Some((answer, body))
}

fn question(
    auth: &ForwardAuth,
    head: &Parts,
    facts: &Facts<'_>,
    stranger: Option<&Believed>,
) -> Option<Request<Empty<Bytes>>> {
    let mut headers: HeaderMap = head.headers.clone();
    if let Some(believed) = stranger {
        drop_hearsay(&mut headers, believed);
    }
    for name in ORIGINALS {
        headers.remove(name);
    }
    let found = Seen::look(&headers).found;
    strip_request(&mut headers, found);
    for name in [CONTENT_LENGTH, TRANSFER_ENCODING, EXPECT] {
        headers.remove(name);
    }
    let value = |text: &str| HeaderValue::from_str(text).ok();
    headers.insert(HOST, value(&auth.authority)?);
    headers.insert(X_FORWARDED_METHOD, value(facts.method.as_str())?);
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(facts.scheme()));
    headers.insert(X_FORWARDED_HOST, value(facts.host)?);
    headers.insert(X_FORWARDED_URI, value(facts.path_and_query())?);
    headers.insert(X_FORWARDED_FOR, value(&facts.client.to_canonical().to_string())?);
    headers.insert(X_REQUEST_ID, facts.request_id.clone());
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = auth.path.parse().ok()?;
    *request.headers_mut() = headers;
    Some(request)
}
