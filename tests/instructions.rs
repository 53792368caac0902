//! What a request costs may not grow unseen: user instructions per proxied request, counted by
//! callgrind, against the recorded value.
//!
//! Not a time: the same build counts the same on a busy machine, to a fraction of a per cent, because
//! requests and answers come one at a time, each when the worker sleeps (whether something is there
//! at the first look or only at the second would otherwise be up to the machine), and because what
//! the worker does by the clock is taken off. Counted is the build that the tests have (own code
//! without optimisation, what it stands on with), which grows where the released one grows. A
//! canary has half of the traffic, and a cookie keeps users on their side.
//!
//! When growth is worth its price, or a gain is to be kept: write what this prints into
//! `tests/data/instructions.json`.

use std::error::Error;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client;
use crate::support::daemon::{PATIENCE, PROGRAM, free_address, program, without_variables};

/// By how much it may grow.
const ALLOWANCE: f64 = 0.05;
/// The same for a compiler that is not the recorded one: each generates other code.
const ALLOWANCE_ELSEWHERE: f64 = 0.15;
/// What counting what a request says of its side may add to it; seen were 1.1 to 1.5 %.
const OBSERVATION: f64 = 0.03;
/// What a rule on another route, and one that sets a field of each response, may add to it: in this
/// build, in which the fields of a response weigh more. Seen were 1.6 to 2.3 %, and 4.5 to 4.9 %.
const RULE_ELSEWHERE: f64 = 0.04;
const RULE_HERE: f64 = 0.08;
/// Less than nothing is a fault of the counting too.
const LEAST: f64 = -0.01;
/// Requests before those that are counted, and those, in each of the rounds of which the least counts.
const BEFORE: usize = 32;
const COUNTED: usize = 200;
const ROUNDS: usize = 2;
/// How long what goes by the clock is counted.
const QUIET: Duration = Duration::from_secs(3);
/// How often counting is begun again when valgrind itself failed.
const TRIES: usize = 5;
/// The call in which a worker waits, by its number in x86_64's table.
const EPOLL_WAIT: &str = "232 ";
/// Connections that take turns.
const CONNECTIONS: usize = 8;
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nserver: origin\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
    content-type: text/plain\r\ncache-control: no-store\r\ncontent-length: 5\r\n\r\nhello";

/// What is asked, and under which name it is recorded.
const HTTP1: &str = "instructions per request";
const HTTP2: &str = "instructions per request, HTTP/2";

/// Services whose requests are compared, with what their tables have more; their names are of one
/// length, so that none costs more for its name. Two look for the path among
/// those that are ignored; one of them finds it.
const SERVICES: [(&str, &str); 5] = [
    ("plain", ""),
    ("noted", "ignore_routes = [\"/z\"]\n"),
    ("aside", "ignore_routes = [\"/a\"]\n"),
    ("other", "[[service.other.route]]\npath = \"/never\"\nstatus = 404\n"),
    ("rules", "headers = { set = { X-One = \"1\" } }\n"),
];

/// Instructions of a request.
struct Counts {
    http2: f64,
    /// In the order of [`SERVICES`].
    http1: [f64; SERVICES.len()],
}

impl Counts {
    fn of(&self, service: &str) -> f64 {
        let at = SERVICES.iter().position(|(name, _)| *name == service);
        self.http1[at.expect("one of them")]
    }

    /// What one costs more than another, as a part of it.
    fn more(&self, service: &str, than: &str) -> f64 {
        self.of(service) / self.of(than) - 1.0
    }
}

fn count() -> Option<Counts> {
    if !cfg!(target_arch = "x86_64") {
        eprintln!("SKIPPED: instructions were recorded on x86_64");
        return None;
    }
    let valgrind = client("valgrind")?;
    for _ in 0..TRIES {
        match try_count(&valgrind) {
            Ok(counts) => return Some(counts),
            Err(log) => eprintln!("valgrind failed: {log}"),
        }
    }
    panic!("valgrind failed {TRIES} times");
}

/// One test for all of them: they have one count, and nobody else is to wait for it.
#[test]
fn requests_rules_and_observations_cost_what_they_may() {
    let Some(counts) = count() else { return };
    let wrong: Vec<String> = [
        costs_no_more_than_recorded(HTTP1, counts.of("plain")),
        costs_no_more_than_recorded(HTTP2, counts.http2),
        is_within("an observation", counts.more("noted", "aside"), OBSERVATION),
        is_within("a rule on another route", counts.more("other", "plain"), RULE_ELSEWHERE),
        is_within("a rule on this route", counts.more("rules", "plain"), RULE_HERE),
    ]
    .into_iter()
    .filter_map(Result::err)
    .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn costs_no_more_than_recorded(name: &str, each: f64) -> Result<(), String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/instructions.json");
    let recorded: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let (compiler, limit) = (compiler(), recorded[name].as_f64().unwrap());
    let allowance = if recorded["compiler"] == json!(compiler) {
        ALLOWANCE
    } else {
        eprintln!("recorded with {}, compared with {compiler}", recorded["compiler"]);
        ALLOWANCE_ELSEWHERE
    };
    let mut now = recorded.clone();
    (now["compiler"], now[name]) = (json!(compiler), json!(each.round()));
    println!("{now}");
    let growth = each / limit - 1.0;
    if growth > allowance {
        return Err(format!(
            "a request costs {each:.0} instructions, {:.1} % more than the recorded {limit}. If that is \
             worth it, tests/data/instructions.json is to be {now}",
            growth * 100.0
        ));
    }
    // A count of next to nothing is a fault of the counting.
    if growth < -0.5 {
        return Err(format!(
            "a request costs {each:.0} instructions, the recorded {limit} is stale"
        ));
    }
    Ok(())
}

fn is_within(what: &str, part: f64, most: f64) -> Result<(), String> {
    println!("{what}: {:.2} % of a request's instructions", part * 100.0);
    if (LEAST..=most).contains(&part) {
        return Ok(());
    }
    Err(format!("{what} costs {:.2} %, where {:.0} % are allowed", part * 100.0, most * 100.0))
}

fn try_count(valgrind: &Path) -> Result<Counts, String> {
    let mut daemon = Counted::begin(valgrind);
    daemon.until_it_answers()?;
    for (service, _) in SERVICES {
        daemon.deploy(service);
    }
    daemon.find()?;
    let begun = Instant::now();
    std::thread::sleep(QUIET);
    let by_clock = daemon.counted()? / begun.elapsed().as_secs_f64();
    let each = |begun: Instant| {
        let all = daemon.counted()? - by_clock * begun.elapsed().as_secs_f64();
        Ok::<f64, String>(all / COUNTED as f64)
    };
    let mut http1 = [f64::INFINITY; SERVICES.len()];
    for _ in 0..ROUNDS {
        for (least, (service, _)) in http1.iter_mut().zip(SERVICES) {
            let mut visitors = Visitors::connect(&daemon, service, CONNECTIONS).unwrap();
            visitors.ask(BEFORE).unwrap();
            daemon.counted()?;
            let begun = Instant::now();
            visitors.ask(COUNTED).unwrap();
            *least = each(begun)?.min(*least);
        }
    }
    // Within the runtime, whose clock the connections need.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let http2 = runtime.block_on(async {
        let mut visitors = Http2Visitors::connect(&daemon).await.unwrap();
        visitors.ask(BEFORE).await.unwrap();
        let mut least = f64::INFINITY;
        for _ in 0..ROUNDS {
            daemon.counted()?;
            let begun = Instant::now();
            visitors.ask(COUNTED).await.unwrap();
            least = each(begun)?.min(least);
        }
        Ok::<f64, String>(least)
    })?;
    println!("by the clock: {by_clock:.0}/s; requests: {http1:.0?}; HTTP/2: {http2:.0}");
    Ok(Counts { http1, http2 })
}

fn compiler() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = Command::new(rustc).arg("--version").output().unwrap();
    String::from_utf8_lossy(&said.stdout).trim().to_owned()
}

/// A daemon's worker, as the kernel sees it: nothing is known of it before it is there.
#[derive(Clone, Default)]
struct Worker(Arc<OnceLock<PathBuf>>);

impl Worker {
    /// Finds it among the daemon's threads.
    fn find(&self, daemon: &Child) {
        let threads = std::fs::read_dir(format!("/proc/{}/task", daemon.id())).unwrap().flatten();
        let mut named = threads.map(|thread| thread.path()).filter(|thread| {
            std::fs::read_to_string(thread.join("comm")).is_ok_and(|name| name == "worker-0\n")
        });
        let worker = named.next().expect("a worker's thread");
        let file = worker.join("syscall");
        // Without it counts would differ from one time to the next, and nobody would know why.
        std::fs::read_to_string(&file).expect("what the worker waits for can be seen");
        self.0.set(file).expect("one worker");
    }

    /// Until it waits for what comes next; not at all before it was found, and after its end.
    fn until_it_sleeps(&self) {
        let Some(file) = self.0.get() else { return };
        let begun = Instant::now();
        while std::fs::read_to_string(file).is_ok_and(|call| !call.starts_with(EPOLL_WAIT)) {
            assert!(begun.elapsed() < PATIENCE, "the worker does not sleep");
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// Answers on loopback for as long as the tests run, each time when the worker sleeps.
fn origin(worker: &Worker) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let (address, worker) = (listener.local_addr().unwrap(), worker.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let worker = worker.clone();
            std::thread::spawn(move || serve(stream, &worker));
        }
    });
    address
}

fn serve(mut stream: TcpStream, worker: &Worker) {
    let _ = stream.set_nodelay(true);
    let (mut buffer, mut filled) = ([0; 4096], 0);
    while let Ok(read @ 1..) = stream.read(&mut buffer[filled..]) {
        filled += read;
        // Neither side sends ahead: a head that has ended is all that is here.
        if buffer[..filled].ends_with(b"\r\n\r\n") {
            filled = 0;
            worker.until_it_sleeps();
            if stream.write_all(ANSWER).is_err() {
                return;
            }
        }
    }
}

/// The daemon under callgrind; it is killed at the end.
struct Counted {
    daemon: Child,
    worker: Worker,
    /// How the worker's file is called, after the number of the count.
    thread: OnceLock<String>,
    origin: SocketAddr,
    home: TempDir,
    config: PathBuf,
    http: SocketAddr,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

impl Counted {
    fn begin(valgrind: &Path) -> Self {
        let worker = Worker::default();
        let origin = origin(&worker);
        let home = tempfile::Builder::new().prefix("count-").tempdir().unwrap();
        let (http, here) = (free_address(), home.path().display());
        let mut text = format!(
            "[listen]\nhttp = \"{http}\"\nworkers = 1\nkeep_alive_requests = 1000000\n\
             [admin]\nsocket = \"{here}/admin.sock\"\nlisten = \"off\"\n[state]\ndir = \"{here}/state\"\n"
        );
        for (name, more) in SERVICES {
            text += &format!(
                "[service.{name}]\nhost = \"{name}.example\"\nendpoints = [\"{origin}\"]\n\
                 affinity = \"cookie:user\"\nsteps = \"50% 100%\"\nbake = \"1h\"\nbake_max = \"2h\"\n\
                 abort = \"errors > 80%\"\nprobe = {{ interval = \"1s\", timeout = \"30s\", rise = 1 }}\n{more}"
            );
        }
        let config = home.path().join("switchback.toml");
        std::fs::write(&config, text).unwrap();
        let mut command = without_variables(Command::new(valgrind));
        command.args([
            "--tool=callgrind",
            "--separate-threads=yes",
            "--dump-line=no",
            "--fair-sched=try",
            "--quiet",
        ]);
        command.arg(format!("--callgrind-out-file={here}/out"));
        command.arg(PROGRAM).args(["run", "--config"]).arg(&config);
        let log = File::create(home.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let daemon = command.spawn().unwrap();
        Self { daemon, worker, thread: OnceLock::new(), origin, home, config, http }
    }

    /// Until the first revisions answer; what valgrind said, when it is valgrind that ended: version 3.19
    /// fails now and then when a signal comes while it switches threads.
    fn until_it_answers(&mut self) -> Result<(), String> {
        for (service, _) in SERVICES {
            let mut ended = None;
            until("an answer", || {
                ended = self.daemon.try_wait().unwrap();
                ended.is_some()
                    || Visitors::connect(self, service, 1).is_ok_and(|mut of| of.ask(1).is_ok())
            });
            if ended.is_some() {
                let said = std::fs::read_to_string(self.home.path().join("log")).unwrap();
                assert!(said.contains("Callgrind: "), "{ended:?}: {said}");
                return Err(said.chars().take(400).collect());
            }
        }
        self.worker.find(&self.daemon);
        Ok(())
    }

    /// A canary of a service, until it has its half.
    fn deploy(&self, service: &str) {
        until("a deploy", || {
            let mut deploy = program();
            deploy.args(["deploy", service, "--endpoints", &self.origin.to_string(), "--detach"]);
            deploy.arg("--config").arg(&self.config);
            deploy.output().is_ok_and(|said| said.status.success())
        });
        let mut said = Value::Null;
        until(&format!("the weight of the canary of {service}"), || {
            let mut status = program();
            status.args(["status", service, "-o", "json", "--config"]).arg(&self.config);
            said = serde_json::from_slice(&status.output().unwrap().stdout).unwrap_or_default();
            said["weights"]["canary"] == 50.0
        });
    }

    /// Finds the worker's file: that of the thread which has handled the first requests.
    fn find(&self) -> Result<(), String> {
        let number = self.dump()?;
        let files = std::fs::read_dir(self.home.path()).unwrap().flatten();
        let of_worker = files.filter_map(|file| {
            let name = file.file_name().into_string().ok()?;
            let thread = name.strip_prefix(&format!("out.{number}"))?.to_owned();
            let text = std::fs::read_to_string(file.path()).ok()?;
            text.contains(" switchback::proxy::handler::handle").then_some(thread)
        });
        let found = of_worker.collect::<Vec<_>>();
        let [thread] = &found[..] else { return Err(format!("workers: {found:?}")) };
        self.thread.set(thread.clone()).map_err(|_| "found twice".to_owned())
    }

    /// Instructions of its worker since this was asked before.
    fn counted(&self) -> Result<f64, String> {
        self.worker.until_it_sleeps();
        let number = self.dump()?;
        let thread = self.thread.get().expect("it was found");
        let file = self.home.path().join(format!("out.{number}{thread}"));
        let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
        let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
        total.and_then(|total| total.trim().parse().ok()).ok_or_else(|| "no totals".to_owned())
    }

    /// Has callgrind write what it counted, and begin again; the number of what was written.
    fn dump(&self) -> Result<usize, String> {
        let mut command = Command::new("vgdb");
        command.args([&format!("--pid={}", self.daemon.id()), "dump"]).stdin(Stdio::null());
        let said = command.output().map_err(|error| format!("vgdb: {error}"))?;
        if !said.status.success() {
            return Err(String::from_utf8_lossy(&said.stderr).into_owned());
        }
        let files = std::fs::read_dir(self.home.path()).unwrap().flatten();
        let numbers = files.filter_map(|file| {
            let name = file.file_name().into_string().ok()?;
            name.strip_prefix("out.")?.split('-').next()?.parse().ok()
        });
        numbers.max().ok_or_else(|| "callgrind wrote nothing".to_owned())
    }
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < 2 * PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Connections that ask a service in turn.
struct Visitors {
    streams: Vec<TcpStream>,
    request: String,
    worker: Worker,
}

impl Visitors {
    fn connect(to: &Counted, service: &str, connections: usize) -> std::io::Result<Self> {
        let connect = |_| {
            let stream = TcpStream::connect(to.http)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        };
        let request = format!(
            "GET /a/b?c=d HTTP/1.1\r\nhost: {service}.example\r\nuser-agent: counter\r\n\
             accept: text/html,application/json;q=0.9,*/*;q=0.8\r\naccept-language: en-GB,en;q=0.7\r\n\
             accept-encoding: gzip, deflate, br\r\ncookie: theme=dark; user=0123456789abcdef\r\n\r\n"
        );
        let streams = (0..connections).map(connect).collect::<std::io::Result<_>>()?;
        Ok(Self { streams, request, worker: to.worker.clone() })
    }

    fn ask(&mut self, requests: usize) -> std::io::Result<()> {
        let mut buffer = [0; 4096];
        for turn in 0..requests {
            let turn = turn % self.streams.len();
            let stream = &mut self.streams[turn];
            self.worker.until_it_sleeps();
            stream.write_all(self.request.as_bytes())?;
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
        Ok(())
    }
}

/// The same over HTTP/2 in the clear, a stream at a time.
struct Http2Visitors {
    connections: Vec<http2::SendRequest<Empty<Bytes>>>,
    worker: Worker,
}

impl Http2Visitors {
    async fn connect(to: &Counted) -> Result<Self, Box<dyn Error>> {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = TokioIo::new(tokio::net::TcpStream::connect(to.http).await?);
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
            tokio::spawn(connection);
            connections.push(sender);
        }
        Ok(Self { connections, worker: to.worker.clone() })
    }

    async fn ask(&mut self, requests: usize) -> Result<(), Box<dyn Error>> {
        for turn in 0..requests {
            let request = http::Request::get("http://plain.example/a/b?c=d")
                .header("user-agent", "counter")
                .header("accept", "text/html,application/json;q=0.9,*/*;q=0.8")
                .header("accept-language", "en-GB,en;q=0.7")
                .header("accept-encoding", "gzip, deflate, br")
                .header("cookie", "theme=dark; user=0123456789abcdef")
                .body(Empty::<Bytes>::new());
            self.worker.until_it_sleeps();
            let answer = self.connections[turn % CONNECTIONS].send_request(request?);
            let answer = tokio::time::timeout(PATIENCE, answer).await??;
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.into_body().collect().await?.to_bytes(), "hello");
        }
        Ok(())
    }
}
