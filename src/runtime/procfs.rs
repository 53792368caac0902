//! What the kernel says about processes, read from `/proc`.
//!
//! Holds the rules that keep a signal from hitting the wrong process: a pid alone is never enough,
//! because the kernel gives it to somebody else later. Starts nothing and remembers nothing.
//!
//! Invariant: a process is only signalled by pid after its [`Identity`], or the marker in its
//! environment, was found to be the expected one.

use std::fs;
use std::io;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde::{Deserialize, Serialize};

/// A process that cannot be mistaken for another one: pids return, the triple does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Process id.
    pub pid: i32,
    /// When it was started, in clock ticks since the machine booted.
    pub start: u64,
    /// Which boot of the machine.
    pub boot: String,
}

impl Identity {
    /// The identity of a process that runs now (or is a zombie).
    ///
    /// # Errors
    /// When there is no such process, or `/proc` cannot be read.
    pub fn of(pid: i32) -> io::Result<Self> {
        let stat = Stat::read(pid)?;
        Ok(Self { pid, start: stat.start, boot: boot()? })
    }

    /// Whether this very process still runs. A zombie does not run.
    #[must_use]
    pub fn runs(&self) -> bool {
        let same = |stat: Stat| stat.start == self.start && !stat.ended();
        Stat::read(self.pid).is_ok_and(same) && boot().is_ok_and(|boot| boot == self.boot)
    }

    /// Sends a signal to this very process; nothing when it has ended.
    pub fn signal(&self, signal: Signal) {
        if self.runs()
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            // It may end between the look and the signal; then there is nobody to signal.
            let _ended = kill_process(pid, signal);
        }
    }

    /// Sends a signal to the group that this very process leads; nothing when it has ended.
    pub fn signal_group(&self, signal: Signal) {
        if self.runs()
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            let _ended = kill_process_group(pid, signal);
        }
    }
}

/// Whether anybody but zombies is left in a process group.
#[must_use]
pub fn group_lives(group: i32) -> bool {
    pids().any(|pid| Stat::read(pid).is_ok_and(|stat| stat.group == group && !stat.ended()))
}

/// Kills every process whose environment has exactly the entry `marker` (`NAME=value`).
///
/// Catches descendants that left the process group. A process that replaced its environment, or
/// one of another user, is not seen.
pub fn kill_marked(marker: &str) {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    for pid in pids().filter(|pid| *pid != own) {
        let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { continue };
        if environment.split(|byte| *byte == 0).any(|entry| entry == marker.as_bytes())
            && let Some(pid) = Pid::from_raw(pid)
        {
            let _ended = kill_process(pid, Signal::KILL);
        }
    }
}

/// Every pid there is now.
pub fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The process group of a process.
#[must_use]
pub fn group_of(pid: i32) -> Option<i32> {
    Stat::read(pid).ok().map(|stat| stat.group)
}

/// Clock ticks that a process of this group, and those of its children that were waited for, had of the
/// processors.
#[must_use]
pub fn ticks_of(pid: i32, group: i32) -> Option<u64> {
    Stat::read(pid).ok().filter(|stat| stat.group == group).map(|stat| stat.ticks)
}

/// The fields of `/proc/PID/stat` that we need.
struct Stat {
    state: u8,
    group: i32,
    /// 14 to 17: of its own, in user and kernel mode, and of its children.
    ticks: u64,
    start: u64,
}

impl Stat {
    fn read(pid: i32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Self::parse(&text)
            .ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is not as expected")))
    }

    /// proc_pid_stat(5): the second field is the name in parentheses and may hold anything, so
    /// fields are counted from the last `)`: 3 state, 4 parent, 5 group, … 14 to 17 ticks, … 22 start.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let group = fields.nth(1)?.parse().ok()?;
        let mut ticks = 0_u64;
        for field in fields.by_ref().skip(8).take(4) {
            // Those of the children are signed, and never negative.
            ticks = ticks.saturating_add(field.parse().unwrap_or(0));
        }
        let start = fields.nth(4)?.parse().ok()?;
        Some(Self { state, group, ticks, start })
    }

    /// Z is a zombie; X is dead.
    const fn ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_name_with_parentheses() {
        let text = "42 (a) b (c)) S 1 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.state, stat.group, stat.start), (b'S', 42, 987_654));
        assert_eq!(stat.ticks, 5 + 6 + 7 + 8);
    }

    #[test]
    fn a_reused_pid_is_somebody_else() {
        let me = Identity::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.runs());
        assert!(!Identity { start: me.start + 1, ..me.clone() }.runs());
        assert!(!Identity { boot: "another".to_owned(), ..me }.runs());
    }
}
