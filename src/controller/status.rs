//! What the outside is told: the JSON of the contract, as types.
//!
//! Written by the driver, served by the admin API, read by the command line. Fields are only added.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::mirror::MirrorStatus;
use super::outside::WebhookStatus;
use crate::analysis::verdict::Verdict;
use crate::model::certificate::CertificateStatus;
use crate::model::id::InstanceId;
use crate::model::revision::Origin;
use crate::rollout::joined::Joined;
use crate::rollout::strategy::Strategy;

/// A service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceStatus {
    /// Its name.
    pub service: String,
    /// The group that it belongs to: those of one are deployed and return together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// `idle, launching, probing, smoke, mirroring, baking, paused, promoting, promoted, rolling_back, rolled_back`.
    pub phase: String,
    /// The step under way, counted from 1; absent outside the steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<usize>,
    /// How a new revision takes the place of the old one: `canary`, `blue-green`, `rolling` or
    /// `recreate`.
    #[serde(default)]
    pub strategy: String,
    /// The plan's steps in percent.
    pub steps: Vec<f64>,
    /// The split configured, in percent.
    pub weights: Weights,
    /// The revision that holds the traffic.
    pub stable: Option<SideStatus>,
    /// The revision under judgement.
    pub canary: Option<SideStatus>,
    /// What the shield did; absent while it had nothing to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shield: Option<ShieldStatus>,
    /// What copies of requests showed of the canary; absent while none are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorStatus>,
    /// The former revision that is kept running, and for how long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm: Option<WarmStatus>,
    /// What is known of the canary.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub verdict: Option<Verdict>,
    /// The rollout under way, or the last one.
    pub rollout: Option<u64>,
    /// When this phase was entered, RFC 3339.
    pub since: String,
    /// Seconds until this phase's deadline, when it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<f64>,
    /// Why it is paused, why it went back, or what else a person should know: sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Visitors are kept from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<MaintenanceStatus>,
    /// No deploy may begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freeze: Option<FreezeStatus>,
    /// A promotion waits to be confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<ConfirmStatus>,
    /// Programs elsewhere that have a say in the rollout under way, and what they said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub webhooks: Vec<WebhookStatus>,
    /// Whether the rollout waits for somebody at a gate.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gated: bool,
    /// Where its requests come from: hosts and paths.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub routes: Arc<[String]>,
    /// Whether its routes answer everything, so that nothing need run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub answers_alone: bool,
    /// The generation of the routing table that carries this.
    #[serde(default)]
    pub generation: u64,
}

/// A time without deploys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FreezeStatus {
    /// Why.
    pub reason: String,
    /// Who said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Until when, RFC 3339; for good when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// A promotion that is taken back when nobody confirms it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConfirmStatus {
    /// The revision that was promoted.
    pub revision: u32,
    /// The one that comes back.
    pub former: u32,
    /// Until when, RFC 3339.
    pub until: String,
}

/// Somebody who is told what happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NotifyStatus {
    /// The name in the configuration.
    pub name: String,
    /// `telegram`, `slack`, `discord`, `teams`, `email` or `webhook`.
    pub kind: String,
    /// Messages that wait.
    pub waiting: usize,
    /// Messages that were taken since the daemon started.
    pub sent: u64,
    /// Messages that were given up.
    pub lost: u64,
    /// Why the last try failed; absent while all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Since when, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// Visitors are kept from a service.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MaintenanceStatus {
    /// How many seconds each of them waits before being answered 503.
    pub queue_seconds: f64,
}

/// Keep visitors from a service, or let them in again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct MaintenanceRequest {
    /// Whether they are kept from it.
    #[schema(value_type = bool)]
    pub on: Option<bool>,
    /// How long each of them waits before being answered 503, such as `30s`; not at all otherwise.
    pub queue: Option<String>,
}

/// The two sides of a split, in percent; they sum to 100.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Weights {
    /// Stable's share.
    pub stable: f64,
    /// The canary's share.
    pub canary: f64,
}

/// One side of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SideStatus {
    /// Its revision.
    pub revision: u32,
    /// What runs: an image, a command line, or addresses.
    pub image: String,
    /// The digest of the image in its registry, or its id where it was made here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The source that it was built from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub origin: Option<Origin>,
    /// Its instances.
    pub instances: Vec<InstanceStatus>,
    /// What the proxy saw of it lately.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic: Option<TrafficStatus>,
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InstanceStatus {
    /// What the runtime calls it.
    pub id: String,
    /// Where it listens.
    pub address: String,
    /// What probes concluded.
    pub healthy: bool,
    /// Requests it is answering.
    pub in_flight: u32,
    /// How often it was started again since its revision became stable, as far as this daemon saw.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restarts: u32,
    /// Processors that it uses, 1 being one of them; only with `usage=true`, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
    /// Bytes of memory that it uses; only with `usage=true`, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// What the last failing probe said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diagnosis: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands it so")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl InstanceStatus {
    /// What people call it, as [`InstanceId::short`] does.
    #[must_use]
    pub fn short(&self) -> String {
        InstanceId::new(&self.id).short().to_owned()
    }
}

/// What the proxy saw of one side over the last seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TrafficStatus {
    /// Share of the service's requests that this side got, in percent; the split as delivered.
    pub share: f64,
    /// Requests per second.
    pub requests_per_second: f64,
    /// Requests counted since this step began (since the start, outside a rollout).
    pub requests: u64,
    /// Of those, errors.
    pub errors: u64,
    /// Errors as a fraction.
    pub error_rate: f64,
    /// Seconds to the response headers: median.
    pub p50: Option<f64>,
    /// 95th percentile.
    pub p95: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
}

/// Failures of the canary that visitors did not see, because stable answered instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ShieldStatus {
    /// In the rollout under way: sent to stable.
    pub shielded: u64,
    /// In the rollout under way: not sent, because the budget was spent.
    pub refused: u64,
    /// Since the daemon started: sent to stable.
    pub shielded_total: u64,
    /// Since the daemon started: not sent.
    pub refused_total: u64,
}

/// A former revision that is kept running.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WarmStatus {
    /// Its revision.
    pub revision: u32,
    /// What runs.
    pub image: String,
    /// Seconds until it is stopped.
    pub seconds_left: f64,
}

/// Something that happened, as `events` and webhooks tell it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventRecord {
    /// Rises by one with each event; resumes a stream.
    pub id: u64,
    /// When, RFC 3339 with milliseconds.
    pub at: String,
    /// Which service; absent when it concerns all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Which rollout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<u64>,
    /// What kind: `phase`, `instance`, `runtime`, `config`, `note`.
    pub kind: String,
    /// The phase entered, for kind `phase`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The canary's weight in percent, for kind `phase`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// One sentence.
    pub message: String,
}

/// A rollout, under way or past.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RolloutRecord {
    /// Its number.
    pub rollout: u64,
    /// Its service.
    pub service: String,
    /// From which revision; absent for the first.
    pub from: Option<u32>,
    /// To which revision.
    pub to: u32,
    /// What the new revision runs.
    pub image: String,
    /// The digest of its image in its registry, or its id where it was made here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The source that it was built from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub origin: Option<Origin>,
    /// Who asked for it and from where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// `canary` or `direct`.
    pub kind: String,
    /// The phase it is in or ended in.
    pub phase: String,
    /// How it ended: `promoted`, `rolled_back`, `aborted`, `never_healthy`,
    /// `timed_out`; absent while under way.
    pub outcome: Option<String>,
    /// Why, in one sentence, when it went back.
    pub cause: Option<String>,
    /// When it began, RFC 3339.
    pub started: String,
    /// When it ended.
    pub ended: Option<String>,
    /// The last verdict.
    #[schema(value_type = Option<Object>)]
    pub verdict: Option<Verdict>,
    /// What happened, in order.
    #[serde(default)]
    pub events: Vec<EventRecord>,
}

/// What a deploy asks for. Exactly one of `image`, `tag`, `command` and `endpoints`, or none to run
/// the service as configured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeployRequest {
    /// A whole image reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// A tag of the configured image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// A command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Addresses that somebody else runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Vec<String>>,
    /// Environment variables beside the configured ones.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub env: std::collections::BTreeMap<String, String>,
    /// The source that the image was built from, to be recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub origin: Option<Origin>,
    /// Archive no checkpoint first, although the service's `checkpoint` is "auto".
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_checkpoint: bool,
    /// How the new revision takes the place of the old one, instead of what is configured: `canary`,
    /// `blue-green`, `rolling` or `recreate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<String>,
    /// Steps instead of the configured ones, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<String>,
    /// The least time at a step instead of the configured one, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bake: Option<String>,
    /// Who deploys and from where, for the record: as they say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Deploys although the service is frozen. That it was is written down.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub override_freeze: bool,
    /// With which others it goes.
    #[serde(skip)]
    pub joined: Option<Joined>,
}

/// What a deploy answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeployAccepted {
    /// The rollout that began.
    pub rollout: u64,
    /// The new revision.
    pub revision: u32,
    /// The stable revision, when the new one runs the very same image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_image_as: Option<u32>,
    /// How it takes the place of the old one.
    #[serde(default)]
    #[schema(value_type = String)]
    pub strategy: Strategy,
}

/// What one step of a rollout would take, for a canary that equals stable.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepForecast {
    /// The canary's weight, in percent.
    pub weight: f64,
    /// Canary requests until it passes; half of all such steps need less. Absent where there is
    /// nothing to compare with, or too little is known of stable.
    pub requests: Option<u64>,
    /// Seconds that takes at the present rate, `bake` at least.
    pub seconds: Option<f64>,
    /// The smallest error rate that would be caught on the way, as a fraction.
    pub catches_error_rate: Option<f64>,
    /// The smallest factor on all latencies that would be caught on the way.
    pub catches_slower: Option<f64>,
}

/// Whether a deploy of what is configured would fit on the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FitStatus {
    /// Whether it would.
    pub fits: bool,
    /// By which strategy.
    pub strategy: String,
    /// What is missing, with the figures, or why another strategy than the configured one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentence: Option<String>,
}

/// The daemon as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DaemonStatus {
    /// Its version.
    pub version: String,
    /// When it started, RFC 3339.
    pub started: String,
    /// Addresses it listens on.
    pub listen: Vec<String>,
    /// Whether the Docker engine can be reached; absent when no service uses it.
    pub docker: Option<bool>,
    /// What a person should know: a bad configuration file, an unsaved state, an engine that is gone.
    pub notes: Vec<String>,
    /// Whether it is about to stop.
    pub stopping: bool,
    /// Certificates that are served or wanted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    pub certificates: Vec<CertificateStatus>,
    /// Who is told what happens, and whether they can be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<NotifyStatus>,
    /// Bytes that are free where the state lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_free: Option<u64>,
    /// When the configuration that runs was read, RFC 3339.
    #[serde(default)]
    pub configured: String,
    /// Whether the last reload was refused: what runs is not what the file says.
    #[serde(default)]
    pub reload_refused: bool,
}

/// The last output of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InstanceLogs {
    /// What the runtime calls the instance.
    pub instance: String,
    /// Its revision.
    #[serde(default)]
    pub revision: u32,
    /// Its last lines, oldest first.
    pub lines: Vec<String>,
    /// When each of them was written, RFC 3339, empty where that is not known; only with `times=true` or
    /// `since`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub times: Vec<String>,
}

impl ServiceStatus {
    /// Why requests of this service cannot all be answered, in one sentence: a side that has weight
    /// has no healthy instance. `None` when they can, and before the first deploy.
    #[must_use]
    pub fn unserved(&self) -> Option<String> {
        let sides = [
            ("stable", &self.stable, self.weights.stable),
            ("canary", &self.canary, self.weights.canary),
        ];
        sides.into_iter().find_map(|(name, side, weight)| {
            let side = side.as_ref().filter(|_| weight > 0.0)?;
            let healthy = side.instances.iter().any(|instance| instance.healthy);
            (!healthy).then(|| {
                let (service, revision) = (&self.service, side.revision);
                format!("{service}: no healthy instance of the {name} revision {revision}")
            })
        })
    }
}
