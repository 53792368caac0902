//! The control plane: state, driver and admin API, opened and ended as one, apart from the proxy,
//! which serves on while they change hands.
//!
//! Invariants: the driver and whatever it started run on a runtime of their own, and so does the admin
//! API, so that a large answer holds up no rollout. Both step back behind requests. Ended by
//! [`Control::let_go`], none of it goes on, as if the daemon had died; what was launched goes on.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use tokio::runtime::Handle as Runtime;
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
use crate::notify::{self, Notifier};
use crate::proxy;
use crate::proxy::tls::Certificates;
use crate::routing::live::Live;
use crate::runtime::rank;
use crate::store::redb::RedbStore;
use crate::store::writer::Writer;
use crate::store::{Store as _, StoreError};
use crate::telemetry::audit::Audit;
use crate::telemetry::metrics::Rare;
use crate::telemetry::traffic::Traffic;

/// How long a locked state is waited for, and how often it is tried: a fork becomes its program within
/// milliseconds, on a busy machine within some hundred.
const LOCKED: Duration = Duration::from_secs(3);
const LOCKED_LOOK: Duration = Duration::from_millis(20);

/// How long messages that were queued last may take when the daemon stops or changes hands.
const FLUSH: Duration = Duration::from_secs(2);

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
    notify: notify::Parts,
    /// Set when it has begun, for reloads.
    notifier: Arc<OnceLock<Notifier>>,
}

/// A running control plane.
pub struct Control {
    /// How the driver is spoken to.
    pub handle: Handle,
    /// Where what is done to this daemon is written down.
    pub audit: Audit,
    notifier: Notifier,
    pub admin: admin::Admin,
    driving: Background,
    answering: Background,
    driver: JoinHandle<Driver>,
    admin_stop: CancellationToken,
    shutdown: CancellationToken,
    store: std::thread::JoinHandle<()>,
}

/// A runtime that may be dropped anywhere, with all that runs on it.
struct Background {
    handle: Runtime,
    /// None once it is dropped.
    owned: Option<tokio::runtime::Runtime>,
}

impl Background {
    /// One thread of this name, which steps back and starts commands on the runtime that is current.
    fn start(name: &'static str) -> Result<Self, OpenError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(name)
            .on_thread_start(rank::behind(Runtime::current()))
            .enable_all()
            .build()
            .map_err(no_thread)?;
        Ok(Self { handle: runtime.handle().clone(), owned: Some(runtime) })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.owned.take() {
            runtime.shutdown_background();
        }
    }
}

fn no_thread(source: std::io::Error) -> OpenError {
    OpenError::System { what: "a thread of the control plane", source }
}

impl Ground {
    /// Opens the state and routes to what it names.
    pub async fn prepare(&self, services: Vec<ServiceConfig>) -> Result<Prepared, OpenError> {
        let dir = self.config.state.dir.clone();
        let mut store = open_store(&dir).await?;
        let mut everything = store.load()?;
        let (writer, store) =
            Writer::start(Box::new(store), rank::behind(Runtime::current())).map_err(no_thread)?;
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
        let links = everything.links.take();
        let notify_writer = writer.clone();
        let notifier = Arc::new(OnceLock::new());
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
                Arc::clone(&notifier),
            ),
            services,
            shutdown: shutdown.clone(),
            alone: self.alone.clone(),
        });
        let admin = &self.config.admin;
        let notify = notify::Parts {
            handle: handle.clone(),
            recipients: self.config.notify.clone(),
            links: admin.public_url.clone().map(|url| (url, admin.link_expiry)),
            record: links,
            writer: notify_writer,
            audit: Audit::new(dir.join("audit"), self.config.state.audit_keep),
        };
        Ok(Prepared { driver, handle, store, shutdown, archivist, notify, notifier })
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
        let Self { mut driver, handle, store, shutdown, archivist, notify, notifier: told } = self;
        let of = |scheme: &'static str, list: &[std::net::SocketAddr]| {
            list.iter().map(|address| format!("{scheme}://{address}")).collect::<Vec<_>>()
        };
        let mut listen = of("http", &addresses.http);
        listen.extend(of("https", &addresses.https));
        listen.extend(of("tcp", &addresses.tcp));
        driver.listens(listen);
        let admin_stop = CancellationToken::new();
        let audit = notify.audit.clone();
        let (driving, answering) = (Background::start("driver")?, Background::start("api")?);
        // Follows from before the driver runs, so that nothing is missed.
        let notifier = {
            let _there = answering.handle.enter();
            Notifier::start(notify, shutdown.clone())
        };
        let _first = told.set(notifier.clone());
        let config = &ground.config;
        let settings = admin::Settings {
            socket: Some(config.admin.socket.clone()),
            listen: config.admin.listen.clone(),
            token: config.admin.token.clone(),
            rare: ground.rare.clone(),
            archivist: Some(archivist),
            notifier: Some(notifier.clone()),
            audit: Some(audit.clone()),
        };
        let traffic = Arc::clone(&ground.traffic);
        let admin = admin::serve(handle.clone(), settings, traffic, admin_stop.clone(), held);
        let admin = answering.handle.spawn(admin).await;
        let admin = admin.map_err(|error| no_thread(std::io::Error::other(error)))??;
        let driver = driving.handle.spawn(driver.run());
        Ok(Control {
            handle,
            audit,
            notifier,
            admin,
            driving,
            answering,
            driver,
            admin_stop,
            shutdown,
            store,
        })
    }
}

impl Control {
    /// Stops the driver, and what is not left behind.
    pub async fn close(self, leave: Leave) {
        self.notifier.flush(FLUSH).await;
        self.shutdown.cancel();
        if let Ok(driver) = self.driver.await {
            let _closed = self.driving.handle.spawn(driver.close(leave)).await;
        }
        self.admin_stop.cancel();
        self.admin.closed().await;
        drop((self.driving, self.answering, self.handle, self.notifier));
        // The store's thread ends when the last writer is gone, and with it the lock on the state.
        let _ = tokio::task::spawn_blocking(move || self.store.join()).await;
    }

    /// Ends without stopping anything that was launched: the services as they are configured now, and
    /// the admin API's sockets, on which who connects meanwhile waits. The state is free then.
    pub async fn let_go(self) -> (Vec<ServiceConfig>, admin::Held) {
        self.admin_stop.cancel();
        // What is asked at this moment is still answered.
        let held = self.admin.left().await;
        self.notifier.flush(FLUSH).await;
        self.shutdown.cancel();
        let driver = self.driver.await;
        let services = driver.as_ref().map(Driver::configured).unwrap_or_default();
        drop((self.driving, self.answering, driver, self.handle, self.notifier));
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
