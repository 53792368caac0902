//! Memory of connections that have served a request and idle.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::Result;
use crate::peers::{Running, Site};
use crate::process::{Cores, pinned};

/// How many connections.
const CONNECTIONS: usize = 2_000;
/// Until what a burst left behind is given back: idle buffers, and pages by the allocator.
const CALM: Duration = Duration::from_secs(4);

/// Bytes of memory per connection that idles.
pub fn per_idle_connection(_: &Site, proxy: &Running) -> Result<f64> {
    // The first ones pay for what is never given back: code, allocator, upstream connections.
    drop(Holder::new(proxy.http, 100)?);
    std::thread::sleep(CALM);
    let before = proxy.process.resident()?;
    let holder = Holder::new(proxy.http, CONNECTIONS)?;
    std::thread::sleep(CALM);
    let after = proxy.process.resident()?;
    drop(holder);
    Ok((after as f64 - before as f64) / CONNECTIONS as f64)
}

/// A process that holds connections, because one process may hold only so many.
struct Holder(Child);

impl Holder {
    fn new(port: u16, connections: usize) -> Result<Self> {
        let us = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = pinned(Cores::Load, &us);
        command.args(["--hold", &port.to_string(), &connections.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = Self(command.spawn().map_err(|error| error.to_string())?);
        let mut line = String::new();
        if let Some(said) = holder.0.stdout.take() {
            BufReader::new(said).read_line(&mut line).map_err(|error| error.to_string())?;
        }
        if line.trim() == "ready" { Ok(holder) } else { Err("connections were refused".into()) }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// The holder's own program: connects, asks once on each connection, and waits for its input's end.
pub fn hold(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let mut number = || arguments.next().and_then(|text| text.parse::<usize>().ok());
    let (Some(port), Some(count)) = (number(), number()) else {
        return Err("--hold needs a port and a number".into());
    };
    let port = u16::try_from(port).map_err(|error| error.to_string())?;
    let mut held = Vec::with_capacity(count);
    let mut answer = [0; 4096];
    for _ in 0..count {
        let fail = |error: std::io::Error| error.to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(fail)?;
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: app.example\r\naccept: */*\r\n\r\n")
            .map_err(fail)?;
        let read = stream.read(&mut answer).map_err(fail)?;
        if !answer[..read].starts_with(b"HTTP/1.1 200") {
            return Err("an answer that is not 200".into());
        }
        held.push(stream);
    }
    println!("ready");
    std::io::stdout().flush().map_err(|error| error.to_string())?;
    let _ = std::io::stdin().read(&mut answer);
    drop(held);
    Ok(())
}
