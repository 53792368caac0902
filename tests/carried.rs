//! What lasts, carried across promotions: WebSockets live on their old revision until they are done or
//! the drain's time is up, and TLS connections, HTTP/1.1 and HTTP/2, go on as if nothing had happened.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_tungstenite::tungstenite::Message;

use crate::support::app::over;
use crate::support::clients::h2load_tls;
use crate::support::daemon::{Daemon, PATIENCE, Runs, free_address};

pub type Socket =
    tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// An app that says its name, over WebSockets in front of what it was told.
pub fn chat(runtime: &Runtime, name: &'static str) -> SocketAddr {
    let listener = runtime.block_on(TcpListener::bind(free_address())).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream, name));
        }
    });
    address
}

async fn converse(mut stream: TcpStream, name: &str) {
    let mut head = [0; 2048];
    loop {
        let Ok(seen @ 1..) = stream.peek(&mut head).await else { return };
        let text = String::from_utf8_lossy(&head[..seen]).to_ascii_lowercase();
        if !text.contains("\r\n\r\n") {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        if text.contains("upgrade: websocket") {
            break;
        }
        let length = text.find("\r\n\r\n").unwrap_or(0) + 4;
        let _read = stream.read_exact(&mut head[..length]).await;
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        let Ok(text) = message.into_text() else { continue };
        if socket.send(Message::text(format!("{name}: {text}"))).await.is_err() {
            return;
        }
    }
}

pub async fn open(to: SocketAddr) -> Socket {
    let url = format!("ws://{to}/chat");
    tokio_tungstenite::connect_async(url).await.expect("a socket").0
}

/// What comes back for a word; none when the line is cut.
pub async fn say(socket: &mut Socket, word: &str) -> Option<String> {
    socket.send(Message::text(word)).await.ok()?;
    let back = tokio::time::timeout(PATIENCE, socket.next()).await.expect("an answer in time");
    back?.ok()?.into_text().ok().map(|text| text.to_string())
}

fn promote(daemon: &Daemon, to: SocketAddr) {
    let to = to.to_string();
    let said = daemon.cli(&["deploy", "web", "--endpoints", &to, "--steps", "100%", "--detach"]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.wait("the canary", |web| web["weights"]["canary"] == 100.0);
    assert_eq!(daemon.cli(&["promote", "web", "--full"]).code, 0);
    daemon.wait("its end", |web| web["phase"] == "promoted" && web["stable"]["revision"] == 2);
    daemon.until("new visitors meet it", || daemon.get("/").is_ok_and(|a| a.body == "two"));
}

const PLAN: &str = "bake = \"20s\"\nbake_max = \"60s\"\n";

#[test]
fn a_websocket_lives_on_its_old_revision_until_it_is_done() {
    let runtime = Runtime::new().unwrap();
    let (one, two) = (chat(&runtime, "one"), chat(&runtime, "two"));
    let plan = format!("{PLAN}keep_warm = \"0s\"\ndrain = \"2m\"\n");
    let daemon = over(&[one], &plan);
    let mut sockets: Vec<Socket> = (0..5).map(|_| runtime.block_on(open(daemon.http))).collect();
    promote(&daemon, two);
    let stopped = || daemon.log().contains("revision 1 is stopped");
    // It has no time to be warm, so it drains from now on, and goes on talking.
    for word in ["still", "here", "and", "here"] {
        for socket in &mut sockets {
            let back = runtime.block_on(say(socket, word));
            assert_eq!(back, Some(format!("one: {word}")));
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(!stopped(), "it was stopped under those who talk to it");
    let mut new = runtime.block_on(open(daemon.http));
    assert_eq!(runtime.block_on(say(&mut new, "hello")).as_deref(), Some("two: hello"));
    for mut socket in sockets {
        runtime.block_on(async {
            socket.close(None).await.expect("to close");
            while let Some(Ok(_)) = socket.next().await {}
        });
    }
    // Long before the deadline: nobody is left.
    let begun = Instant::now();
    daemon.until("the old one is stopped", stopped);
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert_eq!(runtime.block_on(say(&mut new, "still")).as_deref(), Some("two: still"));
}

#[test]
fn a_websocket_is_cut_when_the_drains_time_is_up() {
    let runtime = Runtime::new().unwrap();
    let (one, two) = (chat(&runtime, "one"), chat(&runtime, "two"));
    let plan = format!("{PLAN}keep_warm = \"0s\"\ndrain = \"3s\"\n");
    let daemon = over(&[one], &plan);
    let mut socket = runtime.block_on(open(daemon.http));
    let begun = Instant::now();
    promote(&daemon, two);
    assert_eq!(runtime.block_on(say(&mut socket, "still")).as_deref(), Some("one: still"));
    daemon.until("its time is up", || daemon.log().contains("revision 1 is stopped"));
    assert!(begun.elapsed() >= Duration::from_secs(3), "cut after {:?}", begun.elapsed());
    assert_eq!(runtime.block_on(say(&mut socket, "hello?")), None);
    let mut new = runtime.block_on(open(daemon.http));
    assert_eq!(runtime.block_on(say(&mut new, "hello")).as_deref(), Some("two: hello"));
}

#[test]
fn no_promotion_is_noticed_over_tls() {
    let plan = "steps = \"50% 100%\"\nbake = \"100ms\"\nbake_max = \"150ms\"\n\
                on_inconclusive = \"advance\"\nkeep_warm = \"0s\"\n";
    let mut daemon = Daemon::configured(Runs::Processes, plan).unwrap();
    let https = daemon.secure(plan);
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let two = scope.spawn(|| h2load_tls(https, &[], &stop));
        let one = scope.spawn(|| h2load_tls(https, &["--h1"], &stop));
        let promoted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for number in 2..10 {
                let (status, answer) = daemon.post("deploy", "{}");
                assert_eq!(status, 202, "{answer}");
                daemon.wait("the promotion", |web| {
                    web["phase"] == "promoted" && web["stable"]["revision"] == number
                });
            }
        }));
        stop.store(true, Ordering::Relaxed);
        for (name, told) in [("HTTP/2", two.join()), ("HTTP/1.1", one.join())] {
            let (requests, failed) = told.unwrap();
            eprintln!("{name} over TLS: {requests} requests, failed: {failed:?}");
            assert!(failed.is_empty(), "{name}: {failed:?}");
        }
        if let Err(panic) = promoted {
            std::panic::resume_unwind(panic);
        }
    });
    daemon.until("only the last one runs", || daemon.running().len() == 1);
}
