//! The control plane: state, driver and admin API, opened and ended as one, apart from the proxy,
//! which serves on while they change hands.
//!
//! Invariant: the driver and whatever it started run on a runtime of their own. Ended by
//! [`Control::let_go`], none of it goes on, as if the daemon had died; what was launched goes on.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{OpenError, Read, reload, runtimes};
use crate::admin;
use crate::certificates::keeper::{self, Times};
use crate::config::{Config, FileText, Service as ServiceConfig};
use crate::controller::archivist::Archivist;
use crate::controller::closing::Leave;
use crate::controller::driver::{Driver, Parts};
use crate::controller::handle::Handle;
use crate::proxy;
use crate::proxy::tls::Certificates;
use crate::routing::live::Live;
use crate::store::redb::RedbStore;
use crate::store::writer::Writer;
use crate::store::{Store as _, StoreError};
use crate::telemetry::metrics::Rare;
use crate::telemetry::traffic::Traffic;

/// How long a locked state is waited for, and how often it is tried: a fork becomes its program within
/// milliseconds, on a busy machine within some hundred.
const LOCKED: Duration = Duration::from_secs(3);
const LOCKED_LOOK: Duration = Duration::from_millis(20);

/// Lists of containers that may wait: each holds all, so the last one counts.
const LABELLED: usize = 4;

/// What a control plane is built on, and built on again.
pub struct Ground {
    pub config: Config,
    pub read: Arc<Read>,
    /// What the proxy serves TLS with: the same over all control planes of this process.
    pub certificates: OnceLock<Arc<Certificates>>,
    pub program: PathBuf,
    pub live: Live,
    pub traffic: Arc<Traffic>,
    pub workers: usize,
    pub rare: Option<Rare>,
    pub alone: CancellationToken,
    /// The configuration as it was last read, for checkpoints.
    pub text: Arc<Mutex<FileText>>,
}

/// A control plane that has read the state and routes by it, and does nothing yet.
pub struct Prepared {
    driver: Driver,
    handle: Handle,
    store: std::thread::JoinHandle<()>,
    shutdown: CancellationToken,
    archivist: Archivist,
}

/// A running control plane.
pub struct Control {
    /// How the driver is spoken to.
    pub handle: Handle,
    pub admin: admin::Admin,
    runtime: Background,
    driver: JoinHandle<Driver>,
    admin_stop: CancellationToken,
    shutdown: CancellationToken,
    store: std::thread::JoinHandle<()>,
}

/// A runtime that may be dropped anywhere, with all that runs on it.
struct Background(Option<tokio::runtime::Runtime>);

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Ground {
    /// Opens the state and routes to what it names.
    pub async fn prepare(&self, services: Vec<ServiceConfig>) -> Result<Prepared, OpenError> {
        let dir = self.config.state.dir.clone();
        let mut store = open_store(&dir).await?;
        let mut everything = store.load()?;
        let (writer, store) = Writer::start(Box::new(store))
            .map_err(|source| OpenError::System { what: "the store's thread", source })?;
        let shutdown = CancellationToken::new();
        let (runtimes, images) = runtimes(&self.config, self.program.clone())?;
        let archivist = Archivist::new(
            &self.config.state.checkpoints,
            runtimes.clone(),
            Arc::clone(&images),
            Arc::clone(&self.text),
        );
        let (containers, labelled) = if self.config.runtime.labels {
            let (changes, labelled) = tokio::sync::mpsc::channel(LABELLED);
            // What was known of them is in the store: better a moment later than without them. An
            // engine that is not there yet is followed until it is.
            let containers = images.labelled().await.unwrap_or_default();
            images.follow_labelled(changes);
            (containers, Some(labelled))
        } else {
            (Vec::new(), None)
        };
        let listen = &self.config.listen;
        let certificates = match &self.config.tls {
            None => None,
            Some(_) => Some(keeper::start(keeper::Parts {
                config: self.config.clone(),
                listens: (!listen.http.is_empty(), !listen.https.is_empty()),
                writer: writer.clone(),
                certificates: std::mem::take(&mut everything.certificates),
                account: everything.account.take(),
                authority: everything.authority.take(),
                dir: dir.clone(),
                tls: self.certificates.get().cloned(),
                times: Times::default(),
                shutdown: shutdown.clone(),
            })?),
        };
        if let Some(keeper) = &certificates {
            self.certificates.get_or_init(|| Arc::clone(keeper.tls()));
        }
        let (driver, handle) = Driver::new(Parts {
            live: self.live.clone(),
            workers: self.workers,
            runtimes,
            images: Some(images),
            archivist: Some(archivist.clone()),
            writer,
            everything,
            containers,
            labelled,
            certificates: certificates.as_ref().map(keeper::Handle::status),
            recordings: dir.join("recordings"),
            reload: reload(
                self.config.clone(),
                Arc::clone(&self.read),
                certificates,
                Arc::clone(&self.text),
            ),
            services,
            shutdown: shutdown.clone(),
            alone: self.alone.clone(),
        });
        Ok(Prepared { driver, handle, store, shutdown, archivist })
    }
}

impl Prepared {
    /// Begins to drive, and to answer the operator.
    pub async fn begin(
        self,
        ground: &Ground,
        addresses: &proxy::Addresses,
        held: admin::Held,
    ) -> Result<Control, OpenError> {
        let Self { mut driver, handle, store, shutdown, archivist } = self;
        let of = |scheme: &'static str, list: &[std::net::SocketAddr]| {
            list.iter().map(|address| format!("{scheme}://{address}")).collect::<Vec<_>>()
        };
        let mut listen = of("http", &addresses.http);
        listen.extend(of("https", &addresses.https));
        listen.extend(of("tcp", &addresses.tcp));
        driver.listens(listen);
        let admin_stop = CancellationToken::new();
        let config = &ground.config;
        let settings = admin::Settings {
            socket: Some(config.admin.socket.clone()),
            listen: config.admin.listen.clone(),
            token: config.admin.token.clone(),
            rare: ground.rare.clone(),
            archivist: Some(archivist),
        };
        let traffic = Arc::clone(&ground.traffic);
        let admin =
            admin::serve(handle.clone(), settings, traffic, admin_stop.clone(), held).await?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("driver")
            .enable_all()
            .build()
            .map_err(|source| OpenError::System { what: "the driver's thread", source })?;
        let driver = runtime.spawn(driver.run());
        let runtime = Background(Some(runtime));
        Ok(Control { handle, admin, runtime, driver, admin_stop, shutdown, store })
    }
}

impl Control {
    /// Stops the driver, and what is not left behind.
    pub async fn close(self, leave: Leave) {
        self.shutdown.cancel();
        if let Ok(driver) = self.driver.await
            && let Some(runtime) = &self.runtime.0
        {
            let _closed = runtime.spawn(driver.close(leave)).await;
        }
        self.admin_stop.cancel();
        self.admin.closed().await;
        drop((self.runtime, self.handle));
        // The store's thread ends when the last writer is gone, and with it the lock on the state.
        let _ = tokio::task::spawn_blocking(move || self.store.join()).await;
    }

    /// Ends without stopping anything that was launched: the services as they are configured now, and
    /// the admin API's sockets, on which who connects meanwhile waits. The state is free then.
    pub async fn let_go(self) -> (Vec<ServiceConfig>, admin::Held) {
        self.admin_stop.cancel();
        // What is asked at this moment is still answered.
        let held = self.admin.left().await;
        self.shutdown.cancel();
        let driver = self.driver.await;
        let services = driver.as_ref().map(Driver::configured).unwrap_or_default();
        drop((self.runtime, driver, self.handle));
        let _ = tokio::task::spawn_blocking(move || self.store.join()).await;
        (services, held)
    }
}

/// Opens the state; waits a moment for one that is just let go of. The lock of a daemon that was killed
/// while it started a process lives on in the fork, until that becomes its program.
async fn open_store(dir: &Path) -> Result<RedbStore, StoreError> {
    let asked = Instant::now();
    loop {
        match RedbStore::open(dir) {
            Err(StoreError::InUse(_)) if asked.elapsed() < LOCKED => {
                tokio::time::sleep(LOCKED_LOOK).await;
            }
            opened => return opened,
        }
    }
}
