//! HTTP/2 on both sides, TLS, tunnels, trailers, expectations.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use super::support::*;
use crate::analysis::scorecard::Row;
use crate::model::revision::UpstreamProtocol;
use crate::model::weight::Side;
use crate::proxy::tls::{CertificateFiles, Certificates};
use crate::routing::settings::ServiceSettings;
use crate::telemetry::traffic::Count;

type Http2 = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn http2_over<S>(stream: S) -> Http2
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("a handshake");
    tokio::spawn(connection);
    sender
}

async fn http2(address: std::net::SocketAddr) -> Http2 {
    http2_over(TcpStream::connect(address).await.expect("a connection")).await
}

async fn fetch(
    sender: &mut Http2,
    request: Request<Full<Bytes>>,
) -> (http::response::Parts, Bytes) {
    let (head, body) = sender.send_request(request).await.expect("an answer").into_parts();
    (head, body.collect().await.expect("a body").to_bytes())
}

fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(format!("http://app.example{path}")).body(Full::new(body.into())).expect("sound")
}

#[tokio::test]
async fn http2_in_http1_out() {
    let seen = Arc::new(Mutex::new(String::new()));
    let log = Arc::clone(&seen);
    let address = answering(move |head, body| {
        *log.lock().expect("no panic") = head.to_owned();
        let mut answer = ok(&String::from_utf8_lossy(body));
        let at = find(&answer, b"\r\n").expect("a line") + 2;
        answer
            .splice(at..at, b"connection: keep-alive\r\nkeep-alive: timeout=5\r\n".iter().copied());
        answer
    })
    .await;
    let rig = Rig::new(side(1, &[endpoint(address)]));
    let mut client = http2(rig.http()).await;
    let mut request = post("/x?y", "hello");
    request.headers_mut().append("cookie", HeaderValue::from_static("a=1"));
    request.headers_mut().append("cookie", HeaderValue::from_static("b=2"));
    let (head, body) = fetch(&mut client, request).await;
    assert_eq!(
        (head.version, head.status.as_u16(), &body[..]),
        (Version::HTTP_2, 200, &b"hello"[..])
    );
    assert!(head.headers.get("keep-alive").is_none());
    let sent = seen.lock().expect("no panic").clone();
    assert!(sent.starts_with("POST /x?y HTTP/1.1\r\n"), "{sent}");
    assert_eq!(field(&sent, "host"), Some("app.example"));
    assert_eq!(field(&sent, "cookie"), Some("a=1; b=2"));
    assert_eq!(rig.rows(Side::Stable, 1).await, [1, 0, 0, 0, 0]);
}

#[tokio::test]
async fn many_streams_at_once() {
    let address = answering(|head, _| ok(head.split(' ').nth(1).expect("a path"))).await;
    let rig = Rig::new(side(1, &[endpoint(address)]));
    let client = http2(rig.http()).await;
    let requests = (0..500).map(|n| {
        let mut client = client.clone();
        async move {
            let (_, body) = fetch(&mut client, post(&format!("/{n}"), "")).await;
            assert_eq!(body, format!("/{n}"));
        }
    });
    futures_util::future::join_all(requests).await;
    assert_eq!(rig.rows(Side::Stable, 500).await, [500, 0, 0, 0, 0]);
}

/// An HTTP/2 origin that echoes bodies, with trailers that say how long they were.
async fn echoing_h2c() -> std::net::SocketAddr {
    let listener = TcpListener::bind(any()).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(|request: Request<Incoming>| async move {
                let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
                let body = request.into_body().collect().await?.to_bytes();
                let mut trailers = HeaderMap::new();
                trailers.insert("x-length", HeaderValue::from(body.len()));
                trailers.insert("content-length", HeaderValue::from(1));
                let frames =
                    [Ok::<_, hyper::Error>(Frame::data(body)), Ok(Frame::trailers(trailers))];
                let body = StreamBody::new(futures_util::stream::iter(frames));
                Ok::<_, hyper::Error>(
                    Response::builder()
                        .header("x-host", host)
                        .header("trailer", "x-length")
                        .body(body)
                        .expect("sound"),
                )
            });
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    address
}

#[tokio::test]
async fn h2c_out_with_trailers() {
    let target = endpoint_of(echoing_h2c().await, UpstreamProtocol::H2c);
    let rig = Rig::new(side(1, &[target]));
    let mut client = http2(rig.http()).await;
    for length in [0, 5, 300_000] {
        let body = client.send_request(post("/", "x".repeat(length))).await.expect("an answer");
        assert_eq!(body.headers()["x-host"], "app.example");
        let collected = body.into_body().collect().await.expect("a body");
        let trailers = collected.trailers().expect("trailers").clone();
        assert_eq!(trailers["x-length"], length.to_string());
        assert!(trailers.get("content-length").is_none());
        assert_eq!(collected.to_bytes().len(), length);
    }
    let mut client = Client::new(rig.http()).await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\ncontent-length: 2\r\n\r\nhi").await;
    let (head, body) = client.read().await;
    assert_eq!(status(&head), 200);
    assert!(body.ends_with("hi\r\n0\r\nx-length: 2\r\n\r\n"), "{body}");
    assert_eq!(rig.rows(Side::Stable, 4).await, [4, 0, 0, 0, 0]);
    assert_eq!(rig.total(Count::UpstreamConnects), 1);
}

#[tokio::test]
async fn an_h2c_endpoint_that_goes_away_is_asked_over_a_new_connection_or_covered() {
    let dead = endpoint_of(nobody().await, UpstreamProtocol::H2c);
    let alive = endpoint_of(echoing_h2c().await, UpstreamProtocol::H2c);
    let rig = Rig::new(side(1, &[dead, alive]));
    let mut client = http2(rig.http()).await;
    for _ in 0..20 {
        assert_eq!(fetch(&mut client, post("/", "x")).await.1, "x");
    }
    let rows = rig.rows(Side::Stable, 20).await;
    assert!(rows[Row::Fault.index()] > 0, "{rows:?}");
}

#[tokio::test]
async fn trailers_pass_over_http1() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let address = answering(move |_, body| {
        *log.lock().expect("no panic") = body.to_vec();
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
          2\r\nok\r\n0\r\nx-sum: 7\r\nhost: evil\r\n\r\n"
            .to_vec()
    })
    .await;
    let rig = Rig::new(side(1, &[endpoint(address)]));
    let mut client = Client::new(rig.http()).await;
    client
        .send(
            "POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\ntransfer-encoding: chunked\r\n\
             trailer: x-in\r\n\r\n3\r\nabc\r\n0\r\nx-in: 1\r\n\r\n",
        )
        .await;
    let (head, body) = client.read().await;
    assert_eq!(field(&head, "transfer-encoding"), Some("chunked"));
    assert_eq!(body, "2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n");
    let sent = String::from_utf8(seen.lock().expect("no panic").clone()).expect("text");
    assert_eq!(sent, "3\r\nabc\r\n0\r\nx-in: 1\r\n\r\n");
}

#[tokio::test]
async fn a_body_is_asked_for_only_when_it_can_be_sent() {
    let address = answering(|_, body| ok(&String::from_utf8_lossy(body))).await;
    let rig = Rig::new(side(1, &[endpoint(address)]));
    let mut client = Client::new(rig.http()).await;
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n";
    client.send(head).await;
    assert_eq!(status(&client.read_head().await), 100);
    client.send("hi").await;
    assert_eq!(client.read().await.1, "hi");
    // Nobody there: the final answer comes without a 100.
    let rig = Rig::new(side(1, &[]));
    let mut client = Client::new(rig.http()).await;
    client.send(head).await;
    assert_eq!(status(&client.read_head().await), 503);
}

#[tokio::test]
async fn informational_answers_are_swallowed() {
    let address = answering(|_, _| {
        let mut answer = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".to_vec();
        answer.extend_from_slice(b"HTTP/1.1 102 Processing\r\n\r\n");
        answer.extend_from_slice(&ok("final"));
        answer
    })
    .await;
    let rig = Rig::new(side(1, &[endpoint(address)]));
    let mut client = Client::new(rig.http()).await;
    for _ in 0..3 {
        let (head, body) = client.get("/").await;
        assert_eq!((status(&head), body.as_str()), (200, "final"));
    }
}

#[tokio::test]
async fn an_answer_before_the_request_is_sent_does_not_stop_the_sending() {
    // Answers at once and at length, then reads all of the request, then ends the answer.
    let address = origin(|mut stream, _| async move {
        use tokio::io::AsyncReadExt;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        let mut left = 4_000_000;
        let mut buffer = vec![0; 65536];
        while left > 0 {
            let read = stream.read(&mut buffer).await.expect("bytes");
            if read == 0 {
                return;
            }
            left -= buffer[..read].iter().filter(|b| **b == b'x').count();
        }
        let _ = stream.write_all(b"4\r\ndone\r\n0\r\n\r\n").await;
    })
    .await;
    let target = endpoint(address);
    let rig = Rig::new(side(1, &[Arc::clone(&target)]));
    let mut client = Client::new(rig.http()).await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4000000\r\n\r\n").await;
    client.send("x".repeat(4_000_000)).await;
    let (head, body) = client.read().await;
    assert_eq!(status(&head), 200);
    assert!(body.contains("done"), "{body}");
    until(|| target.in_flight() == 0).await;
    assert_eq!(rig.rows(Side::Stable, 1).await, [1, 0, 0, 0, 0]);
}

/// A WebSocket origin that echoes.
async fn echoing_websocket() -> std::net::SocketAddr {
    origin(|stream, _| async move {
        let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() && socket.send(message).await.is_err() {
                break;
            }
        }
    })
    .await
}

#[tokio::test]
async fn websockets_tunnel() {
    let target = endpoint(echoing_websocket().await);
    let rig = Rig::new(side(1, &[Arc::clone(&target)]));
    let url = format!("ws://{}/chat", rig.http());
    let (mut socket, response) = tokio_tungstenite::connect_async(url).await.expect("a socket");
    assert_eq!(response.status(), 101);
    for n in 0..100 {
        let text = format!("{n}{}", "x".repeat(n * 100));
        socket.send(Message::text(text.clone())).await.expect("to send");
        let back = socket.next().await.expect("a message").expect("sound");
        assert_eq!(back.into_text().expect("text"), text);
    }
    assert_eq!(target.in_flight(), 1);
    assert_eq!(rig.total(Count::Tunnels), 1);
    // Judged at its beginning, not at its end.
    assert_eq!(rig.rows(Side::Stable, 1).await, [1, 0, 0, 0, 0]);
    socket.close(None).await.expect("to close");
    while let Some(Ok(_)) = socket.next().await {}
    drop(socket);
    until(|| target.in_flight() == 0).await;
}

#[tokio::test]
async fn tunnels_end_at_the_cut_and_when_idle() {
    let target = endpoint(echoing_websocket().await);
    let rig = Rig::new(side(1, &[Arc::clone(&target)]));
    let url = format!("ws://{}/", rig.http());
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.expect("a socket");
    target.begin_drain();
    socket.send(Message::text("still here")).await.expect("to send");
    assert!(socket.next().await.expect("a message").is_ok());
    target.cut();
    assert!(!matches!(socket.next().await, Some(Ok(_))));
    until(|| target.in_flight() == 0).await;
    target.end_drain();
    let hasty = ServiceSettings {
        idle_timeout: std::time::Duration::from_millis(200),
        ..ServiceSettings::default()
    };
    rig.publish(|entry| entry.settings = Arc::new(hasty));
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.expect("a socket");
    assert!(!matches!(socket.next().await, Some(Ok(_))));
    until(|| target.in_flight() == 0).await;
}

#[tokio::test]
async fn nothing_behind_an_upgrade_is_sent_before_the_101() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let address = origin(move |mut stream, _| {
        let log = Arc::clone(&log);
        async move {
            let mut buffer = Vec::new();
            while let Some((head, _)) = read_message(&mut stream, &mut buffer).await {
                log.lock().expect("no panic").push(head);
                let _ = stream.write_all(&ok("no")).await;
            }
        }
    })
    .await;
    let rig = Rig::new(side(1, &[endpoint(address)]));
    let mut client = Client::new(rig.http()).await;
    client
        .send(
            "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n\
             GET /second HTTP/1.1\r\nhost: a\r\n\r\n",
        )
        .await;
    assert_eq!(status(&client.read().await.0), 200);
    assert_eq!(status(&client.read().await.0), 200);
    let seen = seen.lock().expect("no panic");
    assert!(seen[0].contains("upgrade: websocket"), "{}", seen[0]);
    assert!(seen[1].starts_with("GET /second") && field(&seen[1], "host") == Some("a"));
}

struct Pki {
    _directory: tempfile::TempDir,
    files: Vec<CertificateFiles>,
}

fn pki(names: &[&str]) -> Pki {
    let directory = tempfile::tempdir().expect("a directory");
    let files = names
        .iter()
        .map(|name| {
            let made =
                rcgen::generate_simple_self_signed(vec![(*name).to_owned()]).expect("a pair");
            let certificate = directory.path().join(format!("{name}.pem"));
            let key = directory.path().join(format!("{name}.key"));
            std::fs::write(&certificate, made.cert.pem()).expect("written");
            std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
            CertificateFiles { certificate, key }
        })
        .collect();
    Pki { _directory: directory, files }
}

/// Connects without judging the certificate, and says which one was shown.
async fn tls(
    address: std::net::SocketAddr,
    name: &'static str,
    alpn: &[&[u8]],
) -> tokio_rustls::client::TlsStream<TcpStream> {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    #[derive(Debug)]
    struct Anyone;
    impl ServerCertVerifier for Anyone {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            rustls::crypto::aws_lc_rs::default_provider()
                .signature_verification_algorithms
                .supported_schemes()
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let stream = TcpStream::connect(address).await.expect("a connection");
    let name = ServerName::try_from(name).expect("a name");
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS")
}

fn shown(stream: &tokio_rustls::client::TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().expect("a chain")[0].to_vec()
}

#[tokio::test]
async fn tls_with_both_protocols_names_and_reload() {
    let seen = Arc::new(Mutex::new(String::new()));
    let log = Arc::clone(&seen);
    let address = answering(move |head, _| {
        *log.lock().expect("no panic") = head.to_owned();
        ok("hello")
    })
    .await;
    let pki = pki(&["one.example", "two.example"]);
    let certificates = Certificates::load(pki.files.clone()).expect("certificates");
    let settings =
        crate::proxy::Settings { https: vec![any()], tls: Some(certificates), ..settings() };
    let rig =
        Rig::with(side(1, &[endpoint(address)]), None, 0.0, ServiceSettings::default(), settings);
    let https = rig.proxy.addresses().https[0];
    let stream = tls(https, "two.example", &[b"h2", b"http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let two = shown(&stream);
    let mut client = http2_over(stream).await;
    assert_eq!(fetch(&mut client, post("/", "")).await.1, "hello");
    assert_eq!(field(&seen.lock().expect("no panic"), "x-forwarded-proto"), Some("https"));
    let mut stream = tls(https, "one.example", &[b"http/1.1"]).await;
    let one = shown(&stream);
    assert_ne!(one, two);
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("to send");
    let (head, body) = read_message(&mut stream, &mut Vec::new()).await.expect("an answer");
    assert_eq!((status(&head), &body[..]), (200, &b"hello"[..]));
    // A name that nobody has gets the first certificate; no ALPN is HTTP/1.1.
    assert_eq!(shown(&tls(https, "three.example", &[]).await), one);
    // New files are shown after a reload, broken ones are not.
    let fresh = self::pki(&["one.example"]);
    std::fs::copy(&fresh.files[0].certificate, &pki.files[0].certificate).expect("copied");
    let error = rig.proxy.reload_tls().expect_err("a mismatch");
    assert!(error.to_string().contains("does not belong"), "{error}");
    assert_eq!(shown(&tls(https, "one.example", &[]).await), one);
    std::fs::copy(&fresh.files[0].key, &pki.files[0].key).expect("copied");
    rig.proxy.reload_tls().expect("a pair");
    assert_ne!(shown(&tls(https, "one.example", &[]).await), one);
    assert_eq!(rig.total(Count::TlsHandshakes), 5);
}

#[tokio::test]
async fn bad_certificates_are_named() {
    let pki = pki(&["one.example", "two.example"]);
    let load = |certificate: &std::path::Path, key: &std::path::Path| {
        let files = CertificateFiles { certificate: certificate.into(), key: key.into() };
        Certificates::load(vec![files]).expect_err("no").to_string()
    };
    let (one, two) = (&pki.files[0], &pki.files[1]);
    let missing = one.key.with_extension("nope");
    assert!(load(&missing, &one.key).contains("one.example.nope"), "named");
    assert!(load(&one.certificate, &missing).starts_with("cannot read"), "unreadable");
    assert!(load(&one.key, &one.key).contains("holds no certificate"), "no certificate");
    assert!(load(&one.certificate, &one.certificate).contains("holds no private key"), "no key");
    assert!(load(&one.certificate, &two.key).contains("does not belong"), "mismatch");
    let settings = crate::proxy::Settings { https: vec![any()], ..settings() };
    let bound = crate::proxy::bind(
        settings,
        Default::default(),
        Arc::new(crate::telemetry::traffic::Traffic::new(1)),
    );
    assert!(bound.expect_err("no certificate").to_string().contains("no certificate is given"));
}
