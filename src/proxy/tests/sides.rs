//! Who goes where: the coin, affinity, testers; and who is told what about the client.

use std::sync::{Arc, Mutex};

use super::support::*;
use crate::analysis::scorecard::Row;
use crate::model::weight::{Side, Weight};
use crate::proxy::tester;
use crate::routing::settings::{Affinity, ServiceSettings};

async fn rig(affinity: Affinity, percent: f64) -> Rig {
    let stable = side(1, &[endpoint(saying("stable").await)]);
    let canary = side(2, &[endpoint(saying("canary").await)]);
    let service = ServiceSettings {
        affinity,
        tester_secret: Some("secret".to_owned()),
        ..ServiceSettings::default()
    };
    Rig::with(stable, Some(canary), percent, service, settings())
}

#[tokio::test]
async fn the_coin_splits_by_weight_and_every_request_is_counted_once() {
    let rig = rig(Affinity::None, 25.0).await;
    let mut on_canary = 0;
    for _ in 0..4 {
        let mut client = Client::new(rig.http()).await;
        for _ in 0..500 {
            on_canary += u64::from(client.get("/").await.1 == "canary");
        }
    }
    // Five standard deviations of a binomial around 500.
    assert!((403..=597).contains(&on_canary), "{on_canary}");
    assert_eq!(rig.count(Side::Canary, Row::Success), on_canary);
    assert_eq!(rig.count(Side::Stable, Row::Success), 2_000 - on_canary);
}

#[tokio::test]
async fn users_with_a_cookie_stay_as_the_weight_rises() {
    let rig = rig(Affinity::Cookie("who".to_owned()), 5.0).await;
    let mut users = Vec::new();
    for _ in 0..200 {
        let (head, body) = Client::new(rig.http()).await.get("/").await;
        let set = field(&head, "set-cookie").expect("a cookie").to_owned();
        assert!(set.contains("HttpOnly") && !set.contains("Secure"), "{set}");
        users.push((set.split(';').next().expect("a pair").to_owned(), body));
    }
    let mut client = Client::new(rig.http()).await;
    for percent in [25.0, 50.0, 100.0] {
        rig.publish(|entry| entry.canary_weight = Weight::from_percent(percent).expect("a weight"));
        for (cookie, before) in &mut users {
            client.send(format!("GET / HTTP/1.1\r\nhost: a\r\ncookie: {cookie}\r\n\r\n")).await;
            let (head, now) = client.read().await;
            assert!(field(&head, "set-cookie").is_none());
            assert!(before != "canary" || now == "canary", "{cookie} left at {percent}");
            *before = now;
        }
    }
    assert!(users.iter().all(|(_, side)| side == "canary"));
}

#[tokio::test]
async fn a_header_or_an_address_keeps_a_side_too() {
    for affinity in [Affinity::Header("x-user".to_owned()), Affinity::ClientAddress] {
        let rig = rig(affinity, 50.0).await;
        let mut client = Client::new(rig.http()).await;
        let request = "GET / HTTP/1.1\r\nhost: a\r\nx-user: me\r\n\r\n";
        client.send(request).await;
        let first = client.read().await.1;
        for _ in 0..50 {
            client.send(request).await;
            assert_eq!(client.read().await.1, first);
        }
    }
}

#[tokio::test]
async fn testers_go_where_they_want_and_are_not_counted() {
    let rig = rig(Affinity::None, 0.0).await;
    let mut client = Client::new(rig.http()).await;
    let expiry = 4_000_000_000;
    let cookie = tester::sign("secret", Side::Canary, expiry);
    for (fields, side) in [
        ("x-switchback-force: canary\r\nx-switchback-secret: secret".to_owned(), "canary"),
        ("x-switchback-force: stable\r\nx-switchback-secret: secret".to_owned(), "stable"),
        (format!("cookie: a=b; switchback-force={cookie}"), "canary"),
    ] {
        client.send(format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n")).await;
        assert_eq!(client.read().await.1, side, "{fields}");
    }
    for fields in ["x-switchback-force: canary", "cookie: switchback-force=canary.9999999999.00"] {
        client.send(format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n")).await;
        assert_eq!(client.read().await.1, "stable", "{fields}");
    }
    assert_eq!(rig.rows(Side::Stable, 2).await, [2, 0, 0, 0, 0]);
    assert_eq!(rig.count(Side::Canary, Row::Success), 0);
}

#[tokio::test]
async fn only_trusted_proxies_speak_for_their_clients() {
    for trusted in [false, true] {
        let seen = Arc::new(Mutex::new(String::new()));
        let log = Arc::clone(&seen);
        let address = answering(move |head, _| {
            *log.lock().expect("no panic") = head.to_owned();
            ok("")
        })
        .await;
        let mut settings = settings();
        settings.revision_header = true;
        if trusted {
            settings.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
        }
        let stable = side(7, &[endpoint(address)]);
        let rig = Rig::with(stable, None, 0.0, ServiceSettings::default(), settings);
        let mut client = Client::new(rig.http()).await;
        client
            .send(
                "GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 1.2.3.4\r\n\
                 x-forwarded-for: 10.0.0.1\r\nx-forwarded-proto: https\r\n\
                 x-forwarded-host: b\r\nx-request-id: mine\r\n\
                 connection: x-forwarded-for, close\r\nx-switchback-secret: s\r\n\r\n",
            )
            .await;
        let (head, _) = client.read().await;
        let sent = seen.lock().expect("no panic").clone();
        let expected = if trusted {
            ["1.2.3.4, 10.0.0.1, 127.0.0.1", "https", "b", "mine"]
        } else {
            let id = field(&head, "x-request-id").expect("an id");
            assert_eq!(id.len(), 32);
            ["127.0.0.1", "http", "a", id]
        };
        for (name, value) in
            ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id"]
                .into_iter()
                .zip(expected)
        {
            assert_eq!(field(&sent, name), Some(value), "{name}");
            assert_eq!(sent.matches(name).count(), 1, "{sent}");
        }
        assert!(!sent.contains("secret"), "{sent}");
        assert_eq!(field(&head, "x-switchback-revision"), Some("7"));
    }
}
