//! A daemon for a story: the real program with a configuration, a state and a log of its own.
//!
//! Whatever a story does, at its end the daemon has stopped when asked, nothing it launched is left,
//! and its log has neither a panic nor an error, unless the story says that it expects errors.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bollard::query_parameters::{ListContainersOptions, RemoveContainerOptions};
use serde_json::Value;
use tempfile::TempDir;

use super::engine::{DockerHost, engine, on_a_runtime, remove_tags};
use super::http::{Answer, Connection, get};
pub use super::process::free_address;
use super::process::{Process, is_in, pids};
use super::sample::sample_image;

/// Longer than anything here takes, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_switchback");

/// Steps that take about a second each with any load, and never wait for evidence.
pub const SHORT: &str = "bake = \"400ms\"\nbake_max = \"1s\"\non_inconclusive = \"advance\"\n";
/// Steps that stay until something is shown.
pub const LONG: &str = "bake = \"20s\"\nbake_max = \"60s\"\n";

/// What launches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    Processes,
    Containers,
}

/// What a verb answered.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// The last line of stdout, as JSON.
    pub fn last(&self) -> Value {
        let last = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The lines of stdout, each as JSON.
    pub fn lines(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        self.stdout.lines().map(parse).collect()
    }
}

/// The daemon.
#[derive(Debug)]
pub struct Daemon {
    home: TempDir,
    runs: Runs,
    mark: String,
    engine: Option<DockerHost>,
    child: Option<Process>,
    /// By which path it is started.
    pub program: PathBuf,
    pub variables: Vec<(String, String)>,
    pub http: SocketAddr,
    /// Errors in the log that the story brings about: parts of their lines.
    expected: Vec<String>,
}

impl Daemon {
    /// A daemon with one service, `web`, that runs the sample app; none when there is no engine to
    /// run it. `plan` is more of the service's table. The first revision serves when this returns.
    pub fn begin(runs: Runs, plan: &str) -> Option<Self> {
        let mut daemon = Self::configured(runs, plan)?;
        daemon.start();
        daemon.wait("the first revision", |web| web["phase"] == "promoted");
        daemon.until("the first answer", || daemon.get("/").is_ok_and(|a| a.status == 200));
        Some(daemon)
    }

    /// A daemon that has yet to start.
    pub fn configured(runs: Runs, plan: &str) -> Option<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let engine = match runs {
            Runs::Processes => None,
            Runs::Containers => Some(engine()?),
        };
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let daemon = Self {
            home: tempfile::Builder::new().prefix("story-").tempdir().unwrap(),
            runs,
            mark: format!("story-{}-{count}", std::process::id()),
            engine,
            child: None,
            program: PathBuf::from(PROGRAM),
            variables: Vec::new(),
            http: free_address(),
            expected: Vec::new(),
        };
        daemon.configure(&daemon.file(plan));
        Some(daemon)
    }

    /// The configuration, with this in the service's table.
    pub fn file(&self, plan: &str) -> String {
        let engine = self.engine.as_ref().map_or("unix:///nowhere/docker.sock", |host| &host.url);
        self.file_with(engine, plan)
    }

    /// The configuration with another engine.
    pub fn file_with(&self, engine: &str, plan: &str) -> String {
        let mark = &self.mark;
        let runs = match self.runs {
            Runs::Processes => format!(
                "command = [{PROGRAM:?}, \"sample-app\", \"--port\", \"{{port}}\"]\n\
                 env = {{ STORY = \"{mark}\" }}\n"
            ),
            Runs::Containers => format!(
                "image = {:?}\nargs = [\"sample-app\", \"--port\", \"3000\"]\nport = 3000\n\
                 labels = {{ story = \"{mark}\" }}\n",
                self.engine.as_ref().map_or("none", sample_image)
            ),
        };
        let (http, socket, state) = (self.http, self.socket(), self.state());
        let probe = if plan.contains("probe =") {
            ""
        } else {
            "probe = { path = \"/up\", interval = \"200ms\", timeout = \"2s\", rise = 1 }\n"
        };
        let host = if plan.contains("host =") { "" } else { "host = \"*\"\n" };
        format!(
            "[listen]\nhttp = \"{http}\"\nworkers = 2\n[admin]\nsocket = {socket:?}\n\
             listen = \"off\"\n[state]\ndir = {state:?}\n[runtime]\ndocker = {engine:?}\n\
             [service.web]\n{host}{runs}{probe}drain = \"5s\"\nstop_grace = \"5s\"\n{plan}"
        )
    }

    /// Writes the configuration.
    pub fn configure(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
    }

    /// Writes the configuration with TLS, by a certificate for `localhost`; where.
    pub fn secure(&self, plan: &str) -> SocketAddr {
        let (cert, key) = (self.home().join("app.pem"), self.home().join("app.key"));
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        fs::write(&cert, pair.cert.pem()).unwrap();
        fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
        let https = free_address();
        let tls = format!("https = \"{https}\"\n[tls]\ncert = {cert:?}\nkey = {key:?}\n[admin]");
        self.configure(&self.file(plan).replacen("[admin]", &tls, 1));
        https
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn config(&self) -> PathBuf {
        self.home().join("switchback.toml")
    }

    pub fn state(&self) -> PathBuf {
        self.home().join("state")
    }

    pub fn socket(&self) -> PathBuf {
        self.home().join("admin.sock")
    }

    /// The engine that runs its containers.
    pub fn engine(&self) -> Option<&DockerHost> {
        self.engine.as_ref()
    }

    /// Says that a line of the log with this in it is no failure of the story.
    pub fn expect_error(&mut self, part: &str) {
        self.expected.push(part.to_owned());
    }

    /// Starts it and waits until it answers.
    pub fn start(&mut self) {
        self.launch();
        let begun = Instant::now();
        while self.read("/healthz").is_none() {
            if let Some(status) = self.child.as_mut().unwrap().try_wait() {
                panic!("the daemon ended ({status}):\n{}", self.log());
            }
            assert!(begun.elapsed() < PATIENCE, "the daemon does not answer:\n{}", self.log());
            std::thread::sleep(LOOK);
        }
    }

    /// Starts it and waits for nothing.
    pub fn launch(&mut self) {
        let log = File::options().create(true).append(true).open(self.home().join("log")).unwrap();
        let mut run = without_variables(Command::new(&self.program));
        run.args(["run", "--log-format", "json", "-c"]).arg(self.config());
        run.envs(self.variables.iter().cloned());
        run.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(Process::Ours(run.spawn().unwrap()));
    }

    /// Starts it where it should refuse to: its exit code and what it said.
    pub fn refuses_to_start(&mut self) -> (i32, String) {
        let before = self.log().len();
        self.launch();
        let status = self.ended();
        (status.code().unwrap_or(-1), self.log()[before..].to_owned())
    }

    /// Kills it, as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill();
        }
    }

    /// Asks it to hand over to a new process, and waits until it has ended and that one serves.
    pub fn hand_over(&mut self) {
        let before = self.log().len();
        self.signal(rustix::process::Signal::USR2);
        let heir = || {
            let log = self.log();
            let (said, _) = log[before..].split_once(" serves; open connections")?;
            let (_, pid) = said.rsplit_once("process ")?;
            rustix::process::Pid::from_raw(pid.parse().ok()?)
        };
        self.until("an heir", || heir().is_some());
        let heir = heir().unwrap();
        let status = self.ended();
        assert!(status.success(), "{status}:\n{}", self.log());
        self.child = Some(Process::Heir(heir));
    }

    /// Asks it to stop, and waits until it has.
    pub fn terminate(&mut self) {
        self.signal(rustix::process::Signal::TERM);
        let status = self.ended();
        assert!(status.success(), "stopped with {status}:\n{}", self.log());
    }

    pub fn pid(&self) -> Option<rustix::process::Pid> {
        self.child.as_ref().map(Process::pid)
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let child = self.child.as_ref().expect("it runs");
        rustix::process::kill_process(child.pid(), signal).unwrap();
    }

    fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        let mut child = self.child.take().expect("it runs");
        loop {
            if let Some(status) = child.try_wait() {
                return status;
            }
            if begun.elapsed() > PATIENCE {
                child.kill();
                panic!("the daemon does not end:\n{}", self.log());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Runs a verb on this daemon.
    pub fn cli(&self, words: &[&str]) -> Said {
        let mut verb = program();
        verb.arg(words[0]).arg("-c").arg(self.config()).args(&words[1..]);
        let output = verb.output().unwrap();
        Said {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Deploys a revision of the sample app with this fault, and follows it to its end.
    pub fn deploy(&self, fault: &str, more: &[&str]) -> Said {
        let env = format!("SAMPLE_FAULT={fault}");
        let mut words = vec!["deploy", "web", "-o", "json", "--env", &env];
        words.extend(more);
        self.cli(&words)
    }

    /// Begins a deploy and waits for a phase of it.
    pub fn deploy_until(&self, fault: &str, more: &[&str], phase: &str) -> Value {
        let mut words = vec!["--detach"];
        words.extend(more);
        let said = self.deploy(fault, &words);
        assert_eq!(said.code, 0, "{said:?}");
        let rollout = said.last()["rollout"].as_u64().unwrap();
        // A step begins when its checkpoint is written; then the weight is there.
        let begun =
            |web: &Value| phase != "baking" || web["weights"]["canary"].as_f64() > Some(0.0);
        self.wait(phase, |web| web["rollout"] == rollout && web["phase"] == phase && begun(web))
    }

    /// Reads from the admin API; nothing when it does not answer with a 200.
    pub fn read(&self, path: &str) -> Option<String> {
        let answer = self.admin("GET", path, "").ok()?;
        (answer.status == 200).then_some(answer.body)
    }

    /// Speaks to the admin API.
    pub fn admin(&self, method: &str, path: &str, body: &str) -> std::io::Result<Answer> {
        let mut connection = Connection::unix(&self.socket(), PATIENCE)?;
        let fields = [("content-type", "application/json"), ("connection", "close")];
        connection.ask(method, path, &fields, body).map(|(answer, _)| answer)
    }

    /// Asks for a change of the service; the status and the problem or answer.
    pub fn post(&self, verb: &str, body: &str) -> (u16, Value) {
        let answer = self.admin("POST", &format!("/api/v1/services/web/{verb}"), body).unwrap();
        (answer.status, serde_json::from_str(&answer.body).unwrap_or(Value::Null))
    }

    /// A service as JSON; null while it is not known.
    pub fn service(&self) -> Value {
        let read = self.read("/api/v1/services/web");
        read.map_or(Value::Null, |body| serde_json::from_str(&body).unwrap())
    }

    /// The record of a rollout.
    pub fn rollout(&self, number: u64) -> Value {
        let read = self.read(&format!("/api/v1/rollouts/{number}"));
        read.map_or(Value::Null, |body| serde_json::from_str(&body).unwrap())
    }

    /// The daemon as JSON.
    pub fn status(&self) -> Value {
        let read = self.read("/api/v1/daemon");
        read.map_or(Value::Null, |body| serde_json::from_str(&body).unwrap())
    }

    /// Waits for a state of the service.
    pub fn wait(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        self.until(what, || {
            last = self.service();
            is(&last)
        });
        last
    }

    /// Waits for anything.
    pub fn until(&self, what: &str, mut is: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is() {
            if begun.elapsed() > PATIENCE {
                panic!("never: {what}\nservice: {:#}\nlog:\n{}", self.service(), self.tail());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Asks the proxy.
    pub fn get(&self, path: &str) -> std::io::Result<Answer> {
        get(self.http, path, &[])
    }

    pub fn metrics(&self) -> String {
        self.read("/metrics").unwrap_or_default()
    }

    /// Everything it launched that is there now: process ids of apps, or ids of containers.
    pub fn running(&self) -> Vec<String> {
        let mut found = match self.runs {
            Runs::Processes => self.apps(),
            Runs::Containers => self.containers(),
        };
        found.sort();
        found
    }

    fn apps(&self) -> Vec<String> {
        let mark = format!("STORY={}\0", self.mark);
        pids().filter(|pid| is_in(&format!("/proc/{pid}/environ"), &mark)).collect()
    }

    /// Processes that are about this daemon: the apps, and those that hold them.
    fn processes(&self) -> Vec<String> {
        let config = self.config().display().to_string();
        let mine = |pid: &String| {
            let line = format!("/proc/{pid}/cmdline");
            is_in(&line, &self.state_text()) || is_in(&line, &config)
        };
        let mut all = self.apps();
        all.extend(pids().filter(mine));
        all
    }

    fn state_text(&self) -> String {
        self.state().display().to_string()
    }

    fn containers(&self) -> Vec<String> {
        let Some(host) = &self.engine else { return Vec::new() };
        let client = host.client();
        let options = ListContainersOptions {
            all: true,
            filters: Some([("label".to_owned(), vec![format!("story={}", self.mark)])].into()),
            ..ListContainersOptions::default()
        };
        let listed = on_a_runtime(async move { client.list_containers(Some(options)).await });
        listed.unwrap().into_iter().filter_map(|container| container.id).collect()
    }

    fn remove_containers(&self) {
        let Some(host) = &self.engine else { return };
        let (client, all) = (host.client(), self.containers());
        on_a_runtime(async move {
            for id in all {
                let options = RemoveContainerOptions { force: true, v: true, link: false };
                let _gone = client.remove_container(&id, Some(options)).await;
            }
        });
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.home().join("log")).unwrap_or_default()
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(80)..].join("\n")
    }

    /// What the log has that it should not have.
    fn complaint(&self) -> Option<String> {
        let log = self.log();
        log.lines()
            .filter(|line| line.contains("panicked at") || line.contains("\"level\":\"ERROR\""))
            .find(|line| !self.expected.iter().any(|part| line.contains(part.as_str())))
            .map(str::to_owned)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            eprintln!("log of {}:\n{}", self.mark, self.tail());
            self.kill();
        } else if self.child.is_some() {
            self.terminate();
        }
        self.remove_containers();
        if let Some(host) = &self.engine {
            let daemon = rapidhash::v3::rapidhash_v3(self.state_text().as_bytes());
            remove_tags(host, &format!("-{daemon:016x}"));
        }
        let begun = Instant::now();
        let mut left = self.processes();
        while !left.is_empty() && !failed && begun.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(LOOK);
            left = self.processes();
        }
        for pid in left.iter().filter_map(|pid| pid.parse().ok()) {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        if !failed {
            assert!(left.is_empty(), "processes were left behind: {left:?}\n{}", self.tail());
            if let Some(line) = self.complaint() {
                panic!("in the log: {line}\n{}", self.tail());
            }
        }
    }
}

/// The program with no variables of ours.
pub fn program() -> Command {
    without_variables(Command::new(PROGRAM))
}

/// A command with no variables of ours.
pub fn without_variables(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("SWITCHBACK_") || name_text == "DOCKER_HOST" {
            command.env_remove(&name);
        }
    }
    command.env("NO_COLOR", "1");
    command
}
