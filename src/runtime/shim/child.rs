//! The instance's first process: started, watched, signalled with its group, reaped.
//!
//! Does not decide when to stop. Invariant: the process is reaped only by [`Child::reap`], so until
//! then its pid and its group's number belong to it.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::model::instance::Exit;
use crate::runtime::procfs::Identity;

use super::output;
use super::record::{Failure, MARKER, Spec};

/// What a closed pipe may take to be written to the log; somebody outside the group may hold it open.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

/// Between looks at whether the log is complete.
const OUTPUT_POLL: Duration = Duration::from_millis(5);

/// The first process of an instance.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    identity: Identity,
    ended: Option<oneshot::Receiver<()>>,
    capture: JoinHandle<()>,
}

impl Child {
    /// Starts the command of a spec in a process group of its own.
    pub fn start(dir: &Path, spec: &Spec) -> Result<Self, Failure> {
        let machine = |what: &str, error: &io::Error| Failure {
            command: false,
            reason: format!("{what}: {error}"),
        };
        let (reader, writer) =
            io::pipe().map_err(|error| machine("no pipe for the output", &error))?;
        let second =
            writer.try_clone().map_err(|error| machine("no pipe for the output", &error))?;
        let mut command = command(dir, spec)?;
        command.stdin(Stdio::null()).stdout(writer).stderr(second);
        if spec.no_new_privileges {
            // Of this thread and all that it starts; there is no way back, and nothing else to start.
            rustix::thread::set_no_new_privs(true)
                .map_err(|error| machine("new privileges cannot be forbidden", &error.into()))?;
        }
        let mut process = command.spawn().map_err(|error| refused(&spec.command, &error))?;
        // The command holds the writing ends; while it lives, the pipe would never close.
        drop(command);

        let pid = i32::try_from(process.id()).unwrap_or_default();
        let watched = || -> io::Result<_> {
            let identity = Identity::of(pid)?;
            let (tell, ended) = oneshot::channel();
            thread::Builder::new().name("child".to_owned()).spawn(move || watch(pid, tell))?;
            let (dir, bytes) = (dir.to_owned(), spec.log_bytes);
            let capture = thread::Builder::new()
                .name("output".to_owned())
                .spawn(move || output::capture(reader, &dir, bytes))?;
            Ok((identity, ended, capture))
        };
        match watched() {
            Ok((identity, ended, capture)) => {
                Ok(Self { process, identity, ended: Some(ended), capture })
            }
            Err(error) => {
                let _ended = process.kill();
                let _reaped = process.wait();
                Err(machine("the instance cannot be watched", &error))
            }
        }
    }

    /// Who it is.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns when it has ended and waits to be reaped.
    ///
    /// Cancel safety: may be dropped and called again.
    pub async fn ended(&mut self) {
        if let Some(ended) = &mut self.ended {
            // An error means that the watching thread is gone: nobody can tell any more.
            let _told = ended.await;
            self.ended = None;
        }
    }

    /// Signals the whole group.
    pub fn signal_group(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.identity.pid) {
            let _empty = kill_process_group(pid, signal);
        }
    }

    /// Reaps it and says how it ended, after its last output is in the log.
    pub async fn reap(mut self) -> io::Result<Exit> {
        let status = self.process.wait()?;
        let patience = Instant::now() + LAST_OUTPUT;
        while !self.capture.is_finished() && Instant::now() < patience {
            sleep(OUTPUT_POLL).await;
        }
        Ok(Exit { code: status.code(), signal: status.signal(), ..Exit::default() })
    }
}

/// Waits for the end of a child without reaping it.
fn watch(pid: i32, tell: oneshot::Sender<()>) {
    if let Some(pid) = Pid::from_raw(pid) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while matches!(waitid(WaitId::Pid(pid), options), Err(rustix::io::Errno::INTR)) {}
    }
    let _shim_left = tell.send(());
}

fn command(dir: &Path, spec: &Spec) -> Result<Command, Failure> {
    let port = spec.port.to_string();
    let mut words = spec.command.iter().map(|word| word.replace("{port}", &port));
    let Some(program) = words.next() else {
        return Err(Failure { command: true, reason: "the command is empty".to_owned() });
    };
    let mut command = Command::new(program);
    command.args(words).process_group(0);
    // Our own settings, a token among them, are not the app's.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SWITCHBACK_") {
            command.env_remove(name);
        }
    }
    command.env("PORT", &port).env(MARKER, dir);
    for (name, value) in &spec.env {
        command.env(name, value.replace("{port}", &port));
    }
    Ok(command)
}

/// Says why a command was not started, and what to change.
fn refused(command: &[String], error: &io::Error) -> Failure {
    let program = command.first().map_or("", String::as_str);
    let (at_fault, reason) = match error.kind() {
        io::ErrorKind::NotFound => (
            true,
            format!(
                "there is no program {program:?} (or the interpreter it names): give its full path, or put it on PATH"
            ),
        ),
        io::ErrorKind::PermissionDenied => (
            true,
            format!(
                "{program:?} may not be executed: chmod +x it, and check who may read its directory"
            ),
        ),
        // ENOEXEC has no kind of its own.
        _ if error.raw_os_error() == Some(8) => (
            true,
            format!(
                "{program:?} is not a program for this machine, or a script whose first line is not #!"
            ),
        ),
        _ => (false, format!("{program:?} cannot be started: {error}")),
    };
    Failure { command: at_fault, reason }
}
