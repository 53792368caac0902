//! The sample app: a small web server that can be told to misbehave.
//!
//! `SAMPLE_FAULT` is one of `errors:0.05` (that share of answers is a 500), `slow:3` (so many times
//! slower), `crash:2` (ends so many seconds after its first visitor), `hang:2` (answers nothing any
//! more from then on, not even its health check), `memory` (takes all it gets from its first visitor
//! on), `start` (ends at once), `mute` (never listens), `loopback` (listens where only it can
//! connect), `redirect` (its health check leads elsewhere) or nothing. `/up` is its health check.
//! A request with `x-sample-incident: 0.1` fails with that probability whatever the fault is: a trouble
//! that all revisions share. Answers carry `x-sample-fault` when they are bad on purpose, and `x-sample-name` when `SAMPLE_NAME`
//! is set. With `SAMPLE_ASSET=4f2a9c1b` its pages name `/assets/app-4f2a9c1b.js`, which it has, and
//! anything else below `/assets/` is a 404.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

/// What an answer takes: a median app's few milliseconds, spread as such apps are (log-normal with
/// a sigma of 0.3, so that p99 is about twice the median).
const MEDIAN: Duration = Duration::from_millis(6);
const SIGMA: f64 = 0.3;
/// What `memory` takes at a time, and at most: more than a small limit, less than a small machine.
const GULP: usize = 8 << 20;
const GULPS: usize = 64;

/// How it misbehaves.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    Errors(f64),
    Slow(f64),
    Crash(Duration),
    Hang(Duration),
    Memory,
    Start,
    Mute,
    Loopback,
    Redirect,
}

impl Fault {
    fn parse(text: &str) -> Result<Self, String> {
        let (word, number) = text.split_once(':').unwrap_or((text, ""));
        let number = || number.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0);
        let wrong = || {
            format!(
                "SAMPLE_FAULT={text}: use errors:0.05, slow:3, crash:2, hang:2, memory, start, mute, \
                 loopback or redirect"
            )
        };
        let seconds = || number().map(Duration::from_secs_f64);
        match word {
            "" | "none" => Ok(Self::None),
            "errors" => number().map(Self::Errors).ok_or_else(wrong),
            "slow" => number().map(Self::Slow).ok_or_else(wrong),
            "crash" => seconds().map(Self::Crash).ok_or_else(wrong),
            "hang" => seconds().map(Self::Hang).ok_or_else(wrong),
            "memory" => Ok(Self::Memory),
            "start" => Ok(Self::Start),
            "mute" => Ok(Self::Mute),
            "loopback" => Ok(Self::Loopback),
            "redirect" => Ok(Self::Redirect),
            _ => Err(wrong()),
        }
    }
}

/// Serves until it is ended, or ends itself.
pub fn main(port: u16) -> ExitCode {
    let fault = match Fault::parse(&std::env::var("SAMPLE_FAULT").unwrap_or_default()) {
        Ok(fault) => fault,
        Err(sentence) => {
            eprintln!("{sentence}");
            return ExitCode::from(2);
        }
    };
    if fault == Fault::Start {
        eprintln!("sample app: cannot reach the database at db:5432");
        return ExitCode::from(1);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("sample app: {error}");
            return ExitCode::FAILURE;
        }
    };
    let local = tokio::task::LocalSet::new();
    match local.block_on(&runtime, serve(port, fault)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sample app: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(port: u16, fault: Fault) -> std::io::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    if fault == Fault::Mute {
        eprintln!("sample app: waiting for the database at db:5432");
        terminate.recv().await;
        return Ok(());
    }
    let from = if fault == Fault::Loopback { [127, 0, 0, 1] } else { [0, 0, 0, 0] };
    let listener = tokio::net::TcpListener::bind(SocketAddr::from((from, port))).await?;
    println!("sample app: listening on {}", listener.local_addr()?);
    let visited = Rc::new(Visited::default());
    loop {
        let stream = tokio::select! {
            _ = terminate.recv() => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let _ = stream.set_nodelay(true);
        let visited = Rc::clone(&visited);
        let service = service_fn(move |request| answer(request, fault, Rc::clone(&visited)));
        tokio::task::spawn_local(async move {
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new());
            // A peer that goes away is nobody's concern here.
            let _ = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        });
    }
}

/// What its visitors have brought about.
#[derive(Debug, Default)]
struct Visited {
    once: Cell<bool>,
    hangs: Cell<bool>,
}

impl Visited {
    /// The first visitor sets off what is to come.
    fn note(visited: &Rc<Self>, fault: Fault) {
        if visited.once.replace(true) {
            return;
        }
        match fault {
            Fault::Crash(after) => {
                tokio::task::spawn_local(async move {
                    tokio::time::sleep(after).await;
                    eprintln!("sample app: index out of range [3] with length 3");
                    std::process::exit(101);
                });
            }
            Fault::Hang(after) => {
                let visited = Rc::clone(visited);
                tokio::task::spawn_local(async move {
                    tokio::time::sleep(after).await;
                    visited.hangs.set(true);
                });
            }
            Fault::Memory => {
                tokio::task::spawn_local(async {
                    let mut taken = Vec::new();
                    while taken.len() < GULPS {
                        // Written to, or the kernel only promises it.
                        taken.push(vec![1_u8; GULP]);
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    std::future::pending::<()>().await;
                });
            }
            _ => {}
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    fault: Fault,
    visited: Rc<Visited>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let is_check = path == "/up";
    let incident = request.headers().get("x-sample-incident").and_then(|share| share.to_str().ok());
    let incident = incident.and_then(|share| share.parse::<f64>().ok()).unwrap_or(0.0);
    if !is_check {
        Visited::note(&visited, fault);
    }
    if visited.hangs.get() {
        std::future::pending::<()>().await;
    }
    if is_check {
        let mut response = Response::new(Full::from("ok\n"));
        if fault == Fault::Redirect {
            *response.status_mut() = StatusCode::FOUND;
            let login = http::HeaderValue::from_static("/login");
            response.headers_mut().insert(http::header::LOCATION, login);
        }
        return Ok(response);
    }
    let times = if let Fault::Slow(times) = fault { times } else { 1.0 };
    tokio::time::sleep(MEDIAN.mul_f64(times * (SIGMA * gaussian()).exp())).await;
    let bad = match fault {
        Fault::Errors(share) if fastrand::f64() < share => Some("error"),
        Fault::Slow(_) => Some("slow"),
        _ => None,
    };
    let fails = bad == Some("error") || fastrand::f64() < incident;
    let asset = std::env::var("SAMPLE_ASSET").ok().map(|hash| format!("/assets/app-{hash}.js"));
    let mut response = if fails {
        let mut response = Response::new(Full::from("something went wrong\n"));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    } else {
        page(&path, asset.as_deref())
    };
    let name = std::env::var("SAMPLE_NAME").ok().and_then(|name| name.try_into().ok());
    if let Some(name) = name {
        response.headers_mut().insert("x-sample-name", name);
    }
    if let Some(bad) = bad {
        response.headers_mut().insert("x-sample-fault", http::HeaderValue::from_static(bad));
    }
    Ok(response)
}

/// What is at a path, for an app that has this asset.
fn page(path: &str, asset: Option<&str>) -> Response<Full<Bytes>> {
    const HELLO: &str = "hello from the sample app\n";
    match asset {
        Some(asset) if path == asset => Response::new(Full::from(format!("// {asset}\n"))),
        Some(_) if path.starts_with("/assets/") => {
            let mut response = Response::new(Full::from("there is no such asset\n"));
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
        Some(asset) => {
            Response::new(Full::from(format!("{HELLO}<script src=\"{asset}\"></script>\n")))
        }
        None => Response::new(Full::from(HELLO)),
    }
}

/// A standard normal number (Box and Muller 1958).
fn gaussian() -> f64 {
    let (u, v) = (1.0 - fastrand::f64(), fastrand::f64());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_has_its_own_asset_and_no_other() {
        let status = |path: &str, asset| page(path, asset).status();
        let mine = Some("/assets/app-4f2a9c1b.js");
        assert_eq!(status("/assets/app-4f2a9c1b.js", mine), StatusCode::OK);
        assert_eq!(status("/assets/app-1b2c3d4e.js", mine), StatusCode::NOT_FOUND);
        assert_eq!(status("/", mine), StatusCode::OK);
        assert_eq!(status("/assets/app-1b2c3d4e.js", None), StatusCode::OK);
    }

    #[test]
    fn faults_are_spelled_out() {
        assert_eq!(Fault::parse(""), Ok(Fault::None));
        assert_eq!(Fault::parse("errors:0.05"), Ok(Fault::Errors(0.05)));
        assert_eq!(Fault::parse("crash:2"), Ok(Fault::Crash(Duration::from_secs(2))));
        assert_eq!(Fault::parse("hang:0.5"), Ok(Fault::Hang(Duration::from_millis(500))));
        assert_eq!(Fault::parse("loopback"), Ok(Fault::Loopback));
        assert!(Fault::parse("errors").is_err() && Fault::parse("fire").is_err());
    }
}
