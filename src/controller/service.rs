//! What the driver holds of one service.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::fresh::Fresh;
use super::handle::Refused;
use super::mirror::Copies;
use super::outside::Outside;
use super::recorder::Recorder;
use super::status::{DeployAccepted, ServiceStatus};
use crate::analysis::judge::Judge;
use crate::analysis::scorecard::Sample;
use crate::analysis::verdict::Verdict;
use crate::config::Service as ServiceConfig;
use crate::model::id::{InstanceId, RevisionId};
use crate::model::moment::Moment;
use crate::model::revision::{Revision, RevisionSpec, Source};
use crate::rollout::checkpoint::Checkpoint;
use crate::rollout::effect::Effect;
use crate::rollout::event::Attempt;
use crate::rollout::machine::Rollout;
use crate::routing::budget::Shielded;
use crate::store::Change;
use crate::store::records::{ActiveRecord, Placed, RecordedEvent, RolloutEntry, ServiceRecord};

/// Over how long requests per second are averaged: long enough to be steady, short enough to follow.
const RATE_OVER: Duration = Duration::from_secs(2);

/// A service as the driver knows it.
#[derive(Debug)]
pub struct Service {
    pub config: ServiceConfig,
    pub record: ServiceRecord,
    pub revisions: BTreeMap<RevisionId, Revision>,
    pub active: Option<Active>,
    /// Past rollouts, oldest first.
    pub history: Vec<RolloutEntry>,
    /// A deploy is being prepared.
    pub preparing: bool,
    /// Instances being launched again by the keeper: replica and when to try next.
    pub relaunches: BTreeMap<u32, Relaunch>,
    /// How often instances of stable were given up that have not stopped yet.
    pub leaving: u32,
    /// The canary's next instances start when those have.
    pub launch_waits: bool,
    /// Visitors wait, because a rollout has stopped what would answer them.
    pub queues: bool,
    /// Writes that the disk has not answered yet.
    pub writes: u32,
    /// Who asked for a rollout that is over, and waits for its end to be written.
    pub asked: Vec<Waiting>,
    /// The last write failed while no rollout was there to try again: when to.
    pub unsaved: Option<Moment>,
    /// When the stable side began to look as it does.
    pub since: i64,
    pub rates: [Rate; 2],
    /// Its routes for people. There may be thousands, and they are told ten times a second.
    pub routes: Arc<[String]>,
    pub watched: HashMap<InstanceId, Watched>,
}

/// An instance that is probed.
#[derive(Debug)]
pub struct Watched {
    pub cancel: CancellationToken,
    pub healthy: bool,
    pub diagnosis: Option<String>,
    /// What the engine's own health check says, handed on to the prober.
    pub engine: tokio::sync::watch::Sender<Option<bool>>,
}

/// A replica of stable that ended and is wanted back.
#[derive(Debug)]
pub struct Relaunch {
    pub failures: u32,
    pub not_before: Moment,
    pub under_way: bool,
}

/// A rollout under way.
#[derive(Debug)]
pub struct Active {
    pub rollout: Rollout,
    pub judge: Option<Judge>,
    /// What each side had counted in this epoch when last sampled.
    pub seen: [Sample; 2],
    /// The same of each of stable's instances, where they are compared.
    pub seen_of: Vec<Sample>,
    pub verdict: Option<Verdict>,
    /// Milliseconds since the Unix epoch.
    pub started: u64,
    pub events: Vec<RecordedEvent>,
    /// Effects that wait for a checkpoint.
    pub pending: Option<(Attempt, Vec<Effect>)>,
    /// When this phase was entered, in milliseconds since the Unix epoch.
    pub since: i64,
    /// What the last failing probe said.
    pub diagnosis: Option<String>,
    /// How many slots the judge's memory had when it was last written.
    pub remembered: u64,
    /// What the shield had done when the rollout began.
    pub shielded: Shielded,
    /// Takes back the launch under way.
    pub launch: Option<CancellationToken>,
    /// How often the same revision, in other rollouts, was judged and taken back.
    pub attempts: u32,
    /// The instance of stable that the canary is compared with, where that is wanted.
    pub fresh: Fresh,
    /// Writes down what the rollout is judged by, where that is wanted.
    pub recorder: Option<Recorder>,
    /// The judge's step under way, counted from 1 over restarts; 0 before this process saw any.
    pub epoch: u64,
    /// What copies requests to the canary, while that is done.
    pub mirror: Option<Copies>,
    /// What programs elsewhere say about it.
    pub outside: Outside,
    /// Who is answered when the checkpoint of this attempt is written, or was not.
    pub waiting: Vec<(Attempt, Waiting)>,
}

/// Somebody who asked for something, and hears when it is written down: what was answered is not
/// forgotten, whatever happens to the daemon.
#[derive(Debug)]
pub enum Waiting {
    /// For a rollout.
    Rollout(oneshot::Sender<Result<DeployAccepted, Refused>>, DeployAccepted),
    /// For what was said to one.
    Command(oneshot::Sender<Result<ServiceStatus, Refused>>),
}

/// Events that a rollout's record keeps; an instance that flaps for days must not fill the disk.
const EVENTS: usize = 300;

impl Active {
    /// Writes an event into the rollout's record. When it is full, the oldest that is no phase goes.
    pub fn remember(&mut self, event: RecordedEvent) {
        if self.events.len() >= EVENTS {
            let oldest = self.events.iter().position(|event| event.phase.is_none()).unwrap_or(0);
            self.events.remove(oldest);
        }
        self.events.push(event);
    }

    /// Those who wait for the checkpoint of this attempt or of an earlier one.
    pub fn take_waiting(&mut self, attempt: Attempt) -> Vec<Waiting> {
        let taken = self.waiting.extract_if(.., |(waits_for, _)| *waits_for <= attempt);
        taken.map(|(_, waiting)| waiting).collect()
    }

    pub fn checkpoint(&self) -> Checkpoint {
        let memory = self.judge.as_ref().map(Judge::memory);
        Checkpoint::of(&self.rollout, memory, self.started)
    }

    pub fn record(&self) -> ActiveRecord {
        ActiveRecord { checkpoint: self.checkpoint(), events: self.events.clone() }
    }
}

impl Service {
    /// Whether the disk has all that there is to know. Until then what it has may name an instance
    /// that is not needed any more, and that one must not be stopped.
    pub fn is_written(&self) -> bool {
        self.writes == 0 && self.unsaved.is_none()
    }

    /// What the revision of this number runs.
    pub fn source(&self, revision: RevisionId) -> Option<&Source> {
        self.revisions.get(&revision).map(|revision| &revision.spec.source)
    }

    /// What the stable revision runs.
    pub fn stable_spec(&self) -> Option<&RevisionSpec> {
        let stable = self.record.stable.as_ref()?;
        self.revisions.get(&stable.revision).map(|revision| &revision.spec)
    }

    /// Whether probes have concluded that an instance is not healthy. One that was not asked long
    /// enough, after a restart for example, is neither.
    pub fn is_given_up(&self, instance: &InstanceId) -> bool {
        self.watched.get(instance).is_none_or(|watched| watched.diagnosis.is_some())
    }

    /// Every revision that has instances, with them: stable, warm, canary.
    pub fn placed(&self) -> Vec<Placed> {
        let record = &self.record;
        let mut placed: Vec<Placed> = record
            .stable
            .iter()
            .chain(record.warm.as_ref().map(|warm| &warm.placed))
            .cloned()
            .collect();
        if let Some(active) = &self.active {
            let (revision, instances) = (active.rollout.canary, active.rollout.instances.clone());
            if !placed.iter().any(|placed| placed.revision == revision) {
                placed.push(Placed { revision, instances });
            }
            placed.extend(active.fresh.placed());
        }
        placed
    }

    /// The revision that a rollback without a number returns to: the warm one, else the newest that
    /// was promoted before the present stable.
    pub fn previous(&self) -> Option<RevisionId> {
        let stable = self.record.stable.as_ref().map(|placed| placed.revision);
        let warm = self.record.warm.as_ref().map(|warm| warm.placed.revision);
        warm.or_else(|| {
            self.history
                .iter()
                .rev()
                .filter(|entry| entry.checkpoint.phase == crate::rollout::phase::Phase::Promoted)
                .flat_map(|entry| [Some(entry.checkpoint.canary), entry.checkpoint.stable])
                .flatten()
                .find(|id| Some(*id) != stable && self.revisions.contains_key(id))
        })
    }

    /// The changes that write this service and its rollout under way.
    pub fn changes(&self) -> Vec<Change> {
        let name = self.config.name.clone();
        let mut changes = vec![Change::Service(name.clone(), Box::new(self.record.clone()))];
        match &self.active {
            Some(active) => changes.push(Change::Active(Box::new(active.record()))),
            None => changes.push(Change::DropActive(name)),
        }
        changes
    }
}

/// Requests per second of one side, from cumulative counts.
#[derive(Debug, Default)]
pub struct Rate {
    counts: VecDeque<(Moment, u64)>,
}

impl Rate {
    /// Notes a cumulative count. A count that fell belongs to a new epoch and begins anew.
    pub fn note(&mut self, count: u64, now: Moment) {
        if self.counts.back().is_some_and(|(_, last)| *last > count) {
            self.counts.clear();
        }
        self.counts.push_back((now, count));
        while self.counts.len() > 2
            && self.counts.get(1).is_some_and(|(at, _)| now.since(*at) >= RATE_OVER)
        {
            self.counts.pop_front();
        }
    }

    /// Requests per second.
    pub fn per_second(&self) -> f64 {
        let (Some((first, from)), Some((last, to))) = (self.counts.front(), self.counts.back())
        else {
            return 0.0;
        };
        let seconds = last.since(*first).as_secs_f64();
        if seconds > 0.0 { (to - from) as f64 / seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_follows_the_last_seconds_and_a_new_epoch() {
        let mut rate = Rate::default();
        for tick in 0..50_u64 {
            rate.note(tick * 10, Moment(tick * 100));
        }
        assert!((rate.per_second() - 100.0).abs() < 1.0);
        rate.note(0, Moment(5_000));
        assert!(rate.per_second().abs() < f64::EPSILON);
        rate.note(5, Moment(5_100));
        assert!((rate.per_second() - 50.0).abs() < 1.0);
    }
}
