//! HTTP/2 clients that misbehave, frame by frame; and WebSockets on its streams.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Version};
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::support::*;
use crate::proxy::Settings;
use crate::proxy::limits::Limits;
use crate::routing::settings::ServiceSettings;
use crate::telemetry::traffic::{Count, Reason};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Fields as HPACK literals without indexing.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

pub const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];

fn get_block() -> Vec<u8> {
    block(&GET)
}

/// Connects, sends all of it, and reads to the end: what came, if an end came.
pub async fn flood(rig: &Rig, frames: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(rig.http()).await.expect("a connection");
    let (mut reading, mut writing) = stream.split();
    let mut all = Vec::new();
    let write = async {
        // A reset in the middle is an end too.
        let _ = writing.write_all(PREFACE).await;
        let _ = writing.write_all(frames).await;
        std::future::pending::<()>().await;
    };
    let read = async {
        let _ = reading.read_to_end(&mut all).await;
    };
    timeout(LONG, async {
        tokio::select! { () = read => {}, () = write => {} }
    })
    .await
    .expect("an end");
    all
}

/// The status of stream 1 in what came: a literal or one of the static table.
pub fn reset_or_goaway(all: &[u8]) -> Vec<(u8, u32)> {
    let (mut at, mut found) = (0, Vec::new());
    while let Some(header) = all.get(at..at + 9) {
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let payload = all.get(at + 9..at + 9 + length).unwrap_or_default();
        let code = match header[3] {
            3 => payload.first_chunk::<4>().map(|code| u32::from_be_bytes(*code)),
            7 => {
                payload.get(4..8).and_then(|c| c.first_chunk::<4>()).map(|c| u32::from_be_bytes(*c))
            }
            _ => None,
        };
        found.extend(code.map(|code| (header[3], code)));
        at += 9 + length;
    }
    found
}

async fn slow() -> Rig {
    let address = origin(|mut stream, _| async move {
        let mut buffer = Vec::new();
        while read_message(&mut stream, &mut buffer).await.is_some() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let _ = stream.write_all(&ok("slow")).await;
        }
    })
    .await;
    Rig::new(side(1, &[endpoint(address)]))
}

#[tokio::test]
async fn floods_end_their_connection_and_nobody_elses() {
    let rig = slow().await;
    let mut innocent = Client::new(rig.http()).await;
    let headers = |stream: u32| frame(1, 5, stream, &get_block());
    let rapid = |count: u32| -> Vec<u8> {
        (0..count)
            .flat_map(|n| [headers(2 * n + 1), frame(3, 0, 2 * n + 1, &[0, 0, 0, 8])])
            .flatten()
            .collect()
    };
    let open = frame(1, 4, 1, &block(&[(":method", "POST"), GET[1], GET[2], GET[3]]));
    let endless =
        [frame(1, 0, 1, &get_block()), frame(9, 0, 1, &block(&[("x", "y")])).repeat(5_000)]
            .concat();
    for (name, frames) in [
        ("rapid reset, CVE-2023-44487", rapid(5_000)),
        ("ping, CVE-2019-9512", frame(6, 0, 0, &[0; 8]).repeat(5_000)),
        ("settings, CVE-2019-9515", frame(4, 0, 0, &[]).repeat(5_000)),
        ("priority", frame(2, 0, 1, &[0, 0, 0, 0, 1]).repeat(5_000)),
        ("continuation, CVE-2024-27316", endless),
        ("empty data, CVE-2019-9518", [open.clone(), frame(0, 0, 1, &[]).repeat(5_000)].concat()),
        ("window updates", frame(8, 0, 0, &[0, 0, 0, 1]).repeat(20_000)),
        ("unknown frames", frame(0xbe, 0, 0, &[1]).repeat(5_000)),
        (
            "resets of what is closed, CVE-2019-9514",
            [open, frame(3, 0, 1, &[0; 4]).repeat(5_000)].concat(),
        ),
    ] {
        let all = flood(&rig, &frames).await;
        let ends = reset_or_goaway(&all);
        assert!(all.len() < 64 * 1024, "{name}: {} bytes came", all.len());
        assert!(!innocent.get("/").await.1.is_empty(), "{name}: {ends:?}");
    }
    assert!(rig.traffic.refused(Reason::Flood) >= 6, "{}", rig.traffic.refused(Reason::Flood));
    until(|| rig.total(Count::Accepted) - rig.total(Count::Closed) == 1).await;
}

#[tokio::test]
async fn who_floods_is_told_to_calm_down() {
    let rig = slow().await;
    let all = flood(&rig, &frame(2, 0, 1, &[0, 0, 0, 0, 1]).repeat(200)).await;
    assert_eq!(reset_or_goaway(&all), [(7, 11)]);
    // And who sends what is no frame is told which rule it broke.
    let all = flood(&rig, &frame(6, 0, 0, &[0; 7])).await;
    assert_eq!(reset_or_goaway(&all), [(7, 6)]);
    let all = flood(&rig, &frame(4, 0, 0, &[0, 4, 0xff, 0, 0, 0])).await;
    assert_eq!(reset_or_goaway(&all), [(7, 3)]);
    assert_eq!(rig.traffic.refused(Reason::Malformed), 2);
}

#[tokio::test]
async fn streams_that_the_client_breaks_leave_no_work_behind() {
    // CVE-2025-8671: the server is made to reset, and what it began must end with that.
    let target = endpoint(
        origin(|mut stream, _| async move {
            let mut buffer = Vec::new();
            let _ = read_message(&mut stream, &mut buffer).await;
            std::future::pending::<()>().await;
        })
        .await,
    );
    let rig = Rig::new(side(1, &[Arc::clone(&target)]));
    let mut stream = TcpStream::connect(rig.http()).await.expect("a connection");
    let _ = stream.write_all(PREFACE).await;
    for n in 0..400_u32 {
        let id = 2 * n + 1;
        // A window update of zero is a stream error.
        let broken = [frame(1, 5, id, &get_block()), frame(8, 0, id, &[0, 0, 0, 0])].concat();
        if stream.write_all(&broken).await.is_err() {
            break;
        }
        assert!(target.in_flight() <= 210, "{} are worked on", target.in_flight());
    }
    until(|| target.in_flight() == 0).await;
}

#[tokio::test]
async fn a_header_block_has_a_deadline() {
    let limits = Limits {
        header_read: Duration::from_millis(300),
        keep_alive: Duration::from_secs(600),
        ..Limits::default()
    };
    let settings = Settings { limits, ..settings() };
    let stable = side(1, &[endpoint(saying("x").await)]);
    let rig = Rig::with(stable, None, 0.0, ServiceSettings::default(), settings);
    let whole = frame(1, 5, 1, &get_block());
    for begun in [&frame(1, 0, 1, &get_block())[..], &whole[..12], &whole[..4]] {
        let before = rig.traffic.refused(Reason::HeaderTime);
        flood(&rig, begun).await;
        until(|| rig.traffic.refused(Reason::HeaderTime) == before + 1).await;
    }
}

#[tokio::test]
async fn what_http1_cannot_say_http2_must_not() {
    let rig = slow().await;
    let with = |more: &[(&str, &str)]| block(&[&GET[..], more].concat());
    for (name, block) in [
        ("connection", with(&[("connection", "close")])),
        ("keep-alive", with(&[("keep-alive", "5")])),
        ("upgrade", with(&[("upgrade", "h2c")])),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("te", with(&[("te", "gzip")])),
        ("upper case", with(&[("X-Upper", "y")])),
        ("line end in a value", with(&[("x", "y\r\nz: evil")])),
        ("NUL in a value", with(&[("x", "y\0")])),
        ("line end in a name", with(&[("x\r\ny", "z")])),
        ("colon in a name", with(&[("x:y", "z")])),
        ("pseudo behind", with(&[("x", "y"), (":path", "/evil")])),
        ("unknown pseudo", with(&[(":evil", "y")])),
        ("line end in the path", block(&[GET[0], GET[1], (":path", "/ HTTP/1.1\r\nx: y"), GET[3]])),
        ("no path", block(&[GET[0], GET[1], (":path", ""), GET[3]])),
        ("another host", with(&[("host", "b")])),
        ("two hosts", with(&[("host", "a"), ("host", "a")])),
        ("space before a value", with(&[("x", " y")])),
        ("tab behind a value", with(&[("x", "y\t")])),
        ("CONNECT to nowhere", block(&[(":method", "CONNECT")])),
        ("method", block(&[(":method", "GET / HTTP/1.1\r\n"), GET[1], GET[2], GET[3]])),
    ] {
        let mut stream = TcpStream::connect(rig.http()).await.expect("a connection");
        let end = frame(7, 0, 0, &[0; 8]);
        let all = [PREFACE, &frame(1, 5, 1, &block), &end].concat();
        stream.write_all(&all).await.expect("to send");
        let mut came = Vec::new();
        let _ = timeout(LONG, stream.read_to_end(&mut came)).await.expect("an end");
        let ends = reset_or_goaway(&came);
        let refused = ends.iter().any(|(kind, code)| *kind == 3 && *code == 1)
            || ends.iter().any(|(kind, code)| *kind == 7 && *code != 0);
        // What has another meaning than its own is an answer of ours: 400, at 12 of the static table.
        let bad = name == "line end in the path" && find(&came, &[0x8c]).is_some();
        assert!(refused || bad, "{name}: {ends:?} {came:?}");
    }
    assert_eq!(rig.total(Count::UpstreamConnects), 0);
}

#[tokio::test]
async fn a_length_that_is_not_the_bodys_resets_the_stream() {
    let rig = slow().await;
    let fields = [(":method", "POST"), GET[1], GET[2], GET[3], ("content-length", "5")];
    let frames =
        [frame(1, 4, 1, &block(&fields)), frame(0, 1, 1, b"hello!!"), frame(7, 0, 0, &[0; 8])];
    let all = flood(&rig, &frames.concat()).await;
    assert!(reset_or_goaway(&all).iter().any(|(_, code)| *code == 1), "{all:?}");
}

#[tokio::test]
async fn a_drain_says_goodbye_twice() {
    // RFC 9113, 6.8: first that an end is near, with the highest number; then where it was.
    let rig = slow().await;
    let mut stream = TcpStream::connect(rig.http()).await.expect("a connection");
    stream.write_all(&[PREFACE, &frame(1, 5, 1, &get_block())].concat()).await.expect("to send");
    until(|| rig.total(Count::Requests) == 1).await;
    let draining = rig.proxy.drain(Duration::from_secs(10));
    let reading = async {
        let (mut all, mut acked) = (Vec::new(), false);
        while let Ok(1..) = stream.read_buf(&mut all).await {
            // The ping between the two is to be answered.
            let ping = find(&all, &[0, 0, 8, 6, 0]).filter(|_| !acked);
            if let Some(payload) = ping.and_then(|at| all.get(at + 9..at + 17)) {
                acked = true;
                let pong = frame(6, 1, 0, payload);
                stream.write_all(&pong).await.expect("to send");
            }
        }
        all
    };
    let (all, ()) = timeout(LONG, async { tokio::join!(reading, draining) }).await.expect("an end");
    let mut last = Vec::new();
    let mut at = 0;
    while let Some(header) = all.get(at..at + 9) {
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        if header[3] == 7 {
            let id = all[at + 9..].first_chunk::<4>().expect("a payload");
            last.push(u32::from_be_bytes(*id));
        }
        at += 9 + length;
    }
    assert_eq!(last, [0x7fff_ffff, 1]);
    assert!(find(&all, b"slow").is_some());
}

type Streams = hyper::client::conn::http2::SendRequest<Empty<Bytes>>;

async fn streams(rig: &Rig) -> Streams {
    let stream = TcpStream::connect(rig.http()).await.expect("a connection");
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("a handshake");
    tokio::spawn(connection);
    sender
}

fn connect(protocol: &'static str) -> Request<Empty<Bytes>> {
    Request::builder()
        .method(Method::CONNECT)
        .version(Version::HTTP_2)
        .uri("http://app.example/chat?room=1")
        .header("sec-websocket-version", "13")
        .extension(hyper::ext::Protocol::from_static(protocol))
        .body(Empty::new())
        .expect("sound")
}

#[tokio::test]
async fn a_websocket_goes_by_a_stream() {
    let address = origin(|mut stream, _| async move {
        let mut buffer = Vec::new();
        let (head, _) = read_message(&mut stream, &mut buffer).await.expect("a request");
        assert!(head.starts_with("GET /chat?room=1 HTTP/1.1\r\n"), "{head}");
        assert_eq!(field(&head, "upgrade"), Some("websocket"));
        assert_eq!(field(&head, "connection"), Some("upgrade"));
        assert_eq!(field(&head, "host"), Some("app.example"));
        assert_eq!(field(&head, "sec-websocket-key").expect("a key").len(), 24);
        let answer = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\
                      connection: upgrade\r\nsec-websocket-accept: x\r\n\
                      sec-websocket-protocol: chat\r\n\r\nhello";
        stream.write_all(answer.as_bytes()).await.expect("to send");
        let (mut reading, mut writing) = stream.split();
        let _ = tokio::io::copy(&mut reading, &mut writing).await;
    })
    .await;
    let rig = Rig::new(side(1, &[endpoint(address)]));
    let mut client = streams(&rig).await;
    // Two at a time, on one connection.
    let mut open = Vec::new();
    for _ in 0..2 {
        client.ready().await.expect("ready");
        let answer = client.send_request(connect("websocket")).await.expect("an answer");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["sec-websocket-protocol"], "chat");
        assert!(!answer.headers().contains_key("sec-websocket-accept"));
        assert!(!answer.headers().contains_key("upgrade"));
        let upgraded = hyper::upgrade::on(answer).await.expect("a stream");
        open.push(TokioIo::new(upgraded));
    }
    for (n, stream) in open.iter_mut().enumerate() {
        let word = format!("word {n}");
        stream.write_all(word.as_bytes()).await.expect("to send");
        let mut came = vec![0; 5 + word.len()];
        timeout(LONG, stream.read_exact(&mut came)).await.expect("in time").expect("an echo");
        assert_eq!(came, format!("hello{word}").into_bytes());
    }
    assert_eq!(rig.total(Count::Tunnels), 2);
}

#[tokio::test]
async fn a_websocket_that_is_not_granted_is_not_open() {
    for (answer, code) in [("HTTP/1.1 200 OK", 502), ("HTTP/1.1 403 Forbidden", 403)] {
        let address =
            answering(move |_, _| format!("{answer}\r\ncontent-length: 2\r\n\r\nno").into()).await;
        let rig = Rig::new(side(1, &[endpoint(address)]));
        let mut client = streams(&rig).await;
        let answer = client.send_request(connect("websocket")).await.expect("an answer");
        assert_eq!(answer.status(), code);
        let answer = client.send_request(connect("connect-udp")).await.expect("an answer");
        assert_eq!(answer.status(), 501);
        let plain = Request::connect("app.example:443").body(Empty::new()).expect("sound");
        let answer = client.send_request(plain).await.expect("an answer");
        assert_eq!(answer.status(), 405);
        assert_eq!(rig.total(Count::Tunnels), 0);
    }
}
