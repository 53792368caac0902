//! The sample app: a small web server that can be told to misbehave.
//!
//! `SAMPLE_FAULT` is one of `errors:0.05` (that share of answers is a 500), `slow:3` (so many times
//! slower), `crash:2` (ends so many seconds after its first visitor), `start` (ends at once) or
//! nothing. `/up` is its health check and always well. Answers carry `x-sample-fault` when they are
//! bad on purpose.

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

/// How it misbehaves.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    Errors(f64),
    Slow(f64),
    Crash(Duration),
    Start,
}

impl Fault {
    fn parse(text: &str) -> Result<Self, String> {
        let (word, number) = text.split_once(':').unwrap_or((text, ""));
        let number = || number.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0);
        let wrong = || format!("SAMPLE_FAULT={text}: use errors:0.05, slow:3, crash:2 or start");
        match word {
            "" | "none" => Ok(Self::None),
            "errors" => number().map(Self::Errors).ok_or_else(wrong),
            "slow" => number().map(Self::Slow).ok_or_else(wrong),
            "crash" => number().map(|s| Self::Crash(Duration::from_secs_f64(s))).ok_or_else(wrong),
            "start" => Ok(Self::Start),
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
    let listener = tokio::net::TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], port))).await?;
    println!("sample app: listening on {}", listener.local_addr()?);
    let visited = Rc::new(Cell::new(false));
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
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

async fn answer(
    request: Request<Incoming>,
    fault: Fault,
    visited: Rc<Cell<bool>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/up" {
        return Ok(Response::new(Full::from("ok\n")));
    }
    if let (Fault::Crash(after), false) = (fault, visited.replace(true)) {
        tokio::task::spawn_local(async move {
            tokio::time::sleep(after).await;
            eprintln!("sample app: index out of range [3] with length 3");
            std::process::exit(101);
        });
    }
    let times = if let Fault::Slow(times) = fault { times } else { 1.0 };
    tokio::time::sleep(MEDIAN.mul_f64(times * (SIGMA * gaussian()).exp())).await;
    let bad = match fault {
        Fault::Errors(share) if fastrand::f64() < share => Some("error"),
        Fault::Slow(_) => Some("slow"),
        _ => None,
    };
    let mut response = if bad == Some("error") {
        let mut response = Response::new(Full::from("something went wrong\n"));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    } else {
        Response::new(Full::from("hello from the sample app\n"))
    };
    if let Some(bad) = bad {
        response.headers_mut().insert("x-sample-fault", http::HeaderValue::from_static(bad));
    }
    Ok(response)
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
    fn faults_are_spelled_out() {
        assert_eq!(Fault::parse(""), Ok(Fault::None));
        assert_eq!(Fault::parse("errors:0.05"), Ok(Fault::Errors(0.05)));
        assert_eq!(Fault::parse("crash:2"), Ok(Fault::Crash(Duration::from_secs(2))));
        assert!(Fault::parse("errors").is_err() && Fault::parse("fire").is_err());
    }
}
