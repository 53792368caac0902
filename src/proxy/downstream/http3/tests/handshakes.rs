//! Hands are shaken as over TCP: with tickets, with clients' certificates, and for names on demand.

use std::sync::Mutex;

use tokio::sync::mpsc;

use super::*;
use crate::proxy::tests::secure::Clients;
use crate::proxy::tls::{Pair, Settings as TlsSettings, Wanted};
use crate::telemetry::traffic::Count;

fn rig_with_tls(certificates: &Arc<Certificates>, stable: SideEntry) -> Rig {
    let tls = Some(Arc::clone(certificates));
    let settings = Settings { https: vec![any()], http3: true, tls, ..settings() };
    Rig::with(stable, None, 0.0, ServiceSettings::default(), settings)
}

#[tokio::test]
async fn who_comes_again_resumes_and_is_counted() {
    let files = pki(&["app.example"]);
    let certificates = Certificates::load(&files.files).expect("certificates");
    let rig = rig_with_tls(&certificates, side(1, &[endpoint(saying("hello").await)]));
    local(async {
        let config = client_config();
        let visit = async || {
            let visitor = Visitor::named(https(&rig), config.clone(), "app.example").await;
            let mut visitor = visitor.expect("a connection");
            assert_eq!(visitor.get("/").await.body, "hello");
            // Its ticket comes at about the same time.
            visitor.get("/").await;
        };
        visit().await;
        assert_eq!((rig.total(Count::TlsHandshakes), rig.total(Count::TlsResumed)), (1, 0));
        for round in 1..=3 {
            visit().await;
            assert_eq!(rig.total(Count::TlsResumed), round);
        }
        // New settings have new keys: what the old ones allowed is not resumed.
        certificates.configure(&TlsSettings::default()).expect("settings");
        visit().await;
        assert_eq!((rig.total(Count::TlsHandshakes), rig.total(Count::TlsResumed)), (5, 3));
    })
    .await;
}

#[tokio::test]
async fn certificates_of_clients_are_asked_for_and_told_by_quic_too() {
    let seen = Arc::new(Mutex::new(String::new()));
    let log = Arc::clone(&seen);
    let origin = answering(move |head, _| {
        *log.lock().expect("no panic") = head.to_owned();
        ok("hello")
    });
    let (files, clients) = (pki(&["app.example"]), Clients::new());
    let certificates = Certificates::load(&files.files).expect("certificates");
    certificates.configure(&clients.settings(true, None)).expect("an authority");
    let rig = rig_with_tls(&certificates, side(1, &[endpoint(origin.await)]));
    let (till, stranger) = (clients.sign("till-7", 7), Clients::new().sign("till-7", 7));
    local(async {
        let forged = || {
            let mut request = get_of("/");
            for name in ["x-client-cert-subject", "x-client-cert-fingerprint"] {
                request.headers_mut().insert(name, "CN=root".parse().expect("a value"));
            }
            request
        };
        for shows in [None, Some(&stranger)] {
            // A client hears of the refusal with its first read.
            let config = client_config_of(shows);
            let refused = match Visitor::named(https(&rig), config, "app.example").await {
                Err(_) => true,
                Ok(mut visitor) => visitor.fetch(forged(), "").await.is_err(),
            };
            assert!(refused, "{}", shows.is_some());
        }
        assert_eq!(*seen.lock().expect("no panic"), "");
        let config = client_config_of(Some(&till));
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, till.0.der());
        let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        for round in 0..3 {
            // The later ones are resumed, and know it still.
            let visitor = Visitor::named(https(&rig), config.clone(), "app.example").await;
            let answer = visitor.expect("a connection").fetch(forged(), "").await;
            assert_eq!(answer.expect("an answer").status, 200, "{round}");
            let head = seen.lock().expect("no panic").clone();
            let subject = field(&head, "x-client-cert-subject");
            assert!(subject.is_some_and(|subject| subject.contains("CN=till-7")), "{head}");
            assert_eq!(field(&head, "x-client-cert-fingerprint"), Some(digest.as_str()));
            assert_eq!(head.to_ascii_lowercase().matches("x-client-cert").count(), 2, "{head}");
        }
        // Optional: who shows nothing is served, and can pretend nothing.
        certificates.configure(&clients.settings(false, None)).expect("an authority");
        let answer = Visitor::new(https(&rig)).await.fetch(forged(), "").await;
        assert_eq!(answer.expect("an answer").status, 200);
        assert!(!seen.lock().expect("no panic").to_ascii_lowercase().contains("x-client-cert"));
        // A service that requires one.
        rig.publish(|entry| {
            let settings = ServiceSettings { client_certificate: true, ..Default::default() };
            entry.settings = Arc::new(settings);
        });
        let answer = Visitor::new(https(&rig)).await.fetch(forged(), "").await;
        assert_eq!(answer.expect("an answer").status, 403);
        let visitor = Visitor::named(https(&rig), config, "app.example").await;
        assert_eq!(visitor.expect("a connection").get("/").await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_name_without_a_certificate_is_asked_about_once_its_visitor_is_there() {
    let certificates = Certificates::new(&TlsSettings::default()).expect("TLS");
    let (asked_in, mut asked) = mpsc::channel(10);
    certificates.on_demand(Some(Wanted::new(asked_in)));
    let names = Arc::new(Mutex::new(Vec::new()));
    let (log, owner) = (Arc::clone(&names), Arc::clone(&certificates));
    tokio::spawn(async move {
        while let Some((name, decided)) = asked.recv().await {
            let key = rcgen::KeyPair::generate().expect("a key");
            let made = rcgen::CertificateParams::new(vec![name.clone()]).expect("a name");
            let made = made.self_signed(&key).expect("a certificate");
            let pair = Pair::parse(&made.pem(), &key.serialize_pem(), "made").expect("a pair");
            if name == "good.example" {
                owner.replace(&[Arc::new(pair)]);
            }
            log.lock().expect("no panic").push(name);
            let _ = decided.send(());
        }
    });
    let rig = rig_with_tls(&certificates, side(1, &[endpoint(saying("hello").await)]));
    // Somebody who only says where he is has nothing asked for him, nor anything kept.
    let first = attackers::first_packets(1).await.remove(0);
    let socket = tokio::net::UdpSocket::bind(any()).await.expect("a port");
    socket.send_to(&first, https(&rig)).await.expect("sent");
    let mut answer = vec![0; 2_000];
    timeout(LONG, socket.recv(&mut answer)).await.expect("in time").expect("an answer");
    assert_eq!((answer[0] & 0xf0, rig.total(Count::Accepted)), (0xf0, 0));
    local(async {
        let visit = async |name: &str| Visitor::named(https(&rig), client_config(), name).await;
        assert!(visit("Good.example").await.is_err(), "it cannot be had at once");
        until(|| *names.lock().expect("no panic") == ["good.example"]).await;
        assert_eq!(visit("good.example").await.expect("a connection").get("/").await.status, 200);
        assert!(visit("bad.example").await.is_err());
        until(|| names.lock().expect("no panic").len() == 2).await;
        assert!(visit("bad.example").await.is_err());
        until(|| names.lock().expect("no panic").len() == 3).await;
        assert_eq!(visit("good.example").await.expect("a connection").get("/").await.status, 200);
    })
    .await;
    assert_eq!(*names.lock().expect("no panic"), ["good.example", "bad.example", "bad.example"]);
}
