//! TLS handshakes, each with one request: whole ones, or resumed by a ticket.
//!
//! A program of its own, kept to the load's cores: `--shake PORT SECONDS full|resumed`.

use std::cell::Cell;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::HandshakeKind;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Result;
use crate::insecure;
use crate::load::Seen;
use crate::peers::us;
use crate::process::{Cores, pinned};

/// Handshakes under way at a time: as many as rustls keeps tickets of one server.
const AT_A_TIME: usize = 8;

/// Shakes hands for a while.
pub fn shake(port: u16, time: Duration, resumed: bool) -> Result<Seen> {
    let mut command = pinned(Cores::Load, &us()?);
    let kind = if resumed { "resumed" } else { "full" };
    command.args(["--shake", &port.to_string(), &time.as_secs_f64().to_string(), kind]);
    let said = said(&mut command, Path::new("--shake"))?;
    let (all, again) = (said["all"].as_u64().unwrap_or(0), said["resumed"].as_u64().unwrap_or(0));
    // The first ones have no ticket yet.
    let right = if resumed { again + 4 * AT_A_TIME as u64 } else { all - again };
    if all == 0 || right < all {
        return Err(format!("{again} of {all} handshakes were resumed, all or none should be"));
    }
    let seconds = said["seconds"].as_f64().unwrap_or(f64::NAN);
    Ok(Seen { requests: all, seconds, lost: 0 })
}

/// What a part of this program said: JSON.
pub fn said(command: &mut Command, name: &Path) -> Result<Value> {
    let output = command.output().map_err(|error| format!("{}: {error}", name.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).map_err(|_| {
        format!("{} failed: {text}{}", name.display(), String::from_utf8_lossy(&output.stderr))
    })
}

/// The program.
pub fn main(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let port = arguments.next().and_then(|text| text.parse::<u16>().ok());
    let seconds = arguments.next().and_then(|text| text.parse::<f64>().ok());
    let (Some(port), Some(seconds)) = (port, seconds) else {
        return Err("--shake needs a port, a number of seconds, and a kind".into());
    };
    let config = insecure::client("http/1.1", arguments.next().as_deref() == Some("resumed"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let began = Instant::now();
    let until = began + Duration::from_secs_f64(seconds);
    let (all, resumed) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let local = tokio::task::LocalSet::new();
    let done = local.block_on(&runtime, async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..AT_A_TIME {
            let connector = TlsConnector::from(Arc::clone(&config));
            let (all, resumed) = (Rc::clone(&all), Rc::clone(&resumed));
            tasks.spawn_local(async move {
                while Instant::now() < until {
                    let kind = once(&connector, port).await?;
                    all.set(all.get() + 1);
                    resumed.set(resumed.get() + u64::from(kind == HandshakeKind::Resumed));
                }
                Ok::<_, String>(())
            });
        }
        tasks.join_all().await.into_iter().collect::<Result<()>>()
    });
    done?;
    let seconds = began.elapsed().as_secs_f64();
    println!("{}", json!({ "all": all.get(), "resumed": resumed.get(), "seconds": seconds }));
    Ok(())
}

async fn once(connector: &TlsConnector, port: u16) -> Result<HandshakeKind> {
    let fail = |error: std::io::Error| format!("a handshake failed: {error}");
    let stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(fail)?;
    let _ = stream.set_nodelay(true);
    let mut stream = connector.connect(insecure::name()?, stream).await.map_err(fail)?;
    let request = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.map_err(fail)?;
    let mut answer = Vec::with_capacity(1024);
    // A proxy may close without TLS's goodbye.
    let _ = stream.read_to_end(&mut answer).await;
    if !answer.starts_with(b"HTTP/1.1 200") {
        return Err("a handshake was not followed by an answer of 200".into());
    }
    Ok(stream.get_ref().1.handshake_kind().unwrap_or(HandshakeKind::Full))
}
