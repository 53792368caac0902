//! The load generators of others: wrk for HTTP/1.1, h2load for HTTP/2 and for exact numbers.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::Result;
use crate::process::{Cores, pinned};

/// What a load generator saw.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// Answers of status 200.
    pub requests: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Requests that were not answered.
    pub lost: u64,
}

/// The header fields of a browser, beside those that the generator sends by itself.
pub const FIELDS: [&str; 4] = [
    "Accept: text/html,application/json;q=0.9,*/*;q=0.8",
    "Accept-Language: en-GB,en;q=0.7",
    "Accept-Encoding: gzip, deflate, br",
    "Cookie: theme=dark; user=0123456789abcdef",
];

/// Requests for a while over some connections.
pub fn wrk(
    url: &str,
    connections: u32,
    time: Duration,
    close: bool,
    script: Option<&Path>,
) -> Result<Seen> {
    let mut command = pinned(Cores::Load, Path::new("wrk"));
    // wrk takes whole seconds only, and sums up what it has when it is interrupted before.
    let interrupted = time.subsec_nanos() > 0;
    let seconds = time.as_secs() + u64::from(interrupted) * 2;
    command.args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s")]);
    for field in FIELDS {
        command.args(["-H", field]);
    }
    if close {
        command.args(["-H", "Connection: close"]);
    }
    if let Some(script) = script {
        command.arg("-s").arg(script);
    }
    let said = output(command.arg(url), "wrk", interrupted.then_some(time))?;
    if said.contains("Non-2xx") {
        return Err(format!("wrk {url} was answered with errors:\n{said}"));
    }
    // "  123456 requests in 2.00s, 12.34MB read"
    let line = said.lines().find(|line| line.contains(" requests in "));
    let mut words = line.unwrap_or_default().split_whitespace();
    let requests = words.next().and_then(|number| number.parse().ok());
    let seconds = words.nth(2).and_then(|word| duration(word.trim_end_matches(',')));
    match (requests, seconds) {
        (Some(requests), Some(seconds)) if requests > 0 => {
            Ok(Seen { requests, seconds, lost: if close { 0 } else { lost(&said) } })
        }
        _ => Err(format!("wrk {url} got no answers:\n{said}")),
    }
}

/// So many requests with h2load.
#[derive(Debug)]
pub struct H2load<'a> {
    /// Where.
    pub url: &'a str,
    /// How many.
    pub requests: u64,
    /// Over how many connections.
    pub connections: u64,
    /// Concurrent streams on a connection.
    pub streams: u64,
    /// HTTP/1.1 instead of HTTP/2.
    pub http1: bool,
}

impl H2load<'_> {
    /// Sends them all.
    pub fn run(&self) -> Result<Seen> {
        self.run_with(&[])
    }

    /// Sends them all, with more fields than a browser's.
    pub fn run_with(&self, fields: &[&str]) -> Result<Seen> {
        let mut command = pinned(Cores::Load, Path::new("h2load"));
        command.args(["-n", &self.requests.to_string(), "-c", &self.connections.to_string()]);
        command.args(["-m", &self.streams.to_string(), "-t", "1"]);
        if self.http1 {
            command.arg("--h1");
        }
        for field in FIELDS.iter().chain(fields) {
            command.args(["-H", field]);
        }
        let said = output(command.arg(self.url), "h2load", None)?;
        // "finished in 1.23s, 812.34 req/s, 1.20MB/s"
        let line = said.lines().find_map(|line| line.strip_prefix("finished in "));
        let seconds = line.and_then(|line| duration(line.split(',').next()?));
        // "status codes: 1000 2xx, 0 3xx, 0 4xx, 0 5xx"
        let line = said.lines().find_map(|line| line.strip_prefix("status codes: "));
        let good = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        match (seconds, good) {
            (Some(seconds), Some(good)) if good == self.requests => {
                Ok(Seen { requests: good, seconds, lost: 0 })
            }
            _ => Err(format!("h2load {} lost answers:\n{said}", self.url)),
        }
    }
}

/// Failures of connections, of which each lost an answer. (Where each answer ends its connection, wrk
/// counts those ends too.)
fn lost(said: &str) -> u64 {
    // "  Socket errors: connect 0, read 0, write 0, timeout 0"
    let line = said.lines().find_map(|line| line.trim().strip_prefix("Socket errors: "));
    let parts = line.unwrap_or_default().split(", ");
    parts.filter_map(|part| part.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// What a program says, that is interrupted after some time or ends by itself.
fn output(command: &mut Command, name: &str, after: Option<Duration>) -> Result<String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| format!("{name}: {error}"))?;
    if let Some(after) = after {
        std::thread::sleep(after);
        let id = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let sent = id.map(|id| rustix::process::kill_process(id, rustix::process::Signal::INT));
        sent.ok_or("a process without a number")?.map_err(|error| format!("{name}: {error}"))?;
    }
    let output = child.wait_with_output().map_err(|error| format!("{name}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(said)
    } else {
        Err(format!("{name} failed:\n{said}{}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// "1.50s", "900.12ms", "1.02m".
fn duration(text: &str) -> Option<f64> {
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let number: f64 = text[..at].parse().ok()?;
    let unit = match &text[at..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    Some(number * unit)
}
