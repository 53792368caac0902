//! What a daemon and a shim say to each other: JSON, one value a line, over `shim.sock`.
//!
//! The connection itself is the daemon's lease: a shim that nobody is connected to stops its
//! instance after a grace. Adding a field or a variant is allowed; a shim of an older binary goes on
//! running under a newer daemon.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};

use crate::model::instance::Exit;
use crate::model::revision::duration_millis;
use crate::runtime::procfs::Identity;

use super::record::Failure;

/// No line is longer; a failure's sentence holds at most a path or two.
pub const LINE_BYTES: usize = 32 * 1024;

/// sun_path of unix(7) is 108 bytes with the closing NUL.
const PATH_BYTES: usize = 107;

const SOCKET: &str = "shim.sock";

/// What a shim reports: its state when a daemon connects, and each change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Report {
    /// The command is being started.
    Starting,
    /// It runs.
    Running {
        /// Its first process.
        child: Identity,
    },
    /// It could not be started.
    Failed(Failure),
    /// It ended.
    Ended(Exit),
}

/// What a daemon asks of a shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "command")]
pub enum Command {
    /// SIGTERM to the group now, SIGKILL after the grace.
    Stop {
        /// The grace.
        #[serde(with = "duration_millis")]
        grace: Duration,
    },
}

/// Listens in an instance's directory.
///
/// # Errors
/// As bind(2).
pub fn listen(dir: &Path) -> io::Result<UnixListener> {
    let (path, _open) = address(dir)?;
    match std::fs::remove_file(dir.join(SOCKET)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => UnixListener::bind(path),
    }
}

/// Connects to the shim of an instance's directory.
///
/// Cancel safety: dropping it leaves no connection.
///
/// # Errors
/// As connect(2); `ConnectionRefused` or `NotFound` when no shim listens.
pub async fn connect(dir: &Path) -> io::Result<UnixStream> {
    let (path, _open) = address(dir)?;
    UnixStream::connect(path).await
}

/// Removes the socket, so that nobody connects to a shim that is about to leave.
pub fn unlink(dir: &Path) {
    let _gone = std::fs::remove_file(dir.join(SOCKET));
}

/// One value as a line.
///
/// # Errors
/// None in practice: reports and commands are plain data.
pub fn line<T: Serialize>(value: &T) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

/// A socket's path must fit 107 bytes, and a state directory may be deeper. Then the path goes
/// through the open directory, which must stay open meanwhile.
fn address(dir: &Path) -> io::Result<(PathBuf, Option<File>)> {
    let plain = dir.join(SOCKET);
    if plain.as_os_str().len() <= PATH_BYTES {
        return Ok((plain, None));
    }
    let open = File::open(dir)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", open.as_raw_fd()));
    Ok((short, Some(open)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_deep_directory_still_has_a_socket() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("d".repeat(200));
        std::fs::create_dir(&deep).unwrap();
        let listener = listen(&deep).unwrap();
        let (connected, accepted) = tokio::join!(connect(&deep), listener.accept());
        connected.unwrap();
        accepted.unwrap();
    }

    #[test]
    fn the_lines_are_stable() {
        let stop = Command::Stop { grace: Duration::from_millis(1500) };
        assert_eq!(serde_json::to_string(&stop).unwrap(), r#"{"command":"stop","grace":1500}"#);
        let ended = Report::Ended(Exit { code: Some(3), ..Exit::default() });
        assert_eq!(
            serde_json::to_string(&ended).unwrap(),
            r#"{"state":"ended","code":3,"signal":null,"out_of_memory":false}"#
        );
    }
}
