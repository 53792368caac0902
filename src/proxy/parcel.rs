//! A request as it goes upstream: the head rewritten once, wrapped anew for each attempt.

use std::rc::Rc;

use http::header::{
    CONNECTION, COOKIE, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_KEY, TE,
    TRANSFER_ENCODING,
};
use http::uri::{PathAndQuery, Scheme};
use http::{Method, Request, Uri, Version};
use http_body::Body as _;
use hyper::ext::Protocol;

use super::body::RequestBody;
use super::exchange::Exchange;
use super::headers::{
    Asked, CDN_LOOP, PASS, TRACEPARENT, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO,
    X_REQUEST_ID,
};
use super::ids::Traceparent;
use super::kept::Kept;

/// A request on its way upstream. Its head is in the shape of HTTP/1.1: origin form and `Host`.
#[derive(Debug)]
pub struct Parcel {
    /// The head.
    pub head: Head,
    /// The body.
    pub body: RequestBody,
    /// What it asked for hop by hop.
    pub asked: Asked,
    /// What the proxy adds; `None` once it is among the head's fields.
    pub added: Option<Added>,
    /// The body again, if it is kept: [`Self::body`] goes with each attempt.
    pub kept: Option<(Rc<Kept>, Rc<Exchange>)>,
}

/// Fields that the proxy adds, each in place of what came under its name, but for `CDN-Loop`, which
/// says by how many proxies it came. They are written with the
/// head, and never enter its map: that would cost a hash and a move for each.
#[derive(Debug, Clone)]
pub struct Added {
    /// `X-Forwarded-For`
    pub forwarded_for: HeaderValue,
    /// `X-Forwarded-Proto`; `None` where a trusted peer's passes.
    pub proto: Option<&'static str>,
    /// `X-Forwarded-Host`; `None` where a trusted peer's passes.
    pub host: Option<HeaderValue>,
    /// `Forwarded`, for instances that are told by that too.
    pub forwarded: Option<HeaderValue>,
    /// `X-Request-ID`
    pub request_id: HeaderValue,
    /// `traceparent`; `None` where the client's passes.
    pub traceparent: Option<Traceparent>,
}

impl Added {
    /// Whether a field of this name is replaced.
    #[inline]
    pub fn replaces(&self, name: &str) -> bool {
        match name.len() {
            9 => name == "forwarded" && self.forwarded.is_some(),
            11 => name == "traceparent" && self.traceparent.is_some(),
            12 => name == "x-request-id",
            15 => name == "x-forwarded-for",
            16 => name == "x-forwarded-host" && self.host.is_some(),
            17 => name == "x-forwarded-proto" && self.proto.is_some(),
            _ => false,
        }
    }

    /// Each field.
    #[inline]
    pub fn each(&self, mut act: impl FnMut(HeaderName, &[u8])) {
        act(X_FORWARDED_FOR, self.forwarded_for.as_bytes());
        if let Some(proto) = self.proto {
            act(X_FORWARDED_PROTO, proto.as_bytes());
        }
        if let Some(host) = &self.host {
            act(X_FORWARDED_HOST, host.as_bytes());
        }
        if let Some(forwarded) = &self.forwarded {
            act(FORWARDED, forwarded.as_bytes());
        }
        act(X_REQUEST_ID, self.request_id.as_bytes());
        if let Some(traceparent) = &self.traceparent {
            act(TRACEPARENT, traceparent);
        }
        act(CDN_LOOP, PASS.as_bytes());
    }
}

/// The head of a request on its way upstream.
#[derive(Debug, Clone)]
pub struct Head {
    /// Its method.
    pub method: Method,
    /// Its target, in origin form.
    pub uri: Uri,
    /// Its fields, with `Host`.
    pub headers: HeaderMap,
}

impl Head {
    /// Whether it may be sent twice (RFC 9110, 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        matches!(
            self.method,
            Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS
        )
    }

    /// Whether it changes nothing (RFC 9110, 9.2.1).
    pub fn is_safe(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS)
    }

    /// Its path and query.
    pub fn path_and_query(&self) -> &str {
        self.uri.path_and_query().map_or("/", PathAndQuery::as_str)
    }

    /// In origin form, with the host in its field: HTTP/2 and absolute-form clients put it elsewhere.
    pub fn normalise(&mut self, host: Option<HeaderValue>) {
        if self.uri.authority().is_some() || self.uri.scheme().is_some() {
            let target = self.uri.path_and_query().cloned();
            self.uri = Uri::from(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
        }
        if let Some(host) = host {
            self.headers.insert(HOST, host);
        }
    }

    /// One `Cookie` field out of the crumbs that HTTP/2 allows (RFC 9113, 8.2.3).
    pub fn join_cookies(&mut self) {
        let mut joined = Vec::new();
        for crumb in self.headers.get_all(COOKIE) {
            if !joined.is_empty() {
                joined.extend_from_slice(b"; ");
            }
            joined.extend_from_slice(crumb.as_bytes());
        }
        if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
            self.headers.insert(COOKIE, value);
        }
    }
}

impl Parcel {
    /// Whether it may be sent again after something of it was sent.
    pub fn is_replayable(&self) -> bool {
        matches!(self.body, RequestBody::Empty | RequestBody::Kept { .. })
            && !self.asked.websocket
            && self.head.is_idempotent()
    }

    /// Keeps up to so many bytes of the body as it passes, so that the request can be sent again.
    /// Costs nothing when that cannot be: when more is announced, or it must not be done twice.
    pub fn keep_body(&mut self, room: usize) {
        let announced = self.body.size_hint();
        if self.asked.websocket || !self.head.is_idempotent() || announced.lower() > room as u64 {
            return;
        }
        match std::mem::replace(&mut self.body, RequestBody::Empty) {
            RequestBody::Stream { incoming, exchange, left } => {
                let kept = Kept::new(incoming, left, room);
                self.body =
                    RequestBody::Kept { reading: kept.read(), exchange: Rc::clone(&exchange) };
                self.kept = Some((kept, exchange));
            }
            other => self.body = other,
        }
    }

    /// Makes it ready to be sent again. `false` when its body is not here as a whole.
    pub fn rewind(&mut self) -> bool {
        let Some((kept, exchange)) = &self.kept else { return true };
        self.body = RequestBody::Kept { reading: kept.read(), exchange: Rc::clone(exchange) };
        kept.is_whole()
    }

    /// A copy to send again, once it is rewound.
    pub fn copy(&self) -> Option<Self> {
        self.is_replayable().then(|| Self {
            head: self.head.clone(),
            body: RequestBody::Empty,
            asked: self.asked,
            added: self.added.clone(),
            kept: self.kept.clone(),
        })
    }

    /// A request in the words of HTTP/2. Those of HTTP/1.1 are written by its connection.
    pub fn into_request(self) -> Request<RequestBody> {
        let Self { mut head, body, asked, added, kept: _ } = self;
        if let Some(added) = added {
            added.each(|name, value| {
                let Ok(value) = HeaderValue::from_bytes(value) else { return };
                if name == CDN_LOOP {
                    head.headers.append(name, value);
                } else {
                    head.headers.insert(name, value);
                }
            });
        }
        let mut request = Request::new(body);
        *request.method_mut() = head.method;
        *request.uri_mut() = head.uri;
        *request.headers_mut() = head.headers;
        http2(&mut request, asked);
        request
    }

    /// What came back because it was not sent.
    pub fn from_request(request: Request<RequestBody>, asked: Asked) -> Self {
        let (parts, body) = request.into_parts();
        let mut head = Head { method: parts.method, uri: parts.uri, headers: parts.headers };
        let host = head.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
        head.normalise(host);
        let kept = match &body {
            RequestBody::Kept { reading, exchange } => {
                Some((Rc::clone(reading.kept()), Rc::clone(exchange)))
            }
            RequestBody::Empty | RequestBody::Stream { .. } => None,
        };
        Self { head, body, asked, added: None, kept }
    }
}

fn http2(request: &mut Request<RequestBody>, asked: Asked) {
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    headers.remove(TRANSFER_ENCODING);
    let host = headers.remove(HOST);
    if asked.trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    } else {
        headers.remove(TE);
    }
    headers.remove(CONNECTION);
    if asked.websocket {
        // RFC 8441, 5.1.
        headers.remove(SEC_WEBSOCKET_KEY);
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(Protocol::from_static("websocket"));
    }
    let authority = host.and_then(|host| http::uri::Authority::try_from(host.as_bytes()).ok());
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority =
        Some(authority.unwrap_or_else(|| http::uri::Authority::from_static("localhost")));
    if parts.path_and_query.is_none() {
        parts.path_and_query = Some(PathAndQuery::from_static("/"));
    }
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(method: &str, target: &str) -> Parcel {
        let mut head = Head {
            method: method.parse().expect("a method"),
            uri: target.parse().expect("a target"),
            headers: HeaderMap::new(),
        };
        head.normalise(Some(HeaderValue::from_static("app.example:8080")));
        Parcel { head, body: RequestBody::Empty, asked: Asked::default(), added: None, kept: None }
    }

    #[test]
    fn one_head_in_the_words_of_both_protocols() {
        let one = parcel("GET", "https://elsewhere/a?b=c");
        assert_eq!(one.head.uri, "/a?b=c");
        assert_eq!(one.head.headers[HOST], "app.example:8080");
        let two = parcel("GET", "/a?b=c").into_request();
        assert_eq!(two.uri(), "http://app.example:8080/a?b=c");
        assert!(two.headers().get(HOST).is_none());
        let back = Parcel::from_request(two, Asked::default());
        assert_eq!(back.head.uri, "/a?b=c");
        assert_eq!(back.head.headers[HOST], "app.example:8080");
    }

    #[test]
    fn only_what_changes_nothing_twice_is_replayed() {
        for (method, replayable) in [
            ("GET", true),
            ("HEAD", true),
            ("PUT", true),
            ("DELETE", true),
            ("POST", false),
            ("PATCH", false),
        ] {
            assert_eq!(parcel(method, "/").is_replayable(), replayable, "{method}");
            assert_eq!(parcel(method, "/").copy().is_some(), replayable, "{method}");
        }
    }

    #[test]
    fn crumbs_become_one_cookie() {
        let mut parcel = parcel("GET", "/");
        parcel.head.headers.append(COOKIE, HeaderValue::from_static("a=1"));
        parcel.head.headers.append(COOKIE, HeaderValue::from_static("b=2"));
        parcel.head.join_cookies();
        let all: Vec<_> = parcel.head.headers.get_all(COOKIE).iter().collect();
        assert_eq!(all, ["a=1; b=2"]);
    }
}
