//! The archivist: makes checkpoints of what serves, brings them back, and takes away what nobody needs.
//!
//! Knows how a service's parts are had from its runtime; what stands in an archive is the room
//! `archive`'s to know. Begins a rollout only through the handle, as a person does, so that what is
//! restored is probed and judged like any other revision.
//!
//! Invariants: nothing that serves is written to: what is restored goes into new volumes and new
//! instances; a restore that fails leaves what it made to nobody; one thing at a time is done with the
//! archives of a service.

mod adopt;
mod build;
mod clean;
mod create;
mod load;
mod restore;
mod room;
mod source;

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use build::{BuildPlan, BuiltImage};
pub use clean::{Clean, Freed};
pub use restore::Tested;

use super::handle::Refused;
use super::runtimes::Runtimes;
use crate::archive::format::Manifest;
use crate::archive::shelf::{Listed, Shelf};
use crate::archive::{ArchiveError, reader};
use crate::config::{FileText, Service as ServiceConfig};
use crate::model::id::ServiceName;
use crate::model::instance::Instance;
use crate::model::progress::Listener;
use crate::model::revision::Revision;
use crate::runtime::RuntimeError;
use crate::runtime::docker::DockerRuntime;

/// What a checkpoint is made of.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The service as configured.
    pub config: ServiceConfig,
    /// The revision that holds the traffic.
    pub revision: Revision,
    /// Where it runs.
    pub instances: Vec<Instance>,
}

/// Why something could not be done with checkpoints. Each display says what to change.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ArchiveTrouble {
    /// An archive could not be written or read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A runtime could not give or take a part.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The driver refuses.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Something else is being done.
    #[error("something is being done with the checkpoints of {0} already: wait for it")]
    Busy(ServiceName),
    /// It makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The engine's disk cannot hold what a checkpoint brings back.
    #[error(
        "not enough room where the engine keeps its data: {what} takes some {needed} MB and {free} MB are \
         free; `switchback clean` shows what could be freed"
    )]
    NoRoom {
        /// The checkpoint.
        what: String,
        /// Megabytes that it takes.
        needed: u64,
        /// Megabytes that there are.
        free: u64,
    },
    /// The engine's disk was full before everything was written.
    #[error(
        "the engine's disk filled while {what} was restored, which takes some {needed} MB; nothing of it is \
         kept, what serves is as it was, and {free} MB are free again: `switchback clean` shows what could \
         be freed, and `df -i` whether it is the number of files"
    )]
    Filled {
        /// The checkpoint.
        what: String,
        /// Megabytes that it takes.
        needed: u64,
        /// Megabytes that there are now.
        free: u64,
    },
}

impl From<ArchiveTrouble> for Refused {
    fn from(trouble: ArchiveTrouble) -> Self {
        match trouble {
            ArchiveTrouble::Refused(refused) => refused,
            ArchiveTrouble::Archive(error @ ArchiveError::NotFound { .. }) => {
                Self::NotFound(error.to_string())
            }
            ArchiveTrouble::Archive(
                error @ (ArchiveError::NotOne { .. }
                | ArchiveError::Damaged { .. }
                | ArchiveError::Newer { .. }
                | ArchiveError::Foreign { .. }),
            ) => Self::Invalid(error.to_string()),
            ArchiveTrouble::Invalid(sentence)
            | ArchiveTrouble::Runtime(RuntimeError::NotFound(sentence)) => Self::Invalid(sentence),
            error @ ArchiveTrouble::Busy(_) => {
                Self::Conflict { sentence: error.to_string(), phase: "idle".to_owned() }
            }
            error @ (ArchiveTrouble::Archive(_)
            | ArchiveTrouble::Runtime(_)
            | ArchiveTrouble::NoRoom { .. }
            | ArchiveTrouble::Filled { .. }) => Self::Unavailable(error.to_string()),
        }
    }
}

/// What an archive has, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Contents {
    /// Its id.
    pub id: String,
    /// What it is, and its parts.
    #[schema(value_type = Object)]
    pub manifest: Manifest,
}

/// Makes checkpoints and brings them back. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Archivist {
    shelf: Shelf,
    runtimes: Runtimes,
    docker: Arc<DockerRuntime>,
    text: Arc<Mutex<FileText>>,
    busy: Arc<Mutex<HashSet<ServiceName>>>,
}

impl Archivist {
    /// An archivist whose archives stand in this directory. `text` is the configuration that runs.
    #[must_use]
    pub fn new(
        dir: &Path,
        runtimes: Runtimes,
        docker: Arc<DockerRuntime>,
        text: Arc<Mutex<FileText>>,
    ) -> Self {
        Self { shelf: Shelf::new(dir), runtimes, docker, text, busy: Arc::default() }
    }

    /// All archives, newest first, of one service or of all.
    pub async fn list(&self, service: Option<ServiceName>) -> Result<Vec<Listed>, ArchiveTrouble> {
        let shelf = self.shelf.clone();
        aside(move || Ok(shelf.list(service.as_ref())?)).await
    }

    /// Reads all of an archive and checks it.
    pub async fn verify(&self, id: &str, told: &Listener) -> Result<Contents, ArchiveTrouble> {
        let (shelf, asked, told) = (self.shelf.clone(), id.to_owned(), told.clone());
        aside(move || {
            let path = shelf.find(&asked)?;
            let what = format!("checking {asked}");
            told.begin(&what);
            let mut counted = Counted::new(&told, &what, None);
            let manifest = reader::verify(&path, &mut |bytes| counted.note(bytes))?;
            Ok(Contents { id: asked, manifest })
        })
        .await
    }

    /// Removes an archive; how many bytes that frees.
    pub async fn remove(&self, id: &str) -> Result<u64, ArchiveTrouble> {
        let (shelf, id) = (self.shelf.clone(), id.to_owned());
        if id.starts_with('/') {
            let sentence = "only checkpoints of the shelf are removed: give an id, not a path";
            return Err(ArchiveTrouble::Invalid(sentence.to_owned()));
        }
        aside(move || Ok(shelf.remove(&id)?)).await
    }

    /// Takes a service for oneself.
    fn take(&self, service: &ServiceName) -> Result<Taken, ArchiveTrouble> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if !busy.insert(service.clone()) {
            return Err(ArchiveTrouble::Busy(service.clone()));
        }
        Ok(Taken { busy: Arc::clone(&self.busy), service: service.clone() })
    }
}

/// A service that is being worked on; let go when dropped.
struct Taken {
    busy: Arc<Mutex<HashSet<ServiceName>>>,
    service: ServiceName,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.service);
    }
}

/// Does what waits for disks on a thread of its own.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArchiveTrouble> + Send + 'static,
) -> Result<T, ArchiveTrouble> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        let (what, reason) = ("working on an archive".to_owned(), error.to_string());
        Err(ArchiveTrouble::Archive(ArchiveError::Disk { what, reason }))
    })
}

/// How often counts are told.
const TOLD_EVERY: std::time::Duration = std::time::Duration::from_millis(200);

/// Tells counts, not more often than anybody can see.
struct Counted<'t> {
    told: &'t Listener,
    what: &'t str,
    of: Option<u64>,
    said: std::time::Instant,
}

impl<'t> Counted<'t> {
    fn new(told: &'t Listener, what: &'t str, of: Option<u64>) -> Self {
        Self { told, what, of, said: std::time::Instant::now() }
    }

    fn note(&mut self, bytes: u64) {
        if self.said.elapsed() >= TOLD_EVERY {
            self.said = std::time::Instant::now();
            self.told.count(self.what, bytes, self.of);
        }
    }
}
