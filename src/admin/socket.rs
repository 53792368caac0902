//! The Unix socket: made with its rights, never stolen from a living daemon, removed at the end.
//!
//! Does not serve. Invariant: the path never shows a socket that is open to more than its owner and
//! group, because the socket gets its mode under another name and is then renamed into place.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use super::AdminError;

/// Owner and group may speak to the daemon, nobody else: who may, may deploy.
const SOCKET_MODE: u32 = 0o660;

/// A socket that this process made. Removes it when dropped, unless another has taken its place.
#[derive(Debug)]
pub(super) struct OwnedSocket {
    path: PathBuf,
    /// Device and inode, by which it is known again.
    identity: (u64, u64),
}

impl Drop for OwnedSocket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // A socket left behind is found stale at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl OwnedSocket {
    /// A socket that stands at this path and that a former process hands over.
    pub(super) fn adopt(path: &Path) -> io::Result<Self> {
        Ok(Self { identity: identity(path)?, path: path.to_owned() })
    }

    /// Leaves the socket where it is, to another process.
    pub(super) fn leave(mut self) {
        // Nothing is removed at no path.
        self.path = PathBuf::new();
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Makes the socket, and the directory in which it stands. What a dead daemon left is replaced.
pub(super) async fn bind(path: &Path) -> Result<(UnixListener, OwnedSocket), AdminError> {
    let failed = |source| AdminError::Socket { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                std::fs::create_dir_all(parent).map_err(failed)?;
            }
        }
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(AdminError::NotASocket(path.to_owned()));
        }
        Ok(_) => match UnixStream::connect(path).await {
            Ok(_) => return Err(AdminError::InUse(path.to_owned())),
            // Nobody listens: the daemon that made it is dead.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(failed(error)),
        },
    }
    let mut unready = path.as_os_str().to_owned();
    unready.push(".new");
    let unready = PathBuf::from(unready);
    match std::fs::remove_file(&unready) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&unready).map_err(failed)?;
    std::fs::set_permissions(&unready, Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
    std::fs::rename(&unready, path).map_err(failed)?;
    let identity = identity(path).map_err(failed)?;
    Ok((listener, OwnedSocket { path: path.to_owned(), identity }))
}
