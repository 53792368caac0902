//! Builds the house from a configuration, opens it, closes it: the one place of wiring.

mod control;
pub mod handover;
mod line;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::control::{Control, Ground};
use self::handover::Heritage;
use crate::admin;
use crate::config::Config;
use crate::controller::driver::{Leave, Reload, Runtimes};
use crate::controller::handle::Handle;
use crate::proxy;
use crate::proxy::tls::{CertificateFiles, Certificates, TlsError};
use crate::routing::live::Live;
use crate::runtime::docker::DockerRuntime;
use crate::runtime::fixed::FixedRuntime;
use crate::runtime::process::ProcessRuntime;
use crate::store::StoreError;
use crate::telemetry::metrics::Rare;
use crate::telemetry::traffic::Traffic;

/// Why the house cannot be opened. Each display says what to change.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The state cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
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
        let program = std::env::current_exe()
            .map_err(|source| OpenError::System { what: "where this program is", source })?;
        let workers = match config.listen.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            some => some,
        };
        let settings = proxy_settings(&config, workers)?;
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
            certificates: settings.tls.clone(),
            program,
            live: Live::default(),
            traffic: Arc::new(Traffic::new(workers)),
            workers,
            rare: Rare::install(),
            alone,
            config,
        };
        let prepared = ground.prepare(ground.config.services.clone()).await?;
        // Only now, that the first visitor finds the routes.
        let (live, traffic) = (ground.live.clone(), Arc::clone(&ground.traffic));
        let proxy = proxy::take_over(settings, live, traffic, listeners)?;
        let control = prepared.begin(&ground, proxy.addresses(), held).await?;
        if let Some(heritage) = heritage {
            heritage.serve().map_err(former)?;
        }
        Ok(Self { proxy, ground, control })
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

    /// Closes: no new connections, requests in flight get `drain` to finish, then the driver stops
    /// and what is not left behind ends.
    pub async fn close(self, drain: Duration, leave: Leave) {
        self.proxy.drain(drain).await;
        self.control.close(leave).await;
    }
}

fn former(source: std::io::Error) -> OpenError {
    OpenError::System { what: "the process that was to hand over", source }
}

fn runtimes(config: &Config, program: PathBuf) -> Result<Runtimes, OpenError> {
    // Two daemons on one engine tell their containers apart by where their state lies.
    let dir = std::path::absolute(&config.state.dir).unwrap_or_else(|_| config.state.dir.clone());
    let daemon = rapidhash::v3::rapidhash_v3(dir.to_string_lossy().as_bytes());
    let daemon = format!("{daemon:016x}");
    let docker = DockerRuntime::new(&config.runtime.docker, &daemon)
        .map_err(|error| OpenError::Docker(error.to_string()))?;
    Ok(Runtimes {
        docker: Arc::new(docker),
        process: Arc::new(ProcessRuntime::new(&config.state.dir, program)),
        fixed: Arc::new(FixedRuntime),
    })
}

fn proxy_settings(config: &Config, workers: usize) -> Result<proxy::Settings, OpenError> {
    let tls = match &config.tls {
        None => None,
        Some(tls) => Some(Certificates::load(certificate_files(tls))?),
    };
    let (listen, limits) = (&config.listen, &config.listen.limits);
    Ok(proxy::Settings {
        http: listen.http.clone(),
        https: listen.https.clone(),
        workers,
        tls,
        trusted_proxies: listen.trusted_proxies.clone(),
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
    })
}

fn certificate_files(tls: &crate::config::Tls) -> Vec<CertificateFiles> {
    let files = |certificate: &crate::config::Certificate| CertificateFiles {
        certificate: certificate.cert.clone(),
        key: certificate.key.clone(),
    };
    tls.certificates.iter().map(files).collect()
}

/// What a reload does: services go to the driver, certificates are read again, and what only a
/// restart can change is named.
fn reload(running: Config, read: Arc<Read>, certificates: Option<Arc<Certificates>>) -> Reload {
    Box::new(move || {
        let config = read()?;
        let mut said = Vec::new();
        match (&config.tls, &certificates) {
            (Some(tls), Some(certificates)) => {
                let replaced = certificates.replace(&certificate_files(tls));
                replaced.map_err(|error| error.to_string())?;
                said.push("certificates read again");
            }
            (None, None) => {}
            _ => said.push("[tls] needs a restart"),
        }
        for (same, needs) in [
            (config.listen == running.listen, "[listen] needs a restart"),
            (config.admin == running.admin, "[admin] needs a restart"),
            (config.state == running.state, "[state] needs a restart"),
            (config.runtime == running.runtime, "[runtime] needs a restart"),
        ] {
            if !same {
                said.push(needs);
            }
        }
        Ok((config.services, said.join(", ")))
    })
}
