//! Clients that others wrote, at bounded rates, and what they say failed.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use hyper_util::rt::{TokioExecutor, TokioIo};

use super::client;
use super::daemon::Daemon;

/// wrk, slowed down to a bounded rate, until it is ended.
#[derive(Debug)]
pub struct Wrk(Child);

impl Wrk {
    pub fn begin(daemon: &Daemon, name: &str, fields: &[&str]) -> Option<Self> {
        Self::at(&format!("http://{}/", daemon.http), daemon, name, fields)
    }

    /// The same over TLS.
    pub fn secure(to: SocketAddr, daemon: &Daemon, name: &str, fields: &[&str]) -> Option<Self> {
        Self::at(&format!("https://{to}/"), daemon, name, fields)
    }

    fn at(url: &str, daemon: &Daemon, name: &str, fields: &[&str]) -> Option<Self> {
        let script = daemon.home().join(format!("{name}.lua"));
        // Each of 4 connections waits 25 ms before it asks: 160 requests/s at most.
        std::fs::write(&script, "function delay() return 25 end\n").unwrap();
        let mut wrk = Command::new(client("wrk")?);
        wrk.args(["-t1", "-c4", "-d2h", "--timeout", "20s", "-s"]).arg(script);
        for field in fields {
            wrk.args(["-H", field]);
        }
        wrk.arg(url);
        let child = wrk.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Some(Self(child))
    }

    /// How many requests there were, and what failed.
    pub fn end(self) -> (u64, Vec<String>) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let output = self.0.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let requests = text.lines().find_map(|line| line.trim().split_once(" requests in"));
        let requests = requests.and_then(|(count, _)| count.parse().ok());
        let failed = |line: &&str| line.contains("Socket errors") || line.contains("Non-2xx");
        let failed = text.lines().filter(failed).map(str::to_owned).collect();
        (requests.unwrap_or_else(|| panic!("wrk said: {output:?}")), failed)
    }
}

/// h2load in short runs, until it is told to end: each run is a set of new connections.
pub fn h2load(to: SocketAddr, protocol: &[&str], stop: &AtomicBool) -> (u64, Vec<String>) {
    h2load_at(&format!("http://{to}/"), protocol, stop)
}

/// The same over TLS, where it is also told which protocol was agreed on.
pub fn h2load_tls(to: SocketAddr, protocol: &[&str], stop: &AtomicBool) -> (u64, Vec<String>) {
    h2load_at(&format!("https://{to}/"), protocol, stop)
}

fn h2load_at(url: &str, protocol: &[&str], stop: &AtomicBool) -> (u64, Vec<String>) {
    let (mut requests, mut failed) = (0, Vec::new());
    let Some(program) = client("h2load") else { return (0, failed) };
    while !stop.load(Ordering::Relaxed) {
        let output = Command::new(&program)
            .args(["-n300", "-c2", "-m4", "--rps=75"])
            .args(protocol)
            .arg(url)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find(|line| line.starts_with("requests:"));
        let line = line.unwrap_or_else(|| panic!("h2load said: {output:?}"));
        let statuses = text.lines().find(|line| line.starts_with("status codes:"));
        requests += 300;
        let well = line.contains("300 succeeded, 0 failed, 0 errored, 0 timeout");
        if !(well && statuses.is_some_and(|codes| codes.contains("300 2xx"))) {
            failed.push(format!("{line}; {statuses:?}"));
        }
        if url.starts_with("https:") {
            let wanted = if protocol.is_empty() { "h2" } else { "http/1.1" };
            let spoken = text.lines().find_map(|line| line.strip_prefix("Application protocol: "));
            assert_eq!(spoken, Some(wanted), "{text}");
        }
    }
    (requests, failed)
}

/// HTTP/2 over a few connections, as hyper's client speaks it, until it is told to end: a request that
/// a connection did not take because it goes away is asked on a new one, any other must be answered.
pub fn http2(to: SocketAddr, stop: &AtomicBool) -> (u64, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let told = futures_util::future::join_all((0..4).map(|_| ask_on(to, stop))).await;
        let mut all = (0, Vec::new());
        for (requests, failed) in told {
            all.0 += requests;
            all.1.extend(failed);
        }
        all
    })
}

async fn ask_on(to: SocketAddr, stop: &AtomicBool) -> (u64, Vec<String>) {
    let (mut requests, mut failed) = (0, Vec::new());
    let mut open = None;
    while !stop.load(Ordering::Relaxed) {
        let mut sender = match open.take() {
            Some(sender) => sender,
            None => match connect(to).await {
                Ok(sender) => sender,
                Err(why) => {
                    failed.push(why);
                    continue;
                }
            },
        };
        let request = http::Request::get(format!("http://{to}/"));
        let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
        match sender.try_send_request(request).await {
            Ok(answer) => {
                let status = answer.status();
                let body = http_body_util::BodyExt::collect(answer.into_body()).await;
                if status != 200 || body.is_err() {
                    failed.push(format!("{status}, {:?}", body.err()));
                }
                requests += 1;
                open = Some(sender);
            }
            Err(mut error) => {
                // Given back, it was not sent.
                if error.take_message().is_none() {
                    failed.push(format!("no answer: {:?}", error.into_error()));
                }
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    (requests, failed)
}

type Http2 = hyper::client::conn::http2::SendRequest<http_body_util::Empty<bytes::Bytes>>;

async fn connect(to: SocketAddr) -> Result<Http2, String> {
    let stream = tokio::net::TcpStream::connect(to).await.map_err(|e| format!("connect: {e}"))?;
    let (io, executor) = (TokioIo::new(stream), TokioExecutor::new());
    let (sender, connection) = hyper::client::conn::http2::handshake(executor, io)
        .await
        .map_err(|error| format!("handshake: {error}"))?;
    tokio::spawn(connection);
    Ok(sender)
}

/// curl, a few hundred requests a run over a connection that it keeps, until it is told to end.
pub fn curl(to: SocketAddr, protocol: &[&str], stop: &AtomicBool) -> (u64, Vec<String>) {
    let (mut requests, mut failed) = (0, Vec::new());
    let Some(program) = client("curl") else { return (0, failed) };
    while !stop.load(Ordering::Relaxed) {
        let output = Command::new(&program)
            .args(["-sS", "--max-time", "60", "-o", "/dev/null"])
            .args(["-w", "%{http_code} %{exitcode} %{errormsg}\\n"])
            .args(protocol)
            .arg(format!("http://{to}/?[1-200]"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let answers = text.lines().count() as u64;
        assert_eq!(answers, 200, "curl said: {output:?}");
        requests += answers;
        failed.extend(text.lines().filter(|l| !l.starts_with("200 0")).map(str::to_owned));
    }
    (requests, failed)
}
