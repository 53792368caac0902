//! Plain TCP: bytes both ways, the split, what is judged, the drain.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::support::*;
use crate::analysis::scorecard::Row;
use crate::model::id::ServiceName;
use crate::model::weight::Side;
use crate::routing::settings::ServiceSettings;
use crate::routing::table::SideEntry;
use crate::telemetry::traffic::Count;

/// What an instance does with a connection.
#[derive(Clone, Copy)]
enum Does {
    /// Answers what it was sent, after its name, until the client's end.
    Echo(u8),
    /// Ends it at once, without a word.
    HangUp,
    /// Resets it when something came.
    Reset,
}

async fn instance(does: Does) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut piece = [0; 4096];
                match does {
                    Does::HangUp => {}
                    Does::Reset => {
                        let _ = stream.read(&mut piece).await;
                        let linger = Some(Duration::ZERO);
                        socket2::SockRef::from(&stream).set_linger(linger).expect("linger");
                    }
                    Does::Echo(name) => {
                        let _ = stream.write_all(&[name]).await;
                        while let Ok(length @ 1..) = stream.read(&mut piece).await {
                            let _ = stream.write_all(&piece[..length]).await;
                        }
                        let _ = stream.write_all(b"!").await;
                    }
                }
            });
        }
    });
    address
}

fn rig(stable: SideEntry, canary: Option<SideEntry>, percent: f64) -> Rig {
    let service = ServiceSettings { idle_timeout: Duration::from_secs(60), ..Default::default() };
    let settings = crate::proxy::Settings {
        tcp: vec![(any(), ServiceName::new("web").expect("a name"))],
        ..settings()
    };
    Rig::with(stable, canary, percent, service, settings)
}

async fn dial(rig: &Rig) -> TcpStream {
    // In one call: a reset right behind it must not look like no connection at all.
    let stream = std::net::TcpStream::connect(rig.proxy.addresses().tcp[0]).expect("a connection");
    stream.set_nonblocking(true).expect("no blocking");
    TcpStream::from_std(stream).expect("a connection")
}

/// All that comes until the end; an error is a reset.
async fn rest(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    timeout(LONG, stream.read_to_end(&mut all)).await.expect("in time").map(|_| all)
}

#[tokio::test]
async fn bytes_go_both_ways_and_ends_are_passed_on() {
    let one = endpoint(instance(Does::Echo(b'1')).await);
    let rig = rig(side(1, std::slice::from_ref(&one)), None, 0.0);
    let mut stream = dial(&rig).await;
    let sent: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let (mut reader, mut writer) = stream.split();
    let mut back = Vec::new();
    let writing = async {
        writer.write_all(&sent).await.expect("sent");
        writer.shutdown().await.expect("half closed");
    };
    let reading = timeout(LONG, reader.read_to_end(&mut back));
    let ((), read) = tokio::join!(writing, reading);
    read.expect("in time").expect("read");
    assert_eq!((back[0], back.last()), (b'1', Some(&b'!')), "the end came before the last word");
    assert_eq!(back[1..back.len() - 1], sent);
    assert_eq!(rig.rows(Side::Stable, 1).await, [1, 0, 0, 0, 0]);
    until(|| one.in_flight() == 0).await;
    until(|| rig.total(Count::Closed) == 1).await;
}

#[tokio::test]
async fn a_word_is_evidence_while_the_connection_lives() {
    let one = endpoint(instance(Does::Echo(b'1')).await);
    let rig = rig(side(1, std::slice::from_ref(&one)), None, 0.0);
    let mut stream = dial(&rig).await;
    assert_eq!(stream.read_u8().await.expect("a word"), b'1');
    assert_eq!(rig.rows(Side::Stable, 1).await, [1, 0, 0, 0, 0]);
    assert_eq!(one.in_flight(), 1, "and holds its claim");
    // A drain waits for it, and cuts it at its end.
    one.begin_drain();
    stream.write_all(b"still").await.expect("sent");
    let mut still = [0; 5];
    stream.read_exact(&mut still).await.expect("carried");
    one.cut();
    assert!(rest(&mut stream).await.is_err(), "cut, and not as if it were complete");
    until(|| one.in_flight() == 0).await;
    assert_eq!(rig.rows(Side::Stable, 1).await, [1, 0, 0, 0, 0], "recorded once");
}

#[tokio::test]
async fn an_instance_that_refuses_resets_or_says_nothing_is_at_fault() {
    for does in [Does::HangUp, Does::Reset] {
        let rig = rig(side(1, &[endpoint(instance(does).await)]), None, 0.0);
        let mut stream = dial(&rig).await;
        stream.write_all(b"hello").await.expect("sent");
        let _ = rest(&mut stream).await;
        assert_eq!(rig.rows(Side::Stable, 1).await, [0, 0, 0, 1, 0]);
    }
    let gone = endpoint(nobody().await);
    let rig = rig(side(1, &[gone]), None, 0.0);
    assert!(rest(&mut dial(&rig).await).await.is_err(), "a reset is not an empty answer");
    assert_eq!(rig.rows(Side::Stable, 1).await, [0, 0, 0, 1, 0]);
    assert_eq!(rig.total(Count::UpstreamConnectFailures), 1);
}

#[tokio::test]
async fn a_canary_that_refuses_is_at_fault_and_nobody_notices() {
    let stable = side(1, &[endpoint(instance(Does::Echo(b'1')).await)]);
    let canary = side(2, &[endpoint(nobody().await)]);
    let rig = rig(stable, Some(canary), 100.0);
    for _ in 0..5 {
        assert_eq!(dial(&rig).await.read_u8().await.expect("a word"), b'1');
    }
    assert_eq!(rig.rows(Side::Canary, 5).await, [0, 0, 0, 5, 0]);
    assert_eq!(rig.rows(Side::Stable, 0).await, [0, 0, 0, 0, 0], "first attempts alone count");
    assert_eq!(rig.total(Count::Rescued), 5);
}

#[tokio::test]
async fn connections_are_split_by_weight() {
    let stable = side(1, &[endpoint(instance(Does::Echo(b'1')).await)]);
    let canary = side(2, &[endpoint(instance(Does::Echo(b'2')).await)]);
    let rig = rig(stable, Some(canary), 25.0);
    let mut canaries = 0;
    for _ in 0..400 {
        canaries += u32::from(dial(&rig).await.read_u8().await.expect("a word") == b'2');
    }
    // 25 % of 400 within six standard deviations.
    assert!((48..=152).contains(&canaries), "{canaries}");
    assert_eq!(rig.rows(Side::Canary, u64::from(canaries)).await[0], u64::from(canaries));
}

#[tokio::test]
async fn a_client_that_goes_first_is_nobodys_error() {
    let quiet = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let one = endpoint(quiet.local_addr().expect("an address"));
    let rig = rig(side(1, &[one]), None, 0.0);
    let stream = dial(&rig).await;
    let (_held, _) = timeout(LONG, quiet.accept()).await.expect("in time").expect("accepted");
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("linger");
    drop(stream);
    assert_eq!(rig.rows(Side::Stable, 1).await, [0, 0, 0, 0, 1]);
    assert_eq!(rig.count(Side::Stable, Row::Fault), 0);
}
