//! The task that owns all certificates. It never waits for an authority: what takes time is a job
//! whose outcome comes back.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::account::Desk;
use super::files::{Files, settings_of};
use super::jobs::Outcome;
use super::managed::{Managed, status_of};
use super::names::{Signer, wanted};
use crate::config::Config;
use crate::model::certificate::CertificateStatus;
use crate::proxy::tls::{Certificates, Pair, TlsError, Wanted};
use crate::store::records::{AccountRecord, AuthorityRecord, CertificateRecord};
use crate::store::writer::Writer;

/// Names of visitors that may wait to be decided about.
const ASKED: usize = 64;
/// Reloads that may wait.
const RELOADS: usize = 16;

/// How often, and how patiently.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Between two looks at files and deadlines.
    pub tick: Duration,
    /// The pause after the first failure.
    pub first_pause: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self { tick: Duration::from_secs(2), first_pause: Duration::from_secs(60) }
    }
}

/// What a keeper starts with.
pub struct Parts {
    /// What is configured. It has a [`crate::config::tls::Tls`].
    pub config: Config,
    /// Where the proxy listens, as far as challenges need it: in cleartext, with TLS.
    pub listens: (bool, bool),
    /// Where state is written.
    pub writer: Writer,
    /// Certificates that the store has.
    pub certificates: Vec<CertificateRecord>,
    /// The account that the store has.
    pub account: Option<AccountRecord>,
    /// The CA of this machine that the store has.
    pub authority: Option<AuthorityRecord>,
    /// The state directory.
    pub dir: PathBuf,
    /// The set that a proxy serves from already, if there is one.
    pub tls: Option<Arc<Certificates>>,
    /// How often.
    pub times: Times,
    /// Stops the keeper.
    pub shutdown: CancellationToken,
}

/// How a keeper is spoken to.
#[derive(Debug, Clone)]
pub struct Handle {
    tls: Arc<Certificates>,
    configs: mpsc::Sender<(Config, Files)>,
    status: watch::Receiver<Arc<Vec<CertificateStatus>>>,
}

impl Handle {
    /// What the proxy serves with.
    #[must_use]
    pub fn tls(&self) -> &Arc<Certificates> {
        &self.tls
    }

    /// All certificates as they are now.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Arc<Vec<CertificateStatus>>> {
        self.status.clone()
    }

    /// Goes on with another configuration. On an error nothing changes.
    pub fn configure(&self, config: &Config) -> Result<(), TlsError> {
        let files = Files::read(config)?;
        // Whether it can be built, before anything changes.
        Certificates::new(&settings_of(config))?;
        // Full only when the keeper is gone, and the daemon is stopping.
        let _ = self.configs.try_send((config.clone(), files));
        Ok(())
    }
}

/// The keeper.
pub struct Keeper {
    pub(super) config: Config,
    pub(super) listens: (bool, bool),
    files: Files,
    file_trouble: Option<String>,
    /// Looks in a row that found files which cannot be read.
    file_failures: u32,
    pub(super) tls: Arc<Certificates>,
    pub(super) writer: Writer,
    pub(super) desk: Arc<Mutex<Desk>>,
    pub(super) authority: Option<AuthorityRecord>,
    pub(super) dir: PathBuf,
    pub(super) times: Times,
    pub(super) names: BTreeMap<String, Managed>,
    /// What is, or shall be, in the store.
    pub(super) records: HashMap<String, CertificateRecord>,
    /// Names that were refused on demand, and until when.
    pub(super) refused: HashMap<String, i64>,
    /// When a trouble with names on demand was told last.
    pub(super) told_trouble: Option<i64>,
    pub(super) jobs: JoinSet<Outcome>,
    configs: mpsc::Receiver<(Config, Files)>,
    asked: mpsc::Receiver<(String, oneshot::Sender<()>)>,
    asked_in: mpsc::Sender<(String, oneshot::Sender<()>)>,
    status: watch::Sender<Arc<Vec<CertificateStatus>>>,
    shutdown: CancellationToken,
}

/// Whether what is configured can be read.
pub fn look(config: &Config) -> Result<(), TlsError> {
    Files::read(config).map(drop)
}

/// Reads the files and starts a keeper, which serves at once what there is.
pub fn start(parts: Parts) -> Result<Handle, TlsError> {
    let desk = Desk::new(parts.account.clone());
    let (keeper, handle) = Keeper::new(parts, desk)?;
    tokio::spawn(keeper.run());
    Ok(handle)
}

impl Keeper {
    pub(super) fn new(parts: Parts, desk: Desk) -> Result<(Self, Handle), TlsError> {
        let files = Files::read(&parts.config)?;
        let tls = match parts.tls {
            Some(tls) => tls,
            None => Certificates::new(&settings_of(&parts.config))?,
        };
        let (configs_in, configs) = mpsc::channel(RELOADS);
        let (asked_in, asked) = mpsc::channel(ASKED);
        let (status, status_seen) = watch::channel(Arc::default());
        let handle = Handle { tls: Arc::clone(&tls), configs: configs_in, status: status_seen };
        let records = parts.certificates.into_iter();
        let mut keeper = Self {
            config: parts.config,
            listens: parts.listens,
            files,
            file_trouble: None,
            file_failures: 0,
            tls,
            writer: parts.writer,
            desk: Arc::new(Mutex::new(desk)),
            authority: parts.authority,
            dir: parts.dir,
            times: parts.times,
            names: BTreeMap::new(),
            records: records.map(|record| (record.name.clone(), record)).collect(),
            refused: HashMap::new(),
            told_trouble: None,
            jobs: JoinSet::new(),
            configs,
            asked,
            asked_in,
            status,
            shutdown: parts.shutdown,
        };
        for (_, note) in &keeper.files.notes {
            tracing::warn!("{note}");
        }
        if keeper.authority.is_some() {
            keeper.lay_out();
        }
        keeper.adopt();
        keeper.put();
        keeper.publish();
        Ok((keeper, handle))
    }

    /// Runs until it is told to stop.
    pub(super) async fn run(mut self) {
        let mut ticks = tokio::time::interval(self.times.tick);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let shutdown = self.shutdown.clone();
        loop {
            self.start_jobs();
            self.publish();
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some((config, files)) = self.configs.recv() => self.configure(config, files),
                Some((name, decided)) = self.asked.recv() => self.asked_for(&name, decided),
                Some(done) = self.jobs.join_next() => match done {
                    Ok(outcome) => self.done(outcome),
                    Err(error) => tracing::error!(%error, "a certificate's job broke off"),
                },
                _ = ticks.tick() => self.look_at_files(),
            }
        }
        self.jobs.shutdown().await;
    }

    pub(super) fn now() -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    }

    /// Names as the configuration wants them, with what the store has.
    fn adopt(&mut self) {
        let files: Vec<Vec<String>> =
            self.files.pairs.iter().map(|(_, pair)| pair.facts.names.clone()).collect();
        let mut wanted = wanted(&self.config, &files);
        let by_ask = self.config.acme.as_ref().is_some_and(|acme| acme.ask.is_some());
        let mut on_demand = Vec::new();
        for record in self.records.values().filter(|_| by_ask) {
            if record.source == Signer::Acme.as_str() && !wanted.contains_key(&record.name) {
                on_demand.push(record.name.clone());
                wanted.insert(record.name.clone(), Signer::Acme);
            }
        }
        self.names.retain(|name, managed| {
            wanted.get(name) == Some(&managed.signer) || (managed.on_demand && by_ask)
        });
        let now = Self::now();
        for (name, signer) in wanted {
            if let Some(known) = self.names.get_mut(&name) {
                // A reload is a reason to try again at once.
                if known.failures > 0 && !known.busy {
                    known.next = now;
                }
                continue;
            }
            let record = self.records.get(&name).filter(|r| r.source == signer.as_str());
            let pair = record.and_then(|record| {
                let read = Pair::parse(&record.chain, &record.key.0, "a certificate in the store");
                read.map_err(|error| tracing::warn!(name, %error, "not used")).ok()
            });
            // A local one is of no use when its CA is another one now.
            let mut managed = Managed::new(signer, pair.map(Arc::new), now, fastrand::f64());
            managed.on_demand = on_demand.contains(&name);
            self.names.insert(name, managed);
        }
        let channel = by_ask.then(|| Wanted::new(self.asked_in.clone()));
        self.tls.on_demand(channel);
    }

    /// Hands the proxy what there is: files first.
    pub(super) fn put(&self) {
        let files = self.files.pairs.iter().map(|(_, pair)| pair);
        let managed = self.names.values().filter_map(|managed| managed.pair.as_ref());
        let pairs: Vec<Arc<Pair>> = files.chain(managed).cloned().collect();
        self.tls.replace(&pairs);
    }

    fn publish(&self) {
        let now = Self::now();
        let mut all = Vec::new();
        for (path, pair) in &self.files.pairs {
            let mut status = status_of(&pair.facts, &path.display().to_string(), now);
            let loose = self.files.notes.iter().find(|(of, _)| of == path);
            status.note = status.note.or_else(|| loose.map(|(_, note)| note.clone()));
            all.push(status);
        }
        // No file is left to hang it on when the first is in trouble: it hangs on all.
        if let (Some(trouble), Some(first)) = (&self.file_trouble, all.first_mut()) {
            first.state = "failing".to_owned();
            first.note =
                Some(format!("certificates were not read again, the former serve: {trouble}"));
        }
        all.extend(self.names.iter().map(|(name, managed)| managed.status(name, now)));
        self.status.send_if_modified(|seen| {
            let changed = **seen != all;
            if changed {
                *seen = Arc::new(all);
            }
            changed
        });
    }

    fn configure(&mut self, config: Config, files: Files) {
        let settings = settings_of(&config);
        if settings != settings_of(&self.config) || self.files.client_changed(&config) {
            // It was tried before; what fails now changed within a moment, and is read again.
            if let Err(error) = self.tls.configure(&settings) {
                tracing::warn!(%error, "TLS goes on as before");
            }
        }
        self.config = config;
        self.take(files);
    }

    fn take(&mut self, files: Files) {
        self.files = files;
        self.file_trouble = None;
        self.file_failures = 0;
        self.adopt();
        self.put();
    }

    fn look_at_files(&mut self) {
        if !self.files.have_changed(&self.config) {
            return;
        }
        let client_changed = self.files.client_changed(&self.config);
        let read = Files::read(&self.config).and_then(|files| {
            if client_changed {
                self.tls.configure(&settings_of(&self.config))?;
            }
            Ok(files)
        });
        match read {
            Ok(files) => {
                tracing::info!("certificates changed on disk and were read again");
                self.take(files);
            }
            Err(error) => {
                // A certificate and its key are written one after the other: once is no trouble.
                self.file_failures += 1;
                let trouble = error.to_string();
                if self.file_failures >= 2 && self.file_trouble.as_ref() != Some(&trouble) {
                    tracing::warn!("certificates were not read again, the former serve: {trouble}");
                    self.file_trouble = Some(trouble);
                }
            }
        }
    }
}
