//! Child processes: kept to some cores, ended with their owner, and what they cost so far.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;

/// Which cores a process is kept to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cores {
    /// The one of the proxies.
    Proxy,
    /// All others.
    Load,
    /// None in particular.
    All,
}

impl Cores {
    /// As `taskset` reads it.
    pub fn list(self) -> String {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        match self {
            _ if count < 2 => "0".to_owned(),
            Self::Proxy => "0".to_owned(),
            Self::Load => format!("1-{}", count - 1),
            Self::All => format!("0-{}", count - 1),
        }
    }
}

/// A command that is kept to cores and may open as many files as the system allows.
pub fn pinned(cores: Cores, program: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -n \"$(ulimit -Hn)\"; exec taskset -c \"$@\"", "sh"])
        .arg(cores.list())
        .arg(program);
    command
}

/// What a process has used of the processor so far.
#[derive(Debug, Clone, Default)]
pub struct Cpu {
    /// Nanoseconds by thread.
    threads: HashMap<u32, u64>,
    /// Ticks in its own code and in the kernel, by which time is divided.
    user: f64,
    system: f64,
}

/// What a process used of the processor in some time.
#[derive(Debug, Clone, Copy)]
pub struct Used {
    /// Seconds in its own code.
    pub user: f64,
    /// Seconds in all.
    pub total: f64,
}

impl Cpu {
    /// What was used since `earlier`.
    pub fn since(&self, earlier: &Self) -> Used {
        let of = |(thread, now): (&u32, &u64)| {
            now.saturating_sub(earlier.threads.get(thread).copied().unwrap_or(0))
        };
        let total = self.threads.iter().map(of).sum::<u64>() as f64 / 1e9;
        // Ticks are too coarse to be counted, but not to be compared with one another.
        let (user, system) = (self.user - earlier.user, self.system - earlier.system);
        let ticks = user + system;
        Used { user: if ticks > 0.0 { total * user / ticks } else { 0.0 }, total }
    }
}

/// A running process; dropped, it is ended.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// For error messages.
    name: String,
}

impl Process {
    /// Starts a process whose words go to a file.
    pub fn start(mut command: Command, name: &str, log: &Path) -> Result<Self> {
        let fail = |error: std::io::Error| format!("{name} cannot be started: {error}");
        let file = File::create(log).map_err(fail)?;
        let again = file.try_clone().map_err(fail)?;
        command.stdin(Stdio::null()).stdout(file).stderr(again);
        let child = command.spawn().map_err(fail)?;
        Ok(Self { child, name: name.to_owned() })
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it listens on a port.
    pub fn await_port(&mut self, port: u16, patience: Duration, log: &Path) -> Result<()> {
        let began = Instant::now();
        loop {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(());
            }
            let ended = self.child.try_wait().ok().flatten().is_some();
            if ended || began.elapsed() > patience {
                let said = std::fs::read_to_string(log).unwrap_or_default();
                return Err(format!("{} does not listen on {port}:\n{said}", self.name));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it and its children have used of the processor.
    pub fn cpu(&self) -> Result<Cpu> {
        let mut cpu = Cpu::default();
        for id in tree(self.id()) {
            let Ok(stat) = std::fs::read_to_string(format!("/proc/{id}/stat")) else { continue };
            // The name may hold anything; what follows its bracket are numbers. User and system
            // time are fields 14 and 15 (proc(5)), so 11 and 12 behind the name.
            let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
            let mut ticks = fields.split_whitespace().skip(11).map(str::parse::<f64>);
            let (Some(Ok(user)), Some(Ok(system))) = (ticks.next(), ticks.next()) else {
                return Err(format!("/proc/{id}/stat is not understood"));
            };
            cpu.user += user;
            cpu.system += system;
            for task in
                std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten()
            {
                let thread = task.file_name().to_str().and_then(|name| name.parse().ok());
                let said = std::fs::read_to_string(task.path().join("schedstat")).ok();
                let nanos = said.and_then(|said| said.split(' ').next()?.parse().ok());
                if let (Some(thread), Some(nanos)) = (thread, nanos) {
                    cpu.threads.insert(thread, nanos);
                }
            }
        }
        Ok(cpu)
    }

    /// Bytes of memory that it and its children have, of every kind: code, heap, what is shared.
    pub fn resident(&self) -> Result<f64> {
        self.memory(&["VmRSS:"])
    }

    /// Bytes of memory that it and its children wrote: heap, stacks, and what they share.
    pub fn written(&self) -> Result<f64> {
        self.memory(&["RssAnon:", "RssShmem:"])
    }

    fn memory(&self, kinds: &[&str]) -> Result<f64> {
        let mut sum = 0.0;
        for id in tree(self.id()) {
            let Ok(status) = std::fs::read_to_string(format!("/proc/{id}/status")) else {
                continue;
            };
            for line in status.lines() {
                let value = kinds.iter().find_map(|kind| line.strip_prefix(kind));
                let kilobytes = value.and_then(|value| value.split_whitespace().next());
                sum += kilobytes.and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0) * 1024.0;
            }
        }
        if sum == 0.0 { Err(format!("{} has ended", self.name)) } else { Ok(sum) }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let id = i32::try_from(self.id()).ok().and_then(rustix::process::Pid::from_raw);
        let id = id.ok_or("a process without a number")?;
        let sent = rustix::process::kill_process(id, signal);
        sent.map_err(|error| format!("{} takes no signal: {error}", self.name))
    }

    /// Asks it to end, and waits.
    pub fn stop(mut self, patience: Duration) {
        self.end(patience);
    }

    fn end(&mut self, patience: Duration) {
        let _ = self.signal(rustix::process::Signal::TERM);
        let began = Instant::now();
        while began.elapsed() < patience {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.end(Duration::from_secs(3));
        }
    }
}

/// A process and all below it.
fn tree(id: u32) -> Vec<u32> {
    let mut all = vec![id];
    let mut at = 0;
    while let Some(parent) = all.get(at).copied() {
        let mut text = String::new();
        for task in
            std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten()
        {
            if let Ok(mut file) = File::open(task.path().join("children")) {
                let _ = file.read_to_string(&mut text);
                text.push(' ');
            }
        }
        all.extend(text.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        at += 1;
    }
    all
}
