//! Bodies that are read before an instance is asked for.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::support::*;
use crate::analysis::scorecard::Row;
use crate::model::weight::Side;
use crate::proxy::Settings;
use crate::proxy::limits::Limits;
use crate::proxy::spool::Spool;
use crate::routing::settings::ServiceSettings;

const MIB: usize = 1 << 20;

struct Story {
    rig: Rig,
    /// How many connections the instance got.
    connections: Arc<AtomicUsize>,
    spool: Arc<Spool>,
}

/// An instance that says how a body came to it, and its sum.
async fn story(directory: &Path, ahead: usize, on_disk: usize, limits: Limits) -> Story {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let instance = origin(move |mut stream, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            let mut buffer = Vec::new();
            while let Some((head, body)) = read_message(&mut stream, &mut buffer).await {
                let how = ["content-length", "transfer-encoding"].map(|name| field(&head, name));
                let last =
                    String::from_utf8_lossy(&body[body.len().saturating_sub(16)..]).into_owned();
                let text = format!("{how:?} {} {} {last:?}", body.len(), sum(&body));
                use tokio::io::AsyncWriteExt as _;
                if stream.write_all(&ok(&text)).await.is_err() {
                    break;
                }
            }
        }
    })
    .await;
    let spool = Spool::new(directory.to_owned(), on_disk as u64);
    let service = ServiceSettings {
        buffer_requests: ahead as u64,
        max_body: 4 * MIB as u64,
        ..ServiceSettings::default()
    };
    let settings = Settings { spool: Arc::clone(&spool), limits, ..settings() };
    let rig = Rig::with(side(1, &[endpoint(instance)]), None, 0.0, service, settings);
    Story { rig, connections, spool }
}

fn body(length: usize) -> Vec<u8> {
    (0..length).map(|at| b'a' + (at % 23) as u8).collect()
}

fn sum(body: &[u8]) -> u64 {
    body.iter().enumerate().fold(0, |sum, (at, byte)| sum ^ (at as u64 * u64::from(*byte)))
}

fn head(framing: &str) -> String {
    format!("POST /upload HTTP/1.1\r\nhost: app.example\r\n{framing}\r\n\r\n")
}

#[tokio::test]
async fn a_slow_upload_holds_up_no_instance_and_arrives_as_it_was_sent() {
    let directory = tempfile::tempdir().expect("a directory");
    let story = story(directory.path(), 2 * MIB, MIB, Limits::default()).await;
    // Nothing, in memory, exactly as much as that, and on disk.
    for (turn, length) in [0, 10, 64 << 10, (64 << 10) + 1, 130 << 10, MIB].into_iter().enumerate()
    {
        let body = body(length);
        let mut client = Client::new(story.rig.http()).await;
        client.send(head(&format!("content-length: {length}"))).await;
        let (one, two) = body.split_at(length / 2);
        client.send(one).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        if length > 0 {
            let asked = story.connections.load(Ordering::SeqCst);
            assert_eq!(asked, usize::from(turn > 0), "an instance waits for {length} bytes");
        }
        client.send(two).await;
        let (answer, said) = client.read().await;
        assert_eq!(status(&answer), 200);
        let expected = format!("[Some(\"{length}\"), None] {length} {}", sum(&body));
        assert!(said.starts_with(&expected), "{said}, not {expected}");
        until(|| story.spool.used() == 0).await;
    }
    assert_eq!(story.rig.count(Side::Stable, Row::Success), 6);
}

#[tokio::test]
async fn what_came_in_chunks_has_a_length_then_unless_trailers_come() {
    let directory = tempfile::tempdir().expect("a directory");
    let story = story(directory.path(), 2 * MIB, MIB, Limits::default()).await;
    let body = body(150_000);
    let chunks: Vec<u8> = body
        .chunks(1_000)
        .flat_map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat())
        .collect();
    let mut client = Client::new(story.rig.http()).await;
    client.send(head("transfer-encoding: chunked")).await;
    client.send([&chunks[..], b"0\r\n\r\n"].concat()).await;
    let expected = format!("[Some(\"150000\"), None] 150000 {}", sum(&body));
    let said = client.read().await.1;
    assert!(said.starts_with(&expected), "{said}");
    client.send(head("transfer-encoding: chunked\r\ntrailer: x-sum")).await;
    client.send([&chunks[..], b"0\r\nx-sum: 7\r\n\r\n"].concat()).await;
    let said = client.read().await.1;
    assert!(said.starts_with("[None, Some(\"chunked\")]"), "{said}");
    assert!(said.contains("x-sum: 7"), "{said}");
}

#[tokio::test]
async fn what_is_larger_or_has_no_room_goes_on_as_it_comes() {
    let directory = tempfile::tempdir().expect("a directory");
    let gone = directory.path().join("gone");
    // Larger than was asked for; no room on disk; no disk.
    for (place, ahead, on_disk) in
        [(directory.path(), 100_000, MIB), (directory.path(), MIB, 100_000), (&gone, MIB, MIB)]
    {
        let story = story(place, ahead, on_disk, Limits::default()).await;
        let body = body(600_000);
        let mut client = Client::new(story.rig.http()).await;
        client.send(head("content-length: 600000")).await;
        client.send(&body[..400_000]).await;
        until(|| story.connections.load(Ordering::SeqCst) == 1).await;
        client.send(&body[400_000..]).await;
        let said = client.read().await.1;
        let expected = format!("[Some(\"600000\"), None] 600000 {}", sum(&body));
        assert!(said.starts_with(&expected), "{said}");
        until(|| story.spool.used() == 0).await;
    }
}

#[tokio::test]
async fn who_goes_stalls_or_sends_too_much_never_meets_an_instance() {
    let directory = tempfile::tempdir().expect("a directory");
    let limits = Limits { body_stall: Duration::from_millis(300), ..Limits::default() };
    let story = story(directory.path(), 8 * MIB, 8 * MIB, limits).await;
    let mut client = Client::new(story.rig.http()).await;
    client.send(head("content-length: 200000")).await;
    client.send(body(150_000)).await;
    until(|| story.spool.used() > 0).await;
    drop(client);
    until(|| story.spool.used() == 0).await;
    let mut client = Client::new(story.rig.http()).await;
    client.send(head("content-length: 10")).await;
    assert_eq!(status(&client.read().await.0), 408);
    // It is longer than is allowed, and does not say so.
    let mut client = Client::new(story.rig.http()).await;
    client.send(head("transfer-encoding: chunked")).await;
    let chunk = [b"100000\r\n".to_vec(), body(MIB), b"\r\n".to_vec()].concat();
    for _ in 0..4 {
        client.send(&chunk).await;
    }
    client.send("1\r\n").await;
    client.send("a\r\n").await;
    assert_eq!(status(&client.read().await.0), 413);
    let mut client = Client::new(story.rig.http()).await;
    client.send(head("transfer-encoding: chunked")).await;
    client.send("no chunk\r\n").await;
    assert_eq!(status(&client.read().await.0), 400);
    assert_eq!(story.connections.load(Ordering::SeqCst), 0);
    assert_eq!(story.rig.rows(Side::Stable, 0).await, [0; 5], "nobody's fault");
    until(|| story.spool.used() == 0).await;
}

#[tokio::test]
async fn who_asks_whether_to_send_is_told_to() {
    let directory = tempfile::tempdir().expect("a directory");
    let story = story(directory.path(), MIB, MIB, Limits::default()).await;
    let mut client = Client::new(story.rig.http()).await;
    client.send(head("content-length: 4\r\nexpect: 100-continue")).await;
    assert_eq!(status(&client.read_head().await), 100);
    assert_eq!(story.connections.load(Ordering::SeqCst), 0);
    client.send("body").await;
    assert!(client.read().await.1.contains("\"body\""));
}

#[tokio::test]
async fn what_a_canary_fails_is_sent_to_stable_with_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let echo = |head: &str, body: &[u8]| {
        ok(&format!("{} {}", !head.is_empty(), String::from_utf8_lossy(body)))
    };
    let stable = side(1, &[endpoint(answering(echo).await)]);
    let failing = |_: &str, _: &[u8]| b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n".to_vec();
    let canary = side(2, &[endpoint(answering(failing).await)]);
    let spool = Spool::new(directory.path().to_owned(), MIB as u64);
    let service = ServiceSettings { buffer_requests: MIB as u64, ..ServiceSettings::default() };
    let settings = Settings { spool, ..settings() };
    let rig = Rig::with(stable, Some(canary), 100.0, service, settings);
    let mut client = Client::new(rig.http()).await;
    client.send("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello").await;
    assert_eq!(client.read().await.1, "true hello");
    assert_eq!(rig.rows(Side::Canary, 1).await, [0, 0, 1, 0, 0]);
}
