//! Launching one instance: its directory, its shim, the first words of both.
//!
//! Invariant: a launch that fails leaves no process, no directory and no reserved port.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::tether::{Tether, bury};
use super::{
    CONNECT_POLL, ProcessRuntime, START_DEADLINE, address, command, ended, id, lock, tail,
};
use crate::model::id::InstanceId;
use crate::model::instance::{Exit, Instance, Ownership};
use crate::model::revision::RevisionSpec;
use crate::model::secret::Secrets;
use crate::runtime::shim::record::{MARKER, Record, Spec};
use crate::runtime::shim::wire::{self, Report};
use crate::runtime::{RuntimeError, files, rank, secrets};

/// How long a new instance is watched for ending at once (a wrong flag, a missing file), so that
/// its launch can say so.
const SETTLE: Duration = Duration::from_millis(50);

/// Bytes of output kept per log file, two files per instance.
const LOG_BYTES: u64 = 1024 * 1024;

/// The directory of an instance's secrets, below its own.
const SECRETS: &str = "secrets";
/// By which variable an instance finds them: systemd's name for the same.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
/// An instance runs as we do; nobody else reads them.
const SECRET: u32 = 0o400;

/// Lines of output that a failed launch carries.
const LAST_LINES: usize = 50;

impl ProcessRuntime {
    pub(super) async fn start(
        &self,
        spec: &RevisionSpec,
        ownership: &Ownership,
    ) -> Result<Instance, RuntimeError> {
        let command = command(spec)?;
        let id = id(ownership);
        let gate = self.gate(&id).await;
        let known = self.tether(&id).await;
        if let Some(leaving) = known.as_ref().filter(|tether| tether.is_stopping()) {
            // What was told to stop is not the answer; what does not stop in time is ended by `make`.
            let _late = timeout(START_DEADLINE, leaving.wait_for(ended)).await;
        }
        let tether = match known {
            Some(tether) if !tether.is_stopping() && !ended(&tether.report()) => tether,
            _ => match self.make(&id, spec, command, ownership).await {
                Ok(tether) => tether,
                Err(error) => {
                    // The failure of the launch is what is told; what stays behind is found by `list`.
                    let _told_by_the_launch =
                        self.forget(&id, &self.instances.join(id.0.as_ref())).await;
                    return Err(error);
                }
            },
        };
        drop(gate);

        let up = tether.wait_for(|report| !matches!(report, Report::Starting));
        match timeout(START_DEADLINE, up).await {
            Err(_) => {
                self.end(&id, Duration::ZERO).await?;
                return Err(RuntimeError::Timeout {
                    what: "starting an instance",
                    after: START_DEADLINE,
                });
            }
            Ok(Report::Starting | Report::Running { .. }) => {
                // Timing out is the good end.
                let _runs = timeout(SETTLE, tether.wait_for(ended)).await;
            }
            Ok(Report::Ended(_) | Report::Failed(_)) => {}
        }
        let last = match tether.report() {
            Report::Starting | Report::Running { .. } => {
                return Ok(Instance { id, address: address(tether.port) });
            }
            last => last,
        };
        let _gate = self.gate(&id).await;
        let logs = tail(&tether.dir, LAST_LINES).await.unwrap_or_default();
        self.forget(&id, &tether.dir).await?;
        Err(match last {
            Report::Failed(failure) if failure.command => RuntimeError::NotFound(failure.reason),
            Report::Failed(failure) => RuntimeError::Failed(failure.reason),
            Report::Ended(exit) => RuntimeError::Ended { exit, logs, hint: None },
            Report::Starting | Report::Running { .. } => {
                RuntimeError::Ended { exit: Exit::default(), logs, hint: None }
            }
        })
    }

    /// Makes the directory and starts the shim. Only through its gate.
    async fn make(
        &self,
        id: &InstanceId,
        spec: &RevisionSpec,
        command: &[String],
        ownership: &Ownership,
    ) -> Result<Arc<Tether>, RuntimeError> {
        let dir = self.instances.join(id.0.as_ref());
        if dir.is_dir() {
            // Of an instance that ended, or whose shim did.
            bury(&dir).await;
        }
        self.forget(id, &dir).await?;
        let port = self.reserve_port(id)?;
        let mut env = spec.env.clone();
        let secrets = (!spec.secrets.is_empty()).then(|| dir.join(SECRETS));
        if let Some(dir) = &secrets {
            env.insert(CREDENTIALS.to_owned(), dir.display().to_string());
        }
        let wanted = spec.secrets.clone();
        let spec = Spec {
            ownership: ownership.clone(),
            command: command.to_vec(),
            port,
            env,
            no_new_privileges: spec.container.hardening.no_new_privileges,
            stop_grace: spec.stop_grace,
            orphan_grace: self.orphan_grace,
            log_bytes: LOG_BYTES,
            files: files::before(),
        };
        let unwritable = |error: io::Error| {
            RuntimeError::Failed(format!(
                "{} cannot be written ({error}): make room or give the right to, or set [state] dir to another place",
                dir.display()
            ))
        };
        make_dir(&dir).map_err(unwritable)?;
        let lock = lock::take(&dir).map_err(unwritable)?;
        spec.write(&dir).map_err(unwritable)?;
        if let Some(within) = &secrets {
            let apart = self.secrets.as_ref().map(|base| base.join(id.0.as_ref()));
            give_secrets(within, apart.as_deref(), &wanted)?;
        }
        let log = fs::File::create(dir.join("shim.log")).map_err(unwritable)?;
        let output = log.try_clone().map_err(unwritable)?;

        let mut shim = tokio::process::Command::new(&self.program);
        shim.args(["instance-shim".as_ref(), "--dir".as_ref(), dir.as_os_str()])
            .process_group(0)
            // For a daemon that finds it between its fork and its first word.
            .env(MARKER, &dir)
            // Ours is closed with this statement.
            .stdin(Stdio::from(lock))
            .stdout(output)
            .stderr(log);
        let mut shim = rank::spawn(shim).await.map_err(|error| {
            RuntimeError::Failed(format!("{} cannot be started: {error}", self.program.display()))
        })?;

        let deadline = Instant::now() + START_DEADLINE;
        let connected = loop {
            if let Ok(stream) = wire::connect(&dir).await {
                break Some(stream);
            }
            let left = shim.try_wait().map_or(true, |status| status.is_some());
            if left || Instant::now() > deadline {
                break None;
            }
            sleep(CONNECT_POLL).await;
        };
        if connected.is_none() {
            // It is gone, or has had its time.
            let _gone = shim.start_kill();
        }
        // A child must be waited for, or it stays a zombie while we live.
        self.tasks.spawn(async move { shim.wait().await });
        if let Some(stream) = connected {
            return Ok(self.tie(id, dir, port, stream));
        }
        // It left before we came: the record says why, or else what it complained of.
        let failure = Record::read(&dir).ok().and_then(|record| record.failure);
        let said = fs::read_to_string(dir.join("shim.log")).unwrap_or_default();
        let exit = bury(&dir).await;
        let logs = tail(&dir, LAST_LINES).await.unwrap_or_default();
        Err(match failure {
            Some(failure) if failure.command => RuntimeError::NotFound(failure.reason),
            Some(failure) => RuntimeError::Failed(failure.reason),
            None if exit == Exit::default() => RuntimeError::Failed(format!(
                "the process that watches over the instance ended at once: {}",
                said.lines().last().unwrap_or("it said nothing")
            )),
            None => RuntimeError::Ended { exit, logs, hint: None },
        })
    }
}

/// Others must not reach the socket or read the output.
fn make_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Writes an instance's secrets into its directory, or apart from it, with a link from there.
fn give_secrets(within: &Path, apart: Option<&Path>, wanted: &Secrets) -> Result<(), RuntimeError> {
    let Some(apart) = apart else { return secrets::write(within, wanted, SECRET) };
    let unwritable = |error: io::Error| {
        let apart = apart.display();
        RuntimeError::Failed(format!("{apart} cannot be written ({error}): see [state] secrets"))
    };
    let above = apart.parent().unwrap_or(apart);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(above).map_err(unwritable)?;
    // Of one that had this name before.
    if let Err(error) = fs::remove_dir_all(apart)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(unwritable(error));
    }
    secrets::write(apart, wanted, SECRET)?;
    std::os::unix::fs::symlink(apart, within).map_err(unwritable)
}

/// Removes what an instance's directory only has a link to.
pub(super) fn forget_secrets(dir: &Path) {
    if let Ok(apart) = fs::read_link(dir.join(SECRETS)) {
        let _gone = fs::remove_dir_all(apart);
    }
}
