//! What an answer counts as: gRPC's statuses, paths with rules of their own, users whose first error
//! counts, instances by themselves, and a part of stable with a weight of its own.

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::sync::Arc;
use tokio::net::TcpListener;

use super::protocols::{http2, post};
use super::support::*;
use crate::analysis::scorecard::{Row, Scorecard};
use crate::analysis::sessions::Sessions;
use crate::model::revision::UpstreamProtocol;
use crate::model::weight::{Side, Weight};
use crate::routing::settings::{Affinity, ErrorRule, ServiceSettings};
use crate::routing::table::FreshEntry;

/// A gRPC server of sorts. The path says the status: `/13` in trailers, `/head/13` in a response of
/// nothing but a head, `/none` not at all.
async fn grpc() -> std::net::SocketAddr {
    let listener = TcpListener::bind(any()).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(|request: Request<Incoming>| async move {
                let path = request.uri().path().to_owned();
                let status = HeaderValue::from_str(path.rsplit('/').next().unwrap_or_default());
                let status = status.expect("a status");
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", status.clone());
                let data = Ok::<_, hyper::Error>(Frame::data(Bytes::from_static(b"\0\0\0\0\0")));
                let mut answer =
                    Response::builder().header("content-type", "application/grpc+proto");
                let frames = match path.as_str() {
                    "/none" => vec![data],
                    _ if path.starts_with("/head/") => {
                        answer = answer.header("grpc-status", status);
                        Vec::new()
                    }
                    _ => vec![data, Ok(Frame::trailers(trailers))],
                };
                let body = StreamBody::new(futures_util::stream::iter(frames));
                Ok::<_, hyper::Error>(answer.body(body).expect("sound"))
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
async fn grpc_counts_by_the_status_in_its_trailers() {
    let rig = Rig::new(side(1, &[endpoint_of(grpc().await, UpstreamProtocol::H2c)]));
    let mut client = http2(rig.http()).await;
    let (ok, theirs, ours) = ([0, 0], [1, 3, 5, 6, 7, 8, 9, 10, 11, 16], [2, 4, 12, 13, 14, 15]);
    for status in ok.iter().chain(&theirs).chain(&ours) {
        let answer = client.send_request(post(&format!("/{status}"), "")).await.expect("an answer");
        let trailers = answer.into_body().collect().await.expect("a body").trailers().cloned();
        assert_eq!(trailers.expect("trailers")["grpc-status"], status.to_string());
    }
    assert_eq!(rig.rows(Side::Stable, 18).await, [2, 10, 6, 0, 0]);
    for path in ["/head/0", "/head/5", "/head/14", "/none"] {
        let answer = client.send_request(post(path, "")).await.expect("an answer");
        answer.into_body().collect().await.expect("a body");
    }
    assert_eq!(rig.rows(Side::Stable, 22).await, [3, 11, 8, 0, 0]);
}

#[tokio::test]
async fn an_end_that_comes_behind_an_announced_length_is_waited_for_by_nobody() {
    let listener = TcpListener::bind(any()).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(|_: Request<Incoming>| async move {
                let data = futures_util::stream::iter([Frame::data(Bytes::from_static(b"hello"))]);
                // The end of the stream does not come.
                let body = StreamBody::new(
                    data.chain(futures_util::stream::pending()).map(Ok::<_, hyper::Error>),
                );
                let answer = Response::builder().header("content-length", "5").body(body);
                Ok::<_, hyper::Error>(answer.expect("sound"))
            });
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    let rig = Rig::new(side(1, &[endpoint_of(address, UpstreamProtocol::H2c)]));
    let mut client = Client::new(rig.http()).await;
    for _ in 0..3 {
        assert_eq!(client.get("/").await.1, "hello");
    }
    assert_eq!(rig.rows(Side::Stable, 3).await, [3, 0, 0, 0, 0]);
}

/// Answers 500 to everything.
async fn failing() -> std::net::SocketAddr {
    answering(|_, _| b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n".to_vec())
        .await
}

#[tokio::test]
async fn paths_have_rules_of_their_own() {
    let mut service = ServiceSettings::default();
    service.except([
        ("/search".to_owned(), Some(ErrorRule::of([404]))),
        ("/search/up".to_owned(), None),
    ]);
    let rig = Rig::with(side(1, &[endpoint(failing().await)]), None, 0.0, service, settings());
    let mut client = Client::new(rig.http()).await;
    for path in ["/", "/search", "/search/up", "/search/up/x?y", "/searching"] {
        assert_eq!(status(&client.get(path).await.0), 500);
    }
    assert_eq!(rig.rows(Side::Stable, 3).await, [1, 0, 2, 0, 0]);
}

#[tokio::test]
async fn the_first_error_of_a_user_counts_and_routes_are_named() {
    let sessions = Arc::new(Sessions::default());
    let of_sessions = |revision, address| {
        let mut side = side(revision, &[endpoint(address)]);
        let card = Scorecard::new(8).of_sessions(Some(Arc::clone(&sessions)));
        side.scorecard = Arc::new(card);
        side
    };
    let stable = of_sessions(1, failing().await);
    let canary = of_sessions(2, failing().await);
    let affinity = Affinity::Header("x-user".to_owned());
    let service = ServiceSettings { affinity, ..ServiceSettings::default() };
    let rig = Rig::with(stable, Some(canary), 50.0, service, settings());
    let mut client = Client::new(rig.http()).await;
    for request in 0..40 {
        let user = request % 10;
        client
            .send(format!("GET /cart/{request} HTTP/1.1\r\nhost: a\r\nx-user: u{user}\r\n\r\n"))
            .await;
        client.read().await;
    }
    let count = |row| rig.count(Side::Stable, row) + rig.count(Side::Canary, row);
    until(|| count(Row::Failure) + count(Row::Repeated) == 40).await;
    assert_eq!((count(Row::Failure), count(Row::Repeated)), (10, 30));
    let entry = rig.entry.lock().expect("no panic");
    let troubled = Side::BOTH.map(|side| entry.side(side).expect("both").scorecard.troubled());
    assert_eq!(troubled[0].on("/cart/*") + troubled[1].on("/cart/*"), 40);
}

#[tokio::test]
async fn a_part_of_stable_has_a_weight_and_a_scorecard_of_its_own() {
    let canary = side(2, &[endpoint(saying("canary").await)]);
    let mut stable = side(1, &[endpoint(saying("stable").await)]);
    let cards = stable.pool.endpoints.iter().map(|e| (e.id, Arc::new(Scorecard::new(8))));
    stable.instances = Some(cards.collect());
    let rig = Rig::canary(stable, canary, 20.0);
    let alive = endpoint(saying("fresh").await);
    let fresh = |endpoint| FreshEntry {
        weight: Weight::from_percent(20.0).expect("a weight"),
        side: side(1, &[endpoint]),
    };
    rig.publish(|entry| entry.fresh = Some(fresh(alive)));
    let mut seen = std::collections::BTreeMap::new();
    let mut client = Client::new(rig.http()).await;
    for _ in 0..900 {
        *seen.entry(client.get("/").await.1).or_insert(0_u64) += 1;
    }
    let rows = || {
        let entry = rig.entry.lock().expect("no panic");
        let fresh = entry.fresh.as_ref().expect("a part").side.scorecard.sample();
        let stable = entry.stable.as_ref().expect("stable");
        let (_, instance) = &stable.instances.as_ref().expect("cards")[0];
        let count = |sample: crate::analysis::scorecard::Sample| sample.count(Row::Success);
        (count(fresh), count(stable.scorecard.sample()), count(instance.sample()))
    };
    until(|| rows().0 + rows().1 + rig.count(Side::Canary, Row::Success) == 900).await;
    assert_eq!(rows(), (seen["fresh"], seen["stable"], seen["stable"]));
    assert_eq!(rig.count(Side::Canary, Row::Success), seen["canary"]);
    // Five standard deviations of a binomial around 180.
    assert!((120..=240).contains(&seen["fresh"]), "{seen:?}");

    // An instance that is gone leaves its requests to the rest of stable, which is not compared.
    let gone = endpoint(nobody().await);
    gone.set_healthy(false);
    rig.publish(|entry| entry.fresh = Some(fresh(gone)));
    let before = rows().1;
    for _ in 0..100 {
        assert_ne!(client.get("/").await.1, "");
    }
    until(|| rows().1 + rig.count(Side::Canary, Row::Success) == before + seen["canary"] + 100)
        .await;
    assert_eq!(rows().0, 0);
}

/// A request counts for the weight at which it arrived, however late it ends.
#[tokio::test]
async fn a_straggler_counts_for_the_epoch_in_which_it_came() {
    let (asked, answers) =
        (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let (came, go) = (Arc::clone(&asked), Arc::clone(&answers));
    let address = origin(move |mut stream, _| {
        let (came, go) = (Arc::clone(&came), Arc::clone(&go));
        async move {
            let mut buffer = Vec::new();
            while read_message(&mut stream, &mut buffer).await.is_some() {
                came.notify_one();
                go.notified().await;
                let written = tokio::io::AsyncWriteExt::write_all(&mut stream, &ok("late")).await;
                if written.is_err() {
                    break;
                }
            }
        }
    })
    .await;
    let rig = Rig::new(side(1, &[endpoint(address)]));
    let former =
        Arc::clone(&rig.entry.lock().expect("no panic").stable.as_ref().expect("stable").scorecard);
    let mut client = Client::new(rig.http()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    asked.notified().await;
    rig.publish(|entry| {
        if let Some(stable) = &mut entry.stable {
            stable.scorecard = Arc::new(Scorecard::new(8));
        }
    });
    answers.notify_one();
    assert!(client.read().await.1.contains("late"));
    until(|| former.sample().count(Row::Success) == 1).await;
    assert_eq!(rig.count(Side::Stable, Row::Success), 0);
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    asked.notified().await;
    answers.notify_one();
    client.read().await;
    assert_eq!(rig.rows(Side::Stable, 1).await, [1, 0, 0, 0, 0]);
    assert_eq!(former.sample().requests(), 1);
}
