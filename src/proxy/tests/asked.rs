//! Who is asked about requests before they go on, and is slow about it.

use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::gate::{ask, policy, rig};
use super::support::*;
use crate::proxy::forward_auth::AT_ONCE;
use crate::telemetry::traffic::Count;

/// A server that is asked and says nothing: tells of each question, and of each that is taken back.
async fn silent() -> (std::net::SocketAddr, mpsc::UnboundedReceiver<&'static str>) {
    let listener = TcpListener::bind(any()).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (told, heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let told = told.clone();
            tokio::spawn(async move {
                let mut buffer = Vec::new();
                while find(&buffer, b"\r\n\r\n").is_none() {
                    let Ok(1..) = stream.read_buf(&mut buffer).await else { return };
                }
                let _ = told.send("asked");
                while stream.read_buf(&mut buffer).await.is_ok_and(|read| read > 0) {}
                let _ = told.send("left");
            });
        }
    });
    (address, heard)
}

#[tokio::test]
async fn who_is_asked_and_hangs_holds_up_no_more_than_so_many() {
    let (auth, mut heard) = silent().await;
    let quick = answering(|_, _| ok("go on")).await;
    let rules = format!(
        "forward_auth = \"http://{auth}/\"\n\
         [[service.web.route]]\npath = \"/quick\"\nforward_auth = \"http://{quick}/\"\n\
         [[service.web.route]]\npath = \"/open\"\nforward_auth = \"off\"\n"
    );
    let rig = rig(&rules).await;
    let mut waiting = Vec::new();
    for _ in 0..AT_ONCE {
        let mut client = Client::new(rig.http()).await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        waiting.push(client);
        assert_eq!(heard.recv().await, Some("asked"));
    }
    // Whoever comes now is told at once, long before the question's patience is over.
    let begun = Instant::now();
    for count in 1..=20 {
        let (head, _) = ask(&rig, "/", "").await;
        assert_eq!((status(&head), field(&head, "retry-after")), (503, Some("1")), "{head}");
        assert_eq!(rig.total(Count::AuthBusy), count);
    }
    assert!(heard.try_recv().is_err(), "it was asked more, {:?} after", begun.elapsed());
    // It is nobody else's trouble, also not of who is asked elsewhere.
    assert_eq!(status(&ask(&rig, "/open", "").await.0), 200);
    assert_eq!(status(&ask(&rig, "/quick", "").await.0), 200);
    // Who goes away takes the question back, and makes room.
    drop(waiting.pop());
    assert_eq!(heard.recv().await, Some("left"));
    let mut next = Client::new(rig.http()).await;
    next.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(heard.recv().await, Some("asked"));
    // Those that wait are told when its time is up, and their questions end with that.
    waiting.push(next);
    for mut client in waiting {
        assert_eq!(status(&client.read().await.0), 502);
    }
    for _ in 0..AT_ONCE {
        let left = tokio::time::timeout(Duration::from_secs(30), heard.recv()).await;
        assert_eq!(left.expect("in time"), Some("left"));
    }
    rig.publish(|entry| entry.policy = policy(&format!("forward_auth = \"http://{quick}/\"\n")));
    assert_eq!(status(&ask(&rig, "/", "").await.0), 200);
    assert_eq!(rig.total(Count::AuthBusy), 20);
}
