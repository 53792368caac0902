//! The access log: what it says of requests of every kind.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::protocols::{fetch, http2, post};
use super::support::*;
use crate::proxy::Settings;
use crate::telemetry::access_log::line::{Format, Hidden};
use crate::telemetry::access_log::{AccessLog, Destination, Every, Settings as LogSettings};
use crate::telemetry::traffic::Traffic;

/// A rig with a log, and its lines once there are so many.
struct Written {
    rig: Rig,
    path: std::path::PathBuf,
    _directory: tempfile::TempDir,
}

impl Written {
    async fn new(address: std::net::SocketAddr, percent: f64) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("access.log");
        let to = Destination::File { path: path.clone(), size: 0, every: Every::Never, keep: 1 };
        let written =
            LogSettings { to, format: Format::Json, hidden: Hidden::default(), sample: u32::MAX };
        let (log, _) = AccessLog::start(written, Arc::new(Traffic::new(1))).expect("a log");
        let settings = Settings {
            log: Some(log),
            trusted_proxies: vec!["127.0.0.1".parse().expect("a network")],
            ..settings()
        };
        let (stable, canary) = (side(3, &[endpoint(address)]), side(4, &[endpoint(address)]));
        let rig = Rig::with(stable, Some(canary), percent, Default::default(), settings);
        Self { rig, path, _directory: directory }
    }

    async fn lines(&self, count: usize) -> Vec<serde_json::Value> {
        let read = || std::fs::read_to_string(&self.path).unwrap_or_default();
        until(|| read().lines().count() >= count).await;
        let parse =
            |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let lines: Vec<_> = read().lines().map(parse).collect();
        assert_eq!(lines.len(), count, "{lines:?}");
        lines
    }
}

#[tokio::test]
async fn a_line_says_what_was_asked_and_who_answered() {
    let written = Written::new(saying("hello").await, 100.0).await;
    let mut client = Client::new(written.rig.http()).await;
    client
        .send(
            "GET /a/b?c=d HTTP/1.1\r\nhost: app.example\r\nuser-agent: story\r\n\
             referer: http://r/\r\nx-forwarded-for: 203.0.113.9\r\n\r\n",
        )
        .await;
    let (head, _) = client.read().await;
    let mut two = http2(written.rig.http()).await;
    assert_eq!(fetch(&mut two, post("/two", "x")).await.1, "hello");
    let lines = written.lines(2).await;
    let one = &lines[0];
    for (name, value) in [
        ("client", "203.0.113.9"),
        ("method", "GET"),
        ("scheme", "http"),
        ("host", "app.example"),
        ("path", "/a/b"),
        ("query", "c=d"),
        ("protocol", "HTTP/1.1"),
        ("service", "web"),
        ("side", "canary"),
        ("instance", "i"),
        ("user_agent", "story"),
        ("referer", "http://r/"),
        ("request_id", field(&head, "x-request-id").expect("an id")),
    ] {
        assert_eq!(one[name], value, "{name}: {one}");
    }
    assert_eq!(
        (&one["status"], &one["bytes"], &one["revision"]),
        (&200.into(), &5.into(), &4.into())
    );
    assert!(
        one["duration_ms"].as_f64() >= one["header_ms"].as_f64() && one.get("aborted").is_none()
    );
    assert_eq!((&lines[1]["protocol"], &lines[1]["path"]), (&"HTTP/2.0".into(), &"/two".into()));
}

#[tokio::test]
async fn what_goes_wrong_is_written_too() {
    let broken = origin(|mut stream, _| async move {
        let _ = read_message(&mut stream, &mut Vec::new()).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
    })
    .await;
    let written = Written::new(broken, 0.0).await;
    let mut client = Client::new(written.rig.http()).await;
    client.send("GET /half HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.read_to_end().await;
    let mut client = Client::new(written.rig.http()).await;
    client.send("GET / HTTP/1.1\r\nhost: a b\r\n\r\n").await;
    assert_eq!(status(&client.read_head().await), 400);
    let lines = written.lines(2).await;
    assert_eq!((&lines[0]["aborted"], &lines[0]["bytes"]), (&true.into(), &4.into()));
    assert_eq!(lines[1]["status"], 400);
    assert!(lines[1].get("service").is_none() && lines[1].get("revision").is_none());
}

#[tokio::test]
async fn what_is_no_request_is_written_too() {
    let written = Written::new(saying("x").await, 0.0).await;
    let mut client = Client::new(written.rig.http()).await;
    // Two requests, and then what is none.
    client
        .send("GET /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\nGET /3\n")
        .await;
    let all = client.read_to_end().await;
    assert_eq!(all.matches("HTTP/1.1 ").count(), 3, "{all}");
    let mut two = http2(written.rig.http()).await;
    let mut request = post("/4", "x");
    request.headers_mut().insert("host", "elsewhere".parse().expect("a value"));
    two.send_request(request).await.expect_err("a reset");
    let lines = written.lines(4).await;
    let told: Vec<_> = lines.iter().map(|line| (&line["path"], &line["status"])).collect();
    let expected = [("/1", 200), ("/2", 200), ("-", 400), ("/4", 400)];
    for ((path, status), (expected, code)) in told.iter().zip(expected) {
        assert_eq!((path.as_str(), status.as_u64()), (Some(expected), Some(code)), "{lines:?}");
    }
}

#[tokio::test]
async fn who_gives_up_is_499() {
    let silent = origin(|mut stream, _| async move {
        let _ = read_message(&mut stream, &mut Vec::new()).await;
        std::future::pending::<()>().await;
    })
    .await;
    let written = Written::new(silent, 0.0).await;
    let mut client = Client::new(written.rig.http()).await;
    client.send("GET /gone HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let in_flight = || {
        let entry = written.rig.entry.lock().expect("no panic");
        entry.stable.as_ref().is_some_and(|side| side.pool.endpoints[0].in_flight() > 0)
    };
    until(in_flight).await;
    drop(client);
    let lines = written.lines(1).await;
    assert_eq!((&lines[0]["status"], &lines[0]["path"]), (&499.into(), &"/gone".into()));
}

#[tokio::test]
async fn a_tunnel_is_written_when_it_ends() {
    let address = origin(|mut stream, _| async move {
        let _ = read_message(&mut stream, &mut Vec::new()).await;
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                       upgrade: websocket\r\n\r\n";
        let _ = stream.write_all(switch).await;
        let mut byte = [0; 1];
        while let Ok(1) = stream.read(&mut byte).await {
            let _ = stream.write_all(&byte).await;
        }
    })
    .await;
    let written = Written::new(address, 0.0).await;
    let mut client = Client::new(written.rig.http()).await;
    let ask = "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    client.send(ask).await;
    assert_eq!(status(&client.read_head().await), 101);
    client.send("x").await;
    assert_eq!(client.read_body(1).await, "x");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(std::fs::read_to_string(&written.path).unwrap_or_default(), "", "it is not over");
    drop(client);
    let lines = written.lines(1).await;
    assert_eq!((&lines[0]["status"], &lines[0]["path"]), (&101.into(), &"/ws".into()));
    assert!(lines[0]["duration_ms"].as_f64() > Some(250.0), "{lines:?}");
}
