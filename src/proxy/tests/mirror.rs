//! Copies of requests, which no visitor notices.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use super::support::*;
use crate::analysis::criteria::Criteria;
use crate::analysis::mirror::{Shown, Tally};
use crate::model::mirror::MirrorSpec;
use crate::model::revision::UpstreamProtocol;
use crate::model::weight::{Side, Weight};
use crate::routing::mirror::Mirror;
use crate::routing::settings::ServiceSettings;
use crate::telemetry::traffic::Count;

fn spec() -> MirrorSpec {
    MirrorSpec {
        share: Weight::FULL,
        lasts: Duration::from_secs(30),
        interval_micros: 1,
        burst: 1_000,
        in_flight: 10,
        compare_body: false,
        mask: Vec::new(),
        different: Weight::ZERO,
    }
}

/// A rig with a canary of no weight, of which copies are made.
fn rig_of(
    stable: std::net::SocketAddr,
    canary: std::net::SocketAddr,
    spec: &MirrorSpec,
    service: ServiceSettings,
) -> (Rig, Arc<Mirror>) {
    let (stable, canary) = (side(1, &[endpoint(stable)]), side(2, &[endpoint(canary)]));
    let rig = Rig::with(stable, Some(canary), 0.0, service, settings());
    let mirror = Mirror::new(spec, &Criteria::default(), 1, Instant::now()).expect("a mirror");
    rig.publish(|entry| entry.mirror = Some(Arc::clone(&mirror)));
    (rig, mirror)
}

async fn twins(mirror: &Mirror, number: u64) -> Tally {
    until(|| mirror.twins.tally().twins() >= number).await;
    mirror.twins.tally()
}

/// An origin that remembers what it was asked.
async fn remembering() -> (std::net::SocketAddr, Arc<Mutex<Vec<String>>>) {
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&heads);
    let address = answering(move |head, _| {
        seen.lock().expect("no panic").push(head.to_owned());
        ok("canary")
    });
    (address.await, heads)
}

#[tokio::test]
async fn what_changes_nothing_is_copied_and_marked() {
    let (canary, heads) = remembering().await;
    let service = ServiceSettings {
        tester_secret: Some("a secret of testers".to_owned()),
        ..ServiceSettings::default()
    };
    let (rig, mirror) = rig_of(saying("stable").await, canary, &spec(), service);
    let mut client = Client::new(rig.http()).await;
    for _ in 0..5 {
        let (head, body) = client.get("/a?b=c").await;
        assert_eq!((status(&head), body.as_str()), (200, "stable"));
    }
    let tally = twins(&mirror, 5).await;
    assert_eq!((tally.failed, tally.rejected), (Shown::default(), Shown::default()));
    // What may change something, has a body, or comes from a tester is not.
    for request in [
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
        "DELETE / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi",
        "GET / HTTP/1.1\r\nhost: a\r\nx-switchback-force: stable\r\nx-switchback-secret: a secret of testers\r\n\r\n",
    ] {
        client.send(request).await;
        assert_eq!(status(&client.read().await.0), 200, "{request}");
    }
    let (_, body) = client.get("/last").await;
    assert_eq!(body, "stable");
    twins(&mirror, 6).await;
    let heads = heads.lock().expect("no panic").clone();
    assert_eq!(heads.len(), 6, "{heads:?}");
    for head in &heads {
        assert!(head.starts_with("GET /"), "{head}");
        assert_eq!(field(head, "x-switchback-mirror"), Some("1"), "{head}");
        assert_eq!(field(head, "x-forwarded-for"), Some("127.0.0.1"), "{head}");
    }
    // Nothing of it is an observation of the split.
    assert_eq!(rig.rows(Side::Stable, 9).await, [9, 0, 0, 0, 0]);
    assert_eq!(rig.rows(Side::Canary, 0).await, [0; 5]);
    assert_eq!(mirror.counts(), (6, 0));
    // Its connection is used again, too.
    assert!(rig.total(Count::UpstreamConnects) <= 3, "{}", rig.total(Count::UpstreamConnects));
}

#[tokio::test]
async fn nobody_else_can_say_that_a_request_is_a_copy() {
    let (stable, heads) = remembering().await;
    let rig = Rig::new(side(1, &[endpoint(stable)]));
    let mut client = Client::new(rig.http()).await;
    for fields in [
        "x-switchback-mirror: 1\r\n",
        "X-Switchback-Mirror: 0\r\nX-SWITCHBACK-MIRROR: 1\r\n",
        "connection: x-switchback-mirror\r\nx-switchback-mirror: 1\r\n",
        "x-switchback-revision: 7\r\n",
    ] {
        client.send(&format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n")).await;
        assert_eq!(status(&client.read().await.0), 200, "{fields}");
    }
    for head in heads.lock().expect("no panic").iter() {
        assert!(!head.to_ascii_lowercase().contains("x-switchback"), "{head}");
    }
    assert_eq!(heads.lock().expect("no panic").len(), 4);
}

#[tokio::test]
async fn failures_of_a_copy_are_the_canarys_alone() {
    let failing = || answering(|_, _| b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".to_vec());
    let reset = origin(|mut stream, _| async move {
        let _ = read_message(&mut stream, &mut Vec::new()).await;
    });
    for canary in [failing().await, reset.await, nobody().await] {
        let (rig, mirror) =
            rig_of(saying("stable").await, canary, &spec(), ServiceSettings::default());
        for _ in 0..3 {
            assert_eq!(get(rig.http(), "/").await, (200, "stable".into()));
        }
        let failed = twins(&mirror, 3).await.failed;
        assert_eq!(failed, Shown { both: 0, canary: 3, stable: 0 });
        assert_eq!((rig.total(Count::Rescued), rig.total(Count::Synthetic)), (0, 0));
    }
    // What fails on both is known to.
    let (rig, mirror) =
        rig_of(failing().await, failing().await, &spec(), ServiceSettings::default());
    assert_eq!(get(rig.http(), "/").await.0, 500);
    assert_eq!(twins(&mirror, 1).await.failed, Shown { both: 1, canary: 0, stable: 0 });
}

#[tokio::test]
async fn a_canary_that_hangs_holds_up_nobody_and_gets_no_more_than_it_may() {
    let hang = origin(|mut stream, _| async move {
        let mut buffer = Vec::new();
        while read_message(&mut stream, &mut buffer).await.is_some() {}
    });
    let spec = MirrorSpec { in_flight: 3, ..spec() };
    let (rig, mirror) =
        rig_of(saying("stable").await, hang.await, &spec, ServiceSettings::default());
    let mut client = Client::new(rig.http()).await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.1, "stable");
    }
    let (sent, left_out) = mirror.counts();
    assert_eq!((sent, left_out), (3, 17));
    assert_eq!(mirror.twins.tally().twins(), 0, "none of them was answered");
}

#[tokio::test]
async fn what_is_overdue_has_failed_and_makes_room() {
    let hang = origin(|mut stream, _| async move {
        let mut buffer = Vec::new();
        while read_message(&mut stream, &mut buffer).await.is_some() {}
    });
    let spec = MirrorSpec { in_flight: 3, ..spec() };
    let (rig, mirror) =
        rig_of(saying("stable").await, hang.await, &spec, ServiceSettings::default());
    rig.publish(|entry| entry.overdue = Duration::from_millis(100));
    let mut client = Client::new(rig.http()).await;
    for round in 1..=2 {
        for _ in 0..10 {
            assert_eq!(client.get("/").await.1, "stable");
        }
        let tally = twins(&mirror, 3 * round).await;
        assert_eq!(
            (tally.failed.canary, tally.failed.stable, tally.answered),
            (tally.twins(), 0, 0)
        );
    }
}

#[tokio::test]
async fn bodies_are_compared_but_for_what_is_masked() {
    let spec = MirrorSpec { compare_body: true, mask: vec!["token=[0-9]+".to_owned()], ..spec() };
    let page = |who: &'static str| {
        answering(move |head, _| {
            let path = head.split(' ').nth(1).unwrap_or_default();
            match path {
                "/same" => ok("the same"),
                "/masked" => ok(&format!("token={}", if who == "stable" { 1 } else { 234 })),
                "/empty" => ok(""),
                // In pieces, so that it is not here with its head.
                "/long" => ok(&"x".repeat(100_000)),
                "/huge" => ok(&"x".repeat(300_000)),
                "/encoded" => format!(
                    "HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: {}\r\n\r\n{who}",
                    who.len()
                )
                .into_bytes(),
                _ => ok(who),
            }
        })
    };
    let (rig, mirror) =
        rig_of(page("stable").await, page("canary").await, &spec, ServiceSettings::default());
    let mut client = Client::new(rig.http()).await;
    let mut asked = 0;
    for (path, read, different) in [
        ("/same", 1, 0),
        ("/masked", 2, 0),
        ("/empty", 3, 0),
        ("/long", 4, 0),
        ("/huge", 4, 0),
        ("/encoded", 4, 0),
        ("/other", 5, 1),
    ] {
        assert_eq!(status(&client.get(path).await.0), 200);
        asked += 1;
        let tally = twins(&mirror, asked).await;
        assert_eq!((tally.read, tally.different), (read, different), "{path}");
        assert_eq!(tally.failed, Shown::default(), "{path}");
    }
}

#[tokio::test]
async fn a_visitor_who_reads_slowly_keeps_no_place_from_others() {
    let spec = MirrorSpec { compare_body: true, in_flight: 1, ..spec() };
    let stable = origin(|mut stream, _| async move {
        let mut buffer = Vec::new();
        while let Some((head, _)) = read_message(&mut stream, &mut buffer).await {
            let is_slow = head.starts_with("GET /slow");
            let answer = ok("all of it");
            let here = if is_slow { &answer[..answer.len() - 3] } else { &answer[..] };
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, here).await;
        }
    });
    let (canary, heads) = remembering().await;
    let (rig, _mirror) = rig_of(stable.await, canary, &spec, ServiceSettings::default());
    let mut slow = Client::new(rig.http()).await;
    slow.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await;
    slow.read_head().await;
    let begun = Instant::now();
    let seen = |path: &str| {
        let heads = heads.lock().expect("no panic");
        heads.iter().any(|head| head.starts_with(&format!("GET {path} ")))
    };
    while !seen("/") {
        assert!(begun.elapsed() < LONG, "nothing was copied beside it");
        assert_eq!(get(rig.http(), "/").await.0, 200);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(seen("/slow"), "its own copy was sent first");
}

#[tokio::test]
async fn where_there_is_no_mirror_nothing_is_copied() {
    let (canary, heads) = remembering().await;
    let spec = spec();
    let (rig, mirror) = rig_of(saying("stable").await, canary, &spec, ServiceSettings::default());
    rig.publish(|entry| entry.mirror = None);
    let mut client = Client::new(rig.http()).await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.1, "stable");
    }
    assert_eq!((mirror.counts(), heads.lock().expect("no panic").len()), ((0, 0), 0));
}

/// An origin of HTTP/2 in cleartext that answers every path with itself, or fails it.
async fn speaking_h2c(fails: bool) -> (std::net::SocketAddr, Arc<Mutex<Vec<HeaderMap>>>) {
    let listener = TcpListener::bind(any()).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let heads: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    let seen = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = Arc::clone(&seen);
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                seen.lock().expect("no panic").push(request.headers().clone());
                let status = if fails { 503 } else { 200 };
                let body = Full::new(Bytes::from(request.uri().path().to_owned()));
                let answer = Response::builder().status(status).body(body).expect("sound");
                async move { Ok::<_, std::convert::Infallible>(answer) }
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, heads)
}

#[tokio::test]
async fn instances_that_speak_http2_are_mirrored_alike() {
    for fails in [false, true] {
        let (stable, of_stable) = speaking_h2c(false).await;
        let (canary, of_canary) = speaking_h2c(fails).await;
        let spec = MirrorSpec { compare_body: true, ..spec() };
        let endpoint = |address| endpoint_of(address, UpstreamProtocol::H2c);
        let (stable, canary) = (side(1, &[endpoint(stable)]), side(2, &[endpoint(canary)]));
        let rig = Rig::with(stable, Some(canary), 0.0, ServiceSettings::default(), settings());
        let mirror = Mirror::new(&spec, &Criteria::default(), 1, Instant::now()).expect("a mirror");
        rig.publish(|entry| entry.mirror = Some(Arc::clone(&mirror)));
        let mut client = Client::new(rig.http()).await;
        for n in 0..5 {
            let (head, body) = client.get(&format!("/{n}")).await;
            assert_eq!((status(&head), body), (200, format!("/{n}")));
        }
        let tally = twins(&mirror, 5).await;
        let failed = if fails { 5 } else { 0 };
        assert_eq!(tally.failed, Shown { both: 0, canary: failed, stable: 0 });
        assert_eq!((tally.read, tally.different), (5 - failed, 0));
        let marked = |heads: &Mutex<Vec<HeaderMap>>| {
            let heads = heads.lock().expect("no panic");
            let is_marked = |head: &&HeaderMap| head.contains_key("x-switchback-mirror");
            (heads.len(), heads.iter().filter(is_marked).count())
        };
        assert_eq!((marked(&of_stable), marked(&of_canary)), ((5, 0), (5, 5)));
        assert_eq!(rig.rows(Side::Stable, 5).await, [5, 0, 0, 0, 0]);
        // All copies on one connection.
        assert_eq!(rig.total(Count::UpstreamConnects), 2);
    }
}
