//! One of two instances dies or is cut off, and whatever a request was doing, it is answered by the
//! other one, unless it may have been done already.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::protocols::{echoing_h2c, fetch, http2};
use super::support::*;
use crate::model::revision::UpstreamProtocol;
use crate::model::weight::Side;
use crate::proxy::upstream::http1::Connection;
use crate::routing::endpoint::Endpoint;
use crate::routing::settings::ServiceSettings;
use crate::telemetry::traffic::Count;

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi";
const GET_WAITS: &str = "GET /wait HTTP/1.1\r\nhost: a\r\n\r\n";
const POST_WAITS: &str = "POST /wait HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi";

/// How the kernel says that a process is gone.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Says {
    Close,
    Reset,
}

/// An instance that answers, except to `/wait`, until it is killed: then its connections end and
/// nobody listens any more.
struct Mortal {
    address: SocketAddr,
    serving: tokio::task::JoinHandle<()>,
    end: watch::Sender<bool>,
}

impl Mortal {
    async fn new(says: Says) -> Self {
        let listener = TcpListener::bind(any()).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (end, ended) = watch::channel(false);
        let serving = tokio::spawn(async move {
            let mut over = ended.clone();
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let stream = tokio::select! {
                    biased;
                    _ = over.wait_for(|over| *over) => break,
                    accepted = listener.accept() => accepted.expect("a connection").0,
                };
                if says == Says::Reset {
                    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("to be set");
                }
                let mut over = ended.clone();
                connections.spawn(async move {
                    tokio::select! {
                        biased;
                        _ = over.wait_for(|over| *over) => {}
                        () = serve(stream) => {}
                    }
                });
            }
            drop(listener);
            while connections.join_next().await.is_some() {}
        });
        Self { address, serving, end }
    }

    async fn kill(self) {
        self.end.send_replace(true);
        self.serving.await.expect("no panic");
    }
}

async fn serve(mut stream: TcpStream) {
    let mut buffer = Vec::new();
    while let Some((head, _)) = read_message(&mut stream, &mut buffer).await {
        if head.contains("/wait") {
            std::future::pending::<()>().await;
        }
        if stream.write_all(&ok("mortal")).await.is_err() {
            return;
        }
    }
}

/// A proxy over an instance that dies and one that does not; the first one gets the requests until
/// the other is made healthy.
async fn two(first: SocketAddr) -> (Rig, Arc<Endpoint>, Arc<Endpoint>) {
    let (first, other) = (endpoint(first), endpoint(saying("other").await));
    other.set_healthy(false);
    let rig = Rig::new(side(1, &[Arc::clone(&first), Arc::clone(&other)]));
    (rig, first, other)
}

/// Asks so many at once, so that as many connections idle.
async fn fill(rig: &Rig, connections: usize) {
    let asking: Vec<_> = (0..connections)
        .map(|_| {
            let address = rig.http();
            tokio::spawn(async move { assert_eq!(get(address, "/").await.1, "mortal") })
        })
        .collect();
    for one in asking {
        one.await.expect("an answer");
    }
}

#[tokio::test]
async fn idle_connections_of_the_dead_are_noticed() {
    for says in [Says::Close, Says::Reset] {
        let mortal = Mortal::new(says).await;
        let (rig, dead, other) = two(mortal.address).await;
        fill(&rig, 8).await;
        mortal.kill().await;
        other.set_healthy(true);
        // At once, and as often as there may be connections left that are of no use.
        for round in 0..20 {
            let mut client = Client::new(rig.http()).await;
            client.send(if round % 2 == 0 { GET } else { POST }).await;
            let (head, body) = client.read().await;
            assert_eq!((status(&head), body.as_str()), (200, "other"), "{says:?} {round}");
        }
        assert!(dead.connect_failures() > 0, "it was never asked");
        assert_eq!(rig.total(Count::Synthetic), 0);
    }
}

#[tokio::test]
async fn a_close_that_has_arrived_is_seen_before_a_post_is_sent() {
    let listener = std::net::TcpListener::bind(any()).expect("a port");
    let stream = TcpStream::connect(listener.local_addr().expect("an address")).await;
    let (peer, _) = listener.accept().expect("a connection");
    let mut connection = Connection::new(stream.expect("a connection"));
    poll_fn(|context| {
        for replayable in [true, false] {
            assert!(connection.is_quiet(context, replayable));
        }
        Poll::Ready(())
    })
    .await;
    drop(peer);
    // The kernel has it; the runtime is given no time to look.
    std::thread::sleep(Duration::from_millis(50));
    poll_fn(|context| {
        assert!(connection.is_quiet(context, true), "a GET may be sent, and again");
        assert!(!connection.is_quiet(context, false), "a POST may not");
        Poll::Ready(())
    })
    .await;
}

#[tokio::test]
async fn what_waits_for_the_dead_is_asked_of_the_other_unless_it_may_be_done() {
    for says in [Says::Close, Says::Reset] {
        for reused in [false, true] {
            let mortal = Mortal::new(says).await;
            let (rig, dead, other) = two(mortal.address).await;
            if reused {
                fill(&rig, 2).await;
            }
            let (mut getting, mut posting) =
                (Client::new(rig.http()).await, Client::new(rig.http()).await);
            getting.send(GET_WAITS).await;
            posting.send(POST_WAITS).await;
            until(|| dead.in_flight() == 2).await;
            // In flight on the wire too.
            tokio::time::sleep(Duration::from_millis(20)).await;
            other.set_healthy(true);
            mortal.kill().await;
            assert_eq!(getting.read().await.1, "other", "{says:?} {reused}");
            assert_eq!(status(&posting.read().await.0), 502, "{says:?} {reused}");
            until(|| dead.in_flight() == 0).await;
        }
    }
}

#[tokio::test]
async fn what_waits_for_a_replaced_instance_is_asked_of_the_other() {
    // The order in which a controller replaces an instance that ended. Where the worker hears of it
    // before it hears that the connection broke, the request is cut off, and must not be lost.
    let mortal = Mortal::new(Says::Reset).await;
    let (rig, old, other) = two(mortal.address).await;
    let (mut getting, mut posting) = (Client::new(rig.http()).await, Client::new(rig.http()).await);
    getting.send(GET_WAITS).await;
    posting.send(POST_WAITS).await;
    until(|| old.in_flight() == 2).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let new = endpoint(nobody().await);
    new.set_healthy(false);
    rig.publish(|entry| entry.stable = Some(side(1, &[new, Arc::clone(&other)])));
    other.set_healthy(true);
    old.begin_drain();
    old.cut();
    assert_eq!(getting.read().await.1, "other");
    assert_eq!(status(&posting.read().await.0), 502);
    until(|| old.in_flight() == 0).await;
    // It is no evidence about anybody: the instance was taken away, it did not fail.
    assert_eq!(rig.rows(Side::Stable, 0).await, [0; 5]);
    mortal.kill().await;
}

#[tokio::test]
async fn a_canary_that_is_cut_off_leaves_its_requests_to_stable() {
    let mortal = Mortal::new(Says::Close).await;
    let canary = endpoint(mortal.address);
    let stable = side(1, &[endpoint(saying("stable").await)]);
    let rig = Rig::canary(stable, side(2, &[Arc::clone(&canary)]), 100.0);
    let mut client = Client::new(rig.http()).await;
    client.send(GET_WAITS).await;
    until(|| canary.in_flight() == 1).await;
    rig.publish(|entry| entry.canary = None);
    canary.begin_drain();
    canary.cut();
    assert_eq!(client.read().await.1, "stable");
    mortal.kill().await;
}

#[tokio::test]
async fn a_cut_while_connecting_anew_does_not_end_the_request() {
    // One answer over the first connection, which is then closed; the next connect hangs, because
    // others fill the listener's queue.
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    listener.bind(&any().into()).expect("a port");
    listener.listen(0).expect("to listen");
    let address = listener.local_addr().expect("an address").as_socket().expect("of IP");
    let patience = ServiceSettings {
        connect_timeout: Duration::from_millis(600),
        ..ServiceSettings::default()
    };
    let (first, other) = (endpoint(address), endpoint(saying("other").await));
    other.set_healthy(false);
    let rig = Rig::with(
        side(1, &[Arc::clone(&first), Arc::clone(&other)]),
        None,
        0.0,
        patience,
        settings(),
    );
    let serving = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (stream, _) = listener.accept().expect("a connection");
        let mut stream = std::net::TcpStream::from(stream);
        let mut bytes = [0; 4096];
        assert!(stream.read(&mut bytes).expect("a request") > 0);
        stream.write_all(&ok("first")).expect("to answer");
        // The queue is filled before the connection ends.
        let fillers: Vec<_> = (0..4)
            .map(|_| {
                let filler = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
                filler.set_nonblocking(true).expect("to be set");
                let _in_progress = filler.connect(&address.into());
                filler
            })
            .collect();
        (listener, fillers)
    });
    let mut client = Client::new(rig.http()).await;
    assert_eq!(client.get("/").await.1, "first");
    let _held = serving.join().expect("no panic");
    tokio::time::sleep(Duration::from_millis(50)).await;
    client.send(GET).await;
    until(|| first.in_flight() == 1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(first.in_flight(), 1, "it waits for a connection");
    other.set_healthy(true);
    first.begin_drain();
    first.cut();
    assert_eq!(client.read().await.1, "other");
}

#[tokio::test]
async fn as_many_are_tried_as_is_configured_and_none_twice() {
    let dead = [endpoint(nobody().await), endpoint(nobody().await)];
    let alive = endpoint(saying("alive").await);
    let all = [Arc::clone(&dead[0]), Arc::clone(&dead[1]), alive];
    for (retries, always) in [(0, false), (1, false), (2, true), (5, true)] {
        let service = ServiceSettings { retries, ..ServiceSettings::default() };
        let rig = Rig::with(side(1, &all), None, 0.0, service, settings());
        let before: u32 = dead.iter().map(|e| e.connect_failures()).sum();
        let mut failed = 0;
        for _ in 0..30 {
            failed += u32::from(get(rig.http(), "/").await.0 == 502);
        }
        assert_eq!(failed == 0, always, "{retries} retries: {failed} of 30");
        let asked = dead.iter().map(|e| e.connect_failures()).sum::<u32>() - before;
        assert!(asked <= 30 * (retries + 1).min(2), "{retries} retries: {asked}");
    }
}

#[tokio::test]
async fn what_waits_for_a_cut_h2c_instance_is_asked_of_the_other() {
    let waiting = origin(|stream, _| async move {
        let io = hyper_util::rt::TokioIo::new(stream);
        let service = hyper::service::service_fn(|_| {
            std::future::pending::<
                Result<http::Response<http_body_util::Empty<bytes::Bytes>>, std::io::Error>,
            >()
        });
        let executor = hyper_util::rt::TokioExecutor::new();
        let _ =
            hyper::server::conn::http2::Builder::new(executor).serve_connection(io, service).await;
    })
    .await;
    let first = endpoint_of(waiting, UpstreamProtocol::H2c);
    let other = endpoint_of(echoing_h2c().await, UpstreamProtocol::H2c);
    other.set_healthy(false);
    let rig = Rig::new(side(1, &[Arc::clone(&first), Arc::clone(&other)]));
    let mut client = http2(rig.http()).await;
    let request = http::Request::get("http://a/").body(Default::default()).expect("a request");
    let asking = tokio::spawn(async move { fetch(&mut client, request).await.0.status });
    until(|| first.in_flight() == 1).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    other.set_healthy(true);
    first.begin_drain();
    first.cut();
    assert_eq!(asking.await.expect("no panic"), 200);
}
