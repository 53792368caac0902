//! Visitors: a few connections that ask at a bounded rate and remember what they did not like.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::http::Connection;

/// Connections, at least; at 200 requests a second each has 40 ms for an answer before it falls behind, and
/// where more is asked for there are as many more.
const VISITORS: u32 = 8;
const EACH: u32 = 25;
/// An answer that takes longer counts as failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is shared with the visitors.
#[derive(Debug, Default)]
struct Seen {
    stop: AtomicBool,
    incident: AtomicBool,
    asked: AtomicU64,
    failed: Mutex<Vec<(Instant, String)>>,
}

/// Load that goes on until it is ended.
#[derive(Debug)]
pub struct Load {
    seen: Arc<Seen>,
    visitors: Vec<JoinHandle<()>>,
}

impl Load {
    /// So many requests a second, at most.
    pub fn begin(to: SocketAddr, rate: u32) -> Self {
        let seen = Arc::new(Seen::default());
        let count = rate.div_ceil(EACH).max(VISITORS);
        let period = Duration::from_secs(1) * count / rate;
        let visitors = (0..count).map(|n| {
            let seen = Arc::clone(&seen);
            std::thread::spawn(move || {
                std::thread::sleep(period * n / count);
                visit(to, period, &seen);
            })
        });
        let visitors = visitors.collect();
        Self { seen, visitors }
    }

    /// From now on one request in ten fails whoever answers it, or none any more.
    pub fn incident(&self, lasts: bool) {
        self.seen.incident.store(lasts, Ordering::Relaxed);
    }

    /// How many requests had an end so far.
    pub fn asked(&self) -> u64 {
        self.seen.asked.load(Ordering::Relaxed)
    }

    /// What failed so far, and when.
    pub fn failed(&self) -> Vec<(Instant, String)> {
        self.seen.failed.lock().unwrap().clone()
    }

    /// Ends it: how many requests there were, and what failed.
    pub fn end(mut self) -> (u64, Vec<String>) {
        self.stop();
        let failed = self.failed().into_iter().map(|(_, why)| why).collect();
        (self.asked(), failed)
    }

    /// Ends it, and nothing may have failed.
    pub fn end_well(self) -> u64 {
        let (asked, failed) = self.end();
        let first = failed.first();
        assert!(failed.is_empty(), "{} of {asked} requests failed: {first:?}", failed.len());
        assert!(asked > 0, "there was no load");
        asked
    }

    fn stop(&mut self) {
        self.seen.stop.store(true, Ordering::Relaxed);
        for visitor in self.visitors.drain(..) {
            let _told_by_the_test = visitor.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop();
    }
}

fn visit(to: SocketAddr, period: Duration, seen: &Seen) {
    let mut connection: Option<Connection<TcpStream>> = None;
    let mut next = Instant::now();
    while !seen.stop.load(Ordering::Relaxed) {
        next = (next + period).max(Instant::now() - period);
        let incident = seen.incident.load(Ordering::Relaxed);
        if let Err(why) = ask(to, &mut connection, incident) {
            connection = None;
            seen.failed.lock().unwrap().push((Instant::now(), why));
        }
        seen.asked.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

fn ask(
    to: SocketAddr,
    connection: &mut Option<Connection<TcpStream>>,
    incident: bool,
) -> Result<(), String> {
    let mut open = match connection.take() {
        Some(open) => open,
        None => Connection::open(to, PATIENCE).map_err(|error| format!("connect: {error}"))?,
    };
    let fields = [("x-sample-incident", "0.1")];
    let asked = open.ask("GET", "/", if incident { &fields } else { &[] }, "");
    let (answer, again) = asked.map_err(|error| format!("no answer: {error}"))?;
    if again {
        *connection = Some(open);
    }
    match answer.status {
        200 => Ok(()),
        status => Err(format!("{status}: {}", answer.body.lines().next().unwrap_or_default())),
    }
}
