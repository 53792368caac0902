//! The rules of the edge, one by one, byte by byte: what is refused, what is changed, what passes.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::*;
use crate::analysis::scorecard::Row;
use crate::model::weight::Side;
use crate::routing::settings::ServiceSettings;
use crate::telemetry::traffic::{Count, Reason};

/// Requests as an instance sees them: heads, and bodies.
type Log = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A proxy over an instance that writes down what it is asked.
async fn logged() -> (Rig, Log) {
    let log = Log::default();
    let writing = Arc::clone(&log);
    let address = answering(move |head, body| {
        writing.lock().expect("no panic").push((head.to_owned(), body.to_vec()));
        ok("served")
    })
    .await;
    (Rig::new(side(1, &[endpoint(address)])), log)
}

/// All that the client gets for these bytes.
async fn told(rig: &Rig, bytes: impl AsRef<[u8]>) -> String {
    let mut client = Client::new(rig.http()).await;
    client.send(bytes).await;
    let _ = client.stream.shutdown().await;
    client.read_to_end().await
}

const BEHIND: &str = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";

#[tokio::test]
async fn whatever_is_read_in_two_ways_is_refused_and_nothing_behind_it_is_read() {
    let (rig, log) = logged().await;
    let post =
        |fields: &str, body: &str| format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n{body}");
    let get = |line: &str, fields: &str| format!("{line}\r\n{fields}\r\n");
    let cases: Vec<(String, u16, Reason)> = vec![
        (
            post("content-length: 4\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
            400,
            Reason::Framing,
        ),
        (
            post("transfer-encoding: chunked\r\ncontent-length: 4\r\n", "0\r\n\r\n"),
            400,
            Reason::Framing,
        ),
        (post("content-length: 5\r\ncontent-length: 5\r\n", "hello"), 400, Reason::Framing),
        (post("content-length: 5\r\ncontent-length: 0\r\n", "hello"), 400, Reason::Framing),
        (post("content-length: 5, 5\r\n", "hello"), 400, Reason::Framing),
        (post("content-length: +5\r\n", "hello"), 400, Reason::Framing),
        (post("content-length: 0x5\r\n", "hello"), 400, Reason::Framing),
        (post("content-length:\r\n", ""), 400, Reason::Framing),
        (post("content-length: 5 \u{b}\r\n", "hello"), 400, Reason::Malformed),
        (post("transfer-encoding: chunked, chunked\r\n", "0\r\n\r\n"), 400, Reason::Framing),
        (post("transfer-encoding: , chunked\r\n", "0\r\n\r\n"), 400, Reason::Framing),
        (
            post("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n", "0\r\n\r\n"),
            400,
            Reason::Framing,
        ),
        (post("transfer-encoding: identity\r\n", ""), 400, Reason::Framing),
        (post("transfer-encoding: gzip, chunked\r\n", "0\r\n\r\n"), 501, Reason::Coding),
        (post("transfer-encoding : chunked\r\n", "0\r\n\r\n"), 400, Reason::Malformed),
        (post("transfer-encoding:\r\n chunked\r\n", "0\r\n\r\n"), 400, Reason::Malformed),
        (post("transfer-encoding\u{0}: chunked\r\n", "0\r\n\r\n"), 400, Reason::Malformed),
        (
            "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".into(),
            400,
            Reason::Framing,
        ),
        (get("GET / HTTP/1.1", ""), 400, Reason::Host),
        (get("GET / HTTP/1.1", "host: a\r\nhost: a\r\n"), 400, Reason::Host),
        (get("GET / HTTP/1.1", "host: u@a\r\n"), 400, Reason::Host),
        (get("GET / HTTP/1.1", "host: a/b\r\n"), 400, Reason::Host),
        (get("GET http://b/ HTTP/1.1", "host: a\r\n"), 400, Reason::Host),
        (get("GET http://u@a/ HTTP/1.1", "host: a\r\n"), 400, Reason::Host),
        (get("GET / HTTP/1.1", "host: a\nx: y\r\n"), 400, Reason::Malformed),
        (get("GET / HTTP/1.1", "host: a\rx: y\r\n"), 400, Reason::Malformed),
        (get("GET / HTTP/1.1", "host: a\r\nx: y\r\n folded\r\n"), 400, Reason::Malformed),
        (get("GET / HTTP/1.1", "host: a\r\nx: \u{0}\r\n"), 400, Reason::Malformed),
        (get("GET / HTTP/1.1", "host: a\r\nx y: z\r\n"), 400, Reason::Malformed),
        (get("GET / HTTP/1.1", " host: a\r\n"), 400, Reason::Malformed),
        ("GET / HTTP/1.1\nhost: a\n\n".into(), 400, Reason::Malformed),
        ("\nGET / HTTP/1.1\r\nhost: a\r\n\r\n".into(), 400, Reason::Malformed),
        (" GET / HTTP/1.1\r\nhost: a\r\n\r\n".into(), 400, Reason::Malformed),
        ("GET /\r\n\r\n".into(), 400, Reason::Malformed),
        (get("GET / HTTP/1.2", "host: a\r\n"), 505, Reason::Version),
        (get("GET / HTTP/2.0", "host: a\r\n"), 505, Reason::Version),
        (get("GET /\thttp HTTP/1.1", "host: a\r\n"), 400, Reason::Malformed),
        (get("GET /a#b HTTP/1.1", "host: a\r\n"), 400, Reason::Target),
        (get("GET /a\\b HTTP/1.1", "host: a\r\n"), 400, Reason::Target),
        (get("GET /%00 HTTP/1.1", "host: a\r\n"), 400, Reason::Target),
        (get("GET /../x HTTP/1.1", "host: a\r\n"), 400, Reason::Target),
        (get("GET /..%c0%af HTTP/1.1", "host: a\r\n"), 400, Reason::Target),
        (get("GET * HTTP/1.1", "host: a\r\n"), 400, Reason::Target),
        (get("GET a:80 HTTP/1.1", "host: a\r\n"), 400, Reason::Target),
        (get("CONNECT a:443 HTTP/1.1", "host: a:443\r\n"), 405, Reason::Method),
        (get("TRACE / HTTP/1.1", "host: a\r\n"), 405, Reason::Method),
        (post("expect: 200-ok\r\ncontent-length: 5\r\n", "hello"), 417, Reason::Expectation),
    ];
    for (request, code, reason) in cases {
        let before = rig.traffic.refused(reason);
        let all = told(&rig, format!("{request}{BEHIND}")).await;
        assert_eq!(status(&all), code, "{request:?}: {all}");
        assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{request:?}: {all}");
        assert_eq!(field(&all, "connection"), Some("close"), "{request:?}: {all}");
        assert_eq!(rig.traffic.refused(reason), before + 1, "{request:?}");
    }
    assert_eq!(*log.lock().expect("no panic"), []);
    assert_eq!(Row::ALL.map(|row| rig.count(Side::Stable, row)), [0; Row::COUNT]);
}

#[tokio::test]
async fn a_refusal_comes_behind_the_answers_before_it() {
    let (rig, log) = logged().await;
    let good =
        "POST /1 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let bad = "GET /2 HTTP/1.1\nhost: a\n\n";
    let all = told(&rig, format!("{good}{bad}{BEHIND}")).await;
    assert!(all.starts_with("HTTP/1.1 200 OK\r\n") && all.contains("served"), "{all}");
    assert!(all.contains("HTTP/1.1 400 Bad Request\r\n"), "{all}");
    assert_eq!(all.matches("HTTP/1.1 ").count(), 2);
    assert_eq!(log.lock().expect("no panic").len(), 1);
}

#[tokio::test]
async fn bad_chunks_end_the_connection() {
    let (rig, log) = logged().await;
    for body in [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello!!\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffff0\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nx: y\n\r\n",
        "5\r\nhello\r\n0\r\nno colon\r\n\r\n",
    ] {
        let request =
            format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{body}");
        let mut client = Client::new(rig.http()).await;
        client.send(format!("{request}{BEHIND}")).await;
        let all = client.read_to_end().await;
        assert_eq!(status(&all), 400, "{body:?}: {all}");
        assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{body:?}: {all}");
    }
    assert_eq!(rig.traffic.refused(Reason::Chunks), 10);
    assert_eq!(*log.lock().expect("no panic"), []);
}

#[tokio::test]
async fn what_is_of_one_connection_does_not_pass() {
    let (rig, log) = logged().await;
    let mut client = Client::new(rig.http()).await;
    client
        .send(
            "GET /x HTTP/1.1\r\nhost: app.example\r\nconnection: keep-alive, x-private, Host, \
             Authorization, X-Forwarded-For, Cookie\r\nconnection: x-other\r\nx-private: 1\r\n\
             x-other: 1\r\nauthorization: Basic eA==\r\ncookie: a=b\r\nkeep-alive: 5\r\n\
             proxy-connection: keep-alive\r\nproxy-authorization: x\r\nte: gzip\r\n\
             upgrade: h2c\r\nhttp2-settings: AAA\r\nx_forwarded_for: 6.6.6.6\r\n\
             x-forwarded-for: 6.6.6.6\r\n\r\n",
        )
        .await;
    assert_eq!(client.read().await.1, "served");
    let (head, _) = log.lock().expect("no panic")[0].clone();
    let mut names: Vec<_> =
        head.lines().skip(1).filter_map(|line| Some(line.split_once(": ")?.0)).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "authorization",
            "cdn-loop",
            "cookie",
            "host",
            "http2-settings",
            "traceparent",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-request-id"
        ],
        "{head}"
    );
    assert_eq!(field(&head, "x-forwarded-for"), Some("127.0.0.1"));
}

#[tokio::test]
async fn the_path_is_forwarded_as_it_came() {
    let (rig, log) = logged().await;
    let mut client = Client::new(rig.http()).await;
    for path in ["/a/../b?c=../d", "//x///y", "/a%2fb", "/%E9", "/a;b=c", "/?", "/a?b?c%00"] {
        assert_eq!(client.get(path).await.1, "served", "{path}");
        let (head, _) = log.lock().expect("no panic").pop().expect("a request");
        assert!(head.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{head}");
    }
    client.send("GET http://App.Example/y?z HTTP/1.1\r\nhost: app.example\r\n\r\n").await;
    assert_eq!(client.read().await.1, "served");
    let (head, _) = log.lock().expect("no panic").pop().expect("a request");
    assert!(head.starts_with("GET /y?z HTTP/1.1\r\n"), "{head}");
    assert!(field(&head, "host").expect("a host").eq_ignore_ascii_case("app.example"));
}

#[tokio::test]
async fn options_stop_where_they_are_told_to() {
    let (rig, log) = logged().await;
    let mut client = Client::new(rig.http()).await;
    client.send("OPTIONS /x HTTP/1.1\r\nhost: a\r\nmax-forwards: 0\r\n\r\n").await;
    assert_eq!(status(&client.read_head().await), 204);
    client.send("OPTIONS /x HTTP/1.1\r\nhost: a\r\nmax-forwards: 7\r\n\r\n").await;
    assert_eq!(client.read().await.1, "served");
    let (head, _) = log.lock().expect("no panic").remove(0);
    assert_eq!(field(&head, "max-forwards"), Some("6"));
    client.send("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(status(&client.read_head().await), 204);
}

#[tokio::test]
async fn a_request_that_goes_in_circles_is_stopped() {
    // The proxy's only instance is the proxy itself.
    let rig = Rig::new(side(1, &[]));
    let this = endpoint(rig.http());
    rig.publish(|entry| entry.stable = Some(side(2, &[this])));
    let (code, _) = get(rig.http(), "/").await;
    assert_eq!(code, 508);
    assert_eq!(rig.traffic.refused(Reason::Loop), 1);
    assert_eq!(rig.total(Count::Requests), 10);
}

#[tokio::test]
async fn a_hundred_is_said_only_to_who_waits_for_it() {
    let (rig, log) = logged().await;
    let mut client = Client::new(rig.http()).await;
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n")
        .await;
    assert_eq!(client.read_head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("abc").await;
    assert_eq!(client.read().await.1, "served");
    // Its body is here already: nobody waits.
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\nabc")
        .await;
    assert_eq!(status(&client.read().await.0), 200);
    client
        .send("POST / HTTP/1.0\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n")
        .await;
    client.send("abc").await;
    assert!(client.read_to_end().await.starts_with("HTTP/1.0 200"));
    assert!(
        log.lock()
            .expect("no panic")
            .iter()
            .all(|(head, body)| { field(head, "expect").is_none() && body == b"abc" })
    );
    // Refused before it is asked for: then nobody knows whether the body comes.
    let mut client = Client::new(rig.http()).await;
    client
        .send("POST /%00 HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n")
        .await;
    let all = client.read_to_end().await;
    assert!(status(&all) == 400 && field(&all, "connection") == Some("close"), "{all}");
}

#[tokio::test]
async fn no_byte_goes_behind_an_upgrade_before_it_is_granted() {
    // CVE-2026-2833: what follows an Upgrade is the client's next request, until there is a 101.
    let seen = Arc::new(Mutex::new(Vec::new()));
    let writing = Arc::clone(&seen);
    let address = origin(move |mut stream, _| {
        let writing = Arc::clone(&writing);
        async move {
            let mut buffer = vec![0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
                writing.lock().expect("no panic").push(text);
                let _ = stream.write_all(&ok("no")).await;
            }
        }
    })
    .await;
    let rig = Rig::new(side(1, &[endpoint(address)]));
    let mut client = Client::new(rig.http()).await;
    client
        .send(format!(
            "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n{BEHIND}"
        ))
        .await;
    assert_eq!(client.read().await.1, "no");
    assert_eq!(client.read().await.1, "no");
    let seen = seen.lock().expect("no panic").clone();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert!(!seen[0].contains("smuggled") && seen[1].starts_with("GET /smuggled "), "{seen:?}");
}

#[tokio::test]
async fn a_body_to_the_end_of_the_connection_is_no_request_body() {
    // CVE-2026-2835: HTTP/1.0 without a length has no body; what follows is no body of it.
    let (rig, log) = logged().await;
    let all = told(&rig, format!("POST / HTTP/1.0\r\nhost: a\r\n\r\n{BEHIND}")).await;
    assert_eq!(all.matches("HTTP/1.").count(), 1, "{all}");
    let mut client = Client::new(rig.http()).await;
    client
        .send(format!("POST / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n{BEHIND}"))
        .await;
    assert!(client.read().await.0.contains("connection: keep-alive\r\n"));
    assert_eq!(client.read().await.1, "served");
    let log = log.lock().expect("no panic");
    assert!(log.iter().all(|(_, body)| body.is_empty()), "{log:?}");
}

#[tokio::test]
async fn a_body_that_nobody_reads_is_never_a_request() {
    // CVE-2025-4366: the answer comes without the body having been read.
    let rig = Rig::new(side(1, &[]));
    let length = BEHIND.len();
    let mut client = Client::new(rig.http()).await;
    for _ in 0..3 {
        client
            .send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{BEHIND}"))
            .await;
        assert_eq!(status(&client.read().await.0), 503);
    }
    assert_eq!(rig.total(Count::Requests), 3);
    // Not here yet: the connection ends, and says so.
    let mut client = Client::new(rig.http()).await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n").await;
    let head = client.read_head().await;
    assert_eq!((status(&head), field(&head, "connection")), (503, Some("close")));
    client.send(BEHIND).await;
    assert_eq!(rig.total(Count::Requests), 4);
}

#[tokio::test]
async fn what_an_instance_says_twice_is_not_passed_on() {
    for (answer, code) in [
        // Two lengths, or none that is a number.
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nxyzd", 502),
        ("HTTP/1.1 200 OK\r\ncontent-length: +3\r\n\r\nxyz", 502),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n",
            502,
        ),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 502),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\nxyz", 502),
        ("HTTP/1.1 200 OK\r\nx: y\r\n folded\r\ncontent-length: 0\r\n\r\n", 502),
        ("HTTP/1.1 200 OK\r\nx : y\r\ncontent-length: 0\r\n\r\n", 502),
        ("HTTP/1.1 200 OK\r\nx: y\rset-cookie: a=b\r\ncontent-length: 0\r\n\r\n", 502),
        ("HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n", 502),
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n", 502),
        // No body, whatever comes.
        ("HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\nxyz", 204),
        ("HTTP/1.1 304 Not Modified\r\ncontent-length: 3\r\n\r\nxyz", 304),
        // One answer too many.
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
            200,
        ),
    ] {
        let address = origin(move |mut stream, _| async move {
            let mut buffer = Vec::new();
            while read_message(&mut stream, &mut buffer).await.is_some() {
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    break;
                }
            }
        })
        .await;
        let service = ServiceSettings { retries: 0, ..ServiceSettings::default() };
        let rig = Rig::with(side(1, &[endpoint(address)]), None, 0.0, service, settings());
        let mut client = Client::new(rig.http()).await;
        for _ in 0..3 {
            client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            let (head, body) = if code == 304 {
                (client.read_head().await, String::new())
            } else {
                client.read().await
            };
            assert_eq!(status(&head), code, "{answer:?}: {head}");
            assert!(!body.contains("evil") && !body.contains("xyz"), "{answer:?}: {body}");
        }
    }
}

#[tokio::test]
async fn head_has_a_length_and_no_body() {
    let address = answering(|_, _| ok("abc")).await;
    let rig = Rig::new(side(1, &[endpoint(address)]));
    let mut client = Client::new(rig.http()).await;
    for _ in 0..3 {
        client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let head = client.read_head().await;
        assert_eq!((status(&head), field(&head, "content-length")), (200, Some("3")));
    }
}

#[tokio::test]
async fn trailers_pass_to_who_takes_them() {
    let seen = Arc::new(Mutex::new(String::new()));
    let writing = Arc::clone(&seen);
    let address = answering(move |head, body| {
        *writing.lock().expect("no panic") = format!("{head}{}", String::from_utf8_lossy(body));
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n3\r\nabc\r\n0\r\n\
          x-sum: 1\r\ncontent-length: 9\r\nset-cookie: a=b\r\n\r\n"
            .to_vec()
    })
    .await;
    let rig = Rig::new(side(1, &[endpoint(address)]));
    let mut client = Client::new(rig.http()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\n\r\n").await;
    assert!(client.read().await.1.ends_with("0\r\nx-sum: 1\r\n\r\n"));
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(client.read().await.1.ends_with("0\r\n\r\n"));
    client
        .send(
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: x-sum, host\r\n\r\n\
             3\r\nabc\r\n0\r\nx-sum: 2\r\nhost: evil\r\nx-forwarded-for: 6.6.6.6\r\n\r\n",
        )
        .await;
    client.read().await;
    let seen = seen.lock().expect("no panic").clone();
    assert!(seen.ends_with("0\r\nx-sum: 2\r\n\r\n") && !seen.contains("evil"), "{seen}");
}
