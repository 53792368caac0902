//! The operator's window: the HTTP API, its events, `/metrics` and the health endpoints.
//!
//! Serves what the driver publishes and passes on what a person asks; decides nothing and keeps no
//! state of its own. Listens on a Unix socket (mode 0660) and, where configured, on TCP.
//!
//! Invariants: a change is a POST; every error is `application/problem+json`; an address that other
//! machines can reach is served only with a token; nothing that a client does grows without bound
//! (connections, bodies, headers and the memory of events are limited).

mod api;
mod audit;
mod body;
mod caller;
mod events;
mod extract;
#[cfg(test)]
pub(crate) mod fake;
mod gates;
mod guard;
mod health;
mod keeping;
mod links;
mod metrics;
mod openapi;
pub mod problem;
mod reading;
mod server;
mod socket;
#[cfg(test)]
mod tests;
pub mod together;
mod work;

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::controller::archivist::Archivist;
use crate::controller::handle::Handle;
use crate::notify::Notifier;
use crate::telemetry::audit::Audit;
use crate::telemetry::metrics::Rare;
use crate::telemetry::traffic::Traffic;

use guard::Guard;
use server::Acceptor;
use socket::OwnedSocket;

/// Where the API listens, and who may use it.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The path of the Unix socket. Whoever may open it may do everything.
    pub socket: Option<PathBuf>,
    /// TCP addresses.
    pub listen: Vec<SocketAddr>,
    /// The bearer token that TCP clients must show. Needed on any address but loopback; where it is
    /// set, loopback asks for it too.
    pub token: Option<String>,
    /// The counters of rare events, to stand on `/metrics`.
    pub rare: Option<Rare>,
    /// Who archives checkpoints.
    pub archivist: Option<Archivist>,
    /// Who tells people what happens.
    pub notifier: Option<Notifier>,
    /// Where changes are written down.
    pub audit: Option<Audit>,
}

pub use links::Tested;

/// Why the API cannot be served. Each display says what to change.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// A daemon answers on the socket.
    #[error(
        "another daemon answers on {}: stop it first, or give this one a socket of its own ([admin] socket)",
        .0.display()
    )]
    InUse(PathBuf),
    /// There is something else at the socket's path.
    #[error("{} exists and is not a socket: remove it, or choose another path ([admin] socket)", .0.display())]
    NotASocket(PathBuf),
    /// The socket cannot be made.
    #[error("cannot make the admin socket {}: {source}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The address cannot be bound.
    #[error("cannot listen on {address} for the admin API: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// An address that other machines can reach, and no token.
    #[error(
        "the admin API may not listen on {0} without a token, because other machines can reach it: \
         set [admin] token, or listen on 127.0.0.1"
    )]
    NoToken(SocketAddr),
    /// A token that is no secret.
    #[error(
        "the admin token is empty: write a long random one, such as `openssl rand -hex 32` prints"
    )]
    EmptyToken,
}

/// The API, being served.
#[derive(Debug)]
pub struct Admin {
    listen: Vec<SocketAddr>,
    tasks: TaskTracker,
    socket: Option<OwnedSocket>,
    kept: Held,
}

/// Listening sockets of the API, to be handed from one process to the next.
#[derive(Debug, Default)]
pub struct Held {
    /// By TCP, with the address in the words of the settings.
    pub tcp: Vec<(SocketAddr, std::net::TcpListener)>,
    /// By a Unix socket at this path.
    pub unix: Option<(PathBuf, std::os::unix::net::UnixListener)>,
}

impl Admin {
    /// The first TCP address that was bound; its port is real where 0 was asked for.
    #[must_use]
    pub fn listen(&self) -> Option<SocketAddr> {
        self.listen.first().copied()
    }

    /// Waits until all connections have ended after `shutdown`, then removes the socket.
    pub async fn closed(self) {
        drop(self.kept);
        self.tasks.wait().await;
        drop(self.socket);
    }

    /// The listening sockets, for another process to accept on.
    #[must_use]
    pub fn held(&self) -> &Held {
        &self.kept
    }

    /// Waits until all connections have ended after `shutdown`, and gives away the listening sockets:
    /// who connects meanwhile waits in the kernel's queue.
    pub async fn left(self) -> Held {
        self.tasks.wait().await;
        if let Some(socket) = self.socket {
            socket.leave();
        }
        self.kept
    }
}

/// Begins to serve. Returns when every address is bound; serving goes on until `shutdown`. Sockets
/// that are `held` for an address of the settings are used; others are closed.
pub async fn serve(
    handle: Handle,
    settings: Settings,
    traffic: Arc<Traffic>,
    shutdown: CancellationToken,
    mut held: Held,
) -> Result<Admin, AdminError> {
    if settings.token.as_deref().is_some_and(|token| token.trim().is_empty()) {
        return Err(AdminError::EmptyToken);
    }
    let (mut tcp, mut kept) = (Vec::new(), Held::default());
    for address in settings.listen {
        if !address.ip().is_loopback() && settings.token.is_none() {
            return Err(AdminError::NoToken(address));
        }
        let failed = |source| AdminError::Listen { address, source };
        let ours = held.tcp.iter().position(|(wanted, _)| *wanted == address);
        let listener = match ours.map(|at| held.tcp.swap_remove(at)) {
            Some((_, held)) => tokio::net::TcpListener::from_std(held).map_err(failed)?,
            None => tokio::net::TcpListener::bind(address).await.map_err(failed)?,
        };
        let bound = listener.local_addr().map_err(failed)?;
        let again = listener.as_fd().try_clone_to_owned().map_err(failed)?;
        kept.tcp.push((address, again.into()));
        tcp.push((listener, bound));
    }
    let unix = match &settings.socket {
        None => None,
        Some(path) => {
            let failed = |source| AdminError::Socket { path: path.clone(), source };
            let ours = held.unix.take_if(|(held, _)| held == path);
            let (listener, owned) = match ours {
                Some((_, listener)) => (
                    tokio::net::UnixListener::from_std(listener).map_err(failed)?,
                    socket::OwnedSocket::adopt(path).map_err(failed)?,
                ),
                None => socket::bind(path).await?,
            };
            let again = listener.as_fd().try_clone_to_owned().map_err(failed)?;
            kept.unix = Some((path.clone(), again.into()));
            Some((listener, owned))
        }
    };
    if let Some((path, _)) = held.unix {
        // The former process left it to us, and nobody will answer there.
        let _gone = std::fs::remove_file(path);
    }

    let archivist = settings.archivist;
    let state = Arc::new(api::Shared {
        handle,
        archivist,
        traffic,
        rare: settings.rare,
        notifier: settings.notifier,
        audit: settings.audit,
        shutdown: shutdown.clone(),
    });
    let tasks = TaskTracker::new();
    let mut admin = Admin { listen: Vec::new(), tasks: tasks.clone(), socket: None, kept };
    for (listener, bound) in tcp {
        let router = api::router(state.clone(), Guard::tcp(settings.token.as_deref()));
        let acceptor = Acceptor::new(router, tasks.clone(), shutdown.clone());
        tasks.spawn(acceptor.run(listener));
        admin.listen.push(bound);
    }
    if let Some((listener, owned)) = unix {
        let acceptor = Acceptor::new(api::router(state, Guard::Open), tasks.clone(), shutdown);
        tasks.spawn(acceptor.run(listener));
        admin.socket = Some(owned);
    }
    tasks.close();
    Ok(admin)
}
