//! A load generator with a fixed offered rate: requests are sent when their time has come, whether
//! or not those before are answered, and latency counts from that time. What waits behind a slow
//! answer counts as slow, as its users would say (no coordinated omission).
//!
//! A program of its own, kept to the load's cores: `--offer PORT RATE SECONDS HOSTS`. A thread per
//! connection, each with its share of the rate and a blocking socket: a thread is woken with less
//! delay than a runtime's timer has (a millisecond).

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::json;

use crate::Result;
use crate::load::FIELDS;
use crate::peers::us;
use crate::process::{Cores, pinned};
use crate::shake::said;
use crate::texts::host;

/// Connections over which requests are offered: as wrk has in the other measurements.
const CONNECTIONS: usize = 64;
/// How long connections are made and warmed before anything counts.
const WARM: Duration = Duration::from_millis(150);
/// An answer that takes longer is lost.
const LOST: Duration = Duration::from_secs(10);

/// What came of an offer; times are microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Offered {
    /// Half of the answers were faster.
    pub p50: f64,
    /// One in a hundred was slower.
    pub p99: f64,
    /// One in a thousand was slower.
    pub p999: f64,
    /// Answers of status 200.
    pub answered: u64,
    /// Requests whose connection was ended before they were answered, and that were answered when
    /// they were sent again on a new one, as clients do.
    pub again: u64,
    /// Requests that got another answer, or none.
    pub lost: u64,
}

/// Offers so many requests per second for a while.
pub fn offer(port: u16, rate: f64, time: Duration, hosts: usize) -> Result<Offered> {
    let mut command = pinned(Cores::Load, &us()?);
    command.args(["--offer", &port.to_string(), &rate.to_string()]);
    command.args([time.as_secs_f64().to_string(), hosts.to_string()]);
    let said = said(&mut command, Path::new("--offer"))?;
    let number = |name: &str| said[name].as_f64().ok_or_else(|| format!("no {name}: {said}"));
    Ok(Offered {
        p50: number("p50")?,
        p99: number("p99")?,
        p999: number("p999")?,
        answered: number("answered")? as u64,
        again: number("again")? as u64,
        lost: number("lost")? as u64,
    })
}

/// The program.
pub fn main(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let mut number = || arguments.next().and_then(|text| text.parse::<f64>().ok());
    let (Some(port), Some(rate), Some(seconds), Some(hosts)) =
        (number(), number(), number(), number())
    else {
        return Err("--offer needs a port, a rate, a number of seconds and one of hosts".into());
    };
    let begin = Instant::now() + WARM;
    let end = begin + Duration::from_secs_f64(seconds);
    let step = Duration::from_secs_f64(CONNECTIONS as f64 / rate);
    let offers = (0..CONNECTIONS).map(|number| {
        let requests = requests(number, hosts as usize);
        // Spread evenly, so that connections do not send all at once.
        let first = begin + step.mul_f64(number as f64 / CONNECTIONS as f64);
        std::thread::spawn(move || Offer::new(port as u16, requests).keep(first, end, step))
    });
    let mut all = histogram();
    let (mut again, mut lost) = (0, 0);
    for offer in offers.collect::<Vec<_>>() {
        let offer = offer.join().map_err(|_| "a connection's thread panicked")?;
        all.add(&offer.seen).map_err(|error| error.to_string())?;
        again += offer.again;
        lost += offer.lost;
    }
    let micros = |quantile: f64| all.value_at_quantile(quantile) as f64 / 1e3;
    println!(
        "{}",
        json!({
            "p50": micros(0.5), "p99": micros(0.99), "p999": micros(0.999),
            "answered": all.len(), "again": again, "lost": lost,
        })
    );
    Ok(())
}

/// What a connection asks for, in turn: the same again, or other hosts.
fn requests(connection: usize, hosts: usize) -> Vec<Vec<u8>> {
    // Some hundred of them, far apart: neighbours would share cache lines.
    let count = hosts.clamp(1, 512);
    let chosen = (0..count).map(|turn| ((connection + turn * CONNECTIONS) * 7_919) % hosts.max(1));
    let fields: String = FIELDS.iter().map(|field| format!("{field}\r\n")).collect();
    let write = |number| format!("GET / HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", host(number));
    chosen.map(|number| write(number).into_bytes()).collect()
}

/// One connection's share of an offer.
struct Offer {
    port: u16,
    requests: Vec<Vec<u8>>,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
    seen: Histogram<u64>,
    again: u64,
    lost: u64,
}

/// Nanoseconds, to a minute, with three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(60_000_000_000, 3).unwrap_or_else(|_| unreachable!("good bounds"))
}

impl Offer {
    fn new(port: u16, requests: Vec<Vec<u8>>) -> Self {
        // Threads are woken up to 50 µs late unless they say that they mind.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        let (buffer, seen) = (vec![0; 16 * 1024], histogram());
        Self { port, requests, stream: None, buffer, seen, again: 0, lost: 0 }
    }

    fn keep(mut self, first: Instant, end: Instant, step: Duration) -> Self {
        // Not counted: the proxy's own connection to its upstream is made by it.
        let _ = self.ask(0);
        let mut due = first;
        for turn in 0.. {
            if due >= end {
                break;
            }
            if let Some(early) = due.checked_duration_since(Instant::now()) {
                std::thread::sleep(early);
            }
            let reused = self.stream.is_some();
            let mut answered = self.ask(turn);
            if reused && answered.as_ref().is_err_and(is_ended) {
                self.again += 1;
                answered = self.ask(turn);
            }
            match answered {
                Ok(()) => {
                    let nanos = u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    self.seen.saturating_record(nanos);
                }
                Err(_) => self.lost += 1,
            }
            due += step;
        }
        self
    }

    fn ask(&mut self, turn: usize) -> std::io::Result<()> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(("127.0.0.1", self.port))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(LOST))?;
                stream
            }
        };
        stream.write_all(&self.requests[turn % self.requests.len()])?;
        let mut filled = 0;
        loop {
            let read = stream.read(&mut self.buffer[filled..])?;
            filled += read;
            let so_far = &self.buffer[..filled];
            if let Some(whole) = whole(so_far) {
                if filled < whole && read > 0 && whole <= self.buffer.len() {
                    continue;
                }
                if filled != whole || !so_far.starts_with(b"HTTP/1.1 200") {
                    return Err(ErrorKind::InvalidData.into());
                }
                // A connection that the proxy ends in good order is made anew.
                self.stream = (!says_close(so_far)).then_some(stream);
                return Ok(());
            }
            if read == 0 {
                // Within an answer that is another thing than before it.
                let ended =
                    if filled == 0 { ErrorKind::UnexpectedEof } else { ErrorKind::InvalidData };
                return Err(ended.into());
            }
        }
    }
}

/// Whether a connection was ended before a byte of the answer came.
fn is_ended(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

/// Bytes of the whole answer, if its head is here.
fn whole(answer: &[u8]) -> Option<usize> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    Some(end + crate::origin::length(&answer[..end]))
}

fn says_close(answer: &[u8]) -> bool {
    answer.windows(17).any(|part| part.eq_ignore_ascii_case(b"connection: close"))
}
