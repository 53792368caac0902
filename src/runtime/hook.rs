//! Commands that run to their end: hooks and smoke tests, on the daemon's host.
//!
//! A command gets a process group of its own, no input, and a limit of time. When the limit passes,
//! or whoever waits for it goes away, the whole group is ended, so that a hook which started others
//! leaves none of them behind.

use std::collections::{BTreeMap, VecDeque};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;

use super::rank;
use crate::model::instance::Exit;

/// Lines of output that are kept of a command.
pub const LINES: usize = 50;
/// Characters that are kept of a line.
const LINE: usize = 1_000;
/// How long output is read after the command has ended: what it started may hold it open.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Why it failed, in a sentence; none when it went well.
    pub failure: Option<String>,
    /// The last lines of its output, oldest first.
    pub lines: Vec<String>,
}

impl Ran {
    /// What became of a command that ended like this.
    #[must_use]
    pub fn ended(exit: &Exit, lines: Vec<String>) -> Self {
        let failure = (exit.code != Some(0)).then(|| match lines.last() {
            Some(last) => format!("it {exit}: {last}"),
            None => format!("it {exit}"),
        });
        Self { failure, lines }
    }

    /// What became of a command that took too long.
    #[must_use]
    pub fn late(limit: Duration, lines: Vec<String>) -> Self {
        let last = lines.last().map(|last| format!("; it last said: {last}")).unwrap_or_default();
        let failure = format!("it did not end within {limit:?} and was ended{last}");
        Self { failure: Some(failure), lines }
    }

    fn never(failure: String) -> Self {
        Self { failure: Some(failure), lines: Vec::new() }
    }
}

/// Ends a command's whole group when dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Nobody left is fine.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Runs a command on this host with these variables beside the daemon's own.
///
/// Cancel safety: dropped midway, the command and what it started are ended.
pub async fn run_here(command: &[String], env: &BTreeMap<String, String>, limit: Duration) -> Ran {
    let program = match super::process::program::locate(command, None) {
        Ok(program) => program,
        Err(sentence) => return Ran::never(sentence),
    };
    let mut child = Command::new(program);
    child
        .args(command.iter().skip(1))
        .envs(env)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = match rank::spawn(child).await {
        Ok(child) => child,
        Err(error) => return Ran::never(format!("it cannot be started: {error}")),
    };
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let _group = Group(pid);
    let lines = std::sync::Arc::new(std::sync::Mutex::new(VecDeque::new()));
    let streams = (child.stdout.take(), child.stderr.take());
    let reading = async {
        tokio::join!(keep(streams.0, &lines), keep(streams.1, &lines));
    };
    let mut reading = std::pin::pin!(reading);
    let mut read = false;
    let ending = async {
        loop {
            tokio::select! {
                ended = child.wait() => break ended,
                () = &mut reading, if !read => read = true,
            }
        }
    };
    let ended = tokio::time::timeout(limit, ending).await;
    if !read && matches!(ended, Ok(Ok(_))) {
        let _ = tokio::time::timeout(LAST_WORDS, &mut reading).await;
    }
    let kept = lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let kept: Vec<String> = kept.iter().cloned().collect();
    match ended {
        Err(_) => Ran::late(limit, kept),
        Ok(Err(error)) => Ran::never(format!("it cannot be waited for: {error}")),
        Ok(Ok(status)) => {
            use std::os::unix::process::ExitStatusExt;
            let exit = Exit { code: status.code(), signal: status.signal(), ..Exit::default() };
            Ran::ended(&exit, kept)
        }
    }
}

async fn keep(stream: Option<impl AsyncRead + Unpin>, lines: &std::sync::Mutex<VecDeque<String>>) {
    let Some(stream) = stream else { return };
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while let Ok(1..) = reader.read_until(b'\n', &mut line).await {
        let text: String = String::from_utf8_lossy(&line).trim_end().chars().take(LINE).collect();
        line.clear();
        let mut lines = lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str, limit: Duration) -> Ran {
        let command = ["/bin/sh", "-c", script].map(str::to_owned);
        let env = BTreeMap::from([("ANSWER".to_owned(), "42".to_owned())]);
        run_here(&command, &env, limit).await
    }

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_command_is_told_by_its_end_and_its_last_lines() {
        let ran = sh("echo one; echo $ANSWER >&2", LONG).await;
        assert_eq!(ran.failure, None);
        assert_eq!(ran.lines.len(), 2);
        assert!(ran.lines.contains(&"42".to_owned()));
        let ran = sh("echo no such table; exit 3", LONG).await;
        let failure = ran.failure.expect("a failure");
        assert!(failure.contains("code 3") && failure.ends_with("no such table"), "{failure}");
        let ran = sh("seq 1 1000", LONG).await;
        assert_eq!((ran.lines.len(), ran.lines[LINES - 1].as_str()), (LINES, "1000"));
        let ran = run_here(&["/no/such/hook".to_owned()], &BTreeMap::new(), LONG).await;
        assert!(ran.failure.expect("a failure").contains("there is no program"));
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_ended_with_all_that_it_started() {
        let home = tempfile::tempdir().expect("a directory");
        let file = home.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; echo waiting; wait", file.display());
        let ran = sh(&script, Duration::from_secs(1)).await;
        let failure = ran.failure.expect("a failure");
        assert!(failure.contains("did not end within 1s") && failure.contains("waiting"));
        let pid = std::fs::read_to_string(file).expect("a pid");
        let stat = format!("/proc/{}/stat", pid.trim());
        let gone = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
        for _ in 0..500 {
            if gone() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("what the hook started still runs");
    }
}
