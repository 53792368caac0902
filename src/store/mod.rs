//! What must survive a restart: services, revisions, rollouts, checkpoints.
//!
//! A [`Store`] writes batches, each whole or not at all, and reads everything once at the start. It
//! runs on a thread of its own behind [`writer::Writer`], so that a disk that hangs holds up nobody: a
//! rollback does not wait for it, and a step forward that waits gives up with a sentence.

pub mod records;
pub mod redb;
pub mod writer;

use std::path::PathBuf;

use records::{
    AccountRecord, ActiveRecord, AuthorityRecord, CertificateRecord, Exported, LinksRecord,
    RolloutEntry, ServiceRecord,
};

use crate::model::id::{RevisionId, RolloutId, ServiceName};
use crate::model::revision::Revision;

/// Where records live.
pub trait Store: Send {
    /// Everything there is.
    fn load(&mut self) -> Result<Everything, StoreError>;
    /// Writes a batch, durably, whole or not at all.
    fn write(&mut self, batch: &[Change]) -> Result<(), StoreError>;
}

/// All records, as read at the start.
#[derive(Debug, Default)]
pub struct Everything {
    /// Services by name.
    pub services: Vec<(ServiceName, ServiceRecord)>,
    /// Revisions of each service.
    pub revisions: Vec<(ServiceName, Revision)>,
    /// Rollouts under way.
    pub active: Vec<ActiveRecord>,
    /// Past rollouts.
    pub history: Vec<RolloutEntry>,
    /// Certificates that were had from authorities.
    pub certificates: Vec<CertificateRecord>,
    /// The account with a certificate authority.
    pub account: Option<AccountRecord>,
    /// The certificate authority of this machine.
    pub authority: Option<AuthorityRecord>,
    /// The key of links in messages.
    pub links: Option<LinksRecord>,
}

impl Everything {
    /// Whether nothing was ever written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.revisions.is_empty() && self.history.is_empty()
    }
}

/// The changes that write a state that was exported. Instances run elsewhere and are started here
/// again; what was kept warm there is not.
#[must_use]
pub fn imported(state: Exported) -> Vec<Change> {
    let services = state.services.into_iter().map(|(name, record)| {
        Change::Service(name, Box::new(ServiceRecord { warm: None, ..record }))
    });
    let revisions =
        state.revisions.into_iter().map(|(name, one)| Change::Revision(name, Box::new(one)));
    let history = state.history.into_iter().map(|entry| Change::History(Box::new(entry)));
    services.chain(revisions).chain(history).collect()
}

/// One change in a batch.
#[derive(Debug, Clone)]
pub enum Change {
    /// What a service has now.
    Service(ServiceName, Box<ServiceRecord>),
    /// A revision came.
    Revision(ServiceName, Box<Revision>),
    /// A revision is not kept any more.
    DropRevision(ServiceName, RevisionId),
    /// Where the rollout of a service stands.
    Active(Box<ActiveRecord>),
    /// The rollout of a service is over.
    DropActive(ServiceName),
    /// A rollout that is over.
    History(Box<RolloutEntry>),
    /// A rollout is not remembered any more.
    DropHistory(RolloutId),
    /// A certificate came.
    Certificate(Box<CertificateRecord>),
    /// The certificate of a name is not needed any more.
    DropCertificate(String),
    /// An account with a certificate authority was opened.
    Account(Box<AccountRecord>),
    /// The certificate authority of this machine was made.
    Authority(Box<AuthorityRecord>),
    /// A link was used, or their key was made.
    Links(Box<LinksRecord>),
}

/// Why state could not be read or written. Each display says what to change.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Another daemon has it open.
    #[error("the state in {} is in use by another daemon: stop that one, or give this one its own [state] dir", .0.display())]
    InUse(PathBuf),
    /// It cannot be opened or made.
    #[error("the state in {} cannot be opened: {reason}; [state] dir must be a directory that this user may write to", .path.display())]
    Open {
        /// Where.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Written by a version that this one does not understand.
    #[error("the state in {} has format {found}, and this version reads format {understood}: use the version that wrote it, or move the file away to begin anew", .path.display())]
    Format {
        /// Where.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// Ours.
        understood: u64,
    },
    /// A record cannot be understood.
    #[error("a record in the state is damaged ({what}): {reason}")]
    Damaged {
        /// Which.
        what: String,
        /// How.
        reason: String,
    },
    /// It could not be written.
    #[error("the state could not be saved: {0}")]
    Write(String),
    /// Writing took too long.
    #[error("the state could not be saved within {0:?}: the disk does not answer")]
    Slow(std::time::Duration),
}
