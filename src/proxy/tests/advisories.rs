//! What was found in other proxies and in what they stand on, tried here. `tests/suites/ADVISORIES.md`
//! says which advisory is whose test; those of rules that have a module of their own are there.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::protocols::{echoing_h2c, http2, http2_over, post};
use super::secure::{pki, tls, tls_over};
use super::streams::{GET, PREFACE, block, flood, frame, reset_or_goaway};
use super::support::*;
use crate::model::id::ServiceName;
use crate::model::revision::UpstreamProtocol;
use crate::proxy::Settings;
use crate::proxy::tls::Certificates;
use crate::routing::settings::ServiceSettings;
use crate::routing::table::{HostPattern, Route, RoutingTable};
use crate::telemetry::traffic::{Count, Reason};

/// Heads as an instance sees them.
type Heads = Arc<Mutex<Vec<String>>>;

/// An instance that writes down what it is asked, and grants whatever is asked for.
async fn granting() -> (Rig, Heads) {
    let heads = Heads::default();
    let writing = Arc::clone(&heads);
    let address = answering(move |head, _| {
        writing.lock().expect("no panic").push(head.to_owned());
        if field(head, "upgrade").is_some() {
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
                .to_vec()
        } else {
            ok("plain")
        }
    })
    .await;
    (Rig::new(side(1, &[endpoint(address)])), heads)
}

#[tokio::test]
async fn only_a_bare_get_of_http_1_1_opens_a_websocket() {
    // RFC 9110, 7.8: HTTP/1.0 has no upgrades. A body would be cut in two: what is read of it, and
    // what goes on as if it were of the new protocol.
    let (rig, heads) = granting().await;
    let fields = "host: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n";
    for request in [
        format!("GET / HTTP/1.0\r\n{fields}\r\n"),
        format!("GET / HTTP/1.0\r\n{fields}connection: keep-alive\r\n\r\n"),
        format!("POST / HTTP/1.1\r\n{fields}\r\n"),
        format!("GET / HTTP/1.1\r\n{fields}content-length: 5\r\n\r\nhello"),
        format!("GET / HTTP/1.1\r\n{fields}transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"),
        format!("HEAD / HTTP/1.1\r\n{fields}\r\n"),
    ] {
        let mut client = Client::new(rig.http()).await;
        client.send(&request).await;
        assert_eq!(status(&client.read_head().await), 200, "{request:?}");
        let head = heads.lock().expect("no panic").pop().expect("a request");
        assert!(field(&head, "upgrade").is_none(), "{request:?}: {head}");
    }
    let mut client = Client::new(rig.http()).await;
    client.send(format!("GET / HTTP/1.1\r\n{fields}\r\n")).await;
    assert_eq!(status(&client.read_head().await), 101);
    assert_eq!(rig.total(Count::Tunnels), 1);
}

#[tokio::test]
async fn a_name_with_an_underscore_comes_by_no_protocol() {
    // CVE-2026-40460 was an address that a client made up: many servers take X_Forwarded_For for
    // X-Forwarded-For, and the last one wins.
    let (rig, heads) = granting().await;
    let mut one = Client::new(rig.http()).await;
    one.send("GET / HTTP/1.1\r\nhost: a\r\nx_forwarded_for: 6.6.6.6\r\nx-kept: 1\r\n\r\n").await;
    one.read().await;
    let mut two = http2(rig.http()).await;
    let request = Request::get("http://a/")
        .header("x_forwarded_for", "6.6.6.6")
        .header("x_forwarded_for", "7.7.7.7")
        .header("transfer_encoding", "chunked")
        .header("x-kept", "1");
    let request = request.body(Full::new(Bytes::new())).expect("sound");
    assert_eq!(two.send_request(request).await.expect("an answer").status(), 200);
    let heads = heads.lock().expect("no panic").clone();
    assert_eq!(heads.len(), 2);
    for head in heads {
        assert!(!head.contains('_') && field(&head, "x-kept") == Some("1"), "{head}");
        assert_eq!(field(&head, "x-forwarded-for"), Some("127.0.0.1"), "{head}");
    }
}

#[tokio::test]
async fn hosts_never_share_an_answer() {
    // RUSTSEC-2026-0035: what is remembered of one host must not be told another. Nothing is cached
    // here; connections are kept, on both sides.
    let services = [("one", saying("first").await), ("two", saying("second").await)];
    let rig = Rig::new(side(1, &[]));
    let entry = rig.entry.lock().expect("no panic").clone();
    let table = services.map(|(name, address)| {
        let mut entry = entry.clone();
        entry.name = ServiceName::new(name).expect("a name");
        entry.stable = Some(side(1, &[endpoint(address)]));
        let host = HostPattern::Exact(format!("{name}.example"));
        (entry, vec![Route { host, path: "/".to_owned() }])
    });
    rig.live.publish(RoutingTable::new(2, table.into()));
    let (mut one, mut two) = (Client::new(rig.http()).await, http2(rig.http()).await);
    for (host, said, code) in [
        ("one.example", "first", 200),
        ("two.example", "second", 200),
        ("ONE.example.", "first", 200),
        ("two.example:80", "second", 200),
        ("three.example", "", 404),
        ("one.example", "first", 200),
    ] {
        one.send(format!("GET /same HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        let (head, body) = one.read().await;
        assert_eq!(status(&head), code, "{host}");
        assert!(code == 404 || body == said, "{host}: {body}");
        let mut request = post("/same", "");
        *request.uri_mut() = format!("http://{host}/same").parse().expect("a target");
        let answer = two.send_request(request).await.expect("an answer");
        assert_eq!(answer.status(), code, "{host}");
        let body = http_body_util::BodyExt::collect(answer.into_body()).await.expect("a body");
        assert!(code == 404 || body.to_bytes() == said.as_bytes(), "{host}");
    }
}

#[tokio::test]
async fn an_h2c_instance_is_told_the_host_that_was_asked_for() {
    // CVE-2026-42926: a host becomes an authority, and must not become anything else on the way.
    let rig = Rig::new(side(1, &[endpoint_of(echoing_h2c().await, UpstreamProtocol::H2c)]));
    for host in ["a", "a:80", "a:", "A.example.", "a_b", "[::1]:80", "127.0.0.1"] {
        let mut client = Client::new(rig.http()).await;
        client.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        let (head, _) = client.read().await;
        assert_eq!((status(&head), field(&head, "x-host")), (200, Some(host)), "{head}");
    }
    for host in ["a b", "a\tb", "a/b", "a%0d%0ax:y", "a@b", "a,b"] {
        let mut client = Client::new(rig.http()).await;
        client.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        assert_eq!(status(&client.read_to_end().await), 400, "{host}");
    }
}

/// Sends a byte at a time, each in a packet of its own as far as the kernel lets it.
struct Dribble(TcpStream);

impl AsyncRead for Dribble {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Dribble {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, &bytes[..bytes.len().min(1)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

async fn secure() -> (Rig, super::secure::Pki) {
    let pki = pki(&["one.example"]);
    let certificates = Certificates::load(&pki.files).expect("certificates");
    let settings = Settings { https: vec![any()], tls: Some(certificates), ..settings() };
    let stable = side(1, &[endpoint(saying("x").await)]);
    (Rig::with(stable, None, 0.0, ServiceSettings::default(), settings), pki)
}

#[tokio::test]
async fn a_hello_that_comes_byte_by_byte_is_read() {
    // RUSTSEC-2024-0399: a hello in fragments made the acceptor panic.
    let (rig, _pki) = secure().await;
    let stream = TcpStream::connect(rig.proxy.addresses().https[0]).await.expect("a connection");
    stream.set_nodelay(true).expect("set");
    let mut stream = tls_over(Dribble(stream), "one.example", &[b"http/1.1"]).await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("to send");
    stream.flush().await.expect("to send");
    let read = timeout(LONG, read_message(&mut stream, &mut Vec::new())).await.expect("in time");
    assert_eq!(status(&read.expect("an answer").0), 200);
}

#[tokio::test]
async fn who_breaks_off_a_handshake_ends_nobody_else() {
    // RUSTSEC-2024-0376: a bad connection ended the listener. RUSTSEC-2024-0336: one that says goodbye
    // in the middle of its handshake was read for ever.
    let (rig, _pki) = secure().await;
    let https = rig.proxy.addresses().https[0];
    let alert = |code: u8| vec![0x15, 3, 3, 0, 2, 1, code];
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    let wrong: [Vec<u8>; 8] = [
        Vec::new(),
        vec![0],
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
        hello.clone(),
        [hello, alert(0)].concat(),
        alert(0),
        [&[0x16, 3, 1, 0xff, 0xff][..], &[0; 70_000]].concat(),
        vec![0x16, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff],
    ];
    for round in 0..4 {
        for bytes in &wrong {
            let mut stream = TcpStream::connect(https).await.expect("a connection");
            let _ = stream.write_all(bytes).await;
            if round % 2 == 1 {
                // By a reset.
                let _ = socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO));
            }
        }
        let mut good = http2_over(tls(https, "one.example", &[b"h2"]).await).await;
        let answer = timeout(LONG, good.send_request(post("/", ""))).await.expect("in time");
        assert_eq!(answer.expect("an answer").status(), 200);
    }
    until(|| rig.total(Count::Accepted) - rig.total(Count::Closed) <= 4).await;
    assert!(rig.total(Count::TlsFailures) >= 8, "{}", rig.total(Count::TlsFailures));
}

#[tokio::test]
async fn what_an_http2_client_may_do_is_told_it_first() {
    let rig = Rig::new(side(1, &[endpoint(saying("x").await)]));
    let mut stream = TcpStream::connect(rig.http()).await.expect("a connection");
    stream.write_all(PREFACE).await.expect("to send");
    let mut all = Vec::new();
    let reading = async {
        loop {
            if let (Some(settings), Some(window)) = (first(&all, 4), first(&all, 8)) {
                return (settings.to_vec(), window.to_vec());
            }
            assert!(stream.read_buf(&mut all).await.expect("bytes") > 0, "an end");
        }
    };
    let (settings, window) = timeout(LONG, reading).await.expect("in time");
    let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
    let settings: Vec<(u32, u32)> =
        settings.chunks(6).map(|one| (number(&one[..2]), number(&one[2..]))).collect();
    // Streams at a time, bytes ahead on each, bytes of a header list, and RFC 8441.
    for wanted in [(3, 100), (4, 64 * 1024), (6, 32 * 1024), (8, 1)] {
        assert!(settings.contains(&wanted), "{wanted:?} is not in {settings:?}");
    }
    // The table and the frames are as large as RFC 9113 has them when nothing is said.
    assert!(settings.iter().all(|(id, value)| match id {
        1 => *value <= 4_096,
        5 => *value == 16_384,
        _ => true,
    }));
    assert_eq!(number(&window) + 65_535, 1024 * 1024);
}

/// The payload of the first frame of a kind, once it is whole.
fn first(mut frames: &[u8], kind: u8) -> Option<&[u8]> {
    while let [high, middle, low, this, _, _, _, _, _, rest @ ..] = frames {
        let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
        let payload = rest.get(..length)?;
        if *this == kind {
            return Some(payload);
        }
        frames = &rest[length..];
    }
    None
}

#[tokio::test]
async fn streams_and_crumbs_have_a_number() {
    let address = origin(|mut stream, _| async move {
        let mut buffer = Vec::new();
        let _ = read_message(&mut stream, &mut buffer).await;
        std::future::pending::<()>().await;
    })
    .await;
    let target = endpoint(address);
    let rig = Rig::new(side(1, &[Arc::clone(&target)]));
    // A hundred and no more; the others are refused, and may be sent again (RFC 9113, 8.7).
    let mut frames: Vec<u8> =
        (0..110_u32).flat_map(|n| frame(1, 5, 2 * n + 1, &block(&GET))).collect();
    frames.extend(frame(7, 0, 0, &[0; 8]));
    let mut stream = TcpStream::connect(rig.http()).await.expect("a connection");
    stream.write_all(&[PREFACE, &frames].concat()).await.expect("to send");
    let mut all = Vec::new();
    let reading = async {
        while reset_or_goaway(&all).iter().filter(|end| **end == (3, 7)).count() < 10 {
            assert!(stream.read_buf(&mut all).await.expect("bytes") > 0, "{all:?}");
        }
    };
    timeout(LONG, reading).await.expect("in time");
    until(|| target.in_flight() == 100).await;
    drop(stream);
    until(|| target.in_flight() == 0).await;
    // Crumbs of a cookie are fields, although an instance gets one.
    let mut client = http2(rig.http()).await;
    let crumbs = (0..101)
        .fold(Request::get("http://a/"), |request, n| request.header("cookie", format!("c{n}=1")));
    let crumbs = crumbs.body(Full::new(Bytes::new())).expect("sound");
    assert_eq!(client.send_request(crumbs).await.expect("an answer").status(), 431);
    assert_eq!(rig.traffic.refused(Reason::HeaderSize), 1);
}

#[tokio::test]
async fn a_block_that_grows_is_refused_before_it_is_held() {
    // CVE-2016-6581: a field of the table, said again by a byte, over and over.
    let rig = Rig::new(side(1, &[endpoint(saying("x").await)]));
    let large = "y".repeat(126);
    let mut first = block(&GET);
    // With incremental indexing: number 62 from now on.
    first.extend([0x40, 1, b'x', 126]);
    first.extend(large.as_bytes());
    let bomb = [block(&GET), vec![0xbe; 8_000]].concat();
    let frames = [frame(1, 5, 1, &first), frame(1, 5, 3, &bomb), frame(7, 0, 0, &[0; 8])].concat();
    let all = flood(&rig, &frames).await;
    // By the library with a 431 of its own, or with a reset.
    let told = find(&all, b"431").is_some() || !reset_or_goaway(&all).is_empty();
    assert!(told, "{all:?}");
    assert!(rig.total(Count::UpstreamConnects) <= 1);
}
