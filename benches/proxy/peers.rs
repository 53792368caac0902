//! The proxies: how each is set up, started, and spoken to.

use std::fmt;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Result;
use crate::process::{Cores, Process, pinned};
use crate::texts::{self, Places};
use crate::tools::Tools;

/// How long a proxy may take to listen; under callgrind it starts fifty times slower.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// nginx.
    Nginx,
    /// HAProxy.
    Haproxy,
    /// Us.
    Switchback,
}

impl Kind {
    /// All, in the order in which they take their turns.
    pub const ALL: [Self; 3] = [Self::Nginx, Self::Haproxy, Self::Switchback];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Switchback => "Switchback",
        })
    }
}

/// What a proxy sends requests to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behind {
    /// The origin of the whole benchmark.
    Addresses,
    /// Origins that Switchback launches by this command.
    Processes(Vec<String>),
    /// Origins that Switchback launches as containers.
    Containers {
        /// The image.
        image: String,
        /// What follows its entry point.
        arguments: Vec<String>,
    },
}

/// How a proxy is to be started.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Which.
    pub kind: Kind,
    /// Its threads, or processes.
    pub workers: usize,
    /// Where it runs.
    pub cores: Cores,
    /// Hosts that lead to the service; 1 is any.
    pub routes: usize,
    /// Whether nginx makes request ids too.
    pub ids: bool,
    /// Whether it may be told to read its configuration again.
    pub reloads: bool,
    /// Whether 5 % go to a second upstream.
    pub split: bool,
    /// What Switchback sends requests to.
    pub behind: Behind,
    /// More lines for Switchback's service.
    pub service: String,
    /// More tables for Switchback.
    pub tables: String,
    /// More lines for Switchback's `[listen]`.
    pub listen: String,
    /// More lines for nginx's server.
    pub nginx: String,
    /// A program that runs it, such as callgrind.
    pub wrapper: Vec<String>,
}

impl Setup {
    /// One worker on the proxies' core, a split of 95 and 5.
    pub fn of(kind: Kind) -> Self {
        Self {
            kind,
            workers: 1,
            cores: Cores::Proxy,
            routes: 1,
            ids: false,
            reloads: false,
            split: true,
            behind: Behind::Addresses,
            service: String::new(),
            tables: String::new(),
            listen: String::new(),
            nginx: String::new(),
            wrapper: Vec::new(),
        }
    }

    /// Whether nginx needs a master process.
    pub fn has_master(&self) -> bool {
        self.workers > 1 || self.reloads
    }
}

/// A proxy that runs.
#[derive(Debug)]
pub struct Running {
    /// Which.
    pub kind: Kind,
    /// Its process.
    pub process: Process,
    /// Its port in cleartext.
    pub http: u16,
    /// Its port with TLS.
    pub https: u16,
    /// Seconds of processor that it uses in each with nothing to do, where that was looked at.
    pub idle: f64,
    folder: PathBuf,
}

/// The origin.
#[derive(Debug)]
struct Origin(Child);

impl Drop for Origin {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The folder in which a benchmark lives, with what its parts share.
#[derive(Debug)]
pub struct Site {
    folder: tempfile::TempDir,
    nginx: PathBuf,
    haproxy: PathBuf,
    _origin: Origin,
    origins: (u16, u16),
}

impl Site {
    /// Makes a folder with a certificate, and starts the origin.
    pub fn prepare(tools: &Tools) -> Result<Self> {
        let folder = tempfile::tempdir().map_err(|error| format!("no folder: {error}"))?;
        certificate(folder.path())?;
        let mut command = pinned(Cores::Load, &us()?);
        command.arg("--origin").stdin(Stdio::null()).stdout(Stdio::piped());
        let fail = |error: std::io::Error| format!("the origin cannot be started: {error}");
        let mut origin = Origin(command.spawn().map_err(fail)?);
        let mut line = String::new();
        if let Some(said) = origin.0.stdout.take() {
            BufReader::new(said).read_line(&mut line).map_err(fail)?;
        }
        let ports = line.trim().split_once(' ');
        let ports = ports.and_then(|(one, two)| Some((one.parse().ok()?, two.parse().ok()?)));
        let origins = ports.ok_or("the origin did not say its ports")?;
        Ok(Self {
            folder,
            nginx: tools.nginx.clone(),
            haproxy: tools.haproxy.clone(),
            _origin: origin,
            origins,
        })
    }

    /// A file in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The origin's two sides, as Switchback is told them.
    pub fn sides(&self) -> [String; 2] {
        [self.origins.0, self.origins.1].map(|port| format!("127.0.0.1:{port}"))
    }

    /// Starts a proxy, and waits until it serves as it was set up.
    pub fn start(&self, setup: &Setup) -> Result<Running> {
        let kind = setup.kind;
        let (http, https) = (free_port()?, free_port()?);
        let folder = self.file(&format!("{kind}-{http}"));
        std::fs::create_dir(&folder).map_err(|error| error.to_string())?;
        let places = Places {
            here: &folder,
            root: self.folder.path(),
            ports: (http, https),
            origins: self.origins,
        };
        let (program, arguments) = match kind {
            Kind::Nginx => {
                let file = write(&folder, "nginx.conf", &texts::nginx(setup, &places))?;
                let errors = folder.join("error.log").display().to_string();
                let here = folder.display().to_string();
                let arguments = ["-p", &here, "-c", &file, "-e", &errors].map(str::to_owned);
                (self.nginx.clone(), arguments.to_vec())
            }
            Kind::Haproxy => {
                write(&folder, "hosts.map", &texts::haproxy_map(setup))?;
                let file = write(&folder, "haproxy.cfg", &texts::haproxy(setup, &places))?;
                let mut arguments = ["-db", "-f", &file].map(str::to_owned).to_vec();
                if setup.reloads {
                    arguments.push("-W".to_owned());
                }
                (self.haproxy.clone(), arguments)
            }
            Kind::Switchback => {
                let file = write(&folder, "switchback.toml", &texts::switchback(setup, &places))?;
                (switchback(), ["run", "--config", &file].map(str::to_owned).to_vec())
            }
        };
        let mut command = match setup.wrapper.split_first() {
            Some((first, rest)) => {
                let mut command = pinned(setup.cores, Path::new(first));
                command.args(rest).arg(program);
                command
            }
            None => pinned(setup.cores, &program),
        };
        command.args(arguments);
        let log = folder.join("log");
        let mut process = Process::start(command, &kind.to_string(), &log)?;
        process.await_port(http, PATIENCE, &log)?;
        process.await_port(https, PATIENCE, &log)?;
        let running = Running { kind, process, http, https, idle: 0.0, folder };
        if kind == Kind::Switchback {
            running.until("the first revision", |web| web["phase"] == "promoted")?;
            if setup.split && setup.behind == Behind::Addresses {
                running.deploy(&json!({ "endpoints": [&self.sides()[1]] }))?;
                running.until("the canary's weight", |web| web["weights"]["canary"] == 5.0)?;
            }
        }
        running.answers()?;
        Ok(running)
    }
}

impl Running {
    /// Whether it answers as it is set up to: wrk takes a redirect for an answer.
    fn answers(&self) -> Result<()> {
        let fail = |error: std::io::Error| format!("{} does not answer: {error}", self.kind);
        let mut stream = TcpStream::connect(("127.0.0.1", self.http)).map_err(fail)?;
        let host = texts::host(0);
        let text = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(text.as_bytes()).map_err(fail)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(fail)?;
        match answer.starts_with("HTTP/1.1 200 ") {
            true => Ok(()),
            false => Err(format!("{} does not answer 200 but {answer:?}", self.kind)),
        }
    }

    /// Asks Switchback's admin API: a method, a path and what is sent; what is answered.
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> Result<(u16, Value)> {
        let fail = |error: std::io::Error| format!("the admin API does not answer: {error}");
        let mut stream = UnixStream::connect(self.folder.join("admin.sock")).map_err(fail)?;
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let length = body.len();
        let text = format!(
            "{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(text.as_bytes()).map_err(fail)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(fail)?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or("the admin API does not speak HTTP")?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok((status, serde_json::from_str(body).unwrap_or_default()))
    }

    /// Begins a rollout.
    pub fn deploy(&self, request: &Value) -> Result<()> {
        match self.ask("POST", "/api/v1/services/web/deploy", request)? {
            (200..=299, _) => Ok(()),
            (status, said) => Err(format!("a deploy was answered {status}: {said}")),
        }
    }

    /// Gives the canary a weight in percent.
    pub fn weigh(&self, canary: f64) -> Result<()> {
        match self.ask("POST", "/api/v1/services/web/weight", &json!({ "canary": canary }))? {
            (200, _) => Ok(()),
            (status, said) => Err(format!("a weight was answered {status}: {said}")),
        }
    }

    /// Ends the rollout under way by promoting the canary.
    pub fn promote(&self) -> Result<()> {
        match self.ask("POST", "/api/v1/services/web/promote", &json!({ "full": true }))? {
            (200, _) => Ok(()),
            (status, said) => Err(format!("a promotion was answered {status}: {said}")),
        }
    }

    /// Waits until the service is as it should be.
    pub fn until(&self, what: &str, is: impl Fn(&Value) -> bool) -> Result<()> {
        let began = Instant::now();
        loop {
            // Its socket opens a moment behind its ports.
            let web = self.ask("GET", "/api/v1/services/web", &Value::Null);
            if web.as_ref().is_ok_and(|(_, web)| is(web)) {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("{what} did not come: {web:?}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Tells HAProxy something by its socket.
    pub fn tell(&self, words: &str) -> Result<()> {
        let fail = |error: std::io::Error| format!("HAProxy's socket does not answer: {error}");
        let mut stream = UnixStream::connect(self.folder.join("haproxy.sock")).map_err(fail)?;
        stream.write_all(format!("{words}\n").as_bytes()).map_err(fail)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(fail)?;
        match answer.trim() {
            "" => Ok(()),
            said => Err(format!("HAProxy answered {said:?} to {words:?}")),
        }
    }

    /// Has it read its configuration again.
    pub fn reload(&self) -> Result<()> {
        self.process.signal(match self.kind {
            Kind::Nginx | Kind::Switchback => rustix::process::Signal::HUP,
            Kind::Haproxy => rustix::process::Signal::USR2,
        })
    }
}

/// This program, for the parts of it that run as processes of their own.
pub fn us() -> Result<PathBuf> {
    std::env::current_exe().map_err(|error| error.to_string())
}

/// Us, in the profile of benchmarks, or another build of us.
fn switchback() -> PathBuf {
    std::env::var_os("SWITCHBACK")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_switchback")), PathBuf::from)
}

fn write(folder: &Path, name: &str, text: &str) -> Result<String> {
    let file = folder.join(name);
    std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(file.display().to_string())
}

/// A port that nobody has at this moment, and that was given to nobody before.
fn free_port() -> Result<u16> {
    static GIVEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    let mut given = GIVEN.lock().map_err(|_| "a thread panicked")?;
    loop {
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(|error| error.to_string())?;
        let port = listener.local_addr().map_err(|error| error.to_string())?.port();
        if !given.contains(&port) {
            given.push(port);
            return Ok(port);
        }
    }
}

/// An ECDSA P-256 certificate, as most sites have.
fn certificate(folder: &Path) -> Result<()> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])
        .map_err(|error| error.to_string())?;
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    write(folder, "cert.pem", &certificate)?;
    write(folder, "key.pem", &key)?;
    write(folder, "both.pem", &format!("{certificate}{key}"))?;
    Ok(())
}
