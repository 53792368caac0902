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
use crate::routing::settings::ServiceSettings;
use crate::telemetry::traffic::Count;

pub type Http2 = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

pub async fn http2_over<S>(stream: S) -> Http2
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

pub async fn http2(address: std::net::SocketAddr) -> Http2 {
    http2_over(TcpStream::connect(address).await.expect("a connection")).await
}

pub async fn fetch(
    sender: &mut Http2,
    request: Request<Full<Bytes>>,
) -> (http::response::Parts, Bytes) {
    let (head, body) = sender.send_request(request).await.expect("an answer").into_parts();
    (head, body.collect().await.expect("a body").to_bytes())
}

pub fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
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
pub async fn echoing_h2c() -> std::net::SocketAddr {
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
async fn informational_answers_are_passed_on() {
    let address = answering(|_, _| {
        let mut answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\
            connection: x-hop\r\nx-hop: 1\r\ncontent-length: 5\r\nlink: </x>\r\n\r\n"
            .to_vec();
        answer.extend_from_slice(b"HTTP/1.1 102 Processing\r\n\r\n");
        answer.extend_from_slice(&ok("final"));
        answer
    })
    .await;
    let rig = Rig::new(side(1, &[endpoint(address)]));
    let mut client = Client::new(rig.http()).await;
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let hints = client.read_head().await;
        assert_eq!(hints, "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n");
        assert_eq!(client.read_head().await, "HTTP/1.1 102 Processing\r\n\r\n");
        let (head, body) = client.read().await;
        assert_eq!((status(&head), body.as_str()), (200, "final"));
    }
    // HTTP/1.0 knows no interim answers.
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let all = client.read_to_end().await;
    assert!(all.starts_with("HTTP/1.0 200 OK") && all.ends_with("final"), "{all}");
}

#[tokio::test]
async fn interim_answers_have_an_end() {
    let address = answering(|_, _| {
        let mut answer = b"HTTP/1.1 102 Processing\r\n\r\n".repeat(17);
        answer.extend_from_slice(&ok("final"));
        answer
    })
    .await;
    let rig = Rig::new(side(1, &[endpoint(address)]));
    let mut client = Client::new(rig.http()).await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    let all = client.read_to_end().await;
    assert_eq!(all.matches("HTTP/1.1 102").count(), 16);
    assert!(all.contains("HTTP/1.1 502 ") && !all.contains("final"), "{all}");
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
            left -= buffer[..read].iter().filter(|b| **b == b'Z').count();
        }
        let _ = stream.write_all(b"4\r\ndone\r\n0\r\n\r\n").await;
    })
    .await;
    let target = endpoint(address);
    let rig = Rig::new(side(1, &[Arc::clone(&target)]));
    let mut client = Client::new(rig.http()).await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4000000\r\n\r\n").await;
    client.send("Z".repeat(4_000_000)).await;
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

#[tokio::test]
async fn http2_clients_are_told_of_a_drain() {
    let (go, wait) = tokio::sync::watch::channel(false);
    let address = origin(move |mut stream, _| {
        let mut go = wait.clone();
        async move {
            let mut buffer = Vec::new();
            while read_message(&mut stream, &mut buffer).await.is_some() {
                let _ = go.wait_for(|go| *go).await;
                let _ = stream.write_all(&ok("done")).await;
            }
        }
    })
    .await;
    let target = endpoint(address);
    let rig = Rig::new(side(1, &[Arc::clone(&target)]));
    let mut client = http2(rig.http()).await;
    let mut later = client.clone();
    let first = fetch(&mut client, post("/", ""));
    let rest = async {
        until(|| target.in_flight() == 1).await;
        let drained = rig.proxy.drain(LONG);
        let finish = async {
            until(|| std::net::TcpStream::connect(rig.http()).is_err()).await;
            go.send(true).expect("somebody waits");
            assert!(refused(&mut later).await);
        };
        tokio::join!(drained, finish);
    };
    let ((head, body), ()) = tokio::join!(first, rest);
    assert_eq!((head.status.as_u16(), &body[..]), (200, &b"done"[..]));
}

/// Whether a connection takes no new request, in the end.
async fn refused(client: &mut Http2) -> bool {
    for _ in 0..1_000 {
        if client.ready().await.is_err() || client.send_request(post("/x", "")).await.is_err() {
            return true;
        }
    }
    false
}

/// An instance that echoes WebSockets on streams of HTTP/2 and, when asked for `/no`, refuses them.
async fn echoing_streams(takes: bool) -> std::net::SocketAddr {
    let listener = TcpListener::bind(any()).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(|request: Request<Incoming>| async move {
                let protocol = request.extensions().get::<hyper::ext::Protocol>();
                let is_one = protocol.is_some_and(|protocol| protocol.as_str() == "websocket");
                let status = match request.uri().path() {
                    "/ws" if is_one && request.method() == http::Method::CONNECT => 200,
                    _ => 403,
                };
                assert!(request.headers().get("sec-websocket-key").is_none());
                tokio::spawn(async move {
                    if let Ok(stream) = hyper::upgrade::on(request).await {
                        use tokio_tungstenite::tungstenite::protocol::Role;
                        let role = Role::Server;
                        let stream = TokioIo::new(stream);
                        let mut socket =
                            tokio_tungstenite::WebSocketStream::from_raw_socket(stream, role, None)
                                .await;
                        while let Some(Ok(message)) = socket.next().await {
                            if message.is_text() && socket.send(message).await.is_err() {
                                break;
                            }
                        }
                    }
                });
                let answer = Response::builder().status(status);
                Ok::<_, hyper::Error>(answer.body(Full::<Bytes>::default()).expect("sound"))
            });
            let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            if takes {
                server.enable_connect_protocol();
            }
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

#[tokio::test]
async fn websockets_reach_instances_that_speak_http2() {
    let target = endpoint_of(echoing_streams(true).await, UpstreamProtocol::H2c);
    let rig = Rig::new(side(1, &[Arc::clone(&target)]));
    for number in 0..3 {
        let url = format!("ws://{}/ws", rig.http());
        // The client checks the answer to its key.
        let (mut socket, head) = tokio_tungstenite::connect_async(url).await.expect("a WebSocket");
        assert_eq!(head.status(), 101);
        socket.send(Message::text(format!("hello {number}"))).await.expect("to send");
        let said = socket.next().await.expect("a message").expect("sound");
        assert_eq!(said, Message::text(format!("hello {number}")));
        assert_eq!(target.in_flight(), 1);
        socket.close(None).await.expect("to close");
        drop(socket);
        until(|| target.in_flight() == 0).await;
    }
    assert_eq!(rig.total(Count::Tunnels), 3);
    let refused = tokio_tungstenite::connect_async(format!("ws://{}/no", rig.http())).await;
    assert!(refused.expect_err("403").to_string().contains("403"));
    // One that takes none is at fault, and says so at once.
    let deaf = endpoint_of(echoing_streams(false).await, UpstreamProtocol::H2c);
    let service = ServiceSettings {
        connect_timeout: std::time::Duration::from_millis(200),
        ..ServiceSettings::default()
    };
    let rig = Rig::with(side(1, &[deaf]), None, 0.0, service, settings());
    let refused = tokio_tungstenite::connect_async(format!("ws://{}/ws", rig.http())).await;
    assert!(refused.expect_err("502").to_string().contains("502"));
}
