//! What is asked and answered.

use std::sync::Mutex;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::*;
use crate::analysis::scorecard::Row;
use crate::model::weight::Side;
use crate::proxy::tests::protocols::{http2_over, post};
use crate::proxy::tests::secure::tls;
use crate::telemetry::access_log::line::{Format, Hidden};
use crate::telemetry::access_log::{AccessLog, Destination, Every, Settings as LogSettings};
use crate::telemetry::traffic::{Count, Traffic};

#[tokio::test]
async fn a_request_goes_the_way_of_all_others() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let address = answering(move |head, body| {
        log.lock().expect("no panic").push(head.to_owned());
        let mut answer = ok(&String::from_utf8_lossy(body));
        let at = find(&answer, b"\r\n").expect("a line") + 2;
        let tied = b"connection: keep-alive\r\nkeep-alive: timeout=5\r\n";
        answer.splice(at..at, tied.iter().copied());
        answer
    })
    .await;
    let rig = rig(side(1, &[endpoint(address)]));
    local(async {
        let mut visitor = Visitor::new(https(&rig)).await;
        let mut request = post_of("/x?y");
        request.headers_mut().append("cookie", "a=1".parse().expect("a value"));
        request.headers_mut().append("cookie", "b=2".parse().expect("a value"));
        request.headers_mut().append("content-length", "5".parse().expect("a value"));
        request.headers_mut().append("x-forwarded-for", "9.9.9.9".parse().expect("a value"));
        let answer = visitor.fetch(request, "hello").await.expect("an answer");
        assert_eq!((answer.status, answer.body.as_str()), (200, "hello"));
        assert_eq!(answer.field("keep-alive"), None);
        assert_eq!(answer.field("content-length"), Some("5"));
        assert!(answer.field("date").is_some() && answer.field("x-request-id").is_some());
        assert_eq!(answer.field("alt-svc"), None, "who is here knows");
        let got = visitor.get("/plain").await;
        assert_eq!((got.status, got.body.as_str()), (200, ""));
    })
    .await;
    let seen = seen.lock().expect("no panic").clone();
    assert!(seen[0].starts_with("POST /x?y HTTP/1.1\r\n"), "{}", seen[0]);
    assert_eq!(field(&seen[0], "host"), Some("app.example"));
    assert_eq!(field(&seen[0], "cookie"), Some("a=1; b=2"));
    assert_eq!(field(&seen[0], "x-forwarded-proto"), Some("https"));
    assert_eq!(field(&seen[0], "x-forwarded-for"), Some("127.0.0.1"));
    // A GET has no body, not one of unknown length.
    assert!(field(&seen[1], "transfer-encoding").is_none(), "{}", seen[1]);
    assert!(field(&seen[1], "content-length").is_none_or(|length| length == "0"));
    assert_eq!(rig.rows(Side::Stable, 2).await, [2, 0, 0, 0, 0]);
    assert_eq!(rig.total(Count::TlsHandshakes), 1);
}

#[tokio::test]
async fn visitors_by_tls_are_told_of_it_and_others_are_not() {
    let rig = rig(side(1, &[endpoint(saying("hello").await)]));
    let said = format!("h3=\":{}\"; ma=86400", https(&rig).port());
    let mut one = tls(https(&rig), "app.example", &[]).await;
    one.write_all(b"GET / HTTP/1.1\r\nhost: app.example\r\n\r\n").await.expect("sent");
    let (head, _) = read_message(&mut one, &mut Vec::new()).await.expect("an answer");
    assert_eq!(field(&head, "alt-svc"), Some(said.as_str()));
    let mut two = http2_over(tls(https(&rig), "app.example", &[b"h2"]).await).await;
    let answer = two.send_request(post("/", "")).await.expect("an answer");
    assert_eq!(answer.headers()["alt-svc"], said.as_str());
    let (head, _) = Client::new(rig.http()).await.get("/").await;
    assert_eq!(field(&head, "alt-svc"), None, "{head}");
    // What an app says of itself stands.
    let own = answering(|_, _| {
        b"HTTP/1.1 200 OK\r\nalt-svc: clear\r\ncontent-length: 0\r\n\r\n".to_vec()
    });
    let rig = super::rig(side(1, &[endpoint(own.await)]));
    let mut one = tls(https(&rig), "app.example", &[]).await;
    one.write_all(b"GET / HTTP/1.1\r\nhost: app.example\r\n\r\n").await.expect("sent");
    let (head, _) = read_message(&mut one, &mut Vec::new()).await.expect("an answer");
    assert_eq!(field(&head, "alt-svc"), Some("clear"));
}

#[tokio::test]
async fn bodies_stream_both_ways_with_trailers() {
    // Says what it got so far, before it has all.
    let address = origin(|mut stream, _| async move {
        let mut buffer = Vec::new();
        let head = read_any(&mut stream, &mut buffer, true).await.expect("a head").0;
        assert!(head.to_ascii_lowercase().contains("transfer-encoding: chunked"), "{head}");
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: sum\r\n\r\n")
            .await
            .expect("sent");
        while find(&buffer, b"one").is_none() {
            use tokio::io::AsyncReadExt;
            stream.read_buf(&mut buffer).await.expect("bytes");
        }
        stream.write_all(b"5\r\nfirst\r\n").await.expect("sent");
        while find(&buffer, b"\r\n\r\n").is_none() {
            use tokio::io::AsyncReadExt;
            stream.read_buf(&mut buffer).await.expect("bytes");
        }
        let text = String::from_utf8_lossy(&buffer).into_owned();
        assert!(text.contains("two") && text.contains("mark: up"), "{text}");
        stream.write_all(b"6\r\nsecond\r\n0\r\nsum: 11\r\n\r\n").await.expect("sent");
    })
    .await;
    let rig = rig(side(1, &[endpoint(address)]));
    local(async {
        let mut visitor = Visitor::new(https(&rig)).await;
        let mut request = post_of("/");
        request.headers_mut().insert("te", "trailers".parse().expect("a value"));
        // An instance is sent those that are announced.
        request.headers_mut().insert("trailer", "mark".parse().expect("a value"));
        let mut stream = visitor.begin(request).await;
        stream.send_data(Bytes::from_static(b"one")).await.expect("sent");
        let head = timeout(LONG, stream.recv_response()).await.expect("in time").expect("a head");
        assert_eq!(head.status(), 200);
        let mut first = stream.recv_data().await.expect("data").expect("a piece");
        assert_eq!(first.copy_to_bytes(first.remaining()), "first");
        // An empty frame is none, and ends nothing.
        stream.send_data(Bytes::new()).await.expect("sent");
        stream.send_data(Bytes::from_static(b"two")).await.expect("sent");
        let mut trailers = HeaderMap::new();
        trailers.insert("mark", "up".parse().expect("a value"));
        stream.send_trailers(trailers).await.expect("sent");
        stream.finish().await.expect("sent");
        let mut second = stream.recv_data().await.expect("data").expect("a piece");
        assert_eq!(second.copy_to_bytes(second.remaining()), "second");
        assert!(stream.recv_data().await.expect("data").is_none());
        let trailers = stream.recv_trailers().await.expect("sound").expect("trailers");
        assert_eq!(trailers["sum"], "11");
    })
    .await;
    assert_eq!(rig.rows(Side::Stable, 1).await, [1, 0, 0, 0, 0]);
}

#[tokio::test]
async fn large_bodies_arrive_whole_and_do_not_pile_up() {
    const SIZE: usize = 6 << 20;
    let text: String = (0..SIZE / 8).map(|n| format!("{n:08}")).collect();
    let wanted = text.clone();
    let address = answering(move |_, body| {
        assert!(body == wanted.as_bytes(), "another body");
        ok(&wanted)
    });
    let rig = rig(side(1, &[endpoint(address.await)]));
    local(async {
        let mut visitor = Visitor::new(https(&rig)).await;
        let mut request = post_of("/");
        let length = SIZE.to_string().parse().expect("a value");
        request.headers_mut().insert("content-length", length);
        let mut stream = visitor.begin(request).await;
        for piece in text.as_bytes().chunks(50_000) {
            stream.send_data(Bytes::copy_from_slice(piece)).await.expect("sent");
        }
        stream.finish().await.expect("sent");
        let answer = read(&mut stream).await.expect("an answer");
        assert!(answer.body == text, "another body");
        assert!(answer.trailers.is_none());
    })
    .await;
}

#[tokio::test]
async fn what_comes_before_an_answer_is_told() {
    let address = origin(|mut stream, _| async move {
        let mut buffer = Vec::new();
        let head = read_any(&mut stream, &mut buffer, true).await.expect("a head").0;
        assert!(field(&head, "expect").is_none(), "{head}");
        stream
            .write_all(b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n")
            .await
            .expect("sent");
        while buffer.len() < 4 {
            use tokio::io::AsyncReadExt;
            stream.read_buf(&mut buffer).await.expect("bytes");
        }
        stream.write_all(&ok("done")).await.expect("sent");
    })
    .await;
    let rig = rig(side(1, &[endpoint(address)]));
    local(async {
        let mut visitor = Visitor::new(https(&rig)).await;
        let mut request = post_of("/");
        request.headers_mut().insert("expect", "100-continue".parse().expect("a value"));
        request.headers_mut().insert("content-length", "4".parse().expect("a value"));
        let mut stream = visitor.begin(request).await;
        let mut told = Vec::new();
        while told.len() < 2 {
            let hint = timeout(LONG, stream.recv_response()).await.expect("in time");
            let hint = hint.expect("an interim answer");
            let link = hint.headers().get("link").map(|link| link.to_str().expect("text"));
            told.push((hint.status().as_u16(), link.map(str::to_owned)));
        }
        told.sort();
        assert_eq!(told, [(100, None), (103, Some("</style.css>".to_owned()))]);
        stream.send_data(Bytes::from_static(b"body")).await.expect("sent");
        stream.finish().await.expect("sent");
        let answer = read(&mut stream).await.expect("an answer");
        assert_eq!((answer.status, answer.body.as_str()), (200, "done"));
    })
    .await;
}

#[tokio::test]
async fn what_is_refused_elsewhere_is_refused_here() {
    let service = ServiceSettings { max_body: 10, ..ServiceSettings::default() };
    let stable = side(1, &[endpoint(saying("hello").await)]);
    let limits = Limits { headers: 20, ..limits() };
    let rig = rig_with(stable, 1, limits, service);
    local(async {
        let mut visitor = Visitor::new(https(&rig)).await;
        let with = |mut request: Request<()>, name: &'static str, value: &str| {
            request.headers_mut().append(name, value.parse().expect("a value"));
            request
        };
        let mut status = async |request: Request<()>, body: &str| {
            visitor.fetch(request, body).await.map(|answer| answer.status)
        };
        let mut many = get_of("/");
        for n in 0..30 {
            let name = http::HeaderName::try_from(format!("x-{n}")).expect("a name");
            many.headers_mut().insert(name, "1".parse().expect("a value"));
        }
        assert_eq!(status(many, "").await.expect("told"), 431);
        let large = with(get_of("/"), "x", &"y".repeat(9_000));
        assert_eq!(status(large, "").await.expect("told"), 431);
        let long = get_of(&format!("/{}", "x".repeat(9_000)));
        assert_eq!(status(long, "").await.expect("told"), 414);
        let announced = with(post_of("/"), "content-length", "11");
        assert_eq!(status(announced, "hello world").await.expect("told"), 413);
        assert_eq!(status(with(get_of("/"), "expect", "miracle"), "").await.expect("told"), 417);
        let trace = Request::builder().method("TRACE").uri("https://app.example/");
        assert_eq!(status(trace.body(()).expect("sound"), "").await.expect("told"), 405);
        let connect = Request::connect("https://app.example/").body(()).expect("sound");
        assert_eq!(status(connect, "").await.expect("told"), 405);
        const MESSAGE_ERROR: u64 = 0x10e;
        for (name, value) in [
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip"),
            ("content-length", "1x"),
        ] {
            let error = status(with(get_of("/"), name, value), "").await.expect_err(name);
            assert_eq!(code_of(&error), MESSAGE_ERROR, "{name}");
        }
        for length in ["3", "5"] {
            let other = with(post_of("/"), "content-length", length);
            // Whether it was on its way already depends on when its body came.
            match status(other, "abcd").await {
                Ok(status) => assert_eq!(status, 400, "{length}"),
                Err(error) => assert_eq!(code_of(&error), MESSAGE_ERROR, "{length}"),
            }
        }
        // None of it cost the connection.
        assert_eq!(status(get_of("/"), "").await.expect("told"), 200);
    })
    .await;
}

#[tokio::test]
async fn a_head_is_answered_without_a_body() {
    let address = origin(|mut stream, _| async move {
        let mut buffer = Vec::new();
        while read_any(&mut stream, &mut buffer, true).await.is_some() {
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n";
            stream.write_all(head).await.expect("sent");
        }
    })
    .await;
    let rig = rig(side(1, &[endpoint(address)]));
    local(async {
        let mut visitor = Visitor::new(https(&rig)).await;
        let head = Request::head("https://app.example/").body(()).expect("sound");
        let answer = visitor.fetch(head, "").await.expect("an answer");
        assert_eq!((answer.status, answer.field("content-length")), (200, Some("1234")));
        assert_eq!(answer.body, "");
    })
    .await;
}

#[tokio::test]
async fn a_client_that_gives_up_is_nobodys_failure() {
    let (told, mut gone) = tokio::sync::mpsc::unbounded_channel();
    let address = origin(move |mut stream, _| {
        let told = told.clone();
        async move {
            let mut buffer = Vec::new();
            let _ = read_any(&mut stream, &mut buffer, true).await;
            told.send("asked").expect("heard");
            // Never answers; sees the end of the connection.
            use tokio::io::AsyncReadExt;
            while stream.read_buf(&mut buffer).await.is_ok_and(|read| read > 0) {}
            told.send("left").expect("heard");
        }
    })
    .await;
    let rig = rig(side(1, &[endpoint(address)]));
    local(async {
        let mut visitor = Visitor::new(https(&rig)).await;
        let mut stream = visitor.begin(get_of("/")).await;
        stream.finish().await.expect("sent");
        let mut next = async || timeout(LONG, gone.recv()).await.expect("in time");
        assert_eq!(next().await, Some("asked"));
        stream.stop_sending(h3::error::Code::H3_REQUEST_CANCELLED);
        assert_eq!(next().await, Some("left"));
        until(|| rig.count(Side::Stable, Row::Abandoned) == 1).await;
        assert_eq!(rig.rows(Side::Stable, 1).await[Row::Success as usize], 0);
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_never_taken_for_whole() {
    let broken = origin(|mut stream, _| async move {
        let _ = read_message(&mut stream, &mut Vec::new()).await;
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n";
        let _ = stream.write_all(head).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    });
    let rig = rig(side(1, &[endpoint(broken.await)]));
    local(async {
        let mut visitor = Visitor::new(https(&rig)).await;
        let error = visitor.fetch(get_of("/"), "").await.err().expect("no whole answer");
        const INTERNAL: u64 = 0x102;
        assert_eq!(code_of(&error), INTERNAL);
    })
    .await;
}

#[tokio::test]
async fn the_log_says_by_what_it_came() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("access.log");
    let to = Destination::File { path: path.clone(), size: 0, every: Every::Never, keep: 1 };
    let written =
        LogSettings { to, format: Format::Json, hidden: Hidden::default(), sample: u32::MAX };
    let (log, _) = AccessLog::start(written, Arc::new(Traffic::new(1))).expect("a log");
    let settings = Settings { log: Some(log), ..settings() };
    let stable = side(1, &[endpoint(saying("hello").await)]);
    let rig = rig_of(&pki(&["app.example"]), stable, settings, ServiceSettings::default());
    local(async {
        let mut visitor = Visitor::new(https(&rig)).await;
        assert_eq!(visitor.get("/three").await.body, "hello");
        let mut tied = get_of("/");
        tied.headers_mut().insert("connection", "close".parse().expect("a value"));
        visitor.fetch(tied, "").await.err().expect("no answer");
    })
    .await;
    let read = || std::fs::read_to_string(&path).unwrap_or_default();
    until(|| read().lines().count() >= 2).await;
    let lines: Vec<serde_json::Value> =
        read().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let one = &lines[0];
    for (name, value) in
        [("protocol", "HTTP/3.0"), ("path", "/three"), ("scheme", "https"), ("host", "app.example")]
    {
        assert_eq!(one[name], value, "{one}");
    }
    assert_eq!((&one["status"], &one["bytes"]), (&200.into(), &5.into()));
    assert_eq!((&lines[1]["protocol"], &lines[1]["status"]), (&"HTTP/3.0".into(), &400.into()));
}

#[tokio::test]
async fn nobody_listens_by_udp_when_it_is_off() {
    let pki = pki(&["app.example"]);
    let tls = Some(Certificates::load(&pki.files).expect("certificates"));
    let settings = Settings { https: vec![any()], tls, ..settings() };
    let stable = side(1, &[endpoint(saying("hello").await)]);
    let rig = Rig::with(stable, None, 0.0, ServiceSettings::default(), settings);
    std::net::UdpSocket::bind(https(&rig)).expect("nobody is there");
    let stream = TcpStream::connect(https(&rig)).await.expect("a connection");
    let mut one = crate::proxy::tests::secure::tls_over(stream, "app.example", &[]).await;
    one.write_all(b"GET / HTTP/1.1\r\nhost: app.example\r\n\r\n").await.expect("sent");
    let (head, _) = read_message(&mut one, &mut Vec::new()).await.expect("an answer");
    assert_eq!(field(&head, "alt-svc"), None);
}
