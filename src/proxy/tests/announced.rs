//! Who the client is: by the fields of trusted proxies, by the PROXY protocol, and what instances are
//! told about it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::header::{FORWARDED, HeaderName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::protocols::{fetch, http2, post};
use super::support::*;
use crate::model::id::ServiceName;
use crate::model::preamble::{Preamble, Progress, read};
use crate::model::revision::{Speech, UpstreamProtocol};
use crate::proxy::Settings;
use crate::proxy::forwarded::Believed;
use crate::proxy::limits::Limits;
use crate::routing::endpoint::{Endpoint, EndpointId};
use crate::routing::settings::ServiceSettings;
use crate::telemetry::traffic::{Count, Reason};

/// An instance that answers with the head that it got.
async fn echoing() -> SocketAddr {
    answering(|head, _| ok(head)).await
}

fn trusting(client_header: Believed) -> Settings {
    let trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
    Settings { trusted_proxies, client_header, ..settings() }
}

async fn rig(settings: Settings, service: ServiceSettings) -> Rig {
    Rig::with(side(1, &[endpoint(echoing().await)]), None, 0.0, service, settings)
}

/// What the instance sees of a request with these fields.
async fn seen(rig: &Rig, fields: &str) -> String {
    let mut client = Client::new(rig.http()).await;
    client.send(format!("GET /x HTTP/1.1\r\nhost: app.example\r\n{fields}\r\n")).await;
    let (head, body) = client.read().await;
    assert_eq!(status(&head), 200, "{head}");
    body
}

const SAID: &str = "forwarded: for=1.1.1.1;proto=https;host=said.example\r\n\
    cf-connecting-ip: 2.2.2.2\r\nx-forwarded-for: 3.3.3.3\r\nx-real-ip: 4.4.4.4\r\n\
    x-forwarded-port: 99\r\nx-forwarded-prefix: /evil\r\nx-forwarded-tls-client-cert: x\r\n";

#[tokio::test]
async fn what_strangers_say_about_themselves_goes_no_further() {
    for believed in
        [Believed::XForwardedFor, Believed::of(&HeaderName::from_static("cf-connecting-ip"))]
    {
        let is_field = matches!(believed, Believed::Field(_));
        let strict = Settings { client_header: believed, ..settings() };
        let rig = rig(strict, ServiceSettings::default()).await;
        let head = seen(&rig, SAID).await;
        for name in [
            "forwarded",
            "x-real-ip",
            "x-forwarded-port",
            "x-forwarded-prefix",
            "x-forwarded-tls-client-cert",
        ] {
            assert_eq!(field(&head, name), None, "{name}: {head}");
        }
        assert_eq!(field(&head, "x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(field(&head, "x-forwarded-proto"), Some("http"));
        // A field that nobody was asked to believe is a field like any other.
        assert_eq!(field(&head, "cf-connecting-ip").is_none(), is_field, "{head}");
    }
}

#[tokio::test]
async fn one_field_of_a_trusted_proxy_is_believed() {
    for (name, chain, client) in [
        ("x-forwarded-for", "3.3.3.3, 127.0.0.1", "3.3.3.3"),
        ("forwarded", "1.1.1.1, 127.0.0.1", "1.1.1.1"),
        ("cf-connecting-ip", "2.2.2.2, 127.0.0.1", "2.2.2.2"),
    ] {
        let believed = Believed::of(&HeaderName::from_static(name));
        let rig = rig(trusting(believed), ServiceSettings::default()).await;
        rig.publish(|entry| {
            entry.policy =
                super::gate::policy("request_headers.set = { X-Seen = \"{client} {scheme}\" }\n");
        });
        let head = seen(&rig, SAID).await;
        assert_eq!(field(&head, "x-forwarded-for"), Some(chain), "{name}");
        let scheme = if name == "forwarded" { "https" } else { "http" };
        assert_eq!(field(&head, "x-seen"), Some(&*format!("{client} {scheme}")), "{name}");
        assert_eq!(field(&head, "x-forwarded-proto"), Some(scheme), "{name}");
        let host = if name == "forwarded" { "said.example" } else { "app.example" };
        assert_eq!(field(&head, "x-forwarded-host"), Some(host), "{name}");
        assert_eq!(field(&head, "x-real-ip"), Some("4.4.4.4"), "a proxy's own word passes");
    }
}

#[tokio::test]
async fn instances_may_be_told_by_forwarded_too() {
    let told = ServiceSettings { forwarded: true, ..ServiceSettings::default() };
    let stranger = rig(settings(), told.clone()).await;
    let head = seen(&stranger, SAID).await;
    assert_eq!(field(&head, "forwarded"), Some("for=127.0.0.1;host=\"app.example\";proto=http"));
    assert_eq!(head.matches("forwarded: for").count(), 1, "{head}");
    let chain = rig(trusting(Believed::XForwardedFor), told.clone()).await;
    let expected = "for=3.3.3.3, for=127.0.0.1;host=\"app.example\";proto=http";
    assert_eq!(field(&seen(&chain, SAID).await, "forwarded"), Some(expected));
    let kept = rig(trusting(Believed::of(&FORWARDED)), told.clone()).await;
    let expected = "for=1.1.1.1;proto=https;host=said.example, \
                    for=127.0.0.1;host=\"said.example\";proto=https";
    assert_eq!(field(&seen(&kept, SAID).await, "forwarded"), Some(expected));
    // In the words of HTTP/2 it is the same.
    let mut client = http2(stranger.http()).await;
    let (_, body) = fetch(&mut client, post("/", "x")).await;
    let head = String::from_utf8_lossy(&body).into_owned();
    assert_eq!(field(&head, "forwarded"), Some("for=127.0.0.1;host=\"app.example\";proto=http"));
}

/// A proxy whose listener expects a preamble.
async fn announced(limits: Limits) -> Rig {
    let trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
    let preambles = vec![any()];
    rig(Settings { trusted_proxies, preambles, limits, ..settings() }, Default::default()).await
}

fn preamble(version: Preamble, from: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let to = "192.0.2.1:443".parse().expect("an address");
    version.write(Some((from.parse().expect("an address"), to)), &mut bytes);
    bytes
}

#[tokio::test]
async fn a_preamble_says_who_connects() {
    let rig = announced(Limits::default()).await;
    for version in [Preamble::V1, Preamble::V2] {
        for step in [1, 7, 1_000] {
            let mut client = Client::new(rig.http()).await;
            let mut bytes = preamble(version, "203.0.113.9:4711");
            bytes.extend_from_slice(
                b"GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 9.9.9.9\r\n\r\n",
            );
            for piece in bytes.chunks(step) {
                client.stream.write_all(piece).await.expect("to send");
                tokio::task::yield_now().await;
            }
            let (head, body) = client.read().await;
            assert_eq!(status(&head), 200);
            assert_eq!(field(&body, "x-forwarded-for"), Some("203.0.113.9"), "{version:?}");
            // The connection goes on without another.
            assert_eq!(status(&client.get("/").await.0), 200);
        }
        // Who is at the other end is the proxy itself.
        let mut client = Client::new(rig.http()).await;
        let mut bytes = Vec::new();
        version.write(None, &mut bytes);
        client.send(bytes).await;
        let (_, body) = client.get("/").await;
        assert_eq!(field(&body, "x-forwarded-for"), Some("127.0.0.1"));
        // Or somebody of whom it does not know: what they say of themselves is nobody's word.
        client.send("GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 9.9.9.9\r\n\r\n").await;
        let (_, body) = client.read().await;
        assert_eq!(field(&body, "x-forwarded-for"), Some("127.0.0.1"), "{version:?}");
    }
    let mut stream = tokio::net::TcpStream::connect(rig.http()).await.expect("a connection");
    let bytes = preamble(Preamble::V2, "[2001:db8::9]:1");
    stream.write_all(&bytes).await.expect("to send");
    let mut client = super::protocols::http2_over(stream).await;
    let (_, body) = fetch(&mut client, post("/", "x")).await;
    let head = String::from_utf8_lossy(&body).into_owned();
    assert_eq!(field(&head, "x-forwarded-for"), Some("2001:db8::9"));
    assert_eq!(rig.traffic.refused(Reason::Preamble), 0);
}

/// With TLS the preamble comes before the handshake, and in the clear.
#[tokio::test]
async fn a_preamble_comes_before_tls() {
    use super::secure::{pki, tls_over};
    use crate::proxy::tls::Certificates;
    let pki = pki(&["a.example"]);
    let certificates = Certificates::load(&pki.files).expect("certificates");
    let secured = Settings {
        https: vec![any()],
        tls: Some(certificates),
        trusted_proxies: vec!["127.0.0.0/8".parse().expect("a network")],
        preambles: vec![any()],
        ..settings()
    };
    let rig = rig(secured, ServiceSettings::default()).await;
    let https = rig.proxy.addresses().https[0];
    for (version, alpn) in [(Preamble::V1, &b"http/1.1"[..]), (Preamble::V2, b"h2")] {
        let mut stream = tokio::net::TcpStream::connect(https).await.expect("a connection");
        stream.write_all(&preamble(version, "203.0.113.9:4711")).await.expect("to send");
        let mut stream = tls_over(stream, "a.example", &[alpn]).await;
        let head = if version == Preamble::V2 {
            let mut client = super::protocols::http2_over(stream).await;
            let (_, body) = fetch(&mut client, post("/", "x")).await;
            String::from_utf8_lossy(&body).into_owned()
        } else {
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("to send");
            read_message(&mut stream, &mut Vec::new())
                .await
                .map(|(_, body)| String::from_utf8_lossy(&body).into_owned())
                .expect("an answer")
        };
        assert_eq!(field(&head, "x-forwarded-for"), Some("203.0.113.9"), "{version:?}: {head}");
        assert_eq!(field(&head, "x-forwarded-proto"), Some("https"), "{version:?}");
    }
    // Within TLS, or left out, it is none.
    let mut stream = tokio::net::TcpStream::connect(https).await.expect("a connection");
    stream.write_all(&[0x16, 3, 1, 0, 200, 1]).await.expect("to send");
    let mut said = Vec::new();
    let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut said)).await.expect("an end");
    assert_eq!(said, b"");
    assert_eq!(rig.traffic.refused(Reason::Preamble), 1);
}

#[tokio::test]
async fn without_a_sound_preamble_nobody_is_served() {
    let rig = announced(Limits::default()).await;
    for (number, bad) in [
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n",
        "PROX!",
        "\r\n\r\n!",
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = Client::new(rig.http()).await;
        client.send(bad).await;
        assert_eq!(client.read_to_end().await, "", "{bad:?}");
        assert_eq!(rig.traffic.refused(Reason::Preamble), number as u64 + 1, "{bad:?}");
    }
    // One that ends midway is refused, one that says nothing was a probe.
    let mut client = Client::new(rig.http()).await;
    client.send("PROXY TCP4").await;
    client.stream.shutdown().await.expect("to shut down");
    assert_eq!(client.read_to_end().await, "");
    assert_eq!(rig.traffic.refused(Reason::Preamble), 5);
    let mut client = Client::new(rig.http()).await;
    client.stream.shutdown().await.expect("to shut down");
    assert_eq!(client.read_to_end().await, "");
    assert_eq!(rig.traffic.refused(Reason::Preamble), 5);
    // A stranger may not say it at all.
    let strict = Settings { preambles: vec![any()], ..settings() };
    let stranger = self::rig(strict, ServiceSettings::default()).await;
    let mut client = Client::new(stranger.http()).await;
    let _ = client.stream.write_all(&preamble(Preamble::V1, "203.0.113.9:1")).await;
    assert_eq!(client.read_to_end().await, "");
    assert_eq!(stranger.traffic.refused(Reason::Preamble), 1);
}

#[tokio::test]
async fn a_preamble_has_its_time_and_its_client_a_share_of_connections() {
    let limits = Limits {
        handshake: Duration::from_secs(5),
        connections_per_address: 1,
        ..Limits::default()
    };
    let rig = announced(limits).await;
    let mut slow = Client::new(rig.http()).await;
    slow.send("PROXY TCP4 ").await;
    assert_eq!(slow.read_to_end().await, "");
    until(|| rig.traffic.refused(Reason::HandshakeTime) == 1).await;
    let connect = async |from: &str| {
        let mut client = Client::new(rig.http()).await;
        let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        client.send([&preamble(Preamble::V2, from)[..], request].concat()).await;
        client
    };
    let mut one = connect("203.0.113.9:1").await;
    assert_eq!(status(&one.read().await.0), 200);
    assert_eq!(connect("203.0.113.9:2").await.read_to_end().await, "");
    assert_eq!(rig.traffic.refused(Reason::AddressConnections), 1);
    assert_eq!(status(&connect("203.0.113.10:1").await.read().await.0), 200);
    drop(one);
    until(|| rig.total(Count::Closed) >= 4).await;
    assert_eq!(status(&connect("203.0.113.9:3").await.read().await.0), 200);
}

#[tokio::test]
async fn some_networks_are_not_counted() {
    let limits = Limits { connections_per_address: 1, ..Limits::default() };
    let exempt = ["127.0.0.0/8".parse().expect("a network")];
    let connections_exempt = crate::edge::addresses::AddressSet::new(&exempt);
    let rig = rig(Settings { limits, connections_exempt, ..settings() }, Default::default()).await;
    let mut one = Client::new(rig.http()).await;
    let mut two = Client::new(rig.http()).await;
    assert_eq!((status(&one.get("/").await.0), status(&two.get("/").await.0)), (200, 200));
    assert_eq!(rig.traffic.refused(Reason::AddressConnections), 0);
}

/// An instance that wants a preamble before each connection, and tells what it got.
async fn wanting(log: Arc<Mutex<Vec<String>>>) -> SocketAddr {
    origin(move |mut stream, _| {
        let log = Arc::clone(&log);
        async move {
            let mut buffer = Vec::new();
            let ends = loop {
                match read(&buffer) {
                    Ok(Progress::Done { length, ends }) => {
                        buffer.drain(..length);
                        break ends;
                    }
                    Ok(Progress::More) => {
                        if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    Err(what) => return log.lock().expect("no panic").push(what.to_owned()),
                }
            };
            let said = ends.map_or("nobody".to_owned(), |(from, to)| format!("{from} {to}"));
            log.lock().expect("no panic").push(said);
            while buffer.len() < 3 {
                if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            if buffer.starts_with(b"raw") {
                let _ = stream.write_all(b"heard").await;
                return;
            }
            while read_message(&mut stream, &mut buffer).await.is_some() {
                let _ = stream.write_all(&ok("well")).await;
            }
        }
    })
    .await
}

fn speaking(address: SocketAddr, preamble: Preamble) -> Arc<Endpoint> {
    let speech = Speech { protocol: UpstreamProtocol::Http1, preamble };
    let endpoint =
        Endpoint::new(EndpointId(u64::MAX), endpoint(address).instance.clone(), address, speech);
    endpoint.set_healthy(true);
    endpoint
}

#[tokio::test]
async fn instances_are_told_by_a_preamble() {
    for version in [Preamble::V1, Preamble::V2] {
        let log = Arc::new(Mutex::new(Vec::new()));
        let stable = side(1, &[speaking(wanting(Arc::clone(&log)).await, version)]);
        let rig =
            Rig::with(stable, None, 0.0, Default::default(), trusting(Believed::XForwardedFor));
        let mut client = Client::new(rig.http()).await;
        let own = client.stream.local_addr().expect("an address");
        assert_eq!(client.get("/").await.1, "well");
        client.send("GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 203.0.113.9\r\n\r\n").await;
        assert_eq!(client.read().await.1, "well");
        let to = rig.http();
        let expected = [format!("{own} {to}"), format!("203.0.113.9:0 {to}")];
        assert_eq!(*log.lock().expect("no panic"), expected, "each in its own name");
    }
}

#[tokio::test]
async fn plain_tcp_is_announced_both_ways() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let stable = side(1, &[speaking(wanting(Arc::clone(&log)).await, Preamble::V2)]);
    let settings = Settings {
        tcp: vec![(any(), ServiceName::new("web").expect("a name"))],
        trusted_proxies: vec!["127.0.0.0/8".parse().expect("a network")],
        preambles: vec![any()],
        ..settings()
    };
    let rig = Rig::with(stable, None, 0.0, Default::default(), settings);
    let mut client = Client::new(rig.proxy.addresses().tcp[0]).await;
    client.send([&preamble(Preamble::V1, "203.0.113.9:5")[..], b"raw"].concat()).await;
    assert_eq!(client.read_to_end().await, "heard");
    assert_eq!(*log.lock().expect("no panic"), ["203.0.113.9:5 192.0.2.1:443"]);
    let mut client = Client::new(rig.proxy.addresses().tcp[0]).await;
    client.send("raw").await;
    assert_eq!(client.read_to_end().await, "");
    assert_eq!(rig.traffic.refused(Reason::Preamble), 1);
}
