//! The operator's window: the HTTP API, its events, `/metrics` and the health endpoints.
//!
//! Serves what the driver publishes and passes on what a person asks; decides nothing and keeps no
//! state of its own. Listens on a Unix socket (mode 0660) and, where configured, on TCP.
//!
//! Invariants: a change is a POST; every error is `application/problem+json`; an address that other
//! machines can reach is served only with a token; nothing that a client does grows without bound
//! (connections, bodies, headers and the memory of events are limited).

mod api;
mod body;
mod events;
#[cfg(test)]
pub(crate) mod fake;
mod guard;
mod health;
mod keeping;
mod metrics;
mod openapi;
pub mod problem;
mod server;
mod socket;
#[cfg(test)]
mod tests;
mod work;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::controller::archivist::Archivist;
use crate::controller::handle::Handle;
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
}

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
}

impl Admin {
    /// The first TCP address that was bound; its port is real where 0 was asked for.
    #[must_use]
    pub fn listen(&self) -> Option<SocketAddr> {
        self.listen.first().copied()
    }

    /// Waits until all connections have ended after `shutdown`, then removes the socket.
    pub async fn closed(self) {
        self.tasks.wait().await;
        drop(self.socket);
    }
}

/// Begins to serve. Returns when every address is bound; serving goes on until `shutdown`.
pub async fn serve(
    handle: Handle,
    settings: Settings,
    traffic: Arc<Traffic>,
    shutdown: CancellationToken,
) -> Result<Admin, AdminError> {
    if settings.token.as_deref().is_some_and(|token| token.trim().is_empty()) {
        return Err(AdminError::EmptyToken);
    }
    let mut tcp = Vec::new();
    for address in settings.listen {
        if !address.ip().is_loopback() && settings.token.is_none() {
            return Err(AdminError::NoToken(address));
        }
        let failed = |source| AdminError::Listen { address, source };
        let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        tcp.push((listener, bound));
    }
    let unix = match &settings.socket {
        None => None,
        Some(path) => Some(socket::bind(path).await?),
    };

    let archivist = settings.archivist;
    let state = api::AppState {
        handle,
        archivist,
        traffic,
        rare: settings.rare,
        shutdown: shutdown.clone(),
    };
    let tasks = TaskTracker::new();
    let mut admin = Admin { listen: Vec::new(), tasks: tasks.clone(), socket: None };
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
