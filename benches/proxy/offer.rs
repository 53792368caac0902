//! A load generator with a fixed offered rate: requests are sent when their time has come, whether
//! or not those before are answered, and latency counts from that time. What waits behind a slow
//! answer counts as slow, as its users would say (no coordinated omission).
//!
//! A program of its own, kept to the load's cores: `--offer PORT RATE SECONDS HOSTS`. One thread and an
//! epoll for all connections, each with its share of the rate: a thread per connection would spend more
//! of the core that it shares with the origin on waking up than on asking, and what waits for that core
//! would be told of the proxy. Timeouts are in nanoseconds (epoll_pwait2), not a runtime's milliseconds.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::event::{Timespec, epoll};
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
/// What is looked at by itself, because a single pause of the machine decides what one in a hundred of a
/// whole offer waited. As long as two changes of weights are apart.
const WINDOW: Duration = Duration::from_millis(50);

/// What came of an offer; times are microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Offered {
    /// Half of the answers were faster.
    pub p50: f64,
    /// One in a hundred was slower.
    pub p99: f64,
    /// One in a thousand was slower.
    pub p999: f64,
    /// One in a hundred of those due in the same 50 ms was slower, in the median of such windows.
    pub window: f64,
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
        window: number("window")?,
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
    // Spread evenly, so that connections do not send all at once.
    let first = |number: usize| begin + step.mul_f64(number as f64 / CONNECTIONS as f64);
    let offers = (0..CONNECTIONS)
        .map(|number| Offer::new(port as u16, requests(number, hosts as usize), first(number)));
    let offered = Loop::new(offers.collect(), step, begin..end)?.run()?;
    let (all, again, lost) = (offered.seen, offered.again, offered.lost);
    let micros = |quantile: f64| all.value_at_quantile(quantile) as f64 / 1e3;
    println!(
        "{}",
        json!({
            "p50": micros(0.5), "p99": micros(0.99), "p999": micros(0.999),
            "window": window(offered.windows) / 1e3,
            "answered": all.len(), "again": again, "lost": lost,
        })
    );
    Ok(())
}

/// What one in a hundred of a window waited at least, in the median of all whole windows.
fn window(mut windows: Vec<Vec<u64>>) -> f64 {
    windows.pop();
    let slowest = |window: &mut Vec<u64>| {
        window.sort_unstable();
        window.get(window.len() * 99 / 100).copied().unwrap_or_default()
    };
    let mut slowest: Vec<u64> = windows.iter_mut().map(slowest).collect();
    slowest.sort_unstable();
    slowest.get(slowest.len() / 2).map_or(0.0, |nanos| *nanos as f64)
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
    filled: usize,
    /// When its next request is due, or the one that is under way was.
    due: Instant,
    turn: usize,
    /// Since when a request is under way, and whether its connection was used before.
    asking: Option<(Instant, bool)>,
}

/// Nanoseconds, to a minute, with three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(60_000_000_000, 3).unwrap_or_else(|_| unreachable!("good bounds"))
}

impl Offer {
    fn new(port: u16, requests: Vec<Vec<u8>>, due: Instant) -> Self {
        let (stream, buffer, asking) = (None, vec![0; 16 * 1024], None);
        Self { port, requests, stream, buffer, filled: 0, due, turn: 0, asking }
    }

    /// Sends its next request.
    fn ask(&mut self, epoll: &OwnedFd, number: usize) -> std::io::Result<()> {
        self.asking = Some((Instant::now(), self.stream.is_some()));
        self.filled = 0;
        if self.stream.is_none() {
            // On loopback that does not wait for whoever listens.
            let stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(number as u64);
            epoll::add(epoll, &stream, data, epoll::EventFlags::IN)?;
            self.stream = Some(stream);
        }
        let request = &self.requests[self.turn % self.requests.len()];
        self.stream.as_mut().map_or(Ok(()), |stream| stream.write_all(request))
    }

    /// Reads what is there; whether that is the whole answer.
    fn read(&mut self) -> std::io::Result<bool> {
        let Some(stream) = &mut self.stream else { return Ok(false) };
        loop {
            let read = match stream.read(&mut self.buffer[self.filled..]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                read => read?,
            };
            self.filled += read;
            let so_far = &self.buffer[..self.filled];
            if let Some(whole) = whole(so_far) {
                if self.filled < whole && read > 0 && whole <= self.buffer.len() {
                    continue;
                }
                if self.filled != whole || !so_far.starts_with(b"HTTP/1.1 200") {
                    return Err(ErrorKind::InvalidData.into());
                }
                // A connection that the proxy ends in good order is made anew.
                if says_close(so_far) {
                    self.stream = None;
                }
                return Ok(true);
            }
            if read == 0 {
                // Within an answer that is another thing than before it.
                let ended = if self.filled == 0 {
                    ErrorKind::UnexpectedEof
                } else {
                    ErrorKind::InvalidData
                };
                return Err(ended.into());
            }
        }
    }
}

/// All connections, and when which of them is to ask.
struct Loop {
    epoll: OwnedFd,
    offers: Vec<Offer>,
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    step: Duration,
    begin: Instant,
    end: Instant,
    seen: Histogram<u64>,
    /// What was seen, by when it was due.
    windows: Vec<Vec<u64>>,
    again: u64,
    lost: u64,
}

impl Loop {
    fn new(offers: Vec<Offer>, step: Duration, time: Range<Instant>) -> Result<Self> {
        // Waking up is 50 µs late for who does not say that it minds.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        let epoll =
            epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| error.to_string())?;
        let (due, seen) = (BinaryHeap::new(), histogram());
        let (begin, end, windows) = (time.start, time.end, Vec::new());
        Ok(Self { epoll, offers, due, step, begin, end, seen, windows, again: 0, lost: 0 })
    }

    fn run(mut self) -> Result<Self> {
        // Not counted: the proxy's own connection to its upstream is made by it.
        for number in 0..self.offers.len() {
            self.ask(number);
        }
        let mut events = Vec::with_capacity(CONNECTIONS);
        loop {
            let now = Instant::now();
            while self.due.peek().is_some_and(|Reverse((due, _))| *due <= now) {
                if let Some(Reverse((_, number))) = self.due.pop() {
                    self.ask(number);
                }
            }
            let is_asking = self.offers.iter().any(|offer| offer.asking.is_some());
            if self.due.is_empty() && !is_asking {
                return Ok(self);
            }
            let next = self.due.peek().map_or(now + LOST, |Reverse((due, _))| *due);
            let left = next.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(|error| error.to_string())?;
            events.clear();
            let spare = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, spare, Some(&left)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.to_string()),
            }
            for event in &events {
                self.heard(event.data.u64() as usize);
            }
            if events.is_empty() {
                self.give_up(Instant::now());
            }
        }
    }

    fn ask(&mut self, number: usize) {
        if self.offers[number]
            .ask(&self.epoll, number)
            .is_err_and(|error| !self.once_more(number, &error))
        {
            self.next(number, false);
        }
    }

    fn heard(&mut self, number: usize) {
        let offer = &mut self.offers[number];
        let answered = offer.read();
        if offer.asking.is_none() {
            // An end, or what nobody asked for, between two requests.
            offer.stream = None;
            return;
        }
        match answered {
            Ok(false) => {}
            Ok(true) => self.next(number, true),
            Err(error) => {
                if !self.once_more(number, &error) {
                    self.next(number, false);
                }
            }
        }
    }

    /// Asks again when the connection had been used before, and was ended before a byte of the answer.
    fn once_more(&mut self, number: usize, error: &std::io::Error) -> bool {
        let offer = &mut self.offers[number];
        offer.stream = None;
        if !is_ended(error) || !offer.asking.is_some_and(|(_, reused)| reused) {
            return false;
        }
        self.again += 1;
        offer.ask(&self.epoll, number).is_ok()
    }

    /// A request has its end; when the next one is due.
    fn next(&mut self, number: usize, answered: bool) {
        let offer = &mut self.offers[number];
        offer.asking = None;
        let is_first = offer.turn == 0;
        offer.turn += 1;
        if !answered {
            offer.stream = None;
            self.lost += u64::from(!is_first);
        } else if !is_first {
            let nanos = u64::try_from(offer.due.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.seen.saturating_record(nanos);
            let behind = offer.due.saturating_duration_since(self.begin);
            let window = (behind.as_nanos() / WINDOW.as_nanos()) as usize;
            self.windows.resize_with(self.windows.len().max(window + 1), Vec::new);
            self.windows[window].push(nanos);
        }
        if !is_first {
            offer.due += self.step;
        }
        if offer.due < self.end {
            self.due.push(Reverse((offer.due, number)));
        }
    }

    /// Those that were not answered in their time are lost.
    fn give_up(&mut self, now: Instant) {
        for number in 0..self.offers.len() {
            let asking = self.offers[number].asking;
            if asking.is_some_and(|(since, _)| now.duration_since(since) >= LOST) {
                self.next(number, false);
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
