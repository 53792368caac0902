//! Clients that are malformed, too large, or slow on purpose.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::support::*;
use crate::analysis::scorecard::Row;
use crate::model::weight::Side;
use crate::proxy::limits::Limits;
use crate::routing::settings::ServiceSettings;
use crate::telemetry::traffic::{Count, Reason};

async fn rig() -> Rig {
    Rig::new(side(1, &[endpoint(saying("x").await)]))
}

async fn impatient(limits: Limits) -> Rig {
    let stable = side(1, &[endpoint(saying("x").await)]);
    let mut settings = settings();
    settings.limits = limits;
    Rig::with(stable, None, 0.0, ServiceSettings::default(), settings)
}

#[tokio::test]
async fn what_is_in_doubt_is_refused_and_the_connection_ends() {
    let rig = rig().await;
    let long = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(9_000));
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(120));
    let large = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(40_000));
    for (request, code) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: u@a\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +5\r\n\r\nhello", 400),
        ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello", 400),
        ("GET / HTTP/1.1\r\nhost : a\r\n\r\n", 400),
        ("GET / HTTP/3.0\r\nhost: a\r\n\r\n", 505),
        ("nonsense\r\n\r\n", 400),
        (&long, 414),
        (&many, 431),
        (&large, 431),
    ] {
        let mut client = Client::new(rig.http()).await;
        client.send(request).await;
        let all = client.read_to_end().await;
        let first = &request[..request.len().min(80)];
        assert!(!all.is_empty(), "{first}");
        assert_eq!(status(&all), code, "{first}: {all}");
        assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{first}: {all}");
    }
    for method in ["TRACE / HTTP/1.1\r\nhost: a", "CONNECT a:443 HTTP/1.1\r\nhost: a:443"] {
        let mut client = Client::new(rig.http()).await;
        client.send(format!("{method}\r\n\r\n")).await;
        assert_eq!(status(&client.read_head().await), 405);
    }
    let mut client = Client::new(rig.http()).await;
    client.send("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(status(&client.read_head().await), 204);
    assert_eq!(Row::ALL.map(|row| rig.count(Side::Stable, row)), [0; Row::COUNT]);
}

#[tokio::test]
async fn an_unfinished_head_is_answered_408() {
    let limits = Limits { header_read: Duration::from_millis(100), ..Limits::default() };
    let rig = impatient(limits).await;
    let mut client = Client::new(rig.http()).await;
    assert_eq!(client.get("/").await.1, "x");
    client.send("GET / HTTP/1.1\r\nhos").await;
    assert_eq!(status(&client.read_to_end().await), 408);
    assert_eq!(rig.traffic.refused(Reason::HeaderTime), 1);
}

#[tokio::test]
async fn silence_ends_a_connection() {
    let limits = Limits {
        handshake: Duration::from_millis(100),
        keep_alive: Duration::from_millis(100),
        ..Limits::default()
    };
    let rig = impatient(limits).await;
    let mut silent = Client::new(rig.http()).await;
    assert_eq!(silent.read_to_end().await, "");
    let mut half = Client::new(rig.http()).await;
    half.send("PRI * HTTP/2.0\r\n").await;
    assert_eq!(half.read_to_end().await, "");
    let mut idle = Client::new(rig.http()).await;
    assert_eq!(idle.get("/").await.1, "x");
    assert_eq!(idle.read_to_end().await, "");
    until(|| rig.total(Count::Accepted) == rig.total(Count::Closed)).await;
}

#[tokio::test]
async fn a_body_that_stalls_is_the_clients_doing() {
    let limits = Limits { body_stall: Duration::from_millis(200), ..Limits::default() };
    let rig = impatient(limits).await;
    let mut client = Client::new(rig.http()).await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf").await;
    assert_eq!(status(&client.read_to_end().await), 408);
    assert_eq!(rig.rows(Side::Stable, 1).await, [0, 0, 0, 0, 1]);
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_let_go() {
    let address = origin(|mut stream, _| async move {
        let mut buffer = Vec::new();
        if read_message(&mut stream, &mut buffer).await.is_some() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n").await;
            while stream.write_all(&[b'x'; 65536]).await.is_ok() {}
        }
    })
    .await;
    let target = endpoint(address);
    let mut settings = settings();
    settings.limits.write_stall = Duration::from_millis(300);
    let stable = side(1, &[std::sync::Arc::clone(&target)]);
    let rig = Rig::with(stable, None, 0.0, ServiceSettings::default(), settings);
    let mut client = Client::new(rig.http()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.read_head().await;
    assert_eq!(rig.rows(Side::Stable, 1).await, [0, 0, 0, 0, 1]);
    until(|| target.in_flight() == 0).await;
    until(|| rig.total(Count::Closed) == 1).await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let address = answering(|head, _| ok(head.split(' ').nth(1).expect("a path"))).await;
    let rig = Rig::new(side(1, &[endpoint(address)]));
    let mut client = Client::new(rig.http()).await;
    let all: String = (0..50).map(|n| format!("GET /{n} HTTP/1.1\r\nhost: a\r\n\r\n")).collect();
    client.send(all).await;
    for n in 0..50 {
        assert_eq!(client.read().await.1, format!("/{n}"));
    }
}

#[tokio::test]
async fn old_clients_are_served() {
    let rig = rig().await;
    let mut client = Client::new(rig.http()).await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let all = client.read_to_end().await;
    assert!(all.starts_with("HTTP/1.0 200 OK") && all.ends_with("\r\n\r\nx"), "{all}");
    let mut client = Client::new(rig.http()).await;
    client.send("GET http://other.example/y HTTP/1.1\r\nhost: other.example\r\n\r\n").await;
    assert_eq!(status(&client.read().await.0), 200);
    // A client that closes its sending half after the request is taken for gone, as by nginx.
    let mut client = Client::new(rig.http()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert_eq!(status(&client.read().await.0), 200);
    client.stream.shutdown().await.expect("to shut down");
}
