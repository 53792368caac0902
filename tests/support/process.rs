//! The daemon's process: one that we started, or the heir of that one, which is nobody's child here.
//! And what this machine has: processes, and addresses that are free.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::process::{Pid, Signal, kill_process};

/// A process.
#[derive(Debug)]
pub enum Process {
    Ours(Child),
    Heir(Pid),
}

impl Process {
    pub fn pid(&self) -> Pid {
        match self {
            Self::Ours(child) => Pid::from_child(child),
            Self::Heir(pid) => *pid,
        }
    }

    /// How it ended, if it has; of an heir only that it has.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        match self {
            Self::Ours(child) => child.try_wait().unwrap(),
            Self::Heir(pid) => {
                let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
                // A zombie has ended, whether or not anybody reaps it.
                let lives = |stat: &str| {
                    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z"))
                };
                stat.ok().is_none_or(|stat| !lives(&stat)).then(ExitStatus::default)
            }
        }
    }

    /// Kills it and waits until it is dead.
    pub fn kill(&mut self) {
        let _gone = kill_process(self.pid(), Signal::KILL);
        while self.try_wait().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

/// An address of loopback that is free now and that nobody is given by chance: below the range of
/// the kernel and below that of the runtime.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let first = (std::process::id() % 500) as u16 * 20;
        let port = 11_000 + (first + next) % 10_000;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

pub fn pids() -> impl Iterator<Item = String> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
}

pub fn is_in(path: &str, text: &str) -> bool {
    let bytes = fs::read(path).unwrap_or_default();
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}
