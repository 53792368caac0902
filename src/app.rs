//! Builds the house from a configuration, opens it, closes it: the one place of wiring.

mod control;
pub mod handover;
mod line;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::control::{Control, Ground};
use self::handover::Heritage;
use crate::admin;
use crate::certificates::keeper;
use crate::config::{Config, FileText, RotateEvery};
use crate::controller::closing::Leave;
use crate::controller::driver::Reload;
use crate::controller::handle::{Handle, Refused};
use crate::controller::runtimes::Runtimes;
use crate::model::id::ServiceName;
use crate::notify::Notifier;
use crate::proxy;
use crate::proxy::tls::{Certificates, TlsError};
use crate::routing::live::Live;
use crate::runtime::Runtime;
use crate::runtime::docker::DockerRuntime;
use crate::runtime::files;
use crate::runtime::fixed::FixedRuntime;
use crate::runtime::process::ProcessRuntime;
use crate::store::records::Exported;
use crate::store::redb::{FILE, RedbStore};
use crate::store::{Store as _, StoreError, imported};
use crate::telemetry::access_log::line::{self as log_line, Hidden};
use crate::telemetry::access_log::{self, AccessLog, Destination, Every};
use crate::telemetry::audit::Entry;
use crate::telemetry::metrics::Rare;
use crate::telemetry::traffic::Traffic;

/// Why the house cannot be opened. Each display says what to change.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The state cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is a state already.
    #[error("there is a state in {} already: --replace puts it aside", .0.display())]
    NotEmpty(PathBuf),
    /// An address cannot be bound, or a certificate cannot be used.
    #[error(transparent)]
    Bind(#[from] proxy::listener::BindError),
    /// A certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The admin API cannot be served.
    #[error(transparent)]
    Admin(#[from] admin::AdminError),
    /// The engine's address makes no sense.
    #[error("[runtime] docker: {0}")]
    Docker(String),
    /// The access log cannot be written.
    #[error("the access log {} cannot be opened: {source}; check [access_log] to, and that switchback may write there", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The operating system refuses something that is always there.
    #[error("{what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

/// The open house.
pub struct House {
    proxy: proxy::Proxy,
    ground: Ground,
    control: Control,
    log: Option<(AccessLog, std::thread::JoinHandle<()>)>,
}

/// Builds from files again what a reload may change.
pub type ReadConfig = Box<Read>;
type Read = dyn Fn() -> Result<Config, String> + Send + Sync;

impl House {
    /// Opens everything, or says why not and leaves nothing behind.
    pub async fn open(config: Config, read: ReadConfig) -> Result<Self, OpenError> {
        Self::inherit(config, read, None).await
    }

    /// Like [`Self::open`], in the place of the process that started this one as its heir.
    pub async fn inherit(
        config: Config,
        read: ReadConfig,
        heritage: Option<Heritage>,
    ) -> Result<Self, OpenError> {
        files::raise();
        let program = std::env::current_exe()
            .map_err(|source| OpenError::System { what: "where this program is", source })?;
        let workers = match config.listen.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            some => some,
        };
        let traffic = Arc::new(Traffic::new(workers));
        let log = access_log(&config, &traffic)?;
        if config.tls.is_some() {
            // Before the state changes hands: files that cannot be read end it here.
            keeper::look(&config)?;
        }
        let mut heritage = heritage;
        let (mut listeners, mut held) = (Vec::new(), admin::Held::default());
        let mut alone = CancellationToken::new();
        if let Some(heritage) = &mut heritage {
            heritage.wait_for_state().await.map_err(former)?;
            listeners = std::mem::take(&mut heritage.listeners);
            held = std::mem::take(&mut heritage.admin);
            alone = heritage.alone.clone();
        } else {
            alone.cancel();
        }
        let ground = Ground {
            read: Arc::from(read),
            certificates: OnceLock::new(),
            program,
            live: Live::default(),
            traffic,
            text: Arc::new(Mutex::new(config.text.clone())),
            workers,
            rare: Rare::install(),
            alone,
            config,
        };
        let prepared = ground.prepare(ground.config.services.clone()).await?;
        let mut settings =
            proxy_settings(&ground.config, workers, ground.certificates.get().cloned());
        settings.log = log.as_ref().map(|(log, _)| log.clone());
        // Only now, that the first visitor finds the routes.
        let (live, traffic) = (ground.live.clone(), Arc::clone(&ground.traffic));
        let proxy = proxy::take_over(settings, live, traffic, listeners)?;
        let control = prepared.begin(&ground, proxy.addresses(), held).await?;
        if let Some(heritage) = heritage {
            heritage.serve().map_err(former)?;
        }
        Ok(Self { proxy, ground, control, log })
    }

    /// How the driver is spoken to.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.control.handle
    }

    /// The live routing table.
    #[must_use]
    pub fn live(&self) -> &Live {
        &self.ground.live
    }

    /// Addresses on which visitors connect.
    #[must_use]
    pub fn addresses(&self) -> &proxy::Addresses {
        self.proxy.addresses()
    }

    /// Where the admin API listens by TCP.
    #[must_use]
    pub fn admin(&self) -> Option<SocketAddr> {
        self.control.admin.listen()
    }

    /// Reads the configuration again, because a signal said so; that is written down.
    pub async fn reload(&self) -> Result<String, Refused> {
        let result = self.control.handle.reload().await;
        let (outcome, detail) = match &result {
            Ok(said) => ("done", said.clone()),
            Err(refused) => ("refused", refused.to_string()),
        };
        let entry = Entry {
            verb: "reload".to_owned(),
            who: "somebody who may signal this process".to_owned(),
            from: "a signal (HUP)".to_owned(),
            outcome: outcome.to_owned(),
            detail: Some(detail).filter(|detail| !detail.is_empty()),
            ..Entry::default()
        };
        self.control.audit.write(entry).await;
        result
    }

    /// Opens the access log anew; whether there is one in a file.
    pub fn reopen_log(&self) -> bool {
        self.log.as_ref().is_some_and(|(log, _)| log.reopen())
    }

    /// Closes: no new connections, requests in flight get `drain` to finish, then the driver stops
    /// and what is not left behind ends.
    pub async fn close(self, drain: Duration, leave: Leave) {
        self.proxy.drain(drain).await;
        self.control.close(leave).await;
        end_log(self.log).await;
    }
}

/// Writes what is left of the access log. All workers have ended, and with them all handles of it but
/// this one.
async fn end_log(log: Option<(AccessLog, std::thread::JoinHandle<()>)>) {
    if let Some((log, thread)) = log {
        drop(log);
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }
}

fn former(source: std::io::Error) -> OpenError {
    OpenError::System { what: "the process that was to hand over", source }
}

/// Writes a state that another daemon exported, while none runs here. Refuses to mix two: unless
/// `replace`, what is there must be empty; what is replaced stays beside it. Answers how many services
/// and revisions came.
pub fn import_state(
    config: &Config,
    state: Exported,
    replace: bool,
) -> Result<(usize, usize), OpenError> {
    let dir = &config.state.dir;
    let file = dir.join(FILE);
    let is_there = file.exists();
    let mut store = RedbStore::open(dir)?;
    if !store.load()?.is_empty() {
        if !replace {
            return Err(OpenError::NotEmpty(dir.clone()));
        }
        drop(store);
        let aside = dir.join(format!("{}.before-import", FILE));
        let moved = std::fs::rename(&file, aside);
        moved
            .map_err(|source| OpenError::System { what: "putting the old state aside", source })?;
        store = RedbStore::open(dir)?;
    }
    let (services, revisions) = (state.services.len(), state.revisions.len());
    if let Err(error) = store.write(&imported(state)) {
        drop(store);
        if !is_there {
            // Nothing is left of it, so that it can be tried again.
            let _ = std::fs::remove_file(&file);
        }
        return Err(error.into());
    }
    Ok((services, revisions))
}

fn runtimes(
    config: &Config,
    program: PathBuf,
) -> Result<(Runtimes, Arc<DockerRuntime>), OpenError> {
    // Two daemons on one engine tell their containers apart by where their state lies.
    let dir = std::path::absolute(&config.state.dir).unwrap_or_else(|_| config.state.dir.clone());
    let daemon = rapidhash::v3::rapidhash_v3(dir.to_string_lossy().as_bytes());
    let daemon = format!("{daemon:016x}");
    let docker = DockerRuntime::new(&config.runtime.docker, &daemon)
        .map_err(|error| OpenError::Docker(error.to_string()))?;
    let mut process = ProcessRuntime::new(&config.state.dir, program);
    let secrets = match &config.state.secrets {
        // Two daemons may share it, too.
        Some(apart) => {
            let apart = apart.join(&daemon);
            process = process.with_secrets(&apart.join("processes"));
            apart.join("containers")
        }
        None => dir.join("secrets"),
    };
    let docker = Arc::new(docker.with_secrets(&secrets));
    let runtimes = Runtimes {
        docker: Arc::clone(&docker) as Arc<dyn Runtime>,
        process: Arc::new(process),
        fixed: Arc::new(FixedRuntime),
    };
    Ok((runtimes, docker))
}

fn proxy_settings(
    config: &Config,
    workers: usize,
    tls: Option<Arc<Certificates>>,
) -> proxy::Settings {
    let (listen, limits) = (&config.listen, &config.listen.limits);
    let tcp = tcp_listeners(config);
    let addresses = listen.http.iter().chain(&listen.https).chain(tcp.iter().map(|(at, _)| at));
    let preambles = addresses.copied().filter(|at| listen.proxy_protocol.is_on(*at)).collect();
    proxy::Settings {
        http: listen.http.clone(),
        https: listen.https.clone(),
        http3: listen.http3,
        tcp,
        workers,
        tls,
        trusted_proxies: listen.trusted_proxies.clone(),
        client_header: proxy::forwarded::Believed::of(&listen.client_header),
        preambles,
        connections_exempt: listen.connections_exempt.clone(),
        limits: proxy::limits::Limits {
            header_bytes: limits.max_header_size,
            line_bytes: limits.max_header_line,
            underscores: limits.underscores,
            headers: limits.max_headers,
            target_bytes: limits.max_target,
            handshake: limits.handshake_timeout,
            header_read: limits.header_timeout,
            keep_alive: limits.keep_alive,
            requests_http1: limits.keep_alive_requests,
            requests_http2: limits.keep_alive_requests.saturating_mul(10),
            body_stall: limits.body_timeout,
            body_rate: limits.body_rate,
            write_stall: limits.write_timeout,
            streams: limits.max_streams,
            connections: limits.max_connections,
            connections_per_address: limits.max_connections_per_address,
            max_age: limits.max_age,
            memory: limits.memory,
        },
        revision_header: false,
        log: None,
        spool: proxy::spool::Spool::new(config.state.dir.clone(), limits.buffer_disk),
    }
}

fn access_log(
    config: &Config,
    traffic: &Arc<Traffic>,
) -> Result<Option<(AccessLog, std::thread::JoinHandle<()>)>, OpenError> {
    let Some(wanted) = &config.access_log else { return Ok(None) };
    let to = match &wanted.file {
        None => Destination::Stdout,
        Some(path) => Destination::File {
            path: path.clone(),
            size: wanted.rotate_size,
            every: match wanted.rotate_every {
                RotateEvery::Never => Every::Never,
                RotateEvery::Hour => Every::Hour,
                RotateEvery::Day => Every::Day,
            },
            keep: wanted.keep,
        },
    };
    let hide = |hidden: Hidden, name: &&str| hidden.with(name).unwrap_or(hidden);
    let settings = access_log::Settings {
        to,
        format: if wanted.combined { log_line::Format::Combined } else { log_line::Format::Json },
        hidden: wanted.hide.iter().fold(Hidden::default(), hide),
        // Rounds to the nearest of 2^32 parts, and saturates.
        sample: (wanted.sample * f64::from(u32::MAX)) as u32,
    };
    let file = wanted.file.clone();
    AccessLog::start(settings, Arc::clone(traffic))
        .map(Some)
        .map_err(|source| OpenError::Log { path: file.unwrap_or_else(|| "stdout".into()), source })
}

fn tcp_listeners(config: &Config) -> Vec<(SocketAddr, ServiceName)> {
    let of = |service: &crate::config::Service| {
        let name = service.name.clone();
        service.listen.clone().into_iter().map(move |address| (address, name.clone()))
    };
    config.services.iter().flat_map(of).collect()
}

/// What a reload does: services go to the driver, certificates are read again, and what only a
/// restart can change is named.
fn reload(
    running: Config,
    read: Arc<Read>,
    certificates: Option<keeper::Handle>,
    text: Arc<Mutex<FileText>>,
    notifier: Arc<OnceLock<Notifier>>,
) -> Reload {
    Box::new(move || {
        let config = read()?;
        let mut said = Vec::new();
        match (&config.tls, &certificates) {
            (Some(_), Some(certificates)) => {
                certificates.configure(&config).map_err(|error| error.to_string())?;
                said.push("certificates read again");
            }
            (None, None) => {}
            _ => said.push("[tls] needs a restart"),
        }
        for (same, needs) in [
            (config.listen == running.listen, "[listen] needs a restart"),
            (
                tcp_listeners(&config) == tcp_listeners(&running),
                "`listen` of [tcp] needs a restart",
            ),
            (config.admin == running.admin, "[admin] needs a restart"),
            (config.state == running.state, "[state] needs a restart"),
            (config.runtime == running.runtime, "[runtime] needs a restart"),
            (config.access_log == running.access_log, "[access_log] needs a restart"),
        ] {
            if !same {
                said.push(needs);
            }
        }
        if let Some(notifier) = notifier.get() {
            notifier.configure(config.notify.clone());
        }
        *text.lock().unwrap_or_else(PoisonError::into_inner) = config.text;
        Ok((config.services, said.join(", ")))
    })
}
