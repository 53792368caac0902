//! Kinds of work: CPU per request and throughput of each proxy, in rounds that alternate.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::load::{H2load, Seen, wrk};
use crate::peers::{Kind, Running, Setup, Site};
use crate::report::{Better, Report, Series};
use crate::shake::shake;
use crate::{Options, Result};

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
    Handshakes { resumed: bool },
}

const fn http1(path: &'static str, connections: u32) -> How {
    How::Http1 { path, connections, secure: false, close: false, post: 0 }
}

const fn post(bytes: usize, connections: u32) -> How {
    How::Http1 { path: "/", connections, secure: false, close: false, post: bytes }
}

/// The work by which others are measured too: what most sites do.
pub const PLAIN: &str = "HTTP/1.1 keep-alive";

/// All kinds of work.
pub const ALL: [Work; 10] = [
    Work { name: PLAIN, how: http1("/", 64) },
    Work {
        name: "HTTP/1.1, a connection each",
        how: How::Http1 { path: "/", connections: 32, secure: false, close: true, post: 0 },
    },
    Work {
        name: "HTTP/1.1 over TLS 1.3",
        how: How::Http1 { path: "/", connections: 64, secure: true, close: false, post: 0 },
    },
    Work { name: "HTTP/2 over TLS 1.3", how: How::Http2 { path: "/", per_second: 14_000.0 } },
    Work { name: "64 KiB", how: http1("/64k", 16) },
    Work { name: "1 MiB", how: http1("/1m", 8) },
    Work { name: "POST 1 KiB", how: post(1024, 64) },
    Work { name: "POST 1 MiB", how: post(1 << 20, 8) },
    Work { name: "TLS 1.3 handshake", how: How::Handshakes { resumed: false } },
    Work { name: "TLS 1.3 handshake, resumed", how: How::Handshakes { resumed: true } },
];

/// What one round came to.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Answers per second.
    pub throughput: f64,
    /// Microseconds of the proxy's own code per answer.
    pub user: f64,
    /// Microseconds of the proxy per answer, in its own code and in the kernel.
    pub cpu: f64,
}

/// Measures all kinds of work that are wanted. Returns nginx's throughput of plain work, by which
/// offered rates are chosen.
pub fn measure(options: &Options, site: &Site, report: &mut Report) -> Result<Option<f64>> {
    report.section("CPU per request");
    let mut running: Vec<Running> =
        Kind::ALL.into_iter().map(|kind| site.start(&Setup::of(kind))).collect::<Result<_>>()?;
    weigh_idle(&mut running)?;
    let mut idle = Series::new("with nothing to do, each second", "µs", Better::Lower);
    running.iter().for_each(|proxy| idle.add(proxy.kind, proxy.idle * 1e6));
    report.add(idle);
    let mut saturation = None;
    for work in ALL.iter().filter(|work| options.wants(work.name)) {
        let mut cpu = Series::new(work.name, "µs", Better::Lower);
        let mut user = Series::new(&format!("{}, user", work.name), "µs", Better::Lower);
        let mut throughput =
            Series::new(&format!("{}, throughput", work.name), "/s", Better::Higher);
        for _ in 0..options.rounds {
            for proxy in &running {
                let measured = work.run(site, proxy, options.round)?;
                cpu.add(proxy.kind, measured.cpu);
                user.add(proxy.kind, measured.user);
                throughput.add(proxy.kind, measured.throughput);
            }
        }
        if work.name == PLAIN {
            saturation = throughput.median(Kind::Nginx);
        }
        report.add(cpu);
        report.keep(user);
        report.add(throughput);
    }
    Ok(saturation)
}

/// One round of plain work over so many connections.
pub fn plain(proxy: &Running, connections: u32, time: Duration) -> Result<Measured> {
    let url = format!("http://127.0.0.1:{}/", proxy.http);
    measured(proxy, || wrk(&url, connections, time, false, None::<&Path>))
}

/// Looks what proxies use with nothing to do.
pub fn weigh_idle(running: &mut [Running]) -> Result<()> {
    let cpu = |running: &[Running]| {
        running.iter().map(|proxy| proxy.process.cpu()).collect::<Result<Vec<_>>>()
    };
    // What a start leaves to be done is done.
    std::thread::sleep(Duration::from_secs(1));
    let (before, began) = (cpu(running)?, Instant::now());
    std::thread::sleep(Duration::from_secs(3));
    let (after, seconds) = (cpu(running)?, began.elapsed().as_secs_f64());
    for ((proxy, before), after) in running.iter_mut().zip(before).zip(after) {
        proxy.idle = after.since(&before).total / seconds;
    }
    Ok(())
}

/// One round of some load: what its answers cost a proxy.
pub fn measured(proxy: &Running, load: impl FnOnce() -> Result<Seen>) -> Result<Measured> {
    let before = proxy.process.cpu()?;
    let began = Instant::now();
    let seen = load()?;
    let used = proxy.process.cpu()?.since(&before);
    // What it uses with nothing to do is not the requests', and is a row of its own: on a machine so
    // busy that few requests come, it would be most of what is seen.
    let idle = proxy.idle * began.elapsed().as_secs_f64();
    if used.total <= idle {
        return Err(format!("a round of {} was too short to measure: {seen:?}", proxy.kind));
    }
    let (requests, part) = (seen.requests as f64, 1.0 - idle / used.total);
    Ok(Measured {
        throughput: requests / seen.seconds,
        user: used.user * part * 1e6 / requests,
        cpu: used.total * part * 1e6 / requests,
    })
}

impl Work {
    /// The kind of this name.
    pub fn named(name: &str) -> Result<&'static Self> {
        ALL.iter().find(|work| work.name == name).ok_or(format!("no work is called {name}"))
    }

    /// One round.
    fn run(&self, site: &Site, proxy: &Running, time: Duration) -> Result<Measured> {
        measured(proxy, || self.load(site, proxy, time))
            .map_err(|error| format!("{}: {error}", self.name))
    }

    /// Its load alone.
    pub fn load(&self, site: &Site, proxy: &Running, time: Duration) -> Result<Seen> {
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
            How::Handshakes { resumed } => shake(https, time, resumed),
        }
    }
}
