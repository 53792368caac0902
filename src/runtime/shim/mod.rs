//! The shim: a small process between the daemon and one instance of runtime `process`.
//!
//! It outlives the daemon, so that a daemon that comes back finds the same processes; and it ends
//! the instance when no daemon comes back, so that nothing is left behind. It knows nothing of
//! rollouts; it does not restart what ended.
//!
//! ```text
//!            ┌──────── lease (a connection) ────────┐
//!   daemon ──┤ stop{grace} ▶          ◀ running, ended ├── shim ── process group of the instance
//!            └── record.json, output.log, output.log.1 ┘
//!
//!   started ─▶ running ─▶ [stopping: SIGTERM, after the grace SIGKILL] ─▶ ended: record, report, leave
//!                  └ no lease for orphan_grace ─▶ stopping
//! ```
//!
//! Invariants: the instance leads its own process group; the group is signalled only while its
//! leader is not yet reaped, so the number is still ours; when the shim leaves, every process of the
//! group has been killed, and how the instance ended is in the record.

pub mod output;
pub mod record;
pub mod wire;

mod child;
mod lease;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::Signal;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::TaskTracker;

use self::child::Child;
use self::record::{Record, Spec};
use self::wire::{Command, Report};
use super::procfs::{self, Identity};
use crate::model::instance::Exit;
use crate::runtime::files;

/// Commands that wait to be obeyed; there is only `stop`, and the nearest deadline wins.
const COMMANDS: usize = 8;

/// Between looks at whether a stopping group is empty: a fraction of what people notice.
const GROUP_POLL: Duration = Duration::from_millis(20);

/// What a connected daemon gets to read the last report before the shim leaves; the record tells
/// the same to one that is slower.
const FAREWELL: Duration = Duration::from_secs(1);

/// Runs the shim of an instance's directory until the instance has ended.
#[must_use]
pub fn main(dir: &Path) -> ExitCode {
    let serve = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(serve(dir))
    };
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("instance-shim {}: {error}", dir.display());
            ExitCode::FAILURE
        }
    }
}

async fn serve(dir: &Path) -> io::Result<()> {
    let spec = Spec::read(dir)?;
    if let Some(files) = spec.files {
        files::lower(files);
    }
    let shim = Identity::of(i32::try_from(std::process::id()).map_err(io::Error::other)?)?;
    let mut record = Record { shim, child: None, exit: None, failure: None };
    record.write(dir)?;
    let listener = wire::listen(dir)?;

    let (reports, _) = watch::channel(Report::Starting);
    let (leases, _) = watch::channel(0);
    let (orders, commands) = mpsc::channel(COMMANDS);
    let tasks = TaskTracker::new();
    let door = tasks.spawn(open(listener, reports.clone(), leases.clone(), orders, tasks.clone()));

    match Child::start(dir, &spec) {
        Err(failure) => {
            record.failure = Some(failure.clone());
            note(record.write(dir));
            reports.send_replace(Report::Failed(failure));
        }
        Ok(child) => {
            record.child = Some(child.identity().clone());
            reports.send_replace(Report::Running { child: child.identity().clone() });
            // The record only serves a daemon that finds the shim dead: worth a line, not an end.
            note(record.write(dir));
            let exit = attend(child, dir, &spec, leases.subscribe(), commands).await?;
            record.exit = Some(exit.clone());
            // Recorded first: who reads the report may look at the record at once.
            note(record.write(dir));
            reports.send_replace(Report::Ended(exit));
        }
    }
    wire::unlink(dir);
    door.abort();
    tasks.close();
    let _slow = timeout(FAREWELL, tasks.wait()).await;
    Ok(())
}

fn note(written: io::Result<()>) {
    if let Err(error) = written {
        eprintln!("the record cannot be written: {error}");
    }
}

/// Accepts daemons; ends with the listener.
async fn open(
    listener: UnixListener,
    reports: watch::Sender<Report>,
    leases: watch::Sender<usize>,
    orders: mpsc::Sender<Command>,
    tasks: TaskTracker,
) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let lease = lease::Lease::begin(leases.clone());
                tasks.spawn(lease::hold(stream, lease, reports.subscribe(), orders.clone()));
            }
            // Out of descriptors, for one: try again when some are back.
            Err(_) => sleep(GROUP_POLL).await,
        }
    }
}

/// Stays with the instance until it has ended, and ends it when told to, or when left alone.
async fn attend(
    mut child: Child,
    dir: &Path,
    spec: &Spec,
    mut leases: watch::Receiver<usize>,
    mut commands: mpsc::Receiver<Command>,
) -> io::Result<Exit> {
    // A terminal's Ctrl-C and hang-up are the daemon's affair; received here, they are ignored.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut orphaned_at = Some(Instant::now() + spec.orphan_grace);
    let mut kill_at: Option<Instant> = None;

    loop {
        let mut grace = None;
        tokio::select! {
            () = child.ended() => break,
            Some(Command::Stop { grace: asked }) = commands.recv() => grace = Some(asked),
            _ = terminate.recv() => grace = Some(spec.stop_grace),
            () = until(orphaned_at) => {
                eprintln!("no daemon for {:?}: stopping the instance", spec.orphan_grace);
                grace = Some(spec.stop_grace);
            }
            Ok(()) = leases.changed() => {
                let alone = *leases.borrow_and_update() == 0 && kill_at.is_none();
                orphaned_at = alone.then(|| Instant::now() + spec.orphan_grace);
            }
            () = until(kill_at) => {
                child.signal_group(Signal::KILL);
                // Fork bombs: whoever was born during the kill is caught by the next one.
                kill_at = Some(Instant::now() + GROUP_POLL);
            }
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
        if let Some(grace) = grace {
            child.signal_group(Signal::TERM);
            let asked = Instant::now() + grace;
            kill_at = Some(kill_at.map_or(asked, |set| set.min(asked)));
            orphaned_at = None;
        }
    }

    // The leader is a zombie until reaped below, so the group's number cannot become another's.
    // A wrapper script dies of the SIGTERM that its app still obeys: the others keep their grace.
    while let Some(at) = kill_at
        && Instant::now() < at
        && procfs::group_lives(child.identity().pid)
    {
        sleep(GROUP_POLL).await;
    }
    child.signal_group(Signal::KILL);
    procfs::kill_marked(&record::marker(dir));
    child.reap().await
}

/// Waits until then; for ever without a time.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
