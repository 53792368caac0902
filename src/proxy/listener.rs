//! Listening sockets: one per address and worker, joined by `SO_REUSEPORT`.
//!
//! A port that another program holds is refused, although `SO_REUSEPORT` would let us join a program
//! of the same user: before an address is taken, it is tried without.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel may queue for a worker. nginx has 511; a burst of new clients is
/// cheaper to queue than to refuse.
const BACKLOG: i32 = 1024;

/// Why an address cannot be listened on, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else is there.
    #[error("port {} is in use by another program ({address}); stop it, or choose another address", address.port())]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// A low port needs a privilege.
    #[error("port {} needs root or CAP_NET_BIND_SERVICE ({address}); grant it with `setcap cap_net_bind_service=+ep`, or use a port from 1024 on", address.port())]
    Denied {
        /// The address.
        address: SocketAddr,
    },
    /// No interface of this machine has it.
    #[error(
        "{address} is not an address of this machine; use 0.0.0.0 or [::] for all of its addresses"
    )]
    NotOurs {
        /// The address.
        address: SocketAddr,
    },
    /// Something else.
    #[error("cannot listen on {address}: {source}")]
    Other {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Addresses for https, and nothing to serve them with.
    #[error("https is to be served on {0}, but no certificate is given")]
    NoCertificates(SocketAddr),
    /// The UDP port that belongs to one of https.
    #[error("HTTP/3 needs the UDP port beside https: {0}; or write http3 = false")]
    Udp(Box<BindError>),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] super::tls::TlsError),
    /// A thread could not be started.
    #[error("cannot start a worker thread: {0}")]
    Thread(io::Error),
}

impl BindError {
    /// Why an address could not be taken.
    pub fn of(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address },
            io::ErrorKind::PermissionDenied => Self::Denied { address },
            io::ErrorKind::AddrNotAvailable => Self::NotOurs { address },
            _ => Self::Other { address, source },
        }
    }
}

/// A listening socket that a former process hands over, with what the kernel has queued for it.
#[derive(Debug)]
pub struct Held {
    /// Where, in the words of the settings.
    pub wanted: SocketAddr,
    /// Whether TLS is spoken on it.
    pub secure: bool,
    /// The socket.
    pub socket: Shared,
}

/// A socket that two processes may have.
#[derive(Debug)]
pub enum Shared {
    /// On which connections are accepted.
    Tcp(TcpListener),
    /// On which HTTP/3 is spoken.
    Udp(UdpSocket),
}

impl Shared {
    /// Another handle on it.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(socket) => socket.try_clone().map(Self::Tcp),
            Self::Udp(socket) => socket.try_clone().map(Self::Udp),
        }
    }
}

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Udp(socket) => socket.as_fd(),
        }
    }
}

/// Listening sockets for so many workers, at least one for each, and the address that they share.
/// Those that are `held` are used, all of them, because the kernel may have connections queued for
/// each. With port 0 the first finds a port, and the others join it.
pub fn listen(
    address: SocketAddr,
    workers: usize,
    held: Vec<TcpListener>,
) -> Result<(SocketAddr, Vec<TcpListener>), BindError> {
    let explain = |source| BindError::of(address, source);
    if let Some(first) = held.first() {
        let bound = first.local_addr().map_err(explain)?;
        let mut listeners = held;
        while listeners.len() < workers {
            let socket = socket(bound, true).map_err(explain)?;
            socket.listen(BACKLOG).map_err(explain)?;
            listeners.push(TcpListener::from(socket));
        }
        listeners.iter().for_each(hurry);
        return Ok((bound, listeners));
    }
    if address.port() != 0 {
        // Fails where a socket with SO_REUSEPORT would join in. Closed again at once.
        socket(address, false).map_err(explain)?;
    }
    let first = socket(address, true).map_err(explain)?;
    let bound = first.local_addr().map_err(explain)?;
    let bound = bound.as_socket().unwrap_or(address);
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(socket(bound, true).map_err(explain)?);
    }
    let mut listeners = Vec::with_capacity(sockets.len());
    for socket in sockets {
        socket.listen(BACKLOG).map_err(explain)?;
        listeners.push(TcpListener::from(socket));
    }
    listeners.iter().for_each(hurry);
    Ok((bound, listeners))
}

/// Small answers are sent at once by connections of this listener: Linux hands the option on, and one
/// call less is made for each.
fn hurry(listener: &TcpListener) {
    // A refusal costs a call per connection: whoever accepts looks whether it was handed on.
    let _ = socket2::SockRef::from(listener).set_tcp_nodelay(true);
}

fn socket(address: SocketAddr, join: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(join)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[test]
    fn workers_share_a_port() {
        let (bound, listeners) = listen(any(), 3, Vec::new()).expect("a port");
        assert_ne!(bound.port(), 0);
        assert_eq!(listeners.len(), 3);
        for listener in &listeners {
            assert_eq!(listener.local_addr().expect("an address"), bound);
        }
    }

    #[test]
    fn connections_have_from_their_listener_that_small_answers_do_not_wait() {
        let (bound, listeners) = listen(any(), 1, Vec::new()).expect("a port");
        let held = TcpListener::bind(any()).expect("a port");
        let (other, adopted) = listen(any(), 1, vec![held]).expect("the same port");
        for (address, listener) in [(bound, &listeners[0]), (other, &adopted[0])] {
            listener.set_nonblocking(false).expect("set");
            let _client = std::net::TcpStream::connect(address).expect("a connection");
            let (accepted, _) = listener.accept().expect("a connection");
            assert!(accepted.nodelay().expect("an option"));
        }
    }

    #[test]
    fn a_port_in_use_is_refused_even_from_our_own_kind() {
        let (bound, listeners) = listen(any(), 1, Vec::new()).expect("a port");
        let error = listen(bound, 1, Vec::new()).expect_err("taken");
        assert!(matches!(error, BindError::InUse { .. }), "{error}");
        assert!(error.to_string().contains("in use by another program"));
        drop(listeners);
        listen(bound, 1, Vec::new()).expect("free again");
    }

    #[test]
    fn sockets_that_are_handed_over_are_used_and_joined() {
        let (bound, held) = listen(any(), 1, Vec::new()).expect("a port");
        let (same, listeners) = listen(any(), 3, held).expect("the same port");
        assert_eq!((same, listeners.len()), (bound, 3));
        let (_, held) = listen(any(), 3, Vec::new()).expect("a port");
        assert_eq!(listen(any(), 1, held).expect("all of them").1.len(), 3);
    }

    #[test]
    fn an_address_of_another_machine_is_named() {
        let address = SocketAddr::from(([192, 0, 2, 1], 0));
        let error = listen(address, 1, Vec::new()).expect_err("not ours");
        assert!(error.to_string().contains("192.0.2.1"), "{error}");
    }
}
