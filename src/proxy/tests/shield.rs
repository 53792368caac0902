//! A canary that fails, and visitors who do not see it; assets that only one revision has.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::support::*;
use crate::analysis::scorecard::Row;
use crate::model::revision::UpstreamProtocol;
use crate::model::weight::{Side, Weight};
use crate::proxy::tester;
use crate::routing::asset::Assets;
use crate::routing::settings::{ServiceSettings, Shield};
use crate::telemetry::traffic::Count;

fn failing(status: u16) -> Vec<u8> {
    let body = "x".repeat(3_000);
    format!("HTTP/1.1 {status} No\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Stable echoes bodies and says what it got; the canary does what is told.
async fn stable() -> crate::routing::table::SideEntry {
    let echo = |head: &str, body: &[u8]| {
        let method = head.split(' ').next().unwrap_or_default();
        ok(&format!("{method} {}", String::from_utf8_lossy(body)))
    };
    side(1, &[endpoint(answering(echo).await)])
}

async fn rig_of(status: u16, service: ServiceSettings) -> Rig {
    let canary = side(2, &[endpoint(answering(move |_, _| failing(status)).await)]);
    Rig::with(stable().await, Some(canary), 100.0, service, settings())
}

#[tokio::test]
async fn every_5xx_of_the_canary_is_answered_by_stable_and_counts() {
    for status in [500, 502, 503, 504, 599] {
        let rig = rig_of(status, ServiceSettings::default()).await;
        let mut client = Client::new(rig.http()).await;
        for _ in 0..5 {
            let (head, body) = client.get("/").await;
            assert_eq!((self::status(&head), body.as_str()), (200, "GET "), "{status}");
        }
        assert_eq!(rig.rows(Side::Canary, 5).await, [0, 0, 5, 0, 0]);
        assert_eq!(rig.rows(Side::Stable, 0).await, [0; 5], "a rescue is no observation");
        assert_eq!((rig.total(Count::Rescued), rig.total(Count::Synthetic)), (5, 0));
        // The canary's connection is used again where its failure was here as a whole.
        assert!(rig.total(Count::UpstreamConnects) < 6, "as many as there were requests");
    }
}

#[tokio::test]
async fn a_canary_that_resets_or_refuses_or_hangs_is_covered() {
    let reset = origin(|mut stream, _| async move {
        let _ = read_message(&mut stream, &mut Vec::new()).await;
    });
    let hang = origin(|mut stream, _| async move {
        let mut buffer = Vec::new();
        while read_message(&mut stream, &mut buffer).await.is_some() {}
    });
    let service = ServiceSettings {
        retries: 0,
        response_timeout: Duration::from_millis(300),
        ..ServiceSettings::default()
    };
    for address in [reset.await, hang.await, nobody().await] {
        let canary = side(2, &[endpoint(address)]);
        let rig = Rig::with(stable().await, Some(canary), 100.0, service.clone(), settings());
        assert_eq!(get(rig.http(), "/").await, (200, "GET ".into()));
        assert_eq!(rig.rows(Side::Canary, 1).await, [0, 0, 0, 1, 0]);
        assert_eq!(rig.total(Count::Rescued), 1);
    }
}

#[tokio::test]
async fn a_request_that_hangs_on_a_canary_until_it_is_cut_ends_on_stable() {
    let hang = origin(|mut stream, _| async move {
        let mut buffer = Vec::new();
        while read_message(&mut stream, &mut buffer).await.is_some() {}
    });
    let target = endpoint(hang.await);
    let rig = Rig::canary(stable().await, side(2, &[Arc::clone(&target)]), 100.0);
    let mut client = Client::new(rig.http()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    until(|| target.in_flight() == 1).await;
    target.begin_drain();
    target.cut();
    assert_eq!(client.read().await.1, "GET ");
    assert_eq!(target.in_flight(), 0);
}

#[tokio::test]
async fn bodies_are_sent_again_whole_when_they_are_small_and_the_method_allows() {
    let service = ServiceSettings { shield_body: 1_000, ..ServiceSettings::default() };
    let rig = rig_of(500, service).await;
    let mut client = Client::new(rig.http()).await;
    for (method, size, expected) in [
        ("PUT", 1_000, 200),
        ("DELETE", 10, 200),
        ("PUT", 1_001, 500),
        ("POST", 10, 500),
        ("PATCH", 0, 500),
    ] {
        let body = "b".repeat(size);
        let head = format!("{method} / HTTP/1.1\r\nhost: a\r\ncontent-length: {size}\r\n\r\n");
        // In two parts, so that one has passed when the other comes.
        client.send(&head).await;
        client.send(&body[..size / 2]).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        client.send(&body[size / 2..]).await;
        let (head, answer) = client.read().await;
        assert_eq!(status(&head), expected, "{method} {size}");
        if expected == 200 {
            assert_eq!(answer, format!("{method} {body}"));
        }
    }
    // Of unknown length.
    for (size, expected) in [(900, 200), (1_100, 500)] {
        let body = "b".repeat(size);
        let chunked = format!(
            "PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{size:x}\r\n{body}\r\n0\r\n\r\n"
        );
        client.send(chunked).await;
        assert_eq!(status(&client.read().await.0), expected, "{size} chunked");
    }
    assert_eq!(rig.count(Side::Canary, Row::Failure), 7);
}

#[tokio::test]
async fn an_answer_before_the_body_has_come_takes_the_rest_of_it_to_stable() {
    let hasty = origin(|mut stream, _| async move {
        // Answers as soon as the head is here, and reads no body.
        let _ = read_any(&mut stream, &mut Vec::new(), true).await;
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, &failing(503)).await;
        tokio::time::sleep(LONG).await;
    });
    let canary = side(2, &[endpoint(hasty.await)]);
    let rig = Rig::canary(stable().await, canary, 100.0);
    let mut client = Client::new(rig.http()).await;
    client.send("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\nhalf").await;
    until(|| rig.count(Side::Canary, Row::Failure) == 1).await;
    client.send("rest").await;
    assert_eq!(client.read().await.1, "PUT halfrest");
}

#[tokio::test]
async fn an_h2c_canary_is_covered_too() {
    // It is no HTTP/2 at all: the handshake breaks.
    let address = answering(|_, _| failing(500)).await;
    let canary = side(2, &[endpoint_of(address, UpstreamProtocol::H2c)]);
    let rig = Rig::canary(stable().await, canary, 100.0);
    for _ in 0..3 {
        assert_eq!(get(rig.http(), "/").await, (200, "GET ".into()));
    }
}

#[tokio::test]
async fn off_and_safe_mean_what_they_say() {
    let ask = async |shield: Shield, method: &str| {
        let service = ServiceSettings { shield, ..ServiceSettings::default() };
        let rig = rig_of(500, service).await;
        let mut client = Client::new(rig.http()).await;
        client.send(format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        status(&client.read().await.0)
    };
    assert_eq!(ask(Shield::Off, "GET").await, 500);
    assert_eq!(ask(Shield::Safe, "GET").await, 200);
    assert_eq!(ask(Shield::Safe, "PUT").await, 500);
    assert_eq!(ask(Shield::Idempotent, "PUT").await, 200);
}

#[tokio::test]
async fn what_is_no_error_here_and_what_is_no_5xx_passes() {
    for (status, errors) in [(503, vec![500]), (429, vec![429]), (404, vec![404])] {
        let errors = crate::routing::settings::ErrorRule::of(errors);
        let rig = rig_of(status, ServiceSettings { errors, ..ServiceSettings::default() }).await;
        assert_eq!(get(rig.http(), "/").await.0, status);
    }
}

#[tokio::test]
async fn a_failing_stable_is_not_covered_by_the_canary() {
    let (bad, good) = (answering(|_, _| failing(500)).await, saying("canary").await);
    let rig = Rig::canary(side(1, &[endpoint(bad)]), side(2, &[endpoint(good)]), 0.0);
    assert_eq!(get(rig.http(), "/").await.0, 500);
    assert_eq!(rig.rows(Side::Stable, 1).await, [0, 0, 1, 0, 0]);
}

#[tokio::test]
async fn when_both_fail_the_visitor_gets_stables_answer_and_no_third_is_asked() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let counting = answering(move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        failing(500)
    });
    let address = counting.await;
    let stable = side(1, &[endpoint(address), endpoint(address)]);
    let canary = side(2, &[endpoint(answering(|_, _| failing(503)).await)]);
    let rig = Rig::canary(stable, canary, 100.0);
    assert_eq!(get(rig.http(), "/").await.0, 500);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(rig.total(Count::Rescued), 0);
}

#[tokio::test]
async fn the_budget_bounds_what_stable_is_asked_for() {
    let service = ServiceSettings { shield_budget: Weight::ZERO, ..ServiceSettings::default() };
    let rig = rig_of(500, service).await;
    let mut client = Client::new(rig.http()).await;
    let mut failed = 0;
    // The reserve is 100 within ten seconds, over eight shards here: 13 for the one worker.
    for _ in 0..40 {
        failed += u64::from(status(&client.get("/").await.0) == 500);
    }
    let budget = rig.entry.lock().expect("no panic").budget.clone().expect("a budget");
    let done = budget.total();
    assert_eq!((done.shielded + done.refused, done.refused), (40, failed));
    assert!((13..=26).contains(&done.shielded), "{done:?}");
    assert_eq!(rig.rows(Side::Canary, 40).await, [0, 0, 40, 0, 0]);
}

#[tokio::test]
async fn a_tester_sees_what_the_canary_says() {
    let service = ServiceSettings {
        tester_secret: Some("a secret of some length".to_owned()),
        ..ServiceSettings::default()
    };
    let rig = rig_of(500, service).await;
    let cookie = tester::sign("a secret of some length", Side::Canary, u64::MAX / 2);
    let mut client = Client::new(rig.http()).await;
    client
        .send(format!("GET / HTTP/1.1\r\nhost: a\r\ncookie: switchback-force={cookie}\r\n\r\n"))
        .await;
    assert_eq!(status(&client.read().await.0), 500);
}

/// An origin with one asset of its own.
async fn having(asset: &'static str) -> std::net::SocketAddr {
    answering(move |head, _| if head.contains(asset) { ok(asset) } else { failing(404) }).await
}

#[tokio::test]
async fn an_asset_of_the_other_revision_is_found_on_either_side() {
    let (old, new) = ("/assets/app-1a2b3c4d.js", "/assets/app-9f8e7d6c.js");
    let stable = side(1, &[endpoint(having(old).await)]);
    let canary = side(2, &[endpoint(having(new).await)]);
    let rig = Rig::canary(stable, canary, 100.0);
    assert_eq!(get(rig.http(), old).await, (200, old.into()));
    assert_eq!(get(rig.http(), new).await, (200, new.into()));
    // What neither has is a 404 of the one that was asked, and counts as such.
    assert_eq!(get(rig.http(), "/assets/app-00000000.js").await.0, 404);
    // What is no asset is asked once.
    assert_eq!(get(rig.http(), "/orders/1a2b3c4d").await.0, 404);
    assert_eq!(rig.rows(Side::Canary, 3).await, [1, 2, 0, 0, 0]);
    assert_eq!(rig.rows(Side::Stable, 0).await, [0; 5]);
    assert_eq!(rig.total(Count::AssetsFound), 1);
    rig.publish(|entry| entry.canary_weight = Weight::ZERO);
    assert_eq!(get(rig.http(), new).await, (200, new.into()));
    assert_eq!(rig.total(Count::AssetsFound), 2);
}

#[tokio::test]
async fn the_warm_revision_still_has_its_assets() {
    let (old, new) = ("/assets/app-1a2b3c4d.js", "/assets/app-9f8e7d6c.js");
    let rig = Rig::new(side(2, &[endpoint(having(new).await)]));
    assert_eq!(get(rig.http(), old).await.0, 404);
    let warm = side(1, &[endpoint(having(old).await)]);
    rig.publish(|entry| entry.warm = Some(warm));
    let mut client = Client::new(rig.http()).await;
    for _ in 0..3 {
        assert_eq!(client.get(old).await.1, old);
        assert_eq!(client.get(new).await.1, new);
    }
    rig.publish(|entry| {
        let settings = ServiceSettings { assets: Assets::Off, ..(*entry.settings).clone() };
        entry.settings = Arc::new(settings);
    });
    assert_eq!(status(&client.get(old).await.0), 404);
}
