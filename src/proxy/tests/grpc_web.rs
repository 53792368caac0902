//! gRPC-Web: nothing of it is changed on its way, and it counts by what the end of its body says.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};

use super::protocols::{fetch, http2, post};
use super::support::*;
use crate::model::revision::UpstreamProtocol;
use crate::model::weight::Side;

/// What a server of gRPC-Web answers: two messages, and the status that the path names. `/text/…` is asked
/// as text, each message encoded by itself; `/head/…` is nothing but a head; `/none` has no status;
/// `/packed/…` is compressed as a whole.
fn web(path: &str) -> (&'static str, Option<String>, Vec<Bytes>) {
    let message = |flags: u8, bytes: &[u8]| {
        let length = u32::try_from(bytes.len()).expect("short").to_be_bytes();
        [&[flags][..], &length, bytes].concat()
    };
    let status = path.rsplit('/').next().unwrap_or_default();
    let trailers =
        message(0x80, format!("grpc-status: {status}\r\ngrpc-message: x\r\n").as_bytes());
    let messages = [message(0, b"one"), message(0, &[0x80; 100_000]), trailers];
    if path.starts_with("/head/") {
        return ("application/grpc-web+proto", Some(status.to_owned()), Vec::new());
    }
    if path.starts_with("/text/") {
        let encoded = messages.iter().map(|m| Bytes::from(STANDARD.encode(m))).collect();
        return ("application/grpc-web-text+proto", None, encoded);
    }
    let sent = if path == "/none" { 2 } else { 3 };
    (
        "application/grpc-web+proto",
        None,
        messages[..sent].iter().cloned().map(Bytes::from).collect(),
    )
}

/// It, by HTTP/1.1 in chunks or by HTTP/2.
async fn grpc_web(protocol: UpstreamProtocol) -> SocketAddr {
    let listener = TcpListener::bind(any()).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(|request: Request<Incoming>| async move {
                let path = request.uri().path().to_owned();
                assert_eq!(request.headers()["x-grpc-web"], "1");
                assert_eq!(request.into_body().collect().await?.to_bytes(), CALL);
                let (kind, status, frames) = web(&path);
                let mut answer = Response::builder().header("content-type", kind);
                if let Some(status) = status {
                    answer = answer.header("grpc-status", status);
                }
                if path.starts_with("/packed/") {
                    answer = answer.header("content-encoding", "gzip");
                }
                let frames =
                    frames.into_iter().map(|data| Ok::<_, hyper::Error>(Frame::data(data)));
                let body = StreamBody::new(futures_util::stream::iter(frames));
                Ok::<_, hyper::Error>(answer.body(body).expect("sound"))
            });
            let stream = TokioIo::new(stream);
            match protocol {
                UpstreamProtocol::Http1 => tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(stream, service),
                ),
                UpstreamProtocol::H2c => tokio::spawn(
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(stream, service),
                ),
            };
        }
    });
    address
}

/// A message of three bytes.
const CALL: &[u8] = b"\0\0\0\0\x03abc";

fn request(path: &str, kind: &'static str) -> Request<Full<Bytes>> {
    let mut request = post(path, CALL);
    request.headers_mut().insert("x-grpc-web", HeaderValue::from_static("1"));
    request.headers_mut().insert("content-type", HeaderValue::from_static(kind));
    request
}

async fn by_http1(
    address: SocketAddr,
    mut request: Request<Full<Bytes>>,
) -> (http::response::Parts, Bytes) {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.expect("a connection");
    tokio::spawn(connection);
    request.headers_mut().insert("host", HeaderValue::from_static("app.example"));
    *request.uri_mut() = request.uri().path().parse().expect("a path");
    let (head, body) = sender.send_request(request).await.expect("an answer").into_parts();
    (head, body.collect().await.expect("a body").to_bytes())
}

#[tokio::test]
async fn grpc_web_passes_and_counts_by_the_status_in_its_body() {
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::H2c] {
        let rig = Rig::new(side(1, &[endpoint_of(grpc_web(protocol).await, protocol)]));
        let mut by_h2 = http2(rig.http()).await;
        let paths = ["/0", "/5", "/14", "/text/0", "/text/7", "/text/13", "/head/0", "/head/14"];
        for path in paths.into_iter().chain(["/none", "/packed/14"]) {
            let (kind, status, frames) = web(path);
            let expected = frames.concat();
            let (head, body) = fetch(&mut by_h2, request(path, kind)).await;
            assert_eq!(head.status.as_u16(), 200, "{path}");
            assert_eq!(head.headers["content-type"], kind, "{path}");
            assert_eq!(
                head.headers.get("grpc-status").map(|s| s.to_str().expect("text")),
                status.as_deref()
            );
            assert!(body == expected, "{path} by HTTP/2 of {protocol:?}");
            let (head, body) = by_http1(rig.http(), request(path, kind)).await;
            assert_eq!(head.status.as_u16(), 200, "{path}");
            assert!(body == expected, "{path} by HTTP/1.1 of {protocol:?}");
        }
        // Twice: 0 thrice, what does not say it, and what cannot be read; 5 and 7; 13, and 14 twice.
        assert_eq!(rig.rows(Side::Stable, 20).await, [10, 4, 6, 0, 0], "{protocol:?}");
    }
}
