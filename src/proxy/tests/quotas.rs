//! The limits of the edge: what a client may have at most, and what it is told beyond.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::*;
use crate::proxy::Settings;
use crate::proxy::limits::Limits;
use crate::routing::settings::ServiceSettings;
use crate::telemetry::traffic::{Count, Reason};

async fn rig(limits: Limits) -> Rig {
    with(limits, ServiceSettings::default()).await
}

async fn with(limits: Limits, service: ServiceSettings) -> Rig {
    let settings = Settings { limits, ..settings() };
    Rig::with(side(1, &[endpoint(saying("x").await)]), None, 0.0, service, settings)
}

#[tokio::test]
async fn a_body_has_a_size() {
    let service = ServiceSettings { max_body: 10, ..ServiceSettings::default() };
    let rig = with(Limits::default(), service).await;
    let mut client = Client::new(rig.http()).await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n0123456789").await;
    assert_eq!(status(&client.read().await.0), 200);
    // Told before anything of it is read.
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 11\r\n\r\n").await;
    let all = client.read_to_end().await;
    assert!(status(&all) == 413 && field(&all, "connection") == Some("close"), "{all}");
    let mut client = Client::new(rig.http()).await;
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n6\r\n012345\r\n6\r\n012345\r\n0\r\n\r\n")
        .await;
    assert_eq!(status(&client.read().await.0), 413);
    assert_eq!(rig.traffic.refused(Reason::BodySize), 2);
}

#[tokio::test]
async fn a_body_that_trickles_is_too_slow() {
    // A byte every 200 ms is no stall; 5 s of grace, and then it is too slow.
    let rig = rig(Limits { body_stall: Duration::from_secs(60), ..Limits::default() }).await;
    let mut client = Client::new(rig.http()).await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n").await;
    let began = std::time::Instant::now();
    while rig.traffic.refused(Reason::BodyTime) == 0 {
        assert!(began.elapsed() < LONG, "it trickles on");
        let _ = client.stream.write_all(b"x").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(began.elapsed() > Duration::from_secs(4));
    assert_eq!(status(&client.read_to_end().await), 408);
}

#[tokio::test]
async fn connections_have_a_number() {
    let rig = rig(Limits { connections: 2, ..Limits::default() }).await;
    let (mut one, mut two) = (Client::new(rig.http()).await, Client::new(rig.http()).await);
    assert_eq!(one.get("/").await.1, "x");
    assert_eq!(two.get("/").await.1, "x");
    let mut three = Client::new(rig.http()).await;
    assert_eq!(three.read_to_end().await, "");
    assert_eq!(rig.traffic.refused(Reason::Connections), 1);
    assert_eq!(one.get("/").await.1, "x");
    drop(two);
    until(|| rig.total(Count::Accepted) - rig.total(Count::Closed) == 1).await;
    assert_eq!(get(rig.http(), "/").await.0, 200);
}

#[tokio::test]
async fn one_address_has_its_share_of_connections() {
    let limits = Limits { connections_per_address: 1, ..Limits::default() };
    let rig = rig(limits.clone()).await;
    let mut one = Client::new(rig.http()).await;
    assert_eq!(one.get("/").await.1, "x");
    assert_eq!(Client::new(rig.http()).await.read_to_end().await, "");
    assert_eq!(rig.traffic.refused(Reason::AddressConnections), 1);
    // Proxies speak for many.
    let trusted = vec!["127.0.0.0/8".parse().expect("a network")];
    let settings = Settings { limits, trusted_proxies: trusted, ..settings() };
    let stable = side(1, &[endpoint(saying("x").await)]);
    let rig = Rig::with(stable, None, 0.0, ServiceSettings::default(), settings);
    let mut one = Client::new(rig.http()).await;
    assert_eq!(one.get("/").await.1, "x");
    assert_eq!(get(rig.http(), "/").await.0, 200);
}

#[tokio::test]
async fn without_memory_nothing_new_begins() {
    // As if there were a megabyte on the whole machine.
    let rig = rig(Limits { memory: Some(1 << 20), ..Limits::default() }).await;
    let mut client = Client::new(rig.http()).await;
    let all = loop {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let (head, _) = client.read().await;
        if status(&head) != 200 {
            break head;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(status(&all) == 503 && field(&all, "connection") == Some("close"), "{all}");
    assert_eq!(rig.traffic.refused(Reason::Memory), 1);
}

#[tokio::test]
async fn a_connection_grows_old() {
    let rig = rig(Limits { max_age: Duration::from_millis(500), ..Limits::default() }).await;
    let mut client = Client::new(rig.http()).await;
    let mut all = String::new();
    while let Ok(Ok(1..)) = tokio::time::timeout(LONG, async {
        // Sent to who closed it meanwhile, it is not read.
        let _ = client.stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut read = [0; 4096];
        let count = client.stream.read(&mut read).await?;
        all.push_str(&String::from_utf8_lossy(&read[..count]));
        Ok::<_, std::io::Error>(count)
    })
    .await
    {}
    assert!(all.matches("HTTP/1.1 200").count() > 1, "{all}");
    assert!(all.matches("connection: close").count() <= 1, "{all}");
    // And an idle one too, although it may idle for longer.
    let mut idle = Client::new(rig.http()).await;
    assert_eq!(idle.get("/").await.1, "x");
    assert_eq!(idle.read_to_end().await, "");
}

#[tokio::test]
async fn requests_of_a_connection_are_counted() {
    let rig = rig(Limits { requests_http1: 3, ..Limits::default() }).await;
    let mut client = Client::new(rig.http()).await;
    for n in 1..=3 {
        let (head, _) = client.get("/").await;
        assert_eq!(field(&head, "connection"), (n == 3).then_some("close"));
    }
    assert_eq!(client.read_to_end().await, "");
}

#[tokio::test]
async fn a_line_has_a_length() {
    let rig = rig(Limits::default()).await;
    let long =
        |length: usize| format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(length));
    let mut client = Client::new(rig.http()).await;
    client.send(long(8 * 1024 - 1)).await;
    assert_eq!(status(&client.read().await.0), 200);
    client.send(long(8 * 1024)).await;
    assert_eq!(status(&client.read_to_end().await), 431);
    assert_eq!(rig.traffic.refused(Reason::HeaderSize), 1);
}

#[tokio::test]
async fn an_answer_is_not_lost_to_what_the_client_still_sends() {
    // RFC 9112, 9.6: the rest is read for a while, so that no reset takes the answer away.
    let rig = rig(Limits::default()).await;
    for _ in 0..20 {
        let mut client = Client::new(rig.http()).await;
        let body = "x".repeat(60_000);
        client
            .send(format!(
                "POST /%00 HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999\r\n\r\n{body}"
            ))
            .await;
        let all = client.read_to_end().await;
        assert_eq!(status(&all), 400, "{all}");
    }
}
