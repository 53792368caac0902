//! HTTP/1.1 connections to instances: every framing, every size, and what is not to be relied on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::*;
use crate::model::weight::Side;
use crate::proxy::chunked::{Decoder, Piece};

/// A chunked body's bytes.
fn whole(chunks: &[u8]) -> Vec<u8> {
    let (mut decoder, mut read) = (Decoder::default(), BytesMut::from(chunks));
    let mut body = Vec::new();
    while let Piece::Data(bytes) = decoder.next(&mut read).expect("chunks") {
        body.extend_from_slice(&bytes);
    }
    assert!(decoder.is_end() && read.is_empty());
    body
}

#[tokio::test]
async fn uploads_arrive_whole_whatever_their_size_and_framing() {
    let address = answering(|head, body| {
        let framing = field(head, "content-length").or(field(head, "transfer-encoding"));
        let body = if framing == Some("chunked") { whole(body) } else { body.to_vec() };
        let sum: u64 = body.iter().zip(1..).map(|(byte, at)| u64::from(*byte) * at).sum();
        ok(&format!("{} {sum} {}", body.len(), framing.unwrap_or("none")))
    })
    .await;
    let rig = Rig::new(side(1, &[endpoint(address)]));
    let mut client = Client::new(rig.http()).await;
    for size in [0, 1, 4_095, 4_096, 4_097, 16_384, 70_000, 1_000_000] {
        let body: Vec<u8> = (0..size).map(|n| b'a' + (n % 26) as u8).collect();
        let sum: u64 = body.iter().zip(1..).map(|(byte, at)| u64::from(*byte) * at).sum();
        client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {size}\r\n\r\n")).await;
        client.send(&body).await;
        assert_eq!(client.read().await.1, format!("{size} {sum} {size}"));
        client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
        for piece in body.chunks(9_999) {
            client.send(format!("{:x}\r\n", piece.len())).await;
            client.send([piece, b"\r\n"].concat()).await;
        }
        client.send("0\r\n\r\n").await;
        assert_eq!(client.read().await.1, format!("{size} {sum} chunked"));
    }
    assert_eq!(rig.rows(Side::Stable, 16).await, [16, 0, 0, 0, 0]);
}

#[tokio::test]
async fn answers_arrive_whole_however_they_come() {
    let body = "0123456789".repeat(30_000);
    let sent = body.clone();
    let address = origin(move |mut stream, _| {
        let body = sent.clone();
        async move {
            let mut buffer = Vec::new();
            while let Some((head, _)) = read_message(&mut stream, &mut buffer).await {
                let mut text = String::from("HTTP/1.1 200 OK\r\n");
                let closes = head.contains("/rest");
                if head.contains("/length") {
                    text += &format!("content-length: {}\r\n\r\n{body}", body.len());
                } else if closes {
                    text += &format!("\r\n{body}");
                } else {
                    text += "transfer-encoding: chunked\r\n\r\n";
                    for piece in body.as_bytes().chunks(7_777) {
                        let piece = std::str::from_utf8(piece).expect("text");
                        text += &format!("{:X};x=y\r\n{piece}\r\n", piece.len());
                    }
                    text += "0\r\n\r\n";
                }
                // In pieces of a size that no boundary has.
                for piece in text.as_bytes().chunks(12_345) {
                    stream.write_all(piece).await.expect("a reader");
                    tokio::task::yield_now().await;
                }
                if closes {
                    return;
                }
            }
        }
    })
    .await;
    let rig = Rig::new(side(1, &[endpoint(address)]));
    for path in ["/length", "/chunked", "/rest", "/chunked", "/length", "/rest"] {
        let mut client = Client::new(rig.http()).await;
        client.send(format!("GET {path} HTTP/1.0\r\nhost: a\r\n\r\n")).await;
        let all = client.read_to_end().await;
        let (head, got) = all.split_once("\r\n\r\n").expect("a head");
        assert_eq!((status(head), got == body), (200, true), "{path} {}", got.len());
    }
    assert_eq!(rig.rows(Side::Stable, 6).await, [6, 0, 0, 0, 0]);
}

#[tokio::test]
async fn an_empty_answer_before_the_upload_ends_is_an_answer() {
    let address = origin(|mut stream, _| async move {
        let mut buffer = vec![0; 65536];
        let _ = stream.read(&mut buffer).await;
        let _ = stream.write_all(b"HTTP/1.1 413 No\r\ncontent-length: 0\r\n\r\n").await;
        while let Ok(1..) = stream.read(&mut buffer).await {}
    })
    .await;
    let target = endpoint(address);
    let rig = Rig::new(side(1, &[Arc::clone(&target)]));
    let mut client = Client::new(rig.http()).await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99\r\n\r\nhalf").await;
    assert_eq!(status(&client.read_head().await), 413);
    assert_eq!(rig.rows(Side::Stable, 1).await, [0, 1, 0, 0, 0]);
    until(|| target.in_flight() == 0).await;
}

#[tokio::test]
async fn a_connection_that_says_too_much_is_not_used_again() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let address = origin(move |mut stream, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            let mut buffer = Vec::new();
            while read_message(&mut stream, &mut buffer).await.is_some() {
                let two = [ok("yours"), ok("not yours")].concat();
                if stream.write_all(&two).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let rig = Rig::new(side(1, &[endpoint(address)]));
    let mut client = Client::new(rig.http()).await;
    for _ in 0..3 {
        assert_eq!(client.get("/").await.1, "yours");
    }
    assert_eq!(connections.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_the_instances_fault() {
    for text in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalfway\r\n0\r\n\r\n",
    ] {
        let address = origin(move |mut stream, _| async move {
            let mut buffer = Vec::new();
            let _ = read_message(&mut stream, &mut buffer).await;
            let _ = stream.write_all(text.as_bytes()).await;
        })
        .await;
        let rig = Rig::new(side(1, &[endpoint(address)]));
        let mut client = Client::new(rig.http()).await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let all = client.read_to_end().await;
        assert!(all.contains("half") && !all.ends_with("0\r\n\r\n"), "{all}");
        assert_eq!(rig.rows(Side::Stable, 1).await, [0, 0, 0, 1, 0], "{text}");
    }
}
