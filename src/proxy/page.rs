//! The answers that the proxy makes itself: small HTML, or RFC 9457 problems for who asks for JSON.
//!
//! Each carries the request id, so that a user's screenshot leads to a log line. None says anything
//! about what is behind the proxy.

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use super::body::ResponseBody;
use super::headers::X_REQUEST_ID;

/// Seconds after which a client may try again when nothing could take its request.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("2");

/// What an answer of our own is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Html,
    /// For programs: `application/problem+json`.
    Json,
}

impl Format {
    /// JSON for who mentions JSON and does not mention HTML.
    pub fn of(headers: &HeaderMap) -> Self {
        Self::of_accept(headers.get(ACCEPT))
    }

    /// By what a client accepts.
    pub fn of_accept(accept: Option<&HeaderValue>) -> Self {
        let accept = accept.and_then(|accept| accept.to_str().ok()).unwrap_or("");
        if accept.contains("json") && !accept.contains("html") { Self::Json } else { Self::Html }
    }
}

/// What a user is told, in a sentence.
fn sentence(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "The request is malformed.",
        401 => "A name and a password are needed here.",
        403 => "This is not open to you.",
        404 => "There is nothing at this address.",
        405 => "This method is not allowed here.",
        408 => "The request did not arrive in time.",
        413 => "The request is too large.",
        414 => "The address is too long.",
        410 => "What was here is gone.",
        417 => "The expectation cannot be met.",
        429 => "Too many requests came from you. Please try again later.",
        431 => "The request's header is too large.",
        501 => "This is not supported here.",
        508 => "The request came round in a circle.",
        502 => "The application did not give a proper answer. Please try again.",
        503 => "The application is not available at the moment. Please try again shortly.",
        504 => "The application did not answer in time. Please try again.",
        _ => "The request could not be served.",
    }
}

/// An answer of our own.
pub fn page(status: StatusCode, format: Format, request_id: HeaderValue) -> Response<ResponseBody> {
    let id = request_id.to_str().unwrap_or("-");
    let code = status.as_u16();
    let reason = status.canonical_reason().unwrap_or("Error");
    let said = sentence(status);
    let (kind, text) = match format {
        Format::Json => (
            "application/problem+json",
            format!(
                "{{\"type\":\"about:blank\",\"title\":\"{reason}\",\"status\":{code},\
                 \"detail\":\"{said}\",\"request_id\":\"{id}\"}}\n"
            ),
        ),
        Format::Html => (
            "text/html; charset=utf-8",
            format!(
                "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
                 <meta name=\"viewport\" content=\"width=device-width\">\
                 <title>{code} {reason}</title>\
                 <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:36em;margin:15vh auto;\
                 padding:0 1em;color-scheme:light dark}}code{{font-size:.85em;opacity:.7}}</style>\
                 <h1>{code} {reason}</h1>\n<p>{said}</p>\n<p><code>Request {id}</code></p>\n</html>\n"
            ),
        ),
    };
    let mut response = Response::new(ResponseBody::full(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, RETRY_SECONDS);
    }
    headers.insert(X_REQUEST_ID, request_id);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wants_json_gets_it() {
        for (accept, format) in [
            ("", Format::Html),
            ("*/*", Format::Html),
            ("application/json", Format::Json),
            ("application/problem+json, */*", Format::Json),
            ("text/html,application/xhtml+xml,application/json;q=0.9", Format::Html),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(Format::of(&headers), format, "{accept}");
        }
    }

    #[test]
    fn a_page_carries_the_request_id() {
        let id = HeaderValue::from_static("abc");
        let response = page(StatusCode::SERVICE_UNAVAILABLE, Format::Json, id);
        assert_eq!(response.headers()[X_REQUEST_ID], "abc");
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        let ResponseBody::Full(bytes) = response.into_body() else { panic!("a full body") };
        let problem: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(problem["status"], 503);
        assert_eq!(problem["request_id"], "abc");
    }
}
