//! Instances that refuse, break off, stall, and what users and scorecards see of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::support::*;
use crate::analysis::scorecard::Row;
use crate::model::weight::{Side, Weight};
use crate::routing::settings::ServiceSettings;
use crate::telemetry::traffic::Count;

#[tokio::test]
async fn a_dead_endpoint_is_covered_by_another_and_still_counts() {
    let (dead, alive) = (endpoint(nobody().await), endpoint(saying("alive").await));
    let rig = Rig::new(side(1, &[Arc::clone(&dead), alive]));
    for _ in 0..40 {
        assert_eq!(get(rig.http(), "/").await, (200, "alive".into()));
    }
    let rows = rig.rows(Side::Stable, 40).await;
    let faults = rows[Row::Fault.index()];
    assert!(faults > 0, "{rows:?}");
    assert_eq!(rows[0] + faults, 40, "{rows:?}");
    assert_eq!(rig.total(Count::Retries), faults);
    assert_eq!(u64::from(dead.connect_failures()), faults);
}

#[tokio::test]
async fn a_canary_that_is_down_is_rescued_by_stable() {
    let stable = side(1, &[endpoint(saying("stable").await)]);
    let canary = side(2, &[endpoint(nobody().await)]);
    let rig = Rig::canary(stable, canary, 100.0);
    for _ in 0..5 {
        assert_eq!(get(rig.http(), "/").await, (200, "stable".into()));
    }
    assert_eq!(rig.rows(Side::Canary, 5).await, [0, 0, 0, 5, 0]);
    assert_eq!(rig.count(Side::Stable, Row::Success), 0);
    assert_eq!(rig.total(Count::Rescued), 5);
}

#[tokio::test]
async fn a_canary_without_endpoints_faults_and_stable_answers() {
    let stable = side(1, &[endpoint(saying("stable").await)]);
    let rig = Rig::canary(stable, side(2, &[]), 100.0);
    assert_eq!(get(rig.http(), "/").await, (200, "stable".into()));
    assert_eq!(rig.rows(Side::Canary, 1).await, [0, 0, 0, 1, 0]);
    assert_eq!(rig.total(Count::Rescued), 1);
}

#[tokio::test]
async fn a_post_is_never_sent_twice() {
    let requests = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&requests);
    let breaking = origin(move |mut stream, _| {
        let seen = Arc::clone(&seen);
        async move {
            let mut buffer = Vec::new();
            if read_message(&mut stream, &mut buffer).await.is_some() {
                seen.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
    .await;
    let rig = Rig::new(side(1, &[endpoint(breaking), endpoint(breaking)]));
    let mut client = Client::new(rig.http()).await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi").await;
    assert_eq!(status(&client.read().await.0), 502);
    assert_eq!(requests.load(Ordering::SeqCst), 1);
    // A POST without a body neither.
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(status(&client.read().await.0), 502);
    assert_eq!(requests.load(Ordering::SeqCst), 2);
    // A GET may be, once.
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(status(&client.read().await.0), 502);
    assert_eq!(requests.load(Ordering::SeqCst), 4);
    assert_eq!(rig.rows(Side::Stable, 3).await, [0, 0, 0, 3, 0]);
}

/// Takes requests, and answers none.
async fn breaking(seen: &Arc<AtomicUsize>) -> std::net::SocketAddr {
    let seen = Arc::clone(seen);
    origin(move |mut stream, _| {
        let seen = Arc::clone(&seen);
        async move {
            if read_message(&mut stream, &mut Vec::new()).await.is_some() {
                seen.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
    .await
}

#[tokio::test]
async fn when_everything_fails_hardly_more_is_asked_than_visitors_ask() {
    const ASKED: u64 = 1_000;
    let seen = Arc::new(AtomicUsize::new(0));
    let endpoints = [endpoint(breaking(&seen).await), endpoint(breaking(&seen).await)];
    let rig = Rig::new(side(1, &endpoints));
    let began = std::time::Instant::now();
    let mut client = Client::new(rig.http()).await;
    for _ in 0..ASKED {
        assert_eq!(status(&client.get("/").await.0), 502);
    }
    let (again, refused) = (rig.total(Count::Retries), rig.total(Count::RetriesRefused));
    assert_eq!(again + refused, ASKED);
    assert_eq!(seen.load(Ordering::SeqCst) as u64, ASKED + again);
    // A fifth, and what there is in any case in each ten seconds.
    let windows = began.elapsed().as_secs() / 10 + 2;
    assert!(again >= 100 && again <= ASKED / 5 + windows * 101, "{again} in {windows}");
}

#[tokio::test]
async fn who_is_on_the_way_to_an_instance_that_dies_is_answered_by_another() {
    const VISITORS: usize = 400;
    let waiting = Arc::new(AtomicUsize::new(0));
    let dies = Arc::new(tokio::sync::Semaphore::new(0));
    let (count, death) = (Arc::clone(&waiting), Arc::clone(&dies));
    let dying = origin(move |mut stream, _| {
        let (count, death) = (Arc::clone(&count), Arc::clone(&death));
        async move {
            if read_message(&mut stream, &mut Vec::new()).await.is_some() {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = death.acquire().await.map(tokio::sync::SemaphorePermit::forget);
            }
        }
    })
    .await;
    // Nothing but what is on its way, and a few.
    let service = ServiceSettings { retry_budget: Weight::ZERO, ..ServiceSettings::default() };
    let (dying, alive) = (endpoint(dying), endpoint(saying("alive").await));
    let both = side(1, &[Arc::clone(&dying), Arc::clone(&alive)]);
    let rig = Rig::with(both, None, 0.0, service, settings());
    alive.begin_drain();
    let asking: Vec<_> = (0..VISITORS).map(|_| tokio::spawn(get(rig.http(), "/"))).collect();
    until(|| waiting.load(Ordering::SeqCst) == VISITORS).await;
    alive.end_drain();
    dying.begin_drain();
    dies.add_permits(VISITORS);
    for asked in asking {
        assert_eq!(asked.await.expect("an answer"), (200, "alive".into()));
    }
    assert_eq!(rig.total(Count::Retries), VISITORS as u64);
    assert_eq!(rig.total(Count::RetriesRefused), 0);
}

#[tokio::test]
async fn a_refused_post_is_sent_to_another_endpoint() {
    let alive = answering(|_, body| ok(&String::from_utf8_lossy(body))).await;
    let rig = Rig::new(side(1, &[endpoint(nobody().await), endpoint(alive)]));
    for _ in 0..20 {
        let mut client = Client::new(rig.http()).await;
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi").await;
        let (head, body) = client.read().await;
        assert_eq!((status(&head), body.as_str()), (200, "hi"));
    }
    assert!(rig.total(Count::Retries) > 0);
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_nobodys_fault() {
    // One answer per connection, without saying that it will be closed.
    let address = origin(|mut stream, _| async move {
        let mut buffer = Vec::new();
        if read_message(&mut stream, &mut buffer).await.is_some() {
            let _ = stream.write_all(&ok("once")).await;
        }
    })
    .await;
    let rig = Rig::new(side(1, &[endpoint(address)]));
    let mut client = Client::new(rig.http()).await;
    for round in 0..30 {
        if round % 2 == 0 {
            client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi").await;
            assert_eq!(status(&client.read().await.0), 200, "{round}");
            // Until the close has arrived at the proxy.
            tokio::time::sleep(Duration::from_millis(10)).await;
        } else {
            assert_eq!(client.get("/").await.1, "once");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(rig.rows(Side::Stable, 30).await, [30, 0, 0, 0, 0]);
    assert_eq!(rig.total(Count::Retries), 0);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_a_fault_after_all() {
    let address = origin(|mut stream, _| async move {
        let mut buffer = Vec::new();
        if read_message(&mut stream, &mut buffer).await.is_some() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        }
    })
    .await;
    let rig = Rig::new(side(1, &[endpoint(address)]));
    let mut client = Client::new(rig.http()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let all = client.read_to_end().await;
    assert!(all.starts_with("HTTP/1.1 200 OK") && all.ends_with("half"), "{all}");
    assert_eq!(rig.rows(Side::Stable, 1).await, [0, 0, 0, 1, 0]);
}

#[tokio::test]
async fn what_is_no_http_is_a_bad_gateway() {
    for nonsense in [
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        "HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        "",
    ] {
        let address = origin(move |mut stream, _| async move {
            let mut buffer = Vec::new();
            if read_message(&mut stream, &mut buffer).await.is_some() {
                let _ = stream.write_all(nonsense.as_bytes()).await;
            }
        })
        .await;
        let rig = Rig::new(side(1, &[endpoint(address)]));
        assert_eq!(get(rig.http(), "/").await.0, 502, "{nonsense}");
        assert_eq!(rig.rows(Side::Stable, 1).await, [0, 0, 0, 1, 0], "{nonsense}");
    }
}

fn hasty() -> ServiceSettings {
    ServiceSettings {
        response_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(300),
        ..ServiceSettings::default()
    }
}

#[tokio::test]
async fn no_answer_in_time_is_a_gateway_timeout() {
    let address = origin(|mut stream, _| async move {
        let mut buffer = Vec::new();
        while read_message(&mut stream, &mut buffer).await.is_some() {}
    })
    .await;
    let stable = side(1, &[endpoint(address)]);
    let rig = Rig::with(stable, None, 0.0, hasty(), settings());
    assert_eq!(get(rig.http(), "/").await.0, 504);
    assert_eq!(rig.rows(Side::Stable, 1).await, [0, 0, 0, 1, 0]);
}

#[tokio::test]
async fn an_overdue_answer_is_a_fault_once_and_still_arrives() {
    let (go, wait) = tokio::sync::watch::channel(false);
    let address = origin(move |mut stream, _| {
        let mut wait = wait.clone();
        async move {
            let mut buffer = Vec::new();
            if read_message(&mut stream, &mut buffer).await.is_some() {
                let _ = wait.wait_for(|go| *go).await;
                let _ = stream.write_all(&ok("late")).await;
            }
        }
    })
    .await;
    let rig = Rig::new(side(1, &[endpoint(address)]));
    rig.publish(|entry| entry.overdue = Duration::from_millis(200));
    let mut client = Client::new(rig.http()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(rig.rows(Side::Stable, 1).await, [0, 0, 0, 1, 0]);
    go.send(true).expect("somebody waits");
    assert_eq!(client.read().await.1, "late");
    assert_eq!(client.get("/").await.1, "late");
    assert_eq!(rig.rows(Side::Stable, 2).await, [1, 0, 0, 1, 0]);
}

#[tokio::test]
async fn a_body_that_stalls_ends() {
    let address = origin(|mut stream, _| async move {
        let mut buffer = Vec::new();
        if read_message(&mut stream, &mut buffer).await.is_some() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
            let _ = read_message(&mut stream, &mut buffer).await;
        }
    })
    .await;
    let stable = side(1, &[endpoint(address)]);
    let rig = Rig::with(stable, None, 0.0, hasty(), settings());
    let mut client = Client::new(rig.http()).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(client.read_to_end().await.ends_with("half"));
    assert_eq!(rig.rows(Side::Stable, 1).await, [0, 0, 0, 1, 0]);
}

#[tokio::test]
async fn a_client_that_leaves_is_nobodys_error() {
    let address = origin(|mut stream, _| async move {
        let mut buffer = Vec::new();
        while let Some((head, _)) = read_message(&mut stream, &mut buffer).await {
            if head.contains("/half") {
                let half = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
                let _ = stream.write_all(half).await;
            }
        }
    })
    .await;
    let target = endpoint(address);
    let rig = Rig::new(side(1, &[Arc::clone(&target)]));
    let mut client = Client::new(rig.http()).await;
    client.send("GET /never HTTP/1.1\r\nhost: a\r\n\r\n").await;
    until(|| target.in_flight() == 1).await;
    drop(client);
    assert_eq!(rig.rows(Side::Stable, 1).await, [0, 0, 0, 0, 1]);
    let mut client = Client::new(rig.http()).await;
    client.send("GET /half HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.read_head().await;
    drop(client);
    assert_eq!(rig.rows(Side::Stable, 2).await, [0, 0, 0, 0, 2]);
    // A client that breaks off its own body.
    let mut client = Client::new(rig.http()).await;
    client.send("POST /never HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf").await;
    until(|| target.in_flight() == 1).await;
    drop(client);
    assert_eq!(rig.rows(Side::Stable, 3).await, [0, 0, 0, 0, 3]);
    until(|| target.in_flight() == 0).await;
}
