//! Accepts connections and speaks HTTP/1.1 on them.
//!
//! Knows nothing of what is served. The proxy's file descriptors are shared with this server, so
//! connections are limited, and one that sends no request head in time is closed.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::caller::Caller;

/// Connections at a time on one listener: a dashboard holds six per browser tab, so this is some
/// forty tabs, and a small part of the usual 1,024 descriptors.
const CONNECTIONS: usize = 256;
/// How long a request head may take, and how long a connection may idle between requests.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// How long requests under way have to finish after the shutdown began: an ask may be waiting for a
/// driver that is already gone.
const FINISH_WITHIN: Duration = Duration::from_secs(5);
/// The pause after a failed accept (no descriptors left), as nginx's `accept_mutex_delay`.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// What connections come from.
pub(super) trait Listen: Send + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// The next connection.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Caller)>> + Send;
}

impl Listen for TcpListener {
    type Stream = tokio::net::TcpStream;
    async fn accept(&self) -> io::Result<(Self::Stream, Caller)> {
        let (stream, address) = Self::accept(self).await?;
        stream.set_nodelay(true)?;
        Ok((stream, Caller::Remote(address)))
    }
}

impl Listen for UnixListener {
    type Stream = tokio::net::UnixStream;
    async fn accept(&self) -> io::Result<(Self::Stream, Caller)> {
        let (stream, _) = Self::accept(self).await?;
        let caller = Caller::local(&stream);
        Ok((stream, caller))
    }
}

/// Serves one listener.
pub(super) struct Acceptor {
    router: Router,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    permits: Arc<Semaphore>,
}

impl Acceptor {
    /// Serves `router` until `shutdown`; connections are tracked in `tasks`.
    pub(super) fn new(router: Router, tasks: TaskTracker, shutdown: CancellationToken) -> Self {
        Self { router, tasks, shutdown, permits: Arc::new(Semaphore::new(CONNECTIONS)) }
    }

    /// Accepts until the shutdown.
    pub(super) async fn run<L: Listen>(self, listener: L) {
        loop {
            let next = async {
                // The semaphore is never closed.
                let permit = self.permits.clone().acquire_owned().await.ok()?;
                match listener.accept().await {
                    Ok(accepted) => Some((accepted, permit)),
                    Err(error) => {
                        tracing::warn!(%error, "the admin API could not accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        None
                    }
                }
            };
            let accepted = tokio::select! {
                () = self.shutdown.cancelled() => return,
                accepted = next => accepted,
            };
            let Some(((stream, caller), permit)) = accepted else { continue };
            let router = self.router.clone();
            let shutdown = self.shutdown.clone();
            self.tasks.spawn(async move {
                converse(stream, router, caller, shutdown).await;
                drop(permit);
            });
        }
    }
}

/// Serves one connection to its end.
async fn converse<S>(stream: S, router: Router, caller: Caller, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let routes = TowerToHyperService::new(router);
    // Not as a layer, which would wrap every route anew for each connection.
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(caller.clone());
        routes.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                tracing::debug!(%error, "an admin connection ended");
            }
        }
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(FINISH_WITHIN, connection).await;
        }
    }
}
