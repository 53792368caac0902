//! What a rollout needs to survive a restart.

use serde::{Deserialize, Serialize};

use crate::analysis::judge::Memory;
use crate::model::id::{RevisionId, RolloutId, ServiceName};
use crate::model::instance::Instance;

use super::machine::{Kind, Rollout};
use super::phase::Phase;
use super::plan::Plan;

/// A rollout as it is stored. No moments: clocks of two processes do not compare, so a phase that is
/// taken up again begins its time anew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The rollout.
    pub id: RolloutId,
    /// Its service.
    pub service: ServiceName,
    /// What kind it is.
    pub kind: Kind,
    /// The revision that holds the traffic; none on a first deploy.
    pub stable: Option<RevisionId>,
    /// The revision under judgement.
    pub canary: RevisionId,
    /// How it is carried out.
    pub plan: Plan,
    /// Where it stands.
    pub phase: Phase,
    /// The canary's instances, once launched.
    pub instances: Vec<Instance>,
    /// What the judge knows.
    pub memory: Option<Memory>,
    /// Milliseconds since the Unix epoch at which it began.
    pub started: u64,
}

impl Checkpoint {
    /// A checkpoint of a rollout.
    #[must_use]
    pub fn of(rollout: &Rollout, memory: Option<Memory>, started: u64) -> Self {
        Self {
            id: rollout.id,
            service: rollout.service.clone(),
            kind: rollout.kind,
            stable: rollout.stable,
            canary: rollout.canary,
            plan: rollout.plan.clone(),
            phase: rollout.phase.clone(),
            instances: rollout.instances.clone(),
            memory,
            started,
        }
    }
}
