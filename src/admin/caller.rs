//! Who is at the other end of a connection.

use std::net::SocketAddr;

use axum::http::{HeaderMap, HeaderName};

/// The field by which the command line says who sits there: user and host.
pub(super) const BY: HeaderName = HeaderName::from_static("switchback-by");
/// The most bytes of it that are kept.
const MOST: usize = 200;

/// Who is at the other end, as far as the kernel knows. In the extensions of every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caller {
    /// A process on this machine.
    Local {
        /// Its user.
        user: String,
        /// Its id, where the kernel tells.
        pid: Option<i32>,
    },
    /// Somebody at this address.
    Remote(SocketAddr),
    /// The kernel does not know.
    Unknown,
}

impl Caller {
    /// The process at the other end of a Unix socket.
    pub(super) fn local(stream: &tokio::net::UnixStream) -> Self {
        match stream.peer_cred() {
            Ok(peer) => Self::Local { user: user_name(peer.uid()), pid: peer.pid() },
            Err(_) => Self::Unknown,
        }
    }

    /// Who.
    pub(super) fn who(&self) -> String {
        match self {
            Self::Local { user, .. } => user.clone(),
            Self::Remote(_) => "the token's holder".to_owned(),
            Self::Unknown => "somebody".to_owned(),
        }
    }

    /// From where.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Local { pid: Some(pid), .. } => format!("the admin socket, process {pid}"),
            Self::Local { pid: None, .. } | Self::Unknown => "the admin socket".to_owned(),
            Self::Remote(address) => address.to_string(),
        }
    }

    /// Both, with what they say themselves, for a rollout's record.
    pub(super) fn sentence(&self, says: Option<&str>) -> String {
        match (self, says) {
            (Self::Local { user, .. }, Some(says)) if says.split('@').next() == Some(user) => {
                says.to_owned()
            }
            (Self::Local { user, .. }, Some(says)) => format!("{says} (as {user})"),
            (Self::Local { user, .. }, None) => user.clone(),
            (Self::Remote(address), Some(says)) => format!("{says} (from {})", address.ip()),
            (Self::Remote(address), None) => format!("somebody at {}", address.ip()),
            (Self::Unknown, says) => says.unwrap_or("somebody").to_owned(),
        }
    }
}

/// What they say of themselves.
pub(super) fn says(headers: &HeaderMap) -> Option<String> {
    let said = headers.get(BY)?.to_str().ok()?.trim();
    let said: String = said.chars().filter(|c| !c.is_control()).take(MOST).collect();
    (!said.is_empty()).then_some(said)
}

/// A user's name, from the file that every machine has; users of a directory service have a number.
fn user_name(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = users.lines().find_map(|line| {
        let mut parts = line.split(':');
        let name = parts.next()?;
        (parts.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| format!("uid {uid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_the_kernel_knows_stands_beside_what_they_say() {
        assert_eq!(user_name(0), "root");
        assert_eq!(user_name(u32::MAX - 7), "uid 4294967288");
        let root = Caller::Local { user: "root".to_owned(), pid: Some(7) };
        assert_eq!(root.sentence(Some("root@box")), "root@box");
        assert_eq!(root.sentence(Some("ann@box")), "ann@box (as root)");
        assert_eq!(root.place(), "the admin socket, process 7");
        let far = Caller::Remote(([10, 0, 0, 7], 4).into());
        assert_eq!(far.sentence(None), "somebody at 10.0.0.7");
    }
}
