//! Clients that mean no good, and others beside them.

use std::time::Duration;

use super::*;
use crate::telemetry::traffic::{Count, Reason};

const EXCESSIVE_LOAD: u64 = 0x107;

/// A connection of bytes, which says what no client would.
async fn raw(address: SocketAddr) -> (Endpoint, quinn::Connection) {
    let endpoint = endpoint_of_client();
    let connecting = endpoint.connect_with(client_config(), address, "app.example");
    let quic = timeout(LONG, connecting.expect("begun")).await.expect("in time");
    (endpoint, quic.expect("a connection"))
}

async fn closed(quic: &quinn::Connection) -> u64 {
    match timeout(LONG, quic.closed()).await.expect("an end in time") {
        quinn::ConnectionError::ApplicationClosed(closed) => closed.error_code.into_inner(),
        other => panic!("closed otherwise: {other}"),
    }
}

#[tokio::test]
async fn who_asks_and_gives_up_a_hundred_times_is_sent_away() {
    let rig = rig(side(1, &[endpoint(saying("hello").await)]));
    local(async {
        let mut innocent = Visitor::new(https(&rig)).await;
        let mut visitor = Visitor::new(https(&rig)).await;
        for _ in 0..2_000 {
            let Ok(mut stream) = visitor.requests.send_request(get_of("/")).await else { break };
            let cancelled = h3::error::Code::H3_REQUEST_CANCELLED;
            stream.stop_stream(cancelled);
            stream.stop_sending(cancelled);
        }
        assert_eq!(visitor.closed().await, EXCESSIVE_LOAD);
        assert_eq!(rig.traffic.refused(Reason::Flood), 1);
        assert_eq!(innocent.get("/").await.body, "hello");
    })
    .await;
}

#[tokio::test]
async fn frames_that_lead_to_nothing_are_not_kept() {
    let rig = rig(side(1, &[endpoint(saying("hello").await)]));
    // A head of a gigabyte, and a frame of no known kind that long.
    for kind in [1_u8, 0x21] {
        let (_endpoint, quic) = raw(https(&rig)).await;
        let (mut send, _recv) = quic.open_bi().await.expect("a stream");
        let mut bytes = vec![kind];
        bytes.extend((0x8000_0000_u32 | 1 << 29).to_be_bytes());
        let flood = async {
            while send.write_all(&bytes).await.is_ok() {
                bytes = vec![0; 10_000];
            }
        };
        timeout(LONG, flood).await.expect("an end");
        assert_eq!(closed(&quic).await, EXCESSIVE_LOAD, "{kind}");
    }
    // The same about the connection itself: its settings.
    let (_endpoint, quic) = raw(https(&rig)).await;
    let mut control = quic.open_uni().await.expect("a stream");
    let mut bytes = vec![0, 4];
    bytes.extend((0x8000_0000_u32 | 1 << 29).to_be_bytes());
    let flood = async {
        while control.write_all(&bytes).await.is_ok() {
            bytes = vec![0; 10_000];
        }
    };
    timeout(LONG, flood).await.expect("an end");
    closed(&quic).await;
    assert!(rig.traffic.refused(Reason::Flood) >= 2);
}

#[tokio::test]
async fn a_head_that_never_ends_holds_nothing_up() {
    let limits = Limits { header_read: Duration::from_millis(300), ..limits() };
    let stable = side(1, &[endpoint(saying("hello").await)]);
    let rig = rig_with(stable, 1, limits, ServiceSettings::default());
    local(async {
        let mut visitor = Visitor::new(https(&rig)).await;
        let (mut send, mut recv) = visitor.quic.open_bi().await.expect("a stream");
        // A head of 100 bytes, of which 3 come.
        send.write_all(&[1, 0x40, 100, 0, 0, 0]).await.expect("sent");
        assert_eq!(visitor.get("/").await.body, "hello", "others are served meanwhile");
        const INCOMPLETE: u64 = 0x10d;
        match timeout(LONG, recv.read_to_end(100)).await.expect("an end in time") {
            Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code))) => {
                assert_eq!(code.into_inner(), INCOMPLETE);
            }
            other => panic!("ended otherwise: {other:?}"),
        }
        assert_eq!(rig.traffic.refused(Reason::HeaderTime), 1);
        assert_eq!(visitor.get("/").await.body, "hello");
    })
    .await;
}

#[tokio::test]
async fn who_reads_nothing_is_not_waited_for() {
    let limits = Limits { write_stall: Duration::from_millis(300), ..limits() };
    let large = "x".repeat(8 << 20);
    let stable = side(1, &[endpoint(answering(move |_, _| ok(&large)).await)]);
    let rig = rig_with(stable, 1, limits, ServiceSettings::default());
    local(async {
        let mut visitor = Visitor::new(https(&rig)).await;
        let mut stream = visitor.begin(get_of("/")).await;
        stream.finish().await.expect("sent");
        let head = timeout(LONG, stream.recv_response()).await.expect("in time").expect("a head");
        assert_eq!(head.status(), 200);
        until(|| rig.traffic.refused(Reason::WriteTime) == 1).await;
        let mut broken = false;
        while !broken {
            broken = match timeout(LONG, stream.recv_data()).await.expect("in time") {
                Ok(Some(_)) => false,
                Ok(None) => panic!("half an answer looked whole"),
                Err(_) => true,
            };
        }
    })
    .await;
}

#[tokio::test]
async fn who_floods_with_first_packets_must_show_an_address() {
    let rig = rig(side(1, &[endpoint(saying("hello").await)]));
    // First packets of clients, caught by somebody else, and sent from many addresses.
    let firsts = first_packets(super::super::RETRY_FROM + 6).await;
    let (kept, more) = firsts.split_at(super::super::RETRY_FROM);
    let mut sockets = Vec::new();
    for first in kept {
        let socket = tokio::net::UdpSocket::bind(any()).await.expect("a port");
        socket.send_to(first, https(&rig)).await.expect("sent");
        sockets.push(socket);
    }
    until(|| rig.total(Count::Accepted) == kept.len() as u64).await;
    for first in more {
        let socket = tokio::net::UdpSocket::bind(any()).await.expect("a port");
        socket.send_to(first, https(&rig)).await.expect("sent");
        let mut answer = vec![0; 2_000];
        let got = timeout(LONG, socket.recv(&mut answer)).await.expect("in time");
        assert_eq!(answer[0] & 0xf0, 0xf0, "not asked to show its address");
        assert!(got.expect("an answer") < first.len(), "more than was sent");
    }
    assert_eq!(rig.total(Count::Accepted), kept.len() as u64, "nothing is kept of those");
    // An honest client shows that it is there, and is served.
    local(async {
        assert_eq!(Visitor::new(https(&rig)).await.get("/").await.body, "hello");
    })
    .await;
}

/// The first packets of so many clients, each of a connection of its own.
pub async fn first_packets(count: usize) -> Vec<Vec<u8>> {
    let trap = tokio::net::UdpSocket::bind(any()).await.expect("a port");
    let address = trap.local_addr().expect("an address");
    let endpoint = endpoint_of_client();
    let mut firsts: Vec<Vec<u8>> = Vec::new();
    let mut connecting = Vec::new();
    while firsts.len() < count {
        connecting.push(endpoint.connect_with(client_config(), address, "app.example"));
        // Others may be sent again in between; an id is what tells them apart.
        let id = |packet: &[u8]| packet[6..6 + usize::from(packet[5])].to_vec();
        let known = firsts.len();
        while firsts.len() == known {
            let mut packet = vec![0; 2_000];
            let length = timeout(LONG, trap.recv(&mut packet)).await.expect("in time");
            packet.truncate(length.expect("a packet"));
            if firsts.iter().all(|first| id(first) != id(&packet)) {
                firsts.push(packet);
            }
        }
    }
    firsts
}

/// A field line without a table (RFC 9204, 4.5.6).
fn literal(name: &str, value: &str) -> Vec<u8> {
    let number = |first: u8, most: u8, mut length: usize| {
        if length < usize::from(most) {
            return vec![first | length as u8];
        }
        let mut bytes = vec![first | most];
        length -= usize::from(most);
        while length >= 128 {
            bytes.push((length % 128) as u8 | 128);
            length /= 128;
        }
        bytes.push(length as u8);
        bytes
    };
    let mut line = number(0x20, 7, name.len());
    line.extend(name.as_bytes());
    line.extend(number(0, 127, value.len()));
    line.extend(value.as_bytes());
    line
}

#[tokio::test]
async fn a_section_beyond_what_was_said_is_told_so() {
    let rig = rig(side(1, &[endpoint(saying("hello").await)]));
    let (_endpoint, quic) = raw(https(&rig)).await;
    let mut section = vec![0, 0];
    for (name, value) in
        [(":method", "GET"), (":scheme", "https"), (":authority", "app.example"), (":path", "/")]
    {
        section.extend(literal(name, value));
    }
    section.extend(literal("x", &"y".repeat(40_000)));
    let mut frame = vec![1];
    frame.extend((0x8000_0000_u32 | section.len() as u32).to_be_bytes());
    frame.extend(section);
    let (mut send, mut recv) = quic.open_bi().await.expect("a stream");
    send.write_all(&frame).await.expect("sent");
    send.finish().expect("sent");
    let answer = timeout(LONG, recv.read_to_end(1_000)).await.expect("in time");
    assert_eq!(answer.expect("an answer, whole")[0], 1, "HEADERS");
    until(|| rig.traffic.refused(Reason::HeaderSize) == 1).await;
}

/// RFC 9220 is not spoken, and nobody was told that it is.
#[tokio::test]
async fn a_websocket_is_refused_and_costs_nobody_anything() {
    let rig = rig(side(1, &[endpoint(saying("hello").await)]));
    local(async {
        let mut visitor = Visitor::new(https(&rig)).await;
        for protocol in ["websocket", "webtransport", "connect-udp", "h2c"] {
            let mut section = vec![0, 0];
            for (name, value) in [
                (":method", "CONNECT"),
                (":protocol", protocol),
                (":scheme", "https"),
                (":authority", "app.example"),
                (":path", "/chat"),
                ("sec-websocket-version", "13"),
            ] {
                section.extend(literal(name, value));
            }
            let mut frame = vec![1, 0x40 | (section.len() >> 8) as u8, section.len() as u8];
            frame.extend(section);
            // What would be said by it, if it were open.
            frame.extend([0, 7]);
            frame.extend(b"\x81\x85chat!");
            let (mut send, mut recv) = visitor.quic.open_bi().await.expect("a stream");
            send.write_all(&frame).await.expect("sent");
            match timeout(LONG, recv.read_to_end(100_000)).await.expect("an end in time") {
                Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code))) => {
                    const MESSAGE_ERROR: u64 = 0x10e;
                    assert_eq!(code.into_inner(), MESSAGE_ERROR, "{protocol}");
                }
                Ok(answer) => assert_eq!(answer.first(), Some(&1), "{protocol}: HEADERS"),
                other => panic!("{protocol} ended otherwise: {other:?}"),
            }
            assert_eq!(visitor.get("/").await.body, "hello", "{protocol}");
        }
        assert_eq!(rig.total(Count::Tunnels), 0);
    })
    .await;
    // None of it reached the instance.
    let rows = rig.rows(crate::model::weight::Side::Stable, 4).await;
    assert_eq!(rows, [4, 0, 0, 0, 0]);
}
