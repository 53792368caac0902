//! Clients of HTTP/2 that ask for much and take nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::protocols::Http2;
use super::support::*;
use crate::proxy::Settings;
use crate::routing::endpoint::Endpoint;
use crate::telemetry::traffic::{Count, Reason};

/// A client that may be sent nothing but heads.
pub async fn shut(address: std::net::SocketAddr) -> Http2 {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let builder = builder.initial_stream_window_size(0);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.expect("a handshake");
    tokio::spawn(connection);
    sender
}

pub async fn ask(client: &mut Http2, path: &str) -> http::Response<Incoming> {
    let request = Request::get(format!("http://a{path}")).body(Full::<Bytes>::default());
    let answer = client.send_request(request.expect("sound"));
    tokio::time::timeout(LONG, answer).await.expect("an answer in time").expect("an answer")
}

/// An instance that answers with a page, or with a stream of which nothing comes.
async fn rig() -> (Rig, Arc<Endpoint>) {
    let address = origin(|mut stream, _| async move {
        let mut buffer = Vec::new();
        while let Some((head, _)) = read_message(&mut stream, &mut buffer).await {
            let _ = if head.starts_with("GET /quiet") {
                let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                stream.write_all(head).await
            } else {
                stream.write_all(&ok(&"x".repeat(200_000))).await
            };
        }
    })
    .await;
    let target = endpoint(address);
    let mut limited = settings();
    limited.limits.write_stall = Duration::from_millis(500);
    let stable = side(1, &[Arc::clone(&target)]);
    let rig = Rig::with(stable, None, 0.0, Default::default(), Settings { ..limited });
    (rig, target)
}

#[tokio::test]
async fn who_takes_nothing_of_any_stream_is_sent_away() {
    let (rig, target) = rig().await;
    let mut client = shut(rig.http()).await;
    let _body = ask(&mut client, "/page").await;
    until(|| rig.total(Count::Closed) == 1).await;
    assert_eq!(rig.traffic.refused(Reason::WriteTime), 1);
    until(|| target.in_flight() == 0).await;
}

#[tokio::test]
async fn a_few_streams_may_be_left_alone_while_others_go_on() {
    let (rig, target) = rig().await;
    let mut client = shut(rig.http()).await;
    let quiet = ask(&mut client, "/quiet").await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(ask(&mut client, "/page").await);
    }
    // Their instances are free long before.
    until(|| target.in_flight() == 1).await;
    assert_eq!(ask(&mut client, "/page").await.status(), 200);
    assert_eq!(rig.total(Count::Closed), 0);
    // With many it is another matter.
    for _ in 0..20 {
        held.push(ask(&mut client, "/page").await);
    }
    until(|| rig.total(Count::Closed) == 1).await;
    assert_eq!(rig.traffic.refused(Reason::WriteTime), 1);
    drop((quiet, held));
}
