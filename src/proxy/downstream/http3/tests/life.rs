//! How connections begin, move, and end.

use std::sync::Mutex;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::*;
use crate::proxy::take_over;
use crate::proxy::tests::secure::tls;
use crate::proxy::tls::{ClientAuth, Pair, Settings as TlsSettings};
use crate::telemetry::traffic::{Count, Reason, Traffic};

const NO_ERROR: u64 = 0x100;

/// An instance that tells of each request, and answers when it is told to.
async fn patient() -> (SocketAddr, mpsc::UnboundedReceiver<()>, mpsc::UnboundedSender<()>) {
    let (asked, asks) = mpsc::unbounded_channel();
    let (go, may_go) = mpsc::unbounded_channel::<()>();
    let may_go = Arc::new(tokio::sync::Mutex::new(may_go));
    let address = origin(move |mut stream, _| {
        let (asked, may_go) = (asked.clone(), Arc::clone(&may_go));
        async move {
            let mut buffer = Vec::new();
            while read_message(&mut stream, &mut buffer).await.is_some() {
                let _ = asked.send(());
                let _ = may_go.lock().await.recv().await;
                let _ = stream.write_all(&ok("at last")).await;
            }
        }
    })
    .await;
    (address, asks, go)
}

#[tokio::test]
async fn a_client_that_moves_keeps_its_connection() {
    // Whatever lane the kernel chooses for its new address, its packets find the one that knows it.
    let stable = side(1, &[endpoint(saying("hello").await)]);
    let rig = rig_with(stable, 3, limits(), ServiceSettings::default());
    local(async {
        let mut visitor = Visitor::new(https(&rig)).await;
        assert_eq!(visitor.get("/").await.body, "hello");
        for _ in 0..12 {
            let socket = std::net::UdpSocket::bind(any()).expect("a port");
            visitor.endpoint.rebind(socket).expect("moved");
            assert_eq!(visitor.get("/").await.body, "hello");
        }
        assert_eq!(rig.total(Count::Accepted), 1);
    })
    .await;
}

#[tokio::test]
async fn a_drain_lets_requests_finish_and_says_goodbye() {
    let (address, mut asks, go) = patient().await;
    let rig = rig(side(1, &[endpoint(address)]));
    local(async {
        let mut visitor = Visitor::new(https(&rig)).await;
        let mut idle = Visitor::new(https(&rig)).await;
        let mut stream = visitor.begin(get_of("/")).await;
        stream.finish().await.expect("sent");
        timeout(LONG, asks.recv()).await.expect("in time").expect("asked");
        let draining = rig.proxy.drain(LONG);
        let finishing = async {
            assert_eq!(idle.closed().await, NO_ERROR);
            assert!(idle.requests.send_request(get_of("/")).await.is_err());
            assert!(Visitor::try_new(https(&rig)).await.is_err(), "nobody new");
            go.send(()).expect("told");
            let answer = read(&mut stream).await.expect("an answer");
            assert_eq!((answer.status, answer.body.as_str()), (200, "at last"));
            assert_eq!(visitor.closed().await, NO_ERROR);
        };
        let ((), ()) = tokio::join!(draining, finishing);
    })
    .await;
}

#[tokio::test]
async fn at_a_drains_deadline_clients_are_told() {
    let (address, mut asks, _go) = patient().await;
    let rig = rig(side(1, &[endpoint(address)]));
    local(async {
        let mut visitor = Visitor::new(https(&rig)).await;
        let mut stream = visitor.begin(get_of("/")).await;
        stream.finish().await.expect("sent");
        timeout(LONG, asks.recv()).await.expect("in time").expect("asked");
        let draining = rig.proxy.drain(Duration::from_millis(300));
        let (closed, ()) = tokio::join!(visitor.closed(), draining);
        assert_eq!(closed, NO_ERROR);
    })
    .await;
}

#[tokio::test]
async fn an_heir_gets_the_port_and_nobody_loses_a_request() {
    let (address, mut asks, go) = patient().await;
    let pki = pki(&["app.example"]);
    let workers = Settings { workers: 2, ..settings() };
    let rig = rig_of(&pki, side(1, &[endpoint(address)]), workers, ServiceSettings::default());
    local(async {
        let mut before = Vec::new();
        for _ in 0..4 {
            let mut visitor = Visitor::new(https(&rig)).await;
            let mut stream = visitor.begin(get_of("/")).await;
            stream.finish().await.expect("sent");
            timeout(LONG, asks.recv()).await.expect("in time").expect("asked");
            before.push((visitor, stream));
        }
        let held = rig.proxy.sockets().expect("handles");
        assert_eq!(held.iter().filter(|held| held.secure).count(), 4, "two of TCP, two of UDP");
        let tls = Some(Certificates::load(&pki.files).expect("certificates"));
        let settings = Settings { https: vec![any()], http3: true, tls, workers: 2, ..settings() };
        let traffic = Arc::new(Traffic::new(2));
        let heir = take_over(settings, rig.live.clone(), Arc::clone(&traffic), held);
        let heir = heir.expect("the same port");
        assert_eq!(heir.addresses().https[0], https(&rig));
        let leaving = rig.proxy.hand_over(LONG);
        let going_on = async {
            // Those from before are answered by whom they asked.
            for (visitor, stream) in &mut before {
                go.send(()).expect("told");
                assert_eq!(read(stream).await.expect("an answer").body, "at last");
                assert_eq!(visitor.closed().await, NO_ERROR);
            }
        };
        let ((), ()) = tokio::join!(leaving, going_on);
        for _ in 0..6 {
            let mut visitor = Visitor::new(https(&rig)).await;
            go.send(()).expect("told");
            assert_eq!(visitor.get("/").await.body, "at last");
        }
        assert!(traffic.total(Count::Requests) >= 6);
        heir.drain(LONG).await;
    })
    .await;
}

#[tokio::test]
async fn certificates_are_those_of_the_moment() {
    let (one, two) = (pki(&["app.example"]), pki(&["app.example"]));
    let stable = side(1, &[endpoint(saying("hello").await)]);
    let certificates = Certificates::load(&one.files).expect("certificates");
    let tls = Some(Arc::clone(&certificates));
    let settings = Settings { https: vec![any()], http3: true, tls, ..settings() };
    let rig = Rig::with(stable, None, 0.0, ServiceSettings::default(), settings);
    local(async {
        let shown = |visitor: &Visitor| {
            let chain = visitor.quic.peer_identity().expect("a certificate");
            let chain = chain.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>();
            chain.expect("a chain")[0].to_vec()
        };
        let mut first = Visitor::new(https(&rig)).await;
        certificates.replace(&Pair::read_all(&two.files).expect("pairs"));
        let second = Visitor::new(https(&rig)).await;
        assert_ne!(shown(&first), shown(&second));
        assert_eq!(first.get("/").await.body, "hello", "a connection keeps what it has");
    })
    .await;
}

#[tokio::test]
async fn who_needs_a_certificate_is_asked_for_one() {
    let pki = pki(&["app.example"]);
    let seen = Arc::new(Mutex::new(String::new()));
    let log = Arc::clone(&seen);
    let address = answering(move |head, _| {
        *log.lock().expect("no panic") = head.to_owned();
        ok("")
    });
    let authority = pki.files[0].certificate.clone();
    let client = Some(ClientAuth { authority, revoked: None, is_required: false });
    let certificates =
        Certificates::new(&TlsSettings { client, ..TlsSettings::default() }).expect("TLS");
    certificates.replace(&Pair::read_all(&pki.files).expect("pairs"));
    let settings =
        Settings { https: vec![any()], http3: true, tls: Some(certificates), ..settings() };
    let stable = side(1, &[endpoint(address.await)]);
    let service = ServiceSettings { client_certificate: true, ..ServiceSettings::default() };
    let rig = Rig::with(stable, None, 0.0, service, settings);
    local(async {
        let mut nobody = Visitor::new(https(&rig)).await;
        assert_eq!(nobody.get("/").await.status, 403);
        assert!(seen.lock().expect("no panic").is_empty());
    })
    .await;
}

#[tokio::test]
async fn connections_count_with_all_others() {
    let stable = side(1, &[endpoint(saying("hello").await)]);
    let limits = Limits { connections: 2, ..limits() };
    let rig = rig_with(stable, 1, limits, ServiceSettings::default());
    local(async {
        let mut one = Visitor::new(https(&rig)).await;
        let _two = tls(https(&rig), "app.example", &[]).await;
        assert!(Visitor::try_new(https(&rig)).await.is_err(), "one too many");
        assert_eq!(rig.traffic.refused(Reason::Connections), 1);
        assert_eq!(one.get("/").await.body, "hello");
        one.quic.close(0_u32.into(), b"");
        until(|| rig.total(Count::Closed) == 2).await;
        assert_eq!(Visitor::new(https(&rig)).await.get("/").await.body, "hello");
    })
    .await;
}

#[tokio::test]
async fn an_idle_or_well_used_connection_is_asked_to_end() {
    let stable = side(1, &[endpoint(saying("hello").await)]);
    let idle = Limits { keep_alive: Duration::from_millis(300), ..limits() };
    let rig = rig_with(stable.clone(), 1, idle, ServiceSettings::default());
    local(async {
        let mut visitor = Visitor::new(https(&rig)).await;
        assert_eq!(visitor.get("/").await.body, "hello");
        assert_eq!(visitor.closed().await, NO_ERROR);
    })
    .await;
    let used = Limits { requests_http2: 3, ..limits() };
    let rig = rig_with(stable, 1, used, ServiceSettings::default());
    local(async {
        let mut visitor = Visitor::new(https(&rig)).await;
        for _ in 0..3 {
            assert_eq!(visitor.get("/").await.body, "hello");
        }
        assert_eq!(visitor.closed().await, NO_ERROR);
    })
    .await;
}
