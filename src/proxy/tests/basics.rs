//! Requests and responses over HTTP/1.1.

use std::sync::{Arc, Mutex};

use super::support::*;
use crate::analysis::scorecard::Row;
use crate::model::weight::Side;
use crate::telemetry::traffic::Count;

#[tokio::test]
async fn a_request_goes_there_and_back() {
    let seen = Arc::new(Mutex::new(String::new()));
    let log = Arc::clone(&seen);
    let address = answering(move |head, _| {
        *log.lock().expect("no panic") = head.to_owned();
        ok("hello")
    })
    .await;
    let rig = Rig::new(side(1, &[endpoint(address)]));
    let mut client = Client::new(rig.http()).await;
    let (head, body) = client.get("/a/b?c=d").await;
    assert_eq!((status(&head), body.as_str()), (200, "hello"));
    let sent = seen.lock().expect("no panic").clone();
    assert!(sent.starts_with("GET /a/b?c=d HTTP/1.1\r\n"), "{sent}");
    assert_eq!(field(&sent, "host"), Some("app.example"));
    assert_eq!(field(&sent, "x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(field(&sent, "x-forwarded-proto"), Some("http"));
    assert_eq!(field(&sent, "x-forwarded-host"), Some("app.example"));
    let id = field(&head, "x-request-id").expect("an id");
    assert_eq!(field(&sent, "x-request-id"), Some(id));
    assert_eq!(&field(&sent, "traceparent").expect("a trace")[3..35], id);
    assert_eq!(rig.rows(Side::Stable, 1).await, [1, 0, 0, 0, 0]);
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let address = origin(|mut stream, number| async move {
        use tokio::io::AsyncWriteExt;
        let mut buffer = Vec::new();
        while read_message(&mut stream, &mut buffer).await.is_some() {
            let _ = stream.write_all(&ok(&number.to_string())).await;
        }
    })
    .await;
    let rig = Rig::new(side(1, &[endpoint(address)]));
    let mut client = Client::new(rig.http()).await;
    for _ in 0..50 {
        assert_eq!(client.get("/").await.1, "0");
    }
    assert_eq!(rig.total(Count::UpstreamConnects), 1);
    assert_eq!(rig.total(Count::Accepted), 1);
    assert_eq!(rig.total(Count::Requests), 50);
    assert_eq!(rig.rows(Side::Stable, 50).await, [50, 0, 0, 0, 0]);
}

#[tokio::test]
async fn statuses_become_rows() {
    let address = answering(|head, _| {
        let code = head.split(' ').nth(1).expect("a path").trim_start_matches('/');
        format!("HTTP/1.1 {code} X\r\ncontent-length: 0\r\n\r\n").into_bytes()
    })
    .await;
    let rig = Rig::new(side(1, &[endpoint(address)]));
    let mut client = Client::new(rig.http()).await;
    for code in [200, 204, 301, 304, 404, 429, 500, 503] {
        let (head, _) = client.get(&format!("/{code}")).await;
        assert_eq!(status(&head), code);
    }
    assert_eq!(rig.rows(Side::Stable, 8).await, [4, 2, 2, 0, 0]);
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let address = answering(|head, body| {
        assert!(head.starts_with("POST"));
        let mut answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for piece in body.chunks(70_000) {
            answer.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            answer.extend_from_slice(piece);
            answer.extend_from_slice(b"\r\n");
        }
        answer.extend_from_slice(b"0\r\n\r\n");
        answer
    })
    .await;
    let rig = Rig::new(side(1, &[endpoint(address)]));
    for length in [0, 1, 10_000, 3_000_000] {
        let mut client = Client::new(rig.http()).await;
        let body = "x".repeat(length);
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
        client.send(head).await;
        client.send(&body).await;
        let (head, chunks) = client.read().await;
        assert_eq!(status(&head), 200);
        assert_eq!(chunks.matches('x').count(), length, "{length}");
    }
    assert_eq!(rig.rows(Side::Stable, 4).await, [4, 0, 0, 0, 0]);
}

#[tokio::test]
async fn an_unknown_route_and_an_empty_service_have_pages() {
    let rig = Rig::new(side(1, &[]));
    let mut client = Client::new(rig.http()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\naccept: application/json\r\n\r\n").await;
    let (head, body) = client.read().await;
    assert_eq!(status(&head), 503);
    assert_eq!(field(&head, "retry-after"), Some("2"));
    let problem: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(problem["request_id"], field(&head, "x-request-id").expect("an id"));
    rig.live.publish(crate::routing::table::RoutingTable::default());
    let (head, body) = client.get("/").await;
    assert_eq!(status(&head), 404);
    assert!(body.contains("nothing at this address"), "{body}");
    assert_eq!(rig.total(Count::Unrouted), 1);
    assert_eq!(rig.total(Count::Synthetic), 1);
    assert_eq!(rig.count(Side::Stable, Row::Fault), 1);
}

#[tokio::test]
async fn head_and_bodiless_statuses_have_no_body() {
    let address = answering(|head, _| {
        if head.starts_with("HEAD") {
            b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n".to_vec()
        } else {
            b"HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\n\r\n".to_vec()
        }
    })
    .await;
    let rig = Rig::new(side(1, &[endpoint(address)]));
    let mut client = Client::new(rig.http()).await;
    client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let head = client.read_head().await;
    assert_eq!(field(&head, "content-length"), Some("1234"));
    let (head, body) = client.get("/").await;
    assert_eq!((status(&head), body.as_str()), (304, ""));
    assert_eq!(rig.rows(Side::Stable, 2).await, [2, 0, 0, 0, 0]);
}
