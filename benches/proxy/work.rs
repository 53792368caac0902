//! What is measured: kinds of work, and one round of each.

use std::time::Duration;

use serde::Serialize;

use crate::Result;
use crate::load::{H2load, Seen, wrk};
use crate::peers::{Running, Site};

/// A kind of work.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// Its name in the table.
    pub name: &'static str,
    how: How,
}

#[derive(Debug, Clone, Copy)]
enum How {
    /// wrk over so many connections.
    Http1 { path: &'static str, connections: u32, secure: bool, close: bool, post: usize },
    /// h2load: requests per second of the round's length are guessed low, so that it is short.
    Http2 { path: &'static str, per_second: f64 },
    /// A TLS handshake for each request.
    Handshakes { per_second: f64 },
}

const fn http1(path: &'static str, connections: u32) -> How {
    How::Http1 { path, connections, secure: false, close: false, post: 0 }
}

/// All kinds of work.
pub const ALL: [Work; 9] = [
    Work { name: "HTTP/1.1 keep-alive, 96 B", how: http1("/", 64) },
    Work {
        name: "HTTP/1.1, a connection each",
        how: How::Http1 { path: "/", connections: 32, secure: false, close: true, post: 0 },
    },
    Work { name: "HTTP/1.1, 64 KiB", how: http1("/64k", 16) },
    Work { name: "HTTP/1.1, 1 MiB", how: http1("/1m", 8) },
    Work {
        name: "POST 1 KiB",
        how: How::Http1 { path: "/", connections: 64, secure: false, close: false, post: 1024 },
    },
    Work {
        name: "POST 1 MiB",
        how: How::Http1 { path: "/", connections: 8, secure: false, close: false, post: 1 << 20 },
    },
    Work {
        name: "TLS 1.3, HTTP/1.1 keep-alive",
        how: How::Http1 { path: "/", connections: 64, secure: true, close: false, post: 0 },
    },
    Work { name: "TLS 1.3, HTTP/2", how: How::Http2 { path: "/", per_second: 12_000.0 } },
    Work { name: "TLS 1.3, a handshake each", how: How::Handshakes { per_second: 500.0 } },
];

/// What one round came to.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Measured {
    /// Answers.
    pub requests: u64,
    /// Answers per second.
    pub throughput: f64,
    /// Microseconds of the proxy's own code per answer.
    pub user: f64,
    /// Microseconds in the kernel on the proxy's behalf per answer.
    pub system: f64,
}

impl Measured {
    /// Microseconds of processor per answer.
    pub fn cpu(&self) -> f64 {
        self.user + self.system
    }
}

impl Work {
    /// One round.
    pub fn run(&self, site: &Site, proxy: &Running, time: Duration) -> Result<Measured> {
        let before = proxy.process.cpu()?;
        let seen = self.load(site, proxy, time)?;
        let used = proxy.process.cpu()?.since(before);
        if used.total() <= 0.0 {
            let (name, kind) = (self.name, proxy.kind);
            return Err(format!("{name}: a round of {kind} was too short to measure: {seen:?}"));
        }
        let requests = seen.requests as f64;
        Ok(Measured {
            requests: seen.requests,
            throughput: requests / seen.seconds,
            user: used.user * 1e6 / requests,
            system: used.system * 1e6 / requests,
        })
    }

    fn load(&self, site: &Site, proxy: &Running, time: Duration) -> Result<Seen> {
        let (http, https) = (proxy.http, proxy.https);
        match self.how {
            How::Http1 { path, connections, secure, close, post } => {
                let url = match secure {
                    false => format!("http://127.0.0.1:{http}{path}"),
                    true => format!("https://127.0.0.1:{https}{path}"),
                };
                let script = site.file("post.lua");
                if post > 0 {
                    let text = format!(
                        "wrk.method = \"POST\"\nwrk.body = string.rep(\"x\", {post})\n\
                         wrk.headers[\"Content-Type\"] = \"application/octet-stream\"\n"
                    );
                    std::fs::write(&script, text).map_err(|error| error.to_string())?;
                }
                wrk(&url, connections, time, close, (post > 0).then_some(script.as_path()))
            }
            How::Http2 { path, per_second } => {
                let url = format!("https://127.0.0.1:{https}{path}");
                let requests = (per_second * time.as_secs_f64()) as u64;
                let many =
                    H2load { url: &url, requests, connections: 16, streams: 16, http1: false };
                many.run()
            }
            How::Handshakes { per_second } => {
                let url = format!("https://127.0.0.1:{https}/");
                let requests = (per_second * time.as_secs_f64()) as u64;
                let each =
                    H2load { url: &url, requests, connections: requests, streams: 1, http1: true };
                each.run()
            }
        }
    }
}
