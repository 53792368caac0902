//! Responses that are compressed, and those that must not be.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;

use http::Request;
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::gate::policy;
use super::protocols::{fetch, http2};
use super::support::*;
use crate::edge::coding::Coding;
use crate::proxy::chunked::{Decoder, Piece};

fn page() -> String {
    (0..2_000).map(|n| format!("<p>line {n} of a page that says little</p>\n")).collect()
}

fn decoded(coding: Coding, bytes: &[u8]) -> String {
    let mut out = String::new();
    match coding {
        Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_string(&mut out),
        Coding::Zstd => {
            zstd::stream::read::Decoder::new(bytes).expect("a decoder").read_to_string(&mut out)
        }
        Coding::Brotli => brotli::Decompressor::new(bytes, 4096).read_to_string(&mut out),
    }
    .expect("a sound body");
    out
}

/// What chunks hold.
fn unchunked(body: &[u8]) -> Vec<u8> {
    let (mut decoder, mut read) = (Decoder::default(), bytes::BytesMut::from(body));
    let mut out = Vec::new();
    while let Piece::Data(bytes) = decoder.next(&mut read).expect("sound chunks") {
        out.extend_from_slice(&bytes);
    }
    out
}

async fn rig(origin: SocketAddr, text: &str) -> Rig {
    let rig = Rig::new(side(1, &[endpoint(origin)]));
    rig.publish(|entry| entry.policy = policy(text));
    rig
}

/// An instance that answers a page with these fields; to HEAD, without it.
async fn serving(fields: &'static str) -> SocketAddr {
    answering(move |head, _| {
        let page = page();
        let body = if head.starts_with("HEAD") { "" } else { &page };
        let status = if head.contains("if-none-match") { "304 Not Modified" } else { "200 OK" };
        let body = if status.starts_with("304") { "" } else { body };
        format!("HTTP/1.1 {status}\r\n{fields}content-length: {}\r\n\r\n{body}", page.len())
            .into_bytes()
    })
    .await
}

async fn raw(rig: &Rig, request: &str) -> (String, Vec<u8>) {
    let mut stream = tokio::net::TcpStream::connect(rig.http()).await.expect("a connection");
    let request = format!("{request}\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("to send");
    let mut all = Vec::new();
    tokio::time::timeout(LONG, stream.read_to_end(&mut all)).await.expect("in time").expect("read");
    let end = find(&all, b"\r\n\r\n").expect("a head") + 4;
    (String::from_utf8_lossy(&all[..end]).into_owned(), all[end..].to_vec())
}

#[tokio::test]
async fn pages_are_made_smaller_for_who_takes_that() {
    let fields = "content-type: text/html\r\netag: \"v1\"\r\naccept-ranges: bytes\r\n\
                  content-digest: sha-256=:x:\r\n";
    let rig = rig(serving(fields).await, "compress = true\n").await;
    for coding in Coding::ALL {
        let request = format!("GET / HTTP/1.1\r\naccept-encoding: {coding}");
        let (head, body) = raw(&rig, &request).await;
        assert_eq!(field(&head, "content-encoding"), Some(coding.token()), "{head}");
        assert_eq!(field(&head, "vary"), Some("accept-encoding"));
        assert_eq!(field(&head, "etag"), Some("W/\"v1\""));
        for name in ["content-length", "accept-ranges", "content-digest"] {
            assert_eq!(field(&head, name), None, "{name}");
        }
        let body = unchunked(&body);
        assert!(body.len() < page().len() / 4, "{coding}: {}", body.len());
        assert_eq!(decoded(coding, &body), page());
        // Clients of HTTP/1.0 know no chunks.
        let request = format!("GET / HTTP/1.0\r\naccept-encoding: {coding}");
        assert_eq!(decoded(coding, &raw(&rig, &request).await.1), page());
    }
    let mut client = http2(rig.http()).await;
    let request = Request::get("http://a/").header("accept-encoding", "gzip, br;q=0.5");
    let (head, body) = fetch(&mut client, request.body(Full::default()).expect("sound")).await;
    assert_eq!(head.headers["content-encoding"], "gzip");
    assert!(head.headers.get("content-length").is_none());
    assert_eq!(decoded(Coding::Gzip, &body), page());
    // Who takes none gets it as it is, and a cache is told that others do not.
    let (head, body) = raw(&rig, "GET / HTTP/1.1\r\naccept-encoding: gzip;q=0").await;
    assert_eq!((field(&head, "content-encoding"), field(&head, "etag")), (None, Some("\"v1\"")));
    assert_eq!(field(&head, "vary"), Some("accept-encoding"));
    assert_eq!(body, page().into_bytes());
    // A HEAD is told what a GET is, but for its length.
    let (head, body) = raw(&rig, "HEAD / HTTP/1.1\r\naccept-encoding: br").await;
    assert_eq!((field(&head, "content-encoding"), body.len()), (Some("br"), 0));
    assert_eq!(field(&head, "content-length"), None, "{head}");
    let conditional = "GET / HTTP/1.1\r\naccept-encoding: br\r\nif-none-match: W/\"v1\"";
    let (head, body) = raw(&rig, conditional).await;
    assert_eq!((status(&head), field(&head, "vary")), (304, Some("accept-encoding")));
    assert_eq!((field(&head, "content-encoding"), body.len()), (None, 0));
}

#[tokio::test]
async fn what_is_not_for_it_is_left_alone() {
    for fields in [
        "content-type: image/png\r\n",
        "content-type: text/html\r\ncontent-encoding: gzip\r\n",
        "content-type: text/html\r\ncache-control: no-transform\r\n",
        "content-type: text/event-stream\r\n",
        "content-type: application/grpc\r\n",
    ] {
        let rig = rig(serving(fields).await, "compress = true\n").await;
        let (head, body) = raw(&rig, "GET / HTTP/1.1\r\naccept-encoding: gzip").await;
        let encoding = fields.contains("encoding").then_some("gzip");
        assert_eq!(field(&head, "content-encoding"), encoding, "{fields}");
        assert_eq!(field(&head, "vary"), None, "{fields}");
        assert_eq!(body, page().into_bytes(), "{fields}: not twice");
    }
    let part = answering(|_, _| {
        b"HTTP/1.1 206 Partial Content\r\ncontent-type: text/html\r\ncontent-range: bytes 0-1/9\r\n\
          content-length: 2\r\n\r\nab"
            .to_vec()
    });
    let parts = rig(part.await, "compress = true\n").await;
    let (head, body) =
        raw(&parts, "GET / HTTP/1.1\r\naccept-encoding: gzip\r\nrange: bytes=0-1").await;
    assert_eq!((field(&head, "content-encoding"), &body[..]), (None, &b"ab"[..]));
    // A route may do without, or choose.
    let text = "compress = true\n[[service.web.route]]\npath = \"/off\"\ncompress = false\n\
                [[service.web.route]]\npath = \"/gzip\"\ncompress = \"gzip\"\n";
    let routes = rig(serving("content-type: text/css\r\n").await, text).await;
    for (path, expected) in [("/", Some("zstd")), ("/off", None), ("/gzip", Some("gzip"))] {
        let request = format!("GET {path} HTTP/1.1\r\naccept-encoding: gzip, zstd");
        assert_eq!(field(&raw(&routes, &request).await.0, "content-encoding"), expected, "{path}");
    }
}

#[tokio::test]
async fn a_page_that_is_written_slowly_arrives_as_it_is_written() {
    let go = Arc::new(Notify::new());
    let waits = Arc::clone(&go);
    let address = origin(move |mut stream, _| {
        let waits = Arc::clone(&waits);
        async move {
            let _ = read_message(&mut stream, &mut Vec::new()).await;
            let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\
                         transfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
            stream.write_all(head).await.expect("to send");
            waits.notified().await;
            stream.write_all(b"6\r\nsecond\r\n0\r\n\r\n").await.expect("to send");
        }
    })
    .await;
    let rig = rig(address, "compress = true\n").await;
    for coding in Coding::ALL {
        let mut client = http2(rig.http()).await;
        let request = Request::get("http://a/").header("accept-encoding", coding.token());
        let request = request.body(Full::default()).expect("sound");
        let response = client.send_request(request).await.expect("an answer");
        let mut body = response.into_body();
        let mut got = Vec::new();
        // The origin says no more before these words have arrived.
        let arrived = |got: &[u8]| {
            let mut five = [0; 5];
            let read = match coding {
                Coding::Gzip => flate2::read::GzDecoder::new(got).read_exact(&mut five),
                Coding::Zstd => zstd::stream::read::Decoder::new(got)
                    .and_then(|mut decoder| decoder.read_exact(&mut five)),
                Coding::Brotli => brotli::Decompressor::new(got, 4096).read_exact(&mut five),
            };
            read.is_ok() && &five == b"first"
        };
        while !arrived(&got) {
            let frame = tokio::time::timeout(LONG, body.frame()).await.expect("in time");
            got.extend_from_slice(frame.expect("more").expect("sound").data_ref().expect("data"));
        }
        go.notify_one();
        got.extend_from_slice(&body.collect().await.expect("the rest").to_bytes());
        assert_eq!(decoded(coding, &got), "firstsecond", "{coding}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_whole_page() {
    let address = origin(|mut stream, _| async move {
        let _ = read_message(&mut stream, &mut Vec::new()).await;
        let head =
            b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 90000\r\n\r\nsome";
        let _ = stream.write_all(head).await;
    })
    .await;
    let rig = rig(address, "compress = true\n").await;
    let (head, body) = raw(&rig, "GET / HTTP/1.1\r\naccept-encoding: gzip").await;
    assert_eq!(field(&head, "content-encoding"), Some("gzip"));
    assert!(!body.ends_with(b"0\r\n\r\n"), "its end is not told");
}

#[tokio::test]
async fn a_client_that_goes_midway_leaves_nothing_behind() {
    let address = origin(|mut stream, _| async move {
        let _ = read_message(&mut stream, &mut Vec::new()).await;
        let head =
            b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ntransfer-encoding: chunked\r\n\r\n";
        let _ = stream.write_all(head).await;
        // Pages without an end, of which little is spared.
        let mut random = fastrand::Rng::with_seed(1);
        loop {
            let page: String = (0..4096).map(|_| random.alphanumeric()).collect();
            if stream.write_all(format!("1000\r\n{page}\r\n").as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await;
    let target = endpoint(address);
    let rig = Rig::new(side(1, &[Arc::clone(&target)]));
    rig.publish(|entry| entry.policy = policy("compress = true\n"));
    // More often than there are encoders.
    for n in 0..crate::proxy::compress::MOST + 20 {
        let mut client = Client::new(rig.http()).await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n").await;
        let head = client.read_head().await;
        assert_eq!(field(&head, "content-encoding"), Some("gzip"), "{n}");
        drop(client);
        if n % 32 == 0 {
            until(|| target.in_flight() == 0).await;
        }
    }
    until(|| target.in_flight() == 0).await;
}
