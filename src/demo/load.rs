//! Bounded load: keep-alive connections to one loopback address at a fixed total rate.
//!
//! Each connection sends on its own schedule and skips the moments at which it still waits for an
//! answer, so it never piles up. Counts what a visitor would see.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// Connections. At 1,000 requests per second each has 64 ms for an answer before it skips.
const CONNECTIONS: u32 = 64;
/// An answer that takes longer counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What visitors saw so far.
#[derive(Debug, Default)]
pub struct Seen {
    requests: AtomicU64,
    failed: AtomicU64,
}

impl Seen {
    /// Requests that had an end, and how many of them failed.
    pub fn so_far(&self) -> (u64, u64) {
        // Relaxed: two counts for people.
        (self.requests.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    fn count(&self, well: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if !well {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Sends load until cancelled.
pub async fn run(to: SocketAddr, rate: u32, seen: Arc<Seen>, stop: CancellationToken) {
    let period = Duration::from_secs(1) * CONNECTIONS / rate.max(1);
    let tasks = tokio_util::task::TaskTracker::new();
    for n in 0..CONNECTIONS {
        let (seen, stop) = (Arc::clone(&seen), stop.clone());
        tasks.spawn(async move {
            // Spread over the first period, so that requests do not come in bursts.
            tokio::time::sleep(period * n / CONNECTIONS).await;
            visit(to, period, &seen, &stop).await;
        });
    }
    tasks.close();
    tasks.wait().await;
}

async fn visit(to: SocketAddr, period: Duration, seen: &Seen, stop: &CancellationToken) {
    let mut moments = tokio::time::interval(period);
    moments.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut connection: Option<SendRequest<Empty<Bytes>>> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = moments.tick() => {}
        }
        let well = tokio::time::timeout(PATIENCE, ask(to, &mut connection)).await;
        let well = well.unwrap_or(false);
        seen.count(well);
        if !well {
            connection = None;
        }
    }
}

async fn ask(to: SocketAddr, connection: &mut Option<SendRequest<Empty<Bytes>>>) -> bool {
    let mut sender = match connection.take().filter(SendRequest::is_ready) {
        Some(sender) => sender,
        None => match connect(to).await {
            Some(sender) => sender,
            None => return false,
        },
    };
    let Ok(request) = Request::get("/").header("host", "demo").body(Empty::new()) else {
        return false;
    };
    let Ok(response) = sender.send_request(request).await else { return false };
    let well = !response.status().is_server_error();
    let whole = response.into_body().collect().await.is_ok();
    if sender.ready().await.is_ok() {
        *connection = Some(sender);
    }
    well && whole
}

async fn connect(to: SocketAddr) -> Option<SendRequest<Empty<Bytes>>> {
    let stream = TcpStream::connect(to).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(async move { connection.await.is_ok() });
    Some(sender)
}
