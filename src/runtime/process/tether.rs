//! The daemon's end of the line to one shim: it holds the lease, keeps the last report, carries
//! commands, and finds out what happened when the line breaks.
//!
//! Dropping a tether lets go of the instance without stopping it. Invariant: after a last report
//! (`Ended`, `Failed`) no process of the instance is left.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::task::TaskTracker;

use super::lock;
use crate::model::id::InstanceId;
use crate::model::instance::Exit;
use crate::runtime::RuntimeEvent;
use crate::runtime::procfs::{Identity, kill_marked};
use crate::runtime::shim::record::{Record, marker};
use crate::runtime::shim::wire::{self, Command, LINE_BYTES, Report};

/// Commands on their way; there is only `stop`.
const COMMANDS: usize = 4;

/// How long a shim whose line broke may take to accept again or to write how the instance ended; it
/// does either within milliseconds, on a machine that is not on its knees.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between looks at the record of such a shim.
const POLL: Duration = Duration::from_millis(10);

/// The line to one shim.
#[derive(Debug)]
pub struct Tether {
    /// The instance's directory.
    pub dir: PathBuf,
    /// The port it was told to listen on.
    pub port: u16,
    reports: watch::Receiver<Report>,
    commands: mpsc::Sender<Command>,
    stopping: AtomicBool,
}

impl Tether {
    /// Takes the lease on a connected shim.
    pub fn new(
        id: InstanceId,
        dir: PathBuf,
        port: u16,
        stream: UnixStream,
        events: broadcast::Sender<RuntimeEvent>,
        tasks: &TaskTracker,
    ) -> Self {
        let (tell, reports) = watch::channel(Report::Starting);
        let (commands, orders) = mpsc::channel(COMMANDS);
        let hold = hold(dir.clone(), stream, tell.clone(), orders);
        tasks.spawn(async move {
            let Some(last) = hold.await else { return };
            tell.send_replace(last.clone());
            if let Report::Ended(exit) = last {
                // Nobody watches: nobody has to know.
                let _unwatched = events.send(RuntimeEvent::Ended { instance: id, exit });
            }
        });
        Self { dir, port, reports, commands, stopping: AtomicBool::new(false) }
    }

    /// The last report.
    pub fn report(&self) -> Report {
        self.reports.borrow().clone()
    }

    /// Waits for a report that is good enough.
    ///
    /// Cancel safety: may be dropped at any time.
    pub async fn wait_for(&self, good: impl FnMut(&Report) -> bool) -> Report {
        let mut reports = self.reports.clone();
        match reports.wait_for(good).await {
            Ok(report) => report.clone(),
            // The task is gone without a last word: the async runtime is shutting down.
            Err(_) => Report::Ended(Exit::default()),
        }
    }

    /// Whether it was told to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Asks the shim to stop its instance. Nothing happens when it already ended.
    ///
    /// Cancel safety: dropped midway, the command may not have been sent.
    pub async fn stop(&self, grace: Duration) {
        self.stopping.store(true, Ordering::Relaxed);
        let _ended = self.commands.send(Command::Stop { grace }).await;
    }
}

/// Holds the line until the last report; none when the tether was dropped.
async fn hold(
    dir: PathBuf,
    mut stream: UnixStream,
    tell: watch::Sender<Report>,
    mut orders: mpsc::Receiver<Command>,
) -> Option<Report> {
    loop {
        let (reading, mut writing) = stream.split();
        let mut lines = FramedRead::new(reading, LinesCodec::new_with_max_length(LINE_BYTES));
        loop {
            tokio::select! {
                line = lines.next() => {
                    let Some(Ok(line)) = line else { break };
                    match serde_json::from_str(&line) {
                        Ok(last @ (Report::Ended(_) | Report::Failed(_))) => return Some(last),
                        Ok(report) => {
                            tell.send_replace(report);
                        }
                        // A newer shim may say more than we know.
                        Err(error) => tracing::debug!(%error, "a report is not understood"),
                    }
                }
                order = orders.recv() => {
                    let line = wire::line(&order?).ok()?;
                    if writing.write_all(&line).await.is_err() {
                        break;
                    }
                }
            }
        }
        match broken(&dir).await {
            Ok(again) => stream = again,
            Err(last) => return Some(last),
        }
    }
}

/// The line broke without a last report: a new line, or the last report after all.
async fn broken(dir: &Path) -> Result<UnixStream, Report> {
    let patience = Instant::now() + PATIENCE;
    while Instant::now() < patience {
        if let Ok(stream) = wire::connect(dir).await {
            return Ok(stream);
        }
        match Record::read(dir) {
            Ok(Record { exit: Some(exit), .. }) => return Err(Report::Ended(exit)),
            Ok(Record { failure: Some(failure), .. }) => return Err(Report::Failed(failure)),
            Ok(record) if !record.shim.runs() => break,
            _ => sleep(POLL).await,
        }
    }
    Err(Report::Ended(bury(dir).await))
}

/// Ends what is left of an instance whose shim vanished, hangs, or never came so far; records it.
/// Says how it ended, as far as anybody can tell. No shim of it is left, and none comes.
///
/// Cancel safety: runs to its end in the background when dropped.
pub async fn bury(dir: &Path) -> Exit {
    let dir = dir.to_owned();
    let burial = move || -> io::Result<Exit> {
        let marker = marker(&dir);
        let before = Record::read(&dir).ok();
        if let Some(exit) = before.as_ref().and_then(|record| record.exit.clone()) {
            return Ok(exit);
        }
        if let Some(record) = &before {
            record.shim.signal(Signal::KILL);
        }
        if !lock::free(&dir, Duration::ZERO) {
            tracing::warn!(dir = %dir.display(), "a shim does not end, even killed");
        }
        // Read again: until its death the shim may have written whom it started, or the end.
        let Ok(mut record) = Record::read(&dir) else {
            end_marked(&marker);
            return Ok(Exit::default());
        };
        if let Some(exit) = record.exit {
            return Ok(exit);
        }
        record.shim.signal(Signal::KILL);
        let killed = record.child.as_ref().is_some_and(Identity::runs);
        if let Some(child) = &record.child {
            child.signal_group(Signal::KILL);
        }
        end_marked(&marker);
        // SIGKILL takes effect when the kernel gets to it.
        let patience = std::time::Instant::now() + PATIENCE;
        while record.child.as_ref().is_some_and(Identity::runs)
            && std::time::Instant::now() < patience
        {
            std::thread::sleep(POLL);
        }
        let signal = killed.then_some(Signal::KILL.as_raw());
        let exit = Exit { signal, ..Exit::default() };
        record.exit = Some(exit.clone());
        record.write(&dir)?;
        Ok(exit)
    };
    match tokio::task::spawn_blocking(burial).await {
        Ok(Ok(exit)) => exit,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the end of an instance cannot be recorded");
            Exit::default()
        }
        Err(_) => Exit::default(),
    }
}

/// Kills the processes of an instance, twice: one that just becomes another program shows no
/// environment for a moment.
fn end_marked(marker: &str) {
    kill_marked(marker);
    std::thread::sleep(POLL);
    kill_marked(marker);
}
