//! Smoke tests: requests that must be answered as told before any visitor is sent to the canary.
//!
//! Each over a connection of its own, straight to the instance: what is tested is the canary, not the
//! proxy. What an answer must be is decided by [`judge`], which is pure.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::timeout;

use crate::model::hook::{Smoke, SmokeRequest};
use crate::model::revision::{Speech, UpstreamProtocol};

/// How an app's log tells these from visitors.
const AGENT: &str = concat!("switchback-smoke/", env!("CARGO_PKG_VERSION"));
/// Bytes of an answer that are read: beyond this nothing is looked for.
const MOST_BODY: usize = 1 << 20;
/// Characters of an answer that are shown when it is not as it must be.
const SHOWN: usize = 400;

/// Sends the request of a smoke test to an instance, once. An error is a sentence with the answer.
///
/// Cancel safety: dropping it closes the connection.
pub async fn ask(
    smoke: &Smoke,
    request: &SmokeRequest,
    address: SocketAddr,
    speech: Speech,
    host: Option<&str>,
) -> Result<(), String> {
    let what = format!("{} {}", request.method, request.path);
    let asked = timeout(smoke.timeout, exchange(request, address, speech, host)).await;
    let (status, body) = match asked {
        Err(_) => return Err(format!("{what}: no answer within {:?}", smoke.timeout)),
        Ok(Err(reason)) => return Err(format!("{what}: {reason}")),
        Ok(Ok(answer)) => answer,
    };
    judge(request, status, &body).map_err(|wrong| format!("{what}: {wrong}"))
}

/// Whether an answer is as it must be; if not, what is wrong and what came.
pub fn judge(request: &SmokeRequest, status: u16, body: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(body);
    let wrong = |what: String| Err(format!("{what}; the answer was {status}{}", shown(&text)));
    if !request.status.iter().any(|(from, to)| (*from..=*to).contains(&status)) {
        let ranges = request
            .status
            .iter()
            .map(|(from, to)| if from == to { from.to_string() } else { format!("{from}-{to}") });
        let expected: Vec<String> = ranges.collect();
        return wrong(format!("expected status {}", expected.join(", ")));
    }
    if let Some(needle) = &request.contains
        && !text.contains(needle.as_str())
    {
        return wrong(format!("expected {needle:?} in the body"));
    }
    if request.json.is_empty() {
        return Ok(());
    }
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(body) else {
        return wrong("expected JSON".to_owned());
    };
    for (pointer, expected) in &request.json {
        match json.pointer(pointer) {
            None => return wrong(format!("expected {pointer} in the JSON")),
            Some(serde_json::Value::String(found)) if found == expected => {}
            Some(found) => {
                let found = found.to_string();
                if found != *expected {
                    return wrong(format!("expected {pointer} to be {expected:?}, not {found}"));
                }
            }
        }
    }
    Ok(())
}

fn shown(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() {
        return " without a body".to_owned();
    }
    let mut shown: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    format!(": {shown}")
}

async fn exchange(
    smoke: &SmokeRequest,
    address: SocketAddr,
    speech: Speech,
    host: Option<&str>,
) -> Result<(u16, Vec<u8>), String> {
    let said = |error: &dyn std::error::Error| error.to_string();
    let stream = super::connect(address, speech.preamble)
        .await
        .map_err(|error| format!("cannot connect to {address}: {error}"))?;
    let authority = host.map_or_else(|| address.to_string(), str::to_owned);
    let mut request = Request::builder().method(smoke.method.as_str());
    if !smoke.headers.keys().any(|name| name.eq_ignore_ascii_case("user-agent")) {
        request = request.header(USER_AGENT, AGENT);
    }
    if !smoke.headers.keys().any(|name| name.eq_ignore_ascii_case("accept")) {
        request = request.header(ACCEPT, "*/*");
    }
    let own_host =
        smoke.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")).map(|(_, v)| v);
    let authority = own_host.unwrap_or(&authority).clone();
    for (name, value) in smoke.headers.iter().filter(|(n, _)| !n.eq_ignore_ascii_case("host")) {
        request = request.header(name, value);
    }
    let request = match speech.protocol {
        UpstreamProtocol::Http1 => {
            request.uri(&smoke.path).header(HOST, authority).header(CONNECTION, "close")
        }
        UpstreamProtocol::H2c => {
            let uri = Uri::builder().scheme("http").authority(authority);
            request.uri(uri.path_and_query(&smoke.path).build().map_err(|e| said(&e))?)
        }
    };
    let body = Bytes::from(smoke.send.clone().unwrap_or_default());
    let request = request.body(Full::new(body)).map_err(|error| said(&error))?;
    let io = TokioIo::new(stream);
    let (response, _driver) = match speech.protocol {
        UpstreamProtocol::Http1 => {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(io).await.map_err(|e| said(&e))?;
            let task = tokio::spawn(async move { drop(connection.await) });
            let driver = tokio_util::task::AbortOnDropHandle::new(task);
            (sender.send_request(request).await, driver)
        }
        UpstreamProtocol::H2c => {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                    .await
                    .map_err(|error| said(&error))?;
            let task = tokio::spawn(async move { drop(connection.await) });
            let driver = tokio_util::task::AbortOnDropHandle::new(task);
            (sender.send_request(request).await, driver)
        }
    };
    let response = response.map_err(|error| format!("no answer: {error}"))?;
    let status = response.status().as_u16();
    Ok((status, read(response.into_body()).await))
}

async fn read(mut body: Incoming) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data() {
            let room = MOST_BODY.saturating_sub(bytes.len());
            bytes.extend_from_slice(&data[..room.min(data.len())]);
            if bytes.len() >= MOST_BODY {
                break;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn request() -> SmokeRequest {
        SmokeRequest {
            method: "GET".to_owned(),
            path: "/api/health".to_owned(),
            headers: BTreeMap::new(),
            send: None,
            status: vec![(200, 299), (304, 304)],
            contains: None,
            json: BTreeMap::new(),
        }
    }

    #[test]
    fn answers_are_judged_by_status_text_and_json() {
        let plain = request();
        assert_eq!(judge(&plain, 204, b""), Ok(()));
        assert_eq!(judge(&plain, 304, b""), Ok(()));
        assert_eq!(
            judge(&plain, 500, b"no database\nat all").unwrap_err(),
            "expected status 200-299, 304; the answer was 500: no database at all"
        );
        let text = SmokeRequest { contains: Some("Welcome".to_owned()), ..request() };
        assert_eq!(judge(&text, 200, b"<h1>Welcome</h1>"), Ok(()));
        assert_eq!(
            judge(&text, 200, b"").unwrap_err(),
            "expected \"Welcome\" in the body; the answer was 200 without a body"
        );
        let json = |pointer: &str, value: &str| SmokeRequest {
            json: BTreeMap::from([(pointer.to_owned(), value.to_owned())]),
            ..request()
        };
        let body = br#"{"db": {"up": true, "pool": [4]}, "status": "ok"}"#;
        for (pointer, value) in [("/status", "ok"), ("/db/up", "true"), ("/db/pool/0", "4")] {
            assert_eq!(judge(&json(pointer, value), 200, body), Ok(()), "{pointer}");
        }
        let wrong = judge(&json("/db/up", "false"), 200, body).unwrap_err();
        assert!(wrong.starts_with("expected /db/up to be \"false\", not true; the answer was 200"));
        assert!(judge(&json("/cache", "up"), 200, body).unwrap_err().contains("expected /cache"));
        assert!(judge(&json("/a", "b"), 200, b"<html>").unwrap_err().contains("expected JSON"));
    }

    #[test]
    fn a_long_answer_is_cut() {
        let wrong = judge(&request(), 500, "x".repeat(10_000).as_bytes()).unwrap_err();
        assert!(wrong.len() < 500 && wrong.ends_with('…'), "{wrong}");
    }
}
