//! The prober against small servers that answer, redirect, hang, lie and leave.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::model::id::InstanceId;
use crate::model::revision::UpstreamProtocol;

const PATIENCE: Duration = Duration::from_secs(10);

fn spec(kind: ProbeKind) -> ProbeSpec {
    ProbeSpec {
        kind,
        interval: Duration::from_millis(20),
        timeout: Duration::from_millis(500),
        rise: 2,
        fall: 2,
        deadline: PATIENCE,
    }
}

fn get(path: &str, host: Option<&str>) -> ProbeSpec {
    spec(ProbeKind::Http { path: path.to_owned(), host: host.map(str::to_owned) })
}

fn at(address: SocketAddr) -> Instance {
    Instance { id: InstanceId::new("web-r1-1-0"), address }
}

/// Answers every connection with the same bytes, after it read something, and keeps what it read.
async fn server(answer: &'static str) -> (Instance, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, heard) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.unwrap_or(0);
            let _full = tell.try_send(String::from_utf8_lossy(&request[..read]).into_owned());
            let _gone = stream.write_all(answer.as_bytes()).await;
        }
    });
    (at(address), heard)
}

async fn ask(answer: &'static str, spec: &ProbeSpec) -> (bool, String) {
    let (instance, _heard) = server(answer).await;
    let result = probe(&instance, spec, UpstreamProtocol::Http1).await;
    (result.healthy, result.diagnosis.to_string())
}

#[tokio::test]
async fn an_answer_is_judged_by_its_status() {
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    assert_eq!(ask(ok, &get("/up", None)).await, (true, "GET /up answers 200".to_owned()));
    let broken = "HTTP/1.1 503 No\r\ncontent-length: 24\r\n\r\n\n\ndatabase\tis away\nsorry\n";
    assert_eq!(
        ask(broken, &get("/up", None)).await,
        (false, "GET /up answers 503 (databaseis away)".to_owned())
    );
    let missing = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
    let (healthy, why) = ask(missing, &get("/up", None)).await;
    assert!(!healthy && why.contains("probe a path that answers 200"), "{why}");
    assert!(ask(missing, &spec(ProbeKind::Auto)).await.0, "any answer below 500");
    assert!(!ask(broken, &spec(ProbeKind::Auto)).await.0);
}

#[tokio::test]
async fn a_redirect_is_told_with_its_target() {
    let moved =
        "HTTP/1.1 301 Moved\r\nlocation: https://app.example.com/\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(
        ask(moved, &get("/", None)).await,
        (
            false,
            "GET / answers 301 to https://app.example.com/: probe a path that answers 200, or set probe.host".to_owned()
        )
    );
}

#[tokio::test]
async fn the_request_is_what_was_configured() {
    let (instance, mut heard) = server("HTTP/1.1 204 No Content\r\n\r\n").await;
    let spec = get("/up?deep=1", Some("app.example.com"));
    assert!(probe(&instance, &spec, UpstreamProtocol::Http1).await.healthy);
    let request = heard.recv().await.unwrap().to_lowercase();
    assert!(request.starts_with("get /up?deep=1 http/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nhost: app.example.com\r\n"), "{request}");
    assert!(request.contains("\r\nuser-agent: switchback-probe/"), "{request}");
    let odd = probe(&instance, &get("no slash at all", None), UpstreamProtocol::Http1).await;
    assert!(matches!(odd.diagnosis, Diagnosis::Unaskable { .. }), "{odd:?}");
}

#[tokio::test]
async fn a_closed_port_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    for kind in [ProbeKind::Tcp, ProbeKind::Auto] {
        let result = probe(&at(address), &spec(kind), UpstreamProtocol::Http1).await;
        assert!(!result.healthy);
        assert_eq!(result.diagnosis, Diagnosis::Refused { address });
        assert!(result.diagnosis.wants_a_closer_look());
    }
    let outside = Diagnosis::Refused { address: "172.17.0.2:3000".parse().unwrap() };
    assert_eq!(
        outside.to_string(),
        "nothing listens on 172.17.0.2:3000; does the app listen on 127.0.0.1 only? it must listen on 0.0.0.0"
    );
}

#[tokio::test]
async fn silence_ends_at_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let instance = at(listener.local_addr().unwrap());
    let quick = ProbeSpec { timeout: Duration::from_millis(100), ..get("/", None) };
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::H2c] {
        let result = probe(&instance, &quick, protocol).await;
        assert!(
            result.diagnosis.to_string().starts_with("GET / was not answered within 100ms"),
            "{result:?}"
        );
    }
    assert!(probe(&instance, &spec(ProbeKind::Tcp), UpstreamProtocol::Http1).await.healthy);
}

#[tokio::test]
async fn what_is_not_http_is_said_to_be_so() {
    let (healthy, why) = ask("220 mail.example.com ESMTP\r\n", &get("/", None)).await;
    assert!(!healthy && why.contains("does not speak HTTP/1.1"), "{why}");
    let (_, why) = ask("", &get("/", None)).await;
    assert_eq!(why, "GET / was not answered: the app closed the connection");
    let (instance, _heard) = server("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let result = probe(&instance, &get("/", None), UpstreamProtocol::H2c).await;
    assert!(result.diagnosis.to_string().contains("HTTP/2 in cleartext"), "{result:?}");
}

#[tokio::test]
async fn a_body_without_end_does_not_hold_a_probe() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let instance = at(listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while sent.is_ok() {
            sent = stream.write_all(&[b'x'; 1024]).await;
        }
    });
    let result = probe(&instance, &get("/", None), UpstreamProtocol::Http1).await;
    assert!(result.healthy, "{result:?}");
}

#[tokio::test]
async fn h2c_is_asked_with_prior_knowledge() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let instance = at(listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let answer = hyper::service::service_fn(|request: http::Request<_>| async move {
            let _: &hyper::body::Incoming = request.body();
            assert_eq!(request.uri().authority().unwrap().as_str(), "grpc.example.com");
            Ok::<_, std::convert::Infallible>(http::Response::new(http_body_util::Full::new(
                bytes::Bytes::from("ok"),
            )))
        });
        let _closed =
            hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
                .serve_connection(hyper_util::rt::TokioIo::new(stream), answer)
                .await;
    });
    let result = probe(&instance, &get("/", Some("grpc.example.com")), UpstreamProtocol::H2c).await;
    assert!(result.healthy, "{result:?}");
}

#[tokio::test]
async fn a_mind_is_changed_by_rise_and_fall() {
    let well = Arc::new(AtomicBool::new(false));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let instance = at(listener.local_addr().unwrap());
    let answers = Arc::clone(&well);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _read = stream.read(&mut request).await;
            let status = if answers.load(Ordering::SeqCst) { "200 OK" } else { "500 Oops" };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            let _gone = stream.write_all(answer.as_bytes()).await;
        }
    });
    let (events, mut heard) = mpsc::channel(8);
    let cancel = CancellationToken::new();
    let target = Target {
        instance,
        spec: get("/up", None),
        speech: UpstreamProtocol::Http1.into(),
        engine: None,
    };
    let watching = tokio::spawn(watch(target, events, cancel.clone()));
    for expected in [false, true, false] {
        well.store(expected, Ordering::SeqCst);
        // On a machine that stalls, a timeout is another reason for the same mind.
        while tokio::time::timeout(PATIENCE, heard.recv()).await.unwrap().unwrap().healthy
            != expected
        {}
    }
    cancel.cancel();
    watching.await.unwrap();
    assert_eq!(heard.recv().await, None);
}

#[tokio::test]
async fn the_engines_check_goes_before_our_own() {
    let (say, engine) = tokio::sync::watch::channel(None);
    let (events, mut heard) = mpsc::channel(8);
    let cancel = CancellationToken::new();
    let target = Target {
        instance: at("127.0.0.1:9".parse().unwrap()),
        spec: spec(ProbeKind::Auto),
        speech: UpstreamProtocol::Http1.into(),
        engine: Some(engine),
    };
    let watching = tokio::spawn(watch(target, events, cancel.clone()));
    for (said, expected) in [(Some(false), false), (Some(true), true), (Some(false), false)] {
        say.send(said).unwrap();
        let event = tokio::time::timeout(PATIENCE, heard.recv()).await.unwrap().unwrap();
        assert_eq!(
            (event.healthy, event.diagnosis),
            (expected, Diagnosis::Engine { healthy: expected })
        );
    }
    drop(heard);
    watching.await.unwrap();
}

#[test]
fn rise_and_fall_are_counted_in_a_row() {
    let spec = ProbeSpec { rise: 2, fall: 3, ..spec(ProbeKind::Tcp) };
    let mut mind = super::watch::Mind::default();
    let mut told = Vec::new();
    for (at, healthy) in "+-++--+---".chars().map(|c| c == '+').enumerate() {
        let diagnosis = if healthy {
            Diagnosis::Accepts { address: "127.0.0.1:1".parse().unwrap() }
        } else {
            Diagnosis::Refused { address: "127.0.0.1:1".parse().unwrap() }
        };
        let result = ProbeResult { healthy, diagnosis, took: Duration::ZERO };
        if let Some((healthy, _)) = mind.hear(result, &spec) {
            told.push((at, healthy));
        }
    }
    assert_eq!(told, [(3, true), (9, false)]);
}

#[tokio::test]
async fn an_instance_that_wants_to_know_is_told_that_it_is_us() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let instance = at(listener.local_addr().unwrap());
    let speech = Speech { protocol: UpstreamProtocol::Http1, preamble: Preamble::V1 };
    let (tell, mut heard) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            let _full = tell.try_send(String::from_utf8_lossy(&request).into_owned());
            let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    let result = probe(&instance, &get("/up", None), speech).await;
    assert!(result.healthy, "{result:?}");
    let said = heard.recv().await.unwrap();
    assert!(said.starts_with("PROXY UNKNOWN\r\nGET /up HTTP/1.1\r\n"), "{said}");
    assert!(probe(&instance, &spec(ProbeKind::Tcp), speech).await.healthy);
    assert_eq!(heard.recv().await.unwrap(), "PROXY UNKNOWN\r\n");
}
