//! What is told of services and rollouts: the JSON of the contract, and the sentences.

use std::sync::Arc;

use super::driver::Driver;
use super::service::{Active, Service};
use super::status::{
    EventRecord, InstanceStatus, MaintenanceStatus, RolloutRecord, ServiceStatus, ShieldStatus,
    SideStatus, TrafficStatus, WarmStatus, Weights,
};
use crate::analysis::scorecard::Sample;
use crate::config::scalar;
use crate::model::id::RevisionId;
use crate::model::instance::Instance;
use crate::model::moment::Moment;
use crate::model::revision::Origin;
use crate::model::weight::Side;
use crate::rollout::machine::{Kind, Rollout};
use crate::rollout::phase::{Cause, PauseReason, Phase, Stage};
use crate::rollout::plan::{Plan, Steps};
use crate::rollout::strategy::Strategy;
use crate::routing::budget::Shielded;
use crate::store::records::{Placed, RecordedEvent, RolloutEntry};

impl Driver {
    /// A service as the outside sees it.
    pub(super) fn status_of(&self, service: &Service, now: Moment) -> ServiceStatus {
        let name = &service.config.name;
        let active = service.active.as_ref();
        let weight = self.fleet.weight(name);
        let samples = Side::BOTH.map(|side| self.fleet.sample(name, side));
        let rates = [service.rates[0].per_second(), service.rates[1].per_second()];
        let traffic = |side: Side| {
            traffic_of(&samples[side.index()], rates[side.index()], rates[0] + rates[1])
        };
        let record = &service.record;
        let stable = record.stable.as_ref().map(|placed| {
            let traffic = Some(traffic(Side::Stable));
            self.side_of(service, placed.revision, &placed.instances, traffic)
        });
        let canary = active.filter(|a| !a.rollout.phase.is_over()).map(|active| {
            let rollout = &active.rollout;
            let traffic = Some(traffic(Side::Canary));
            self.side_of(service, rollout.canary, &rollout.instances, traffic)
        });
        let last = service.history.last();
        let phase = match (active, last) {
            (Some(active), _) => active.rollout.phase.as_str(),
            (None, Some(entry)) => entry.checkpoint.phase.as_str(),
            (None, None) => "idle",
        };
        let plan = active.map_or(&service.config.plan, |active| &active.rollout.plan);
        let wall = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
        ServiceStatus {
            service: name.to_string(),
            group: service.config.group.as_ref().map(ToString::to_string),
            phase: phase.to_owned(),
            // A return that waits for its group is at no step.
            step: active
                .filter(|a| !a.rollout.is_direct())
                .and_then(|a| a.rollout.phase.step())
                .map(|step| step + 1),
            strategy: plan.strategy.to_string(),
            steps: planned(service, plan).weights().iter().map(|weight| weight.percent()).collect(),
            weights: Weights { stable: weight.complement().percent(), canary: weight.percent() },
            stable,
            canary,
            shield: self.shield_of(service, active),
            mirror: active.and_then(super::mirror::status),
            warm: record.warm.as_ref().map(|warm| WarmStatus {
                revision: warm.placed.revision.0,
                image: image_of(service, warm.placed.revision),
                seconds_left: warm.until.saturating_sub(wall) as f64 / 1e3,
            }),
            verdict: active.and_then(|a| a.verdict.clone()).or_else(|| {
                active.is_none().then(|| last.and_then(|l| l.verdict.clone())).flatten()
            }),
            rollout: active
                .map(|a| a.rollout.id.0)
                .or_else(|| last.map(|entry| entry.checkpoint.id.0)),
            since: time(active.map_or(service.since, |a| a.since)),
            seconds_left: active
                .and_then(|a| a.rollout.deadline())
                .map(|deadline| deadline.since(now).as_secs_f64()),
            notes: notes_of(service, active, last),
            maintenance: record.maintenance.as_ref().map(|record| MaintenanceStatus {
                queue_seconds: record.queue_millis as f64 / 1e3,
            }),
            freeze: super::gates::freeze_status(service),
            confirm: super::gates::confirm_status(service),
            webhooks: active.map(|active| active.outside.status()).unwrap_or_default(),
            gated: active.is_some_and(|active| {
                let reason = PauseReason::Gate;
                matches!(&active.rollout.phase, Phase::Paused { reason: why, .. } if *why == reason)
            }),
            routes: Arc::clone(&service.routes),
            answers_alone: service.config.answers_alone(),
            generation: self.fleet.generation(),
        }
    }

    fn shield_of(&self, service: &Service, active: Option<&Active>) -> Option<ShieldStatus> {
        let total = self.fleet.shielded(&service.config.name);
        let rollout = active.map_or_else(Shielded::default, |a| total.since(a.shielded));
        (total != Shielded::default()).then_some(ShieldStatus {
            shielded: rollout.shielded,
            refused: rollout.refused,
            shielded_total: total.shielded,
            refused_total: total.refused,
        })
    }

    fn side_of(
        &self,
        service: &Service,
        revision: RevisionId,
        instances: &[Instance],
        traffic: Option<TrafficStatus>,
    ) -> SideStatus {
        let endpoints = self.fleet.endpoints(&service.config.name, revision);
        let is_stable = |placed: &Placed| placed.revision == revision;
        let is_stable = service.record.stable.as_ref().is_some_and(is_stable);
        let instance = |(replica, instance): (u32, &Instance)| {
            let relaunch = service.relaunches.get(&replica).filter(|_| is_stable);
            let endpoint = endpoints.iter().find(|e| e.instance == instance.id);
            let watched = service.watched.get(&instance.id);
            InstanceStatus {
                id: instance.id.to_string(),
                address: instance.address.to_string(),
                healthy: endpoint.is_some_and(|e| e.is_healthy()),
                in_flight: endpoint.map_or(0, |e| e.in_flight()),
                restarts: relaunch.map_or(0, |relaunch| relaunch.failures),
                cpu: None,
                memory: None,
                diagnosis: watched.filter(|w| !w.healthy).and_then(|w| w.diagnosis.clone()),
            }
        };
        SideStatus {
            revision: revision.0,
            image: image_of(service, revision),
            digest: digest_of(service, revision),
            origin: origin_of(service, revision),
            instances: (0..).zip(instances).map(instance).collect(),
            traffic,
        }
    }
}

fn traffic_of(sample: &Sample, rate: f64, all: f64) -> TrafficStatus {
    let latency = sample.latency();
    let seconds = |q| latency.quantile(q).map(|micros| micros / 1e6);
    let (requests, errors) = (sample.requests(), sample.errors());
    TrafficStatus {
        share: if all > 0.0 { rate / all * 100.0 } else { 0.0 },
        requests_per_second: rate,
        requests,
        errors,
        error_rate: if requests > 0 { errors as f64 / requests as f64 } else { 0.0 },
        p50: seconds(0.5),
        p95: seconds(0.95),
        p99: seconds(0.99),
    }
}

/// What identifies the image of a revision: its digest in the registry, else its id.
fn digest_of(service: &Service, revision: RevisionId) -> Option<String> {
    let container = &service.revisions.get(&revision)?.spec.container;
    container.digest.clone().or_else(|| container.image_id.clone())
}

fn origin_of(service: &Service, revision: RevisionId) -> Option<Origin> {
    service.revisions.get(&revision)?.origin.clone()
}

fn notes_of(
    service: &Service,
    active: Option<&Active>,
    last: Option<&RolloutEntry>,
) -> Vec<String> {
    let mut notes = Vec::new();
    match active.map(|a| &a.rollout.phase).or_else(|| last.map(|l| &l.checkpoint.phase)) {
        Some(Phase::Paused { reason, .. }) => notes.push(reason.to_string()),
        Some(
            Phase::RollingBack { cause, .. }
            | Phase::Restoring { cause }
            | Phase::RolledBack { cause },
        ) => {
            notes.push(cause.to_string());
        }
        _ => {}
    }
    if let Some(hold) = active.and_then(|a| a.verdict.as_ref()).and_then(|v| v.hold.clone()) {
        notes.push(hold);
    }
    super::gates::notes(service, &mut notes);
    for (replica, relaunch) in &service.relaunches {
        if relaunch.failures > 1 {
            notes.push(format!(
                "replica {replica} of stable was started {} times",
                relaunch.failures
            ));
        }
    }
    let name = &service.config.name;
    if service.record.maintenance.is_some() {
        notes.push(format!(
            "in maintenance: visitors do not reach it; `switchback maintenance {name} off` ends it"
        ));
    }
    if service.record.stable.is_none() && active.is_none() && !service.config.answers_alone() {
        let what = if service.preparing { "being prepared" } else { "not deployed yet" };
        notes.push(format!("{name} is {what}"));
    }
    notes
}

/// What a revision runs, as text.
pub(super) fn image_of(service: &Service, revision: RevisionId) -> String {
    service.source(revision).map(ToString::to_string).unwrap_or_default()
}

/// The sentence for a phase that was entered.
pub(super) fn sentence(service: &Service, rollout: &Rollout) -> String {
    let (to, steps) = (rollout.canary, rollout.plan.steps.count());
    let image = image_of(service, to);
    let from = rollout.stable.map_or_else(String::new, |from| format!("revision {from} → "));
    match &rollout.phase {
        Phase::Clearing => {
            let queue = scalar::show_duration(rollout.plan.queue);
            format!(
                "{from}revision {to} ({image}): what serves stops first; visitors wait, each for up \
                 to {queue}"
            )
        }
        Phase::Growing { step, stage, .. } => growing(rollout, *step, *stage),
        Phase::Restoring { .. } => {
            let from = rollout.stable.map_or_else(String::new, |from| format!("revision {from}"));
            format!("{from} starts again; visitors wait until it is healthy")
        }
        Phase::Launching => {
            let all = service.revisions.get(&to).map_or(1, |r| r.spec.instances());
            let replicas = if rollout.rolls() { rollout.wanted() } else { all };
            let noun = if replicas == 1 { "instance" } else { "instances" };
            let plan = match rollout.kind {
                Kind::Canary => going(&rollout.plan),
                Kind::Direct => String::new(),
            };
            format!("{from}revision {to} ({image}): starting {replicas} {noun}{plan}")
        }
        Phase::Probing => {
            let addresses: Vec<String> = rollout
                .instances
                .iter()
                .map(|i| format!("{} {}", i.id.short(), i.address))
                .collect();
            format!("started {}; asking whether it is healthy", addresses.join(", "))
        }
        Phase::Smoke => {
            let count = rollout.plan.smoke.len();
            let noun = if count == 1 { "test" } else { "tests" };
            format!("healthy; {count} smoke {noun} before the first visitor")
        }
        Phase::Mirroring => super::mirror::beginning(&rollout.plan),
        Phase::Baking { step } => {
            format!("the canary takes {} (step {} of {steps})", rollout.weight, step + 1)
        }
        Phase::Paused { reason, .. } => format!("paused at {}: {reason}", rollout.weight),
        Phase::Promoting => format!("revision {to} takes all traffic"),
        Phase::Promoted => {
            let warm = match rollout.stable {
                Some(from) if !rollout.plan.keep_warm.is_zero() => {
                    let keep = jiff::SignedDuration::try_from(rollout.plan.keep_warm);
                    let keep = keep.map_or_else(|_| String::new(), |keep| format!(" for {keep:#}"));
                    format!("; revision {from} stays warm{keep}")
                }
                _ => String::new(),
            };
            format!("promoted: revision {to} ({image}) is stable{warm}")
        }
        Phase::RollingBack { cause, .. } => format!("rolling back: {cause}"),
        Phase::RolledBack { cause } => format!("rolled back: {cause}"),
    }
}

/// The steps of a plan; of one that is not under way, as its strategy would carry it out.
fn planned(service: &Service, plan: &Plan) -> Steps {
    let count = match plan.instances {
        0 => service.config.template.instances(),
        count => count,
    };
    plan.clone().carried_out(count).steps
}

/// How a plan goes on when its first instances run.
pub(super) fn going(plan: &Plan) -> String {
    let bake = scalar::show_duration(plan.bake);
    match plan.strategy {
        Strategy::Canary => format!(", then {}", plan.steps),
        Strategy::BlueGreen => format!(", then everything at once, watched for {bake} at least"),
        Strategy::Rolling => {
            format!(", then instance by instance, each watched for {bake} at least")
        }
        Strategy::Recreate => format!(", then everything at once, watched for {bake} at least"),
    }
}

/// How far the next instances of a rolling rollout are.
fn growing(rollout: &Rollout, step: usize, stage: Stage) -> String {
    let (to, all) = (rollout.plan.instances_at(step), rollout.plan.instances);
    let first = rollout.plan.instances_at(step.saturating_sub(1)) + 1;
    let which = if first < to { format!("{first} to {to}") } else { to.to_string() };
    match stage {
        Stage::Launching => format!("starting instance {which} of {all}"),
        Stage::Probing => {
            format!("started instance {which} of {all}; asking whether it is healthy")
        }
        Stage::Smoke => format!("instance {which} of {all} is healthy; its smoke tests come first"),
    }
}

/// What the shield did in a rollout, if anything.
pub(super) fn shielded(canary: RevisionId, done: Shielded) -> Option<String> {
    let Shielded { shielded, refused } = done;
    let requests = |count: u64| if count == 1 { "request" } else { "requests" };
    let beyond = if refused > 0 {
        format!("; {refused} more were beyond `shield_budget`")
    } else {
        String::new()
    };
    (shielded + refused > 0).then(|| {
        let noun = requests(shielded);
        format!(
            "shield: {shielded} {noun} that revision {canary} failed went to stable, unseen by \
             visitors{beyond}"
        )
    })
}

/// The rollout under way, as a record.
pub(super) fn present(service: &Service) -> Option<RolloutRecord> {
    let active = service.active.as_ref()?;
    let entry = RolloutEntry {
        checkpoint: active.checkpoint(),
        events: active.events.clone(),
        verdict: active.verdict.clone(),
        ended: 0,
    };
    Some(RolloutRecord { outcome: None, ended: None, ..past_of(service, &entry) })
}

/// The contract's word for how a rollout ended, or is about to.
pub(super) fn outcome_of(phase: &Phase) -> Option<&'static str> {
    match phase {
        Phase::Promoted => Some("promoted"),
        Phase::RolledBack { cause }
        | Phase::Restoring { cause }
        | Phase::RollingBack { cause, .. } => Some(match cause {
            Cause::Aborted => "aborted",
            Cause::LaunchFailed { .. } | Cause::NeverHealthy { .. } => "never_healthy",
            Cause::Inconclusive { .. } | Cause::GateClosed { .. } => "timed_out",
            Cause::Regression { .. }
            | Cause::Lost { .. }
            | Cause::Vetoed { .. }
            | Cause::SmokeFailed { .. } => "rolled_back",
        }),
        _ => None,
    }
}

/// A past rollout, as a record.
pub(super) fn past_of(service: &Service, entry: &RolloutEntry) -> RolloutRecord {
    let checkpoint = &entry.checkpoint;
    let outcome = outcome_of(&checkpoint.phase);
    let cause = match &checkpoint.phase {
        Phase::RolledBack { cause }
        | Phase::Restoring { cause }
        | Phase::RollingBack { cause, .. } => Some(cause.to_string()),
        _ => None,
    };
    RolloutRecord {
        rollout: checkpoint.id.0,
        service: checkpoint.service.to_string(),
        from: checkpoint.stable.map(|id| id.0),
        to: checkpoint.canary.0,
        image: image_of(service, checkpoint.canary),
        digest: digest_of(service, checkpoint.canary),
        origin: origin_of(service, checkpoint.canary),
        by: entry.events.iter().find_map(|event| {
            event.message.strip_prefix(super::gates::DEPLOYED_BY).map(str::to_owned)
        }),
        kind: match checkpoint.kind {
            Kind::Canary => "canary".to_owned(),
            Kind::Direct => "direct".to_owned(),
        },
        phase: checkpoint.phase.as_str().to_owned(),
        outcome: outcome.map(str::to_owned),
        cause,
        started: time(i64::try_from(checkpoint.started).unwrap_or(0)),
        ended: Some(time(i64::try_from(entry.ended).unwrap_or(0))),
        verdict: entry.verdict.clone(),
        events: entry.events.iter().map(|event| told(entry, event)).collect(),
    }
}

fn told(entry: &RolloutEntry, event: &RecordedEvent) -> EventRecord {
    EventRecord {
        id: event.id,
        at: time(i64::try_from(event.at).unwrap_or(0)),
        service: Some(entry.checkpoint.service.to_string()),
        rollout: Some(entry.checkpoint.id.0),
        kind: if event.phase.is_some() { "phase" } else { "note" }.to_owned(),
        phase: event.phase.clone(),
        weight: event.weight,
        message: event.message.clone(),
    }
}

/// Milliseconds since the Unix epoch as RFC 3339.
fn time(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis)
        .map_or_else(|_| String::new(), |at| format!("{at:.3}"))
}
