//! Tables that change, endpoints that drain, proxies that stop: nobody's request is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::*;
use crate::analysis::scorecard::Row;
use crate::model::weight::{Side, Weight};
use crate::telemetry::traffic::Count;

/// An origin that sends the head and half of the body, and the rest when told.
async fn held(go: tokio::sync::watch::Receiver<bool>) -> std::net::SocketAddr {
    origin(move |mut stream, _| {
        let mut go = go.clone();
        async move {
            let mut buffer = Vec::new();
            while read_message(&mut stream, &mut buffer).await.is_some() {
                let half = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf";
                let _ = stream.write_all(half).await;
                let _ = go.wait_for(|go| *go).await;
                let _ = stream.write_all(b"half").await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_claim_rides_on_the_body_until_its_last_byte() {
    let (go, wait) = tokio::sync::watch::channel(false);
    let target = endpoint(held(wait).await);
    let rig = Rig::new(side(1, &[Arc::clone(&target)]));
    let mut client = Client::new(rig.http()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.read_head().await;
    assert_eq!(target.in_flight(), 1);
    target.begin_drain();
    assert_eq!(get(rig.http(), "/").await.0, 503);
    go.send(true).expect("somebody waits");
    assert_eq!(client.read_body(8).await, "halfhalf");
    until(|| target.in_flight() == 0).await;
    assert_eq!(rig.rows(Side::Stable, 2).await, [1, 0, 0, 1, 0]);
}

#[tokio::test]
async fn a_cut_ends_what_still_runs() {
    let (_go, wait) = tokio::sync::watch::channel(false);
    let target = endpoint(held(wait).await);
    let rig = Rig::new(side(1, &[Arc::clone(&target)]));
    let mut client = Client::new(rig.http()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.read_head().await;
    target.begin_drain();
    target.cut();
    assert_eq!(client.read_to_end().await, "half");
    until(|| target.in_flight() == 0).await;
    assert_eq!(Row::ALL.map(|row| rig.count(Side::Stable, row)), [0; Row::COUNT]);
}

#[tokio::test]
async fn a_request_that_meets_a_drain_finds_the_newer_table() {
    let (old, new) = (endpoint(saying("old").await), endpoint(saying("new").await));
    let rig = Rig::new(side(1, &[Arc::clone(&old)]));
    assert_eq!(get(rig.http(), "/").await.1, "old");
    // The order in which a controller does it: publish, then drain.
    rig.publish(|entry| entry.stable = Some(side(2, &[new])));
    old.begin_drain();
    assert_eq!(get(rig.http(), "/").await.1, "new");
}

#[tokio::test]
async fn ten_thousand_requests_while_tables_change_and_endpoints_drain() {
    let (a, b) = (saying("a").await, saying("b").await);
    let rig = Arc::new(Rig::canary(side(1, &[endpoint(a)]), side(2, &[endpoint(b)]), 50.0));
    let stop = Arc::new(AtomicBool::new(false));
    let changing = {
        let (rig, stop) = (Arc::clone(&rig), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut changes = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                let old = rig.entry.lock().expect("no panic").clone();
                rig.publish(|entry| {
                    let weight = u16::try_from(changes % 10_001).unwrap_or(0);
                    entry.canary_weight = Weight::from_basis_points(weight).expect("a weight");
                    if changes.is_multiple_of(3) {
                        entry.stable = Some(side(changes, &[endpoint(a)]));
                    }
                    if changes.is_multiple_of(7) {
                        entry.canary = Some(side(changes, &[endpoint(b)]));
                    }
                });
                let now = rig.entry.lock().expect("no panic").clone();
                for which in Side::BOTH {
                    let (old, now) = (old.side(which), now.side(which));
                    if let (Some(old), Some(now)) = (old, now)
                        && !Arc::ptr_eq(&old.pool, &now.pool)
                    {
                        old.pool.endpoints.iter().for_each(|endpoint| endpoint.begin_drain());
                    }
                }
                changes += 1;
                std::thread::sleep(Duration::from_micros(200));
            }
            changes
        })
    };
    let clients: Vec<_> = (0..10)
        .map(|_| {
            let address = rig.http();
            tokio::spawn(async move {
                let mut client = Client::new(address).await;
                for _ in 0..1_000 {
                    let (head, body) = client.get("/").await;
                    assert_eq!(status(&head), 200, "{body}");
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("no failure");
    }
    stop.store(true, Ordering::Relaxed);
    assert!(changing.join().expect("no panic") > 10);
    assert_eq!(rig.total(Count::Requests), 10_000);
    assert_eq!(rig.total(Count::Synthetic), 0);
}

#[tokio::test]
async fn a_drain_lets_requests_finish_and_takes_no_more() {
    let (go, wait) = tokio::sync::watch::channel(false);
    let rig = Rig::new(side(1, &[endpoint(held(wait).await)]));
    let address = rig.http();
    let mut idle = Client::new(address).await;
    let mut client = Client::new(address).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.read_head().await;
    let drain = rig.proxy.drain(LONG);
    let finish = async {
        // Idle connections are closed at once, and nobody listens any more.
        assert_eq!(idle.read_to_end().await, "");
        until(|| std::net::TcpStream::connect(address).is_err()).await;
        go.send(true).expect("somebody waits");
        assert_eq!(client.read_to_end().await, "halfhalf");
    };
    tokio::join!(drain, finish);
    assert_eq!(rig.rows(Side::Stable, 1).await, [1, 0, 0, 0, 0]);
    assert_eq!(rig.total(Count::Accepted), rig.total(Count::Closed));
}

#[tokio::test]
async fn a_drain_ends_at_its_deadline() {
    let (_go, wait) = tokio::sync::watch::channel(false);
    let rig = Rig::new(side(1, &[endpoint(held(wait).await)]));
    let mut client = Client::new(rig.http()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.read_head().await;
    let began = Instant::now();
    rig.proxy.drain(Duration::from_millis(200)).await;
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert_eq!(client.read_to_end().await, "half");
}

#[tokio::test]
async fn the_last_answer_of_a_drain_says_that_it_is_the_last() {
    let (go, wait) = tokio::sync::watch::channel(false);
    let address = origin(move |mut stream, _| {
        let mut go = wait.clone();
        async move {
            let mut buffer = Vec::new();
            while read_message(&mut stream, &mut buffer).await.is_some() {
                let _ = go.wait_for(|go| *go).await;
                let _ = stream.write_all(&ok("done")).await;
            }
        }
    })
    .await;
    let target = endpoint(address);
    let rig = Rig::new(side(1, &[Arc::clone(&target)]));
    let mut client = Client::new(rig.http()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    until(|| target.in_flight() == 1).await;
    let finish = async {
        until(|| std::net::TcpStream::connect(rig.http()).is_err()).await;
        go.send(true).expect("somebody waits");
        let (head, body) = client.read().await;
        assert_eq!(body, "done");
        assert_eq!(field(&head, "connection"), Some("close"));
        assert_eq!(client.read_to_end().await, "");
    };
    tokio::join!(rig.proxy.drain(LONG), finish);
}

#[tokio::test]
async fn a_connection_ends_after_its_last_request() {
    let rig = {
        let mut settings = settings();
        settings.limits.requests_http1 = 3;
        let stable = side(1, &[endpoint(saying("x").await)]);
        Rig::with(stable, None, 0.0, Default::default(), settings)
    };
    let mut client = Client::new(rig.http()).await;
    for last in [false, false, true] {
        let (head, _) = client.get("/").await;
        assert_eq!(field(&head, "connection") == Some("close"), last);
    }
    assert_eq!(client.read_to_end().await, "");
}

#[tokio::test]
async fn workers_share_the_work_and_the_scorecard() {
    let stable = side(1, &[endpoint(saying("x").await)]);
    let settings = crate::proxy::Settings { workers: 4, ..settings() };
    let rig = Rig::with(stable, None, 0.0, Default::default(), settings);
    for _ in 0..200 {
        assert_eq!(get(rig.http(), "/").await.0, 200);
    }
    assert_eq!(rig.rows(Side::Stable, 200).await, [200, 0, 0, 0, 0]);
    rig.proxy.drain(LONG).await;
    assert_eq!(rig.total(Count::Accepted), 200);
    assert_eq!(rig.total(Count::Closed), 200);
}

#[tokio::test]
async fn a_cut_ends_an_upload_whose_answer_has_begun() {
    let address = origin(|mut stream, _| async move {
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n";
        let mut first = [0];
        let _ = stream.read_exact(&mut first).await;
        let _ = stream.write_all(head).await;
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let target = endpoint(address);
    let rig = Rig::new(side(1, &[Arc::clone(&target)]));
    let mut client = Client::new(rig.http()).await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99\r\n\r\nhalf").await;
    assert_eq!(status(&client.read_head().await), 200);
    target.begin_drain();
    target.cut();
    client.read_to_end().await;
    until(|| target.in_flight() == 0).await;
}

#[tokio::test]
async fn a_client_that_pauses_notices_nothing() {
    let target = endpoint(saying("hello").await);
    let rig = Rig::new(side(1, &[Arc::clone(&target)]));
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(Client::new(rig.http()).await);
    }
    // Twice as long as it takes to be parked.
    let mut pauses = tokio::time::interval(Duration::from_millis(400));
    for _ in 0..4 {
        pauses.tick().await;
        for client in &mut clients {
            assert_eq!(client.get("/").await.1, "hello");
        }
    }
    // The beginning of a head, and an empty line, behind a request: neither is lost.
    let (behind, empty) = clients.split_at_mut(1);
    behind[0].send("GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HT").await;
    empty[0].send("GET / HTTP/1.1\r\nhost: a\r\n\r\n\r\n").await;
    assert_eq!(behind[0].read().await.1, "hello");
    assert_eq!(empty[0].read().await.1, "hello");
    pauses.tick().await;
    pauses.tick().await;
    behind[0].send("TP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(behind[0].read().await.1, "hello");
    assert_eq!(empty[0].get("/").await.1, "hello");
    assert_eq!(rig.total(Count::Accepted), 5);
    assert_eq!(rig.total(Count::Closed), 0);
    pauses.tick().await;
    rig.proxy.drain(LONG).await;
    assert_eq!(rig.total(Count::Closed), 5);
}

#[tokio::test]
async fn a_body_that_pauses_is_not_taken_for_a_request() {
    // Answers before the body is there: the rest of it must not be read as a request.
    let address = origin(|mut stream, _| async move {
        let mut buffer = vec![0; 4096];
        let _ = stream.read(&mut buffer).await;
        let _ = stream.write_all(&ok("early")).await;
        while let Ok(1..) = stream.read(&mut buffer).await {}
    })
    .await;
    let rig = Rig::new(side(1, &[endpoint(address)]));
    let mut client = Client::new(rig.http()).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let length = smuggled.len() + 4;
    client
        .send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\nhalf"))
        .await;
    assert_eq!(client.read().await.1, "early");
    tokio::time::sleep(Duration::from_millis(500)).await;
    client.send(smuggled).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    client.stream.shutdown().await.expect("to shut down");
    assert_eq!(client.read_to_end().await, "");
    assert_eq!(rig.total(Count::Requests), 1);
}
