//! What a request costs may not grow unseen: user instructions per proxied request, counted by
//! callgrind, against the recorded value.
//!
//! Not a time: the same build counts the same on a busy machine, to a fraction of a per cent. Counted
//! is the build that the tests have (own code without optimisation, what it stands on with), which
//! grows where the released one grows. A canary has half of the traffic, and a cookie keeps users on
//! their side.
//!
//! When growth is worth its price, or a gain is to be kept: write what these tests print into
//! `tests/data/instructions.json`.

use std::error::Error;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};

use crate::support::client;
use crate::support::daemon::{PATIENCE, PROGRAM, free_address, program, without_variables};

/// By how much it may grow.
const ALLOWANCE: f64 = 0.05;
/// The same for a compiler that is not the recorded one: each generates other code.
const ALLOWANCE_ELSEWHERE: f64 = 0.15;
/// What counting what a request says of its side may add to it.
const OBSERVATION: f64 = 0.01;
/// What a rule on another route, and one that sets a field of each response, may add to it: in this
/// build, in which the fields of a response weigh more.
const RULE_ELSEWHERE: f64 = 0.02;
const RULE_HERE: f64 = 0.08;
/// Requests in the two counts whose difference is taken, so that start and end cancel.
const FEW: usize = 80;
const MANY: usize = 480;
/// How often too large a count is taken again, and a count in which valgrind itself failed.
const TRIES: usize = 5;
/// Connections that take turns.
const CONNECTIONS: usize = 8;
const REQUEST: &[u8] = b"GET /a/b?c=d HTTP/1.1\r\nhost: app.example\r\nuser-agent: counter\r\n\
    accept: text/html,application/json;q=0.9,*/*;q=0.8\r\naccept-language: en-GB,en;q=0.7\r\n\
    accept-encoding: gzip, deflate, br\r\ncookie: theme=dark; user=0123456789abcdef\r\n\r\n";
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nserver: origin\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
    content-type: text/plain\r\ncache-control: no-store\r\ncontent-length: 5\r\n\r\nhello";

/// What a client speaks, and under which name it is recorded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Speech {
    Http1,
    Http2,
}

impl Speech {
    fn name(self) -> &'static str {
        match self {
            Self::Http1 => "instructions per request",
            Self::Http2 => "instructions per request, HTTP/2",
        }
    }

    fn ask(self, proxy: SocketAddr, requests: usize) -> std::io::Result<()> {
        match self {
            Self::Http1 => ask(proxy, requests),
            Self::Http2 => ask_by_http2(proxy, requests).map_err(std::io::Error::other),
        }
    }
}

#[test]
fn a_request_costs_no_more_instructions_than_recorded() {
    costs_no_more_than_recorded(Speech::Http1);
}

#[test]
fn a_request_by_http2_costs_no_more_instructions_than_recorded() {
    costs_no_more_than_recorded(Speech::Http2);
}

fn costs_no_more_than_recorded(speech: Speech) {
    if !cfg!(target_arch = "x86_64") {
        eprintln!("SKIPPED: instructions were recorded on x86_64");
        return;
    }
    let Some(valgrind) = client("valgrind") else { return };
    let origin = origin();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/instructions.json");
    let recorded: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let (compiler, limit) = (compiler(), recorded[speech.name()].as_f64().unwrap());
    let allowance = if recorded["compiler"] == json!(compiler) {
        ALLOWANCE
    } else {
        eprintln!("recorded with {}, compared with {compiler}", recorded["compiler"]);
        ALLOWANCE_ELSEWHERE
    };
    // A machine that is slow to count lets the worker's clock tick more often: what is too much is
    // counted again, and the least counts.
    let mut each = f64::INFINITY;
    for _ in 0..TRIES {
        each = each.min(of_one_request(&valgrind, origin, speech, ""));
        if each / limit - 1.0 <= allowance {
            break;
        }
        eprintln!("counted {each:.0} instructions per request");
    }
    let mut now = recorded.clone();
    (now["compiler"], now[speech.name()]) = (json!(compiler), json!(each.round()));
    println!("{now}");
    let growth = each / limit - 1.0;
    assert!(
        growth <= allowance,
        "a request costs {each:.0} instructions, {:.1} % more than the recorded {limit}. If that is \
         worth it, tests/data/instructions.json is to be {now}",
        growth * 100.0
    );
    // A count of next to nothing is a fault of the counting.
    assert!(growth > -0.5, "a request costs {each:.0} instructions, the recorded {limit} is stale");
}

#[test]
fn counting_an_observation_costs_hardly_anything() {
    if !cfg!(target_arch = "x86_64") {
        eprintln!("SKIPPED: instructions are counted on x86_64");
        return;
    }
    let Some(valgrind) = client("valgrind") else { return };
    let origin = origin();
    // Both look for the path among those that are ignored; one of them finds it.
    let [mut counted, mut ignored] = [f64::INFINITY; 2];
    let mut costs = f64::INFINITY;
    for _ in 0..TRIES {
        let of = |path: &str| of_one_request(&valgrind, origin, Speech::Http1, path);
        counted = of("ignore_routes = [\"/z\"]\n").min(counted);
        ignored = of("ignore_routes = [\"/a\"]\n").min(ignored);
        costs = counted / ignored - 1.0;
        println!("{counted:.0} instructions with, {ignored:.0} without: {:.2} %", costs * 100.0);
        // Less than nothing is a fault of the counting too.
        if (-OBSERVATION / 2.0..=OBSERVATION).contains(&costs) {
            return;
        }
    }
    panic!("an observation costs {:.2} % of a request's instructions", costs * 100.0);
}

#[test]
fn a_rule_costs_who_it_is_about() {
    if !cfg!(target_arch = "x86_64") {
        eprintln!("SKIPPED: instructions are counted on x86_64");
        return;
    }
    let Some(valgrind) = client("valgrind") else { return };
    let origin = origin();
    let mut told = String::new();
    let rules = [
        "",
        "[[service.web.route]]\npath = \"/never\"\nstatus = 404\n",
        "headers = { set = { X-One = \"1\" } }\n",
    ];
    let mut least = [f64::INFINITY; 3];
    for _ in 0..TRIES {
        for (least, rules) in least.iter_mut().zip(rules) {
            *least = of_one_request(&valgrind, origin, Speech::Http1, rules).min(*least);
        }
        let [plain, elsewhere, here] = least;
        let (elsewhere, here) = (elsewhere / plain - 1.0, here / plain - 1.0);
        told = format!("{:.2} % elsewhere, {:.2} % here", elsewhere * 100.0, here * 100.0);
        println!("{told}");
        // Less than nothing is a fault of the counting too.
        let is_fair = |part: f64, most: f64| (-OBSERVATION / 2.0..=most).contains(&part);
        if is_fair(elsewhere, RULE_ELSEWHERE) && is_fair(here, RULE_HERE) {
            return;
        }
    }
    panic!("a rule costs {told}");
}

/// Instructions of one request, with this in the service's table.
fn of_one_request(valgrind: &Path, origin: SocketAddr, speech: Speech, more: &str) -> f64 {
    // Both at the same time: what they count, they count apart.
    let (few, many) = std::thread::scope(|scope| {
        let few = scope.spawn(|| count(valgrind, origin, (speech, more), FEW));
        let many = count(valgrind, origin, (speech, more), MANY);
        (few.join().unwrap(), many)
    });
    (many - few) / (MANY - FEW) as f64
}

fn compiler() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = Command::new(rustc).arg("--version").output().unwrap();
    String::from_utf8_lossy(&said.stdout).trim().to_owned()
}

/// Answers on loopback for as long as the tests run.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

fn serve(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let (mut buffer, mut filled) = ([0; 4096], 0);
    while let Ok(read @ 1..) = stream.read(&mut buffer[filled..]) {
        filled += read;
        // Neither side sends ahead: a head that has ended is all that is here.
        if buffer[..filled].ends_with(b"\r\n\r\n") {
            filled = 0;
            if stream.write_all(ANSWER).is_err() {
                return;
            }
        }
    }
}

/// The daemon under callgrind; it is killed when a test fails before its end.
struct Counted(Child);

impl Drop for Counted {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Instructions of the worker of a daemon that has served so many requests. Callgrind 3.19 fails now and
/// then when a signal comes while it switches threads; then it is begun again.
fn count(
    valgrind: &Path,
    origin: SocketAddr,
    (speech, more): (Speech, &str),
    requests: usize,
) -> f64 {
    for _ in 0..TRIES {
        match try_count(valgrind, origin, (speech, more), requests) {
            Ok(count) => return count,
            Err(log) => eprintln!("valgrind failed: {log}"),
        }
    }
    panic!("valgrind failed {TRIES} times");
}

fn try_count(
    valgrind: &Path,
    origin: SocketAddr,
    (speech, more): (Speech, &str),
    requests: usize,
) -> Result<f64, String> {
    let home = tempfile::Builder::new().prefix("count-").tempdir().unwrap();
    let (http, here) = (free_address(), home.path().display());
    let text = format!(
        "[listen]\nhttp = \"{http}\"\nworkers = 1\nkeep_alive_requests = 1000000\n\
         [admin]\nsocket = \"{here}/admin.sock\"\nlisten = \"off\"\n[state]\ndir = \"{here}/state\"\n\
         [service.web]\nhost = \"*\"\nendpoints = [\"{origin}\"]\naffinity = \"cookie:user\"\n\
         steps = \"50% 100%\"\nbake = \"1h\"\nbake_max = \"2h\"\nabort = \"errors > 80%\"\n\
         probe = {{ interval = \"1s\", rise = 1 }}\n{more}"
    );
    let config = home.path().join("switchback.toml");
    std::fs::write(&config, text).unwrap();
    let mut command = without_variables(Command::new(valgrind));
    command.args(["--tool=callgrind", "--separate-threads=yes", "--quiet"]);
    command.arg(format!("--callgrind-out-file={here}/out"));
    command.arg(PROGRAM).args(["run", "--config"]).arg(&config);
    let log = home.path().join("log");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
    let mut daemon = Counted(command.spawn().unwrap());
    // The first answer comes from the first revision, and a canary may be deployed then.
    let mut ended = None;
    until("an answer", || {
        ended = daemon.0.try_wait().unwrap();
        ended.is_some() || ask(http, 1).is_ok()
    });
    if ended.is_some() {
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(said.contains("Callgrind: "), "{ended:?}: {said}");
        return Err(said.chars().take(400).collect());
    }
    until("a deploy", || {
        let mut deploy = program();
        deploy.args(["deploy", "web", "--endpoints", &origin.to_string(), "--detach"]);
        deploy.arg("--config").arg(&config);
        deploy.output().is_ok_and(|said| said.status.success())
    });
    until("the canary's weight", || {
        let mut status = program();
        status.args(["status", "web", "-o", "json", "--config"]).arg(&config);
        let said = status.output().unwrap().stdout;
        serde_json::from_slice::<Value>(&said).is_ok_and(|said| said["weights"]["canary"] == 50.0)
    });
    speech.ask(http, requests).unwrap();
    let id = rustix::process::Pid::from_raw(i32::try_from(daemon.0.id()).unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    until("the end", || daemon.0.try_wait().unwrap().is_some());
    let files = std::fs::read_dir(home.path()).unwrap().flatten();
    Ok(files.filter_map(|file| counted(&file.path())).sum())
}

/// The sum in a thread's file, if it is the worker's: what the others do goes by the clock.
fn counted(file: &Path) -> Option<f64> {
    file.file_name()?.to_str()?.strip_prefix("out-")?;
    let text = std::fs::read_to_string(file).ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "))?;
    text.contains(" switchback::proxy::handler::handle").then(|| total.trim().parse().unwrap())
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < 2 * PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Asks so many times, on all connections in turn.
fn ask(proxy: SocketAddr, requests: usize) -> std::io::Result<()> {
    let connect = |_| {
        let stream = TcpStream::connect(proxy)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    };
    let count = CONNECTIONS.min(requests);
    let mut streams = (0..count).map(connect).collect::<std::io::Result<Vec<_>>>()?;
    let mut buffer = [0; 4096];
    for _ in 0..requests / count {
        for stream in &mut streams {
            stream.write_all(REQUEST)?;
        }
        for stream in &mut streams {
            let mut filled = 0;
            while !buffer[..filled].ends_with(b"\r\n\r\nhello") {
                match stream.read(&mut buffer[filled..])? {
                    0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                    read => filled += read,
                }
            }
            if !buffer.starts_with(b"HTTP/1.1 200") {
                return Err(std::io::ErrorKind::InvalidData.into());
            }
        }
    }
    Ok(())
}

/// The same over HTTP/2 in the clear, a stream at a time on each connection.
fn ask_by_http2(proxy: SocketAddr, requests: usize) -> Result<(), Box<dyn Error + Send + Sync>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asking = async {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = TokioIo::new(tokio::net::TcpStream::connect(proxy).await?);
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
            tokio::spawn(connection);
            connections.push(sender);
        }
        for _ in 0..requests / CONNECTIONS {
            let answers = connections.iter_mut().map(|connection| {
                let request = http::Request::get("http://app.example/a/b?c=d")
                    .header("user-agent", "counter")
                    .header("accept", "text/html,application/json;q=0.9,*/*;q=0.8")
                    .header("accept-language", "en-GB,en;q=0.7")
                    .header("accept-encoding", "gzip, deflate, br")
                    .header("cookie", "theme=dark; user=0123456789abcdef")
                    .body(Empty::<Bytes>::new());
                connection.send_request(request.unwrap())
            });
            for answer in answers.collect::<Vec<_>>() {
                let answer = answer.await?;
                assert_eq!(answer.status(), 200);
                assert_eq!(answer.into_body().collect().await?.to_bytes(), "hello");
            }
        }
        Ok(())
    };
    // Within the runtime, whose clock it needs.
    runtime.block_on(async { tokio::time::timeout(PATIENCE, asking).await? })
}
