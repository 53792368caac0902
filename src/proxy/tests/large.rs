//! Large bodies: whole, in order, and nobody else's.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::support::*;
use crate::analysis::scorecard::Row;
use crate::model::weight::Side;
use crate::telemetry::traffic::{Count, Reason};

/// Bytes of an answer: more than what a proxy's socket takes for a client that reads nothing.
const LENGTH: usize = 6 << 20;

/// What is sent to who asks for `/seed`: each line of 64 bytes says where it is, and of what.
fn body(seed: u32, length: usize) -> Vec<u8> {
    let mut all = vec![b'.'; length];
    for (at, line) in all.chunks_exact_mut(64).enumerate() {
        line[..8].copy_from_slice(&(at as u64).to_le_bytes());
        line[60..].copy_from_slice(&seed.to_le_bytes());
    }
    all
}

/// A client whose kernel takes little for it.
async fn small(rig: &Rig) -> Client {
    let client = Client::new(rig.http()).await;
    let socket = socket2::SockRef::from(&client.stream);
    socket.set_recv_buffer_size(64 * 1024).expect("a small buffer");
    client
}

/// An instance that sends so much of a body as the path says, in pieces of a size that fits nothing, and
/// ends the connection where that is not all.
async fn rig_with(configure: impl FnOnce(&mut crate::proxy::Settings)) -> Rig {
    let address = origin(|mut stream, _| async move {
        let mut buffer = Vec::new();
        while let Some((head, _)) = read_message(&mut stream, &mut buffer).await {
            let mut path = head.split(' ').nth(1).expect("a path").split('/').skip(1);
            let seed = path.next().and_then(|seed| seed.parse().ok()).expect("a seed");
            let sent = path.next().and_then(|sent| sent.parse().ok()).unwrap_or(LENGTH);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n");
            let mut answer = head.into_bytes();
            answer.extend(&body(seed, LENGTH)[..sent]);
            for piece in answer.chunks(77_777) {
                if stream.write_all(piece).await.is_err() {
                    return;
                }
            }
            if sent < LENGTH {
                return;
            }
        }
    })
    .await;
    let mut settings = settings();
    configure(&mut settings);
    Rig::with(side(1, &[endpoint(address)]), None, 0.0, Default::default(), settings)
}

async fn rig() -> Rig {
    rig_with(|_| {}).await
}

async fn ask(client: &mut Client, path: &str) {
    client.send(format!("GET {path} HTTP/1.1\r\nhost: app.example\r\n\r\n")).await;
}

/// The next answer's body, byte for byte.
async fn read(client: &mut Client) -> Vec<u8> {
    let head = client.read_head().await;
    assert_eq!(field(&head, "content-length"), Some(LENGTH.to_string().as_str()));
    client.read_bytes(LENGTH).await
}

#[tokio::test]
async fn a_large_body_comes_whole_and_leaves_both_connections_usable() {
    let rig = rig().await;
    let mut client = Client::new(rig.http()).await;
    for seed in 0..4 {
        ask(&mut client, &format!("/{seed}")).await;
        assert!(read(&mut client).await == body(seed, LENGTH), "another body than {seed}");
    }
    assert_eq!(rig.total(Count::UpstreamConnects), 1);
    assert_eq!(rig.rows(Side::Stable, 4).await, [4, 0, 0, 0, 0]);
}

#[tokio::test]
async fn clients_that_pause_get_their_own_bytes() {
    let rig = rig().await;
    let mut clients = Vec::new();
    for seed in 0..6 {
        let mut client = small(&rig).await;
        ask(&mut client, &format!("/{seed}")).await;
        clients.push((seed, client));
    }
    // What waits now is mixed up by nobody.
    tokio::time::sleep(Duration::from_millis(300)).await;
    while let Some((seed, mut client)) = clients.pop() {
        assert!(read(&mut client).await == body(seed, LENGTH), "another body than {seed}");
    }
    assert_eq!(rig.rows(Side::Stable, 6).await, [6, 0, 0, 0, 0]);
}

#[tokio::test]
async fn what_a_client_left_is_given_to_nobody() {
    let rig = rig().await;
    for seed in 0..10 {
        let mut gone = small(&rig).await;
        ask(&mut gone, &format!("/{}", 100 + seed)).await;
        gone.read_head().await;
        gone.read_bytes(100_000).await;
        drop(gone);
        let mut next = Client::new(rig.http()).await;
        ask(&mut next, &format!("/{seed}")).await;
        assert!(read(&mut next).await == body(seed, LENGTH), "another body than {seed}");
    }
    let [good, _, _, fault, abandoned] = rig.rows(Side::Stable, 20).await;
    assert_eq!((good, fault, abandoned), (10, 0, 10));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_broken_off_behind_its_last_byte() {
    let rig = rig().await;
    let sent = 3_000_000;
    let mut client = Client::new(rig.http()).await;
    ask(&mut client, &format!("/5/{sent}")).await;
    client.read_head().await;
    let mut all = client.read_bytes(1_000_000).await;
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(LONG, client.stream.read_to_end(&mut rest)).await;
    assert!(ended.expect("an end in time").is_ok());
    all.extend(client.rest());
    all.extend(rest);
    assert!(all == body(5, LENGTH)[..sent], "{} bytes", all.len());
    until(|| rig.count(Side::Stable, Row::Fault) == 1).await;
}

#[tokio::test]
async fn who_takes_nothing_of_it_is_sent_away() {
    let patience = Duration::from_millis(500);
    let rig = rig_with(|settings| settings.limits.write_stall = patience).await;
    let mut client = small(&rig).await;
    ask(&mut client, "/1").await;
    until(|| rig.total(Count::Closed) == 1).await;
    assert_eq!(rig.traffic.refused(Reason::WriteTime), 1);
    until(|| rig.count(Side::Stable, Row::Abandoned) == 1).await;
    // One that takes some, and again, is left alone.
    let mut slow = small(&rig).await;
    ask(&mut slow, "/2").await;
    slow.read_head().await;
    let mut all = Vec::new();
    for _ in 0..3 {
        tokio::time::sleep(patience / 2).await;
        all.extend(slow.read_bytes(LENGTH / 3).await);
    }
    assert!(all == body(2, LENGTH), "another body");
}

#[tokio::test]
async fn what_is_here_is_handed_on_before_more_comes() {
    let taken = Arc::new(Notify::new());
    let wait = Arc::clone(&taken);
    let address = origin(move |mut stream, _| {
        let taken = Arc::clone(&wait);
        async move {
            read_message(&mut stream, &mut Vec::new()).await.expect("a request");
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.expect("to send");
            for piece in body(3, LENGTH).chunks(LENGTH / 8) {
                stream.write_all(piece).await.expect("to send");
                taken.notified().await;
            }
        }
    })
    .await;
    let rig = Rig::new(side(1, &[endpoint(address)]));
    let mut client = Client::new(rig.http()).await;
    ask(&mut client, "/").await;
    client.read_head().await;
    let mut all = Vec::new();
    for _ in 0..8 {
        all.extend(client.read_bytes(LENGTH / 8).await);
        taken.notify_one();
    }
    assert!(all == body(3, LENGTH), "another body");
    assert_eq!(rig.rows(Side::Stable, 1).await, [1, 0, 0, 0, 0]);
}
