//! The records themselves. JSON, so that a person with a dump can read them; fields are only added.

use serde::{Deserialize, Serialize};

use crate::model::hook::{Hook, HookMoment};
use crate::model::id::{RevisionId, RolloutId, ServiceName};
use crate::model::instance::Instance;
use crate::model::revision::Revision;
use crate::rollout::checkpoint::Checkpoint;

/// What a service has.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// The revision that holds the traffic, with its instances.
    pub stable: Option<Placed>,
    /// The former one that is kept running.
    pub warm: Option<Warm>,
    /// The number that the next revision gets, less one.
    pub last_revision: u32,
    /// A promotion that waits to be confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<Confirm>,
    /// No deploy may begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freeze: Option<Freeze>,
    /// Hooks at the end of rollouts that have yet to run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<PendingHook>,
    /// Its visitors are kept from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<MaintenanceRecord>,
}

/// A promotion that is taken back when nobody confirms it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Confirm {
    /// The revision that was promoted.
    pub revision: RevisionId,
    /// The one that comes back.
    pub former: RevisionId,
    /// Until when, in milliseconds since the Unix epoch.
    pub until: u64,
}

/// A time without deploys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Freeze {
    /// Why.
    pub reason: String,
    /// Who said so.
    pub by: Option<String>,
    /// Since when, in milliseconds since the Unix epoch.
    pub since: u64,
    /// Until when; for good when absent.
    pub until: Option<u64>,
}

impl Freeze {
    /// Whether it holds at this moment.
    #[must_use]
    pub fn holds(&self, now: u64) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// A hook that is to run, with all that it needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PendingHook {
    /// The rollout that ended.
    pub rollout: RolloutId,
    /// The revision that it is about.
    pub revision: RevisionId,
    /// Which hook.
    pub moment: HookMoment,
    /// What to run.
    pub hook: Hook,
    /// Why the rollout went back.
    pub cause: Option<String>,
}

/// Visitors are kept from a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MaintenanceRecord {
    /// How long each of them waits, in milliseconds.
    pub queue_millis: u64,
}

/// A revision and where it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Placed {
    /// The revision.
    pub revision: RevisionId,
    /// Its instances, by replica.
    pub instances: Vec<Instance>,
}

/// A former revision that is kept running.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Warm {
    /// What and where.
    pub placed: Placed,
    /// Until when, in milliseconds since the Unix epoch.
    pub until: u64,
}

/// A rollout under way, with what happened in it so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActiveRecord {
    /// Where it stands.
    pub checkpoint: Checkpoint,
    /// What happened, as sentences with times.
    pub events: Vec<RecordedEvent>,
}

/// Something that happened in a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordedEvent {
    /// The event's number.
    pub id: u64,
    /// Milliseconds since the Unix epoch.
    pub at: u64,
    /// The phase entered, when one was.
    pub phase: Option<String>,
    /// The canary's weight in percent, with a phase.
    pub weight: Option<f64>,
    /// One sentence.
    pub message: String,
}

/// A rollout that is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutEntry {
    /// Where it ended; `phase` is Promoted or RolledBack.
    pub checkpoint: Checkpoint,
    /// What happened.
    pub events: Vec<RecordedEvent>,
    /// What was last known of the canary.
    pub verdict: Option<crate::analysis::verdict::Verdict>,
    /// Milliseconds since the Unix epoch at which it ended.
    pub ended: u64,
}

impl RolloutEntry {
    /// Its service.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        &self.checkpoint.service
    }
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hidden(pub String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// A certificate that was had from an authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRecord {
    /// The name it is for.
    pub name: String,
    /// Who signed it: `acme` or `local`.
    pub source: String,
    /// The chain, PEM.
    pub chain: String,
    /// The private key, PEM.
    pub key: Hidden,
}

/// Our account with a certificate authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRecord {
    /// The authority's directory, by URL.
    pub directory: String,
    /// Whom it may write to.
    pub email: String,
    /// What proves that the account is ours, as JSON.
    pub credentials: Hidden,
}

/// The certificate authority of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityRecord {
    /// Its certificate, PEM.
    pub certificate: String,
    /// Its private key, PEM.
    pub key: Hidden,
}

/// What links in messages are signed with, and which of them were used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinksRecord {
    /// The key, base64url.
    pub key: Hidden,
    /// Links that were used, with the second since the Unix epoch at which they would expire.
    pub used: std::collections::BTreeMap<String, u64>,
}

/// The format of an export.
pub const EXPORT: u32 = 1;

/// A daemon's own state, to be taken to another host. Rollouts under way stay behind: what is stable
/// is taken along.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Exported {
    /// The services.
    pub services: Vec<(ServiceName, ServiceRecord)>,
    /// Their revisions.
    pub revisions: Vec<(ServiceName, Revision)>,
    /// Their past rollouts.
    pub history: Vec<RolloutEntry>,
}
