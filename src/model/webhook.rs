//! Webhooks that have a say in a rollout: somebody else's program is asked, and 2xx is yes.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::revision::duration_millis;

/// A webhook of a service's rollouts. Types and payload are those of Flagger, so that gates which
/// were written for it serve here.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// What it is called in status and sentences.
    pub name: String,
    /// When it is asked, and for what.
    pub kind: WebhookKind,
    /// Where it is. May hold a secret.
    pub url: String,
    /// How long one try may take.
    #[serde(with = "duration_millis")]
    pub timeout: Duration,
    /// From one try to the next.
    #[serde(with = "duration_millis")]
    pub interval: Duration,
    /// Failures in a row that end the rollout, where failures do.
    pub failures: u32,
    /// How long a confirmation may be waited for before launch.
    #[serde(with = "duration_millis")]
    pub wait: Duration,
    /// What is sent along.
    pub metadata: BTreeMap<String, String>,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("name", &self.name).field("kind", &self.kind).finish()
    }
}

/// When a webhook is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WebhookKind {
    /// Before anything is launched, until it says yes.
    ConfirmRollout,
    /// When the canary is healthy, before its first visitor.
    PreRollout,
    /// Again and again at each step.
    Rollout,
    /// Before the canary gets more weight, until it says yes.
    ConfirmTrafficIncrease,
    /// Before the promotion, until it says yes.
    ConfirmPromotion,
    /// When the rollout is over; its answer changes nothing.
    PostRollout,
    /// Again and again; yes takes the canary back.
    Rollback,
    /// With everything that happens; its answer changes nothing.
    Event,
}

impl WebhookKind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::ConfirmRollout,
        Self::PreRollout,
        Self::Rollout,
        Self::ConfirmTrafficIncrease,
        Self::ConfirmPromotion,
        Self::PostRollout,
        Self::Rollback,
        Self::Event,
    ];

    /// The word in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConfirmRollout => "confirm-rollout",
            Self::PreRollout => "pre-rollout",
            Self::Rollout => "rollout",
            Self::ConfirmTrafficIncrease => "confirm-traffic-increase",
            Self::ConfirmPromotion => "confirm-promotion",
            Self::PostRollout => "post-rollout",
            Self::Rollback => "rollback",
            Self::Event => "event",
        }
    }
}
