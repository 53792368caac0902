//! What an operator has run around a rollout: hooks, and the smoke tests before the first visitor.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::revision::duration_millis;

/// A command around a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Where it runs.
    pub place: HookPlace,
    /// How long it may take; then it is ended, and has failed.
    #[serde(with = "duration_millis")]
    pub timeout: Duration,
}

/// Where a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HookPlace {
    /// On the daemon's host.
    #[default]
    Host,
    /// In a container of the new image that lives for this command.
    Image,
}

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookMoment {
    /// Before instances are launched. Its failure ends the rollout.
    BeforeDeploy,
    /// When the canary has become stable.
    AfterPromote,
    /// When all traffic is back.
    OnRollback,
}

impl HookMoment {
    /// The configuration's key.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BeforeDeploy => "before_deploy",
            Self::AfterPromote => "after_promote",
            Self::OnRollback => "on_rollback",
        }
    }
}

/// The hooks of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hooks {
    /// Before instances are launched.
    pub before_deploy: Option<Hook>,
    /// When the canary has become stable.
    pub after_promote: Option<Hook>,
    /// When all traffic is back.
    pub on_rollback: Option<Hook>,
}

impl Hooks {
    /// The hook of a moment.
    #[must_use]
    pub fn at(&self, moment: HookMoment) -> Option<&Hook> {
        match moment {
            HookMoment::BeforeDeploy => self.before_deploy.as_ref(),
            HookMoment::AfterPromote => self.after_promote.as_ref(),
            HookMoment::OnRollback => self.on_rollback.as_ref(),
        }
    }
}

/// Something that must go well on the canary before any visitor meets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Smoke {
    /// What is done.
    pub act: SmokeAct,
    /// How long one try may take.
    #[serde(with = "duration_millis")]
    pub timeout: Duration,
    /// How often it is tried again, a second apart.
    pub retries: u32,
}

/// What a smoke test does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SmokeAct {
    /// Sends a request to every instance of the canary.
    Request(SmokeRequest),
    /// Runs a command on the host, once per instance.
    Command(Vec<String>),
}

/// A request, and what its answer must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmokeRequest {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Header fields.
    pub headers: BTreeMap<String, String>,
    /// The body that is sent.
    pub send: Option<String>,
    /// Statuses that are well, as inclusive ranges.
    pub status: Vec<(u16, u16)>,
    /// Text that the answer's body must hold.
    pub contains: Option<String>,
    /// Values that the answer's JSON must have, by JSON pointer (RFC 6901).
    pub json: BTreeMap<String, String>,
}

/// From one try to the next.
pub const SMOKE_PAUSE: Duration = Duration::from_secs(1);

impl Smoke {
    /// The longest that it takes on one instance.
    #[must_use]
    pub fn longest(&self) -> Duration {
        let tries = self.retries.saturating_add(1);
        self.timeout.saturating_add(SMOKE_PAUSE).saturating_mul(tries)
    }
}
