//! An app that somebody else runs: the sample app on a port of its own, ended with its story.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::daemon::{Daemon, PATIENCE, Runs, free_address, program};

/// The app.
#[derive(Debug)]
pub struct App {
    child: Child,
    pub address: SocketAddr,
}

impl App {
    /// It listens when this returns.
    pub fn begin(name: &str, fault: &str) -> Self {
        let address = free_address();
        let mut run = program();
        run.args(["sample-app", "--port", &address.port().to_string()]);
        run.env("SAMPLE_NAME", name).env("SAMPLE_FAULT", fault);
        let child = run.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let app = Self { child, address };
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(begun.elapsed() < PATIENCE, "{name} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        app
    }

    /// Whether it still runs: nobody but us may end it.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// The configuration of a daemon whose service is at addresses that somebody else runs.
pub fn file_over(daemon: &Daemon, addresses: &[SocketAddr], plan: &str) -> String {
    let addresses: Vec<String> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    let endpoints = format!("endpoints = [{}]", addresses.join(", "));
    let file = daemon.file("");
    // What is said of programs means nothing here, and nothing may be said twice.
    let drain = if plan.contains("drain =") { "drain =" } else { "stop_grace =" };
    let probe = if plan.contains("probe =") { "probe =" } else { "stop_grace =" };
    let means_nothing = |line: &&str| {
        !["env =", "stop_grace =", drain, probe].iter().any(|key| line.starts_with(key))
    };
    let lines = file.lines().filter(means_nothing);
    let lines = lines.map(|line| if line.starts_with("command =") { &*endpoints } else { line });
    let lines: Vec<&str> = lines.collect();
    format!("{}\n{plan}", lines.join("\n"))
}

/// A daemon over addresses that somebody else runs; the first revision serves when this returns.
pub fn over(addresses: &[SocketAddr], plan: &str) -> Daemon {
    let mut daemon = Daemon::configured(Runs::Processes, plan).unwrap();
    daemon.configure(&file_over(&daemon, addresses, plan));
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    daemon.until("the first answer", || daemon.get("/").is_ok_and(|a| a.status == 200));
    daemon
}
