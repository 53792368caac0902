//! Who starts, or holds, the instance in a directory: a file that is locked before a shim is started
//! and that the shim inherits, so that a daemon that dies in between leaves no doubt.
//!
//! ```text
//!   lock ─▶ fork ─▶ exec of the shim ─▶ listen ─▶ the app runs ─▶ record ─▶ leave
//!   held ───────────────────────────────────────────────────────────────▶ free
//! ```
//!
//! Invariants: the lock belongs to the open file (flock(2)), which the forked child has from its first
//! moment and the shim until its last, whatever becomes of the daemon. While it is held, a shim is
//! there or comes; once it is free, none is and none will be.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::runtime::procfs;

const FILE: &str = "lock";

/// Between looks at a lock that somebody holds.
const POLL: Duration = Duration::from_millis(10);

/// What the kernel may take to end a process that was killed, on a machine that is not on its knees.
const DEATH: Duration = Duration::from_secs(2);

/// Locks a directory in which nobody holds the lock. To be handed to the shim, and to nobody else.
///
/// # Errors
/// When the file cannot be made, or somebody holds the lock after all.
pub fn take(dir: &Path) -> io::Result<File> {
    let file = File::options().write(true).create(true).truncate(false).open(dir.join(FILE))?;
    file.try_lock()?;
    Ok(file)
}

/// Whether a shim is there or comes. No, where an older version started it without a lock.
pub fn held(dir: &Path) -> bool {
    let Ok(file) = File::open(dir.join(FILE)) else { return false };
    // Taken by this look, it is free again at its end.
    matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock))
}

/// Waits until nobody holds the lock; who holds it after `patience` is killed. Blocks. False when
/// somebody holds it even then.
pub fn free(dir: &Path, patience: Duration) -> bool {
    let asked = Instant::now();
    while held(dir) {
        if asked.elapsed() >= patience + DEATH {
            return false;
        }
        if asked.elapsed() >= patience {
            kill_holders(&dir.join(FILE));
        }
        std::thread::sleep(POLL);
    }
    true
}

/// Kills every process but this one that has the file open.
fn kill_holders(lock: &Path) {
    let Ok(file) = fs::metadata(lock) else { return };
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    for pid in procfs::pids().filter(|pid| *pid != own) {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let is_it = |descriptor: fs::DirEntry| {
            let path = descriptor.path();
            // By its name first: what else is open may be on a disk that does not answer.
            fs::read_link(&path).is_ok_and(|link| link.file_name().is_some_and(|n| n == FILE))
                && fs::metadata(&path)
                    .is_ok_and(|open| (open.dev(), open.ino()) == (file.dev(), file.ino()))
        };
        if open.into_iter().any(is_it)
            && let Some(pid) = Pid::from_raw(pid)
        {
            let _ended = kill_process(pid, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_child_holds_it_until_its_end() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!held(dir.path()), "nobody made it");
        let lock = take(dir.path()).unwrap();
        assert!(held(dir.path()));
        let mut child = Command::new("sleep").arg("1000").stdin(Stdio::from(lock)).spawn().unwrap();
        assert!(held(dir.path()), "ours is closed, the child's is not");
        assert!(take(dir.path()).is_err());
        assert!(free(dir.path(), Duration::from_millis(50)));
        assert!(!child.wait().unwrap().success(), "killed for holding it");
        assert!(take(dir.path()).is_ok());
    }
}
