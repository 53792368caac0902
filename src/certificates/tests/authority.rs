//! Certificates from pebble, by each challenge, and what happens when there are none.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::*;
use crate::store::Store as _;
use crate::store::redb::RedbStore;

fn acme(port: u16, root: &Path, more: &str) -> String {
    format!(
        "[acme]\nemail = \"ops@app.example\"\ndirectory = \"https://localhost:{port}/dir\"\n\
         directory_ca = {root:?}\n{more}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_by_http_survives_a_restart() {
    if !pebble_is_here() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let dns = dns(dir.path().join("hook")).await;
    let (port, root) = Pebble::place(dir.path());
    let config = config(&format!(
        "{}{}",
        acme(port, &root, "challenge = \"http-01\""),
        service(&["app.example"])
    ));
    let rig = Rig::new(dir.path(), config.clone());
    // The authority is not there yet: it is told, and nobody is shown a certificate of someone else.
    let failing = rig.until("app.example", "failing").await;
    let note = failing.note.expect("a note");
    assert!(note.contains("HTTPS is not served for it yet"), "{note}");
    assert!(rig.shown("app.example").await.is_none());
    let pebble = Pebble::start(dir.path(), port, &rig, dns, None);
    let serving = rig.until("app.example", "serving").await;
    assert!(serving.days_left.is_some_and(|days| days > 100) && serving.note.is_none());
    let shown = rig.shown("app.example").await.expect("a certificate");
    assert!(rig.shown("other.example").await.is_none(), "only names that are ours");
    rig.end().await;
    drop(pebble);
    let everything = RedbStore::open(dir.path()).expect("a store").load().expect("loaded");
    assert!(everything.account.is_some());
    assert_eq!(everything.certificates.len(), 1);
    // Without an authority: at once, and from the first connection.
    let again = Rig::new(dir.path(), config);
    assert_eq!(again.shown("app.example").await, Some(shown));
    assert_eq!(again.status("app.example").state, "serving");
    again.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_by_tls_and_one_by_dns() {
    if !pebble_is_here() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let (file, hook) = (dir.path().join("hook"), dir.path().join("hook.sh"));
    std::fs::write(&hook, format!("#!/bin/sh\necho \"$1 $2 $3\" >> {}\n", file.display()))
        .expect("written");
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o700)).expect("mode");
    let dns = dns(file.clone()).await;
    let (port, root) = Pebble::place(dir.path());
    let head = |challenge: &str, more: &str| {
        acme(port, &root, &format!("challenge = {challenge:?}\n{more}"))
    };
    let text = format!("{}{}", head("tls-alpn-01", ""), service(&["app.example"]));
    let rig = Rig::new(dir.path(), config(&text));
    let _pebble = Pebble::start(dir.path(), port, &rig, dns, None);
    rig.until("app.example", "serving").await;
    let shown = rig.shown("app.example").await;
    // Another configuration, while it runs: a wildcard needs the hook.
    let more = format!("dns_hook = [{hook:?}]\ndns_wait = \"10ms\"");
    let text = format!("{}{}", head("dns-01", &more), service(&["app.example", "*.wild.example"]));
    rig.handle.configure(&config(&text)).expect("good");
    rig.until("*.wild.example", "serving").await;
    assert!(rig.shown("any.wild.example").await.is_some());
    assert!(rig.shown("two.any.wild.example").await.is_none(), "one label only");
    assert_eq!(rig.shown("app.example").await, shown, "what is there is not asked for again");
    let called = std::fs::read_to_string(&file).expect("called");
    let record = "_acme-challenge.wild.example.";
    assert!(called.contains(&format!("present {record} ")), "{called}");
    assert!(called.contains(&format!("cleanup {record} ")), "{called}");
    assert!(!called.contains("app.example."), "{called}");
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_cannot_be_verified_is_tried_again_by_another_way() {
    if !pebble_is_here() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let dns = dns(dir.path().join("hook")).await;
    let (port, root) = Pebble::place(dir.path());
    let names = ["app.example", "gone.nowhere.example"];
    let text = format!("{}{}", acme(port, &root, ""), service(&names));
    let rig = Rig::new(dir.path(), config(&text));
    let _pebble = Pebble::start(dir.path(), port, &rig, dns, None);
    rig.until("app.example", "serving").await;
    // The authority's own words, once it could be asked; and more than one attempt.
    let told = rig.until_it("gone.nowhere.example", |status| {
        let note = status.note.as_deref().unwrap_or_default();
        note.contains("could not verify the name") && !note.contains("after 1 attempts")
    });
    assert!(told.await.note.is_some_and(|note| note.contains("tried again at")));
    assert!(rig.shown("gone.nowhere.example").await.is_none());
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_account_is_bound() {
    if !pebble_is_here() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let dns = dns(dir.path().join("hook")).await;
    let (port, root) = Pebble::place(dir.path());
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let wrong = format!("{}{}", acme(port, &root, ""), service(&["app.example"]));
    let rig = Rig::new(dir.path(), config(&wrong));
    let _pebble = Pebble::start(dir.path(), port, &rig, dns, Some(key));
    let told = rig.until_it("app.example", |status| {
        status.note.as_ref().is_some_and(|note| note.to_lowercase().contains("externalaccount"))
    });
    told.await;
    let right = acme(port, &root, &format!("eab_kid = \"kid-1\"\neab_key = {key:?}"));
    let right = config(&format!("{right}{}", service(&["app.example"])));
    rig.handle.configure(&right).expect("good");
    rig.until("app.example", "serving").await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_on_demand_are_asked_about_first() {
    if !pebble_is_here() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let dns = dns(dir.path().join("hook")).await;
    let (port, root) = Pebble::place(dir.path());
    let app = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/domains", app.local_addr().expect("an address"));
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = app.accept().await {
            let mut head = [0; 2048];
            let length = stream.read(&mut head).await.unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..length]).into_owned();
            counted.fetch_add(1, Ordering::SeqCst);
            let is_ours = head.starts_with("GET /domains?domain=tenant.example HTTP/1.1");
            let status = if is_ours { "200 OK" } else { "404 Not Found" };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let text = acme(port, &root, &format!("ask = {url:?}"));
    let text = format!("{text}{}", service(&["app.example"]));
    let rig = Rig::new(dir.path(), config(&text));
    let _pebble = Pebble::start(dir.path(), port, &rig, dns, None);
    rig.until("app.example", "serving").await;
    assert_eq!(asked.load(Ordering::SeqCst), 0, "what is configured needs no leave");
    // The first handshake waits for the certificate, the second finds it.
    let first = rig.shown("tenant.example").await.expect("a certificate");
    assert_eq!(rig.shown("tenant.example").await, Some(first.clone()));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    for _ in 0..3 {
        assert!(rig.shown("stranger.example").await.is_none());
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2, "a refusal is remembered");
    assert!(rig.shown("single").await.is_none());
    assert_eq!(asked.load(Ordering::SeqCst), 2, "what no authority signs is not asked about");
    rig.end().await;
    let again = Rig::new(dir.path(), config(&text));
    assert_eq!(again.shown("tenant.example").await, Some(first), "kept");
    again.end().await;
}
