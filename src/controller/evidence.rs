//! The driver and the judge: what is sampled, weighed, recorded and foretold.

use super::driver::Driver;
use super::handle::Refused;
use super::journal::Kind;
use super::recorder::Recorder;
use super::service::{Active, Service};
use super::status::{DeployRequest, StepForecast};
use crate::analysis::forecast;
use crate::analysis::judge::Judge;
use crate::analysis::replay::{self, Opening, Record};
use crate::analysis::verdict::{Verdict, WorstRoute};
use crate::model::id::{RevisionId, ServiceName};
use crate::model::moment::Moment;
use crate::model::weight::{Side, Weight};
use crate::rollout::event::Event;
use crate::rollout::machine::Kind as RolloutKind;
use crate::rollout::phase::Phase;

/// Routes that a verdict names: enough to see a pattern.
const WORST: usize = 3;

impl Service {
    /// How often what a revision runs was judged in earlier rollouts and taken back. Trying the same
    /// again until it passes must not be a way round the bound on what passes by chance.
    pub(super) fn attempts_at(&self, revision: RevisionId) -> u32 {
        let Some(spec) = self.revisions.get(&revision).map(|revision| &revision.spec) else {
            return 0;
        };
        let same = |id: &RevisionId| self.revisions.get(id).is_some_and(|r| r.spec == *spec);
        let judged = self.history.iter().map(|entry| &entry.checkpoint).filter(|checkpoint| {
            matches!(checkpoint.phase, Phase::RolledBack { .. })
                && checkpoint.kind == RolloutKind::Canary
                && checkpoint.memory.is_some()
                && same(&checkpoint.canary)
        });
        judged.count() as u32
    }
}

impl Active {
    /// Writes the last line of the recording.
    pub(super) fn end_recording(&mut self) {
        let Some(recorder) = self.recorder.take() else { return };
        let phase = &self.rollout.phase;
        let ended = super::report::outcome_of(phase).unwrap_or("").to_owned();
        let sentence = match phase {
            Phase::RolledBack { cause }
            | Phase::Restoring { cause }
            | Phase::RollingBack { cause, .. } => Some(cause.to_string()),
            _ => None,
        };
        recorder.end(&replay::Ending { ended, sentence });
    }
}

impl Driver {
    /// Samples both sides and weighs them.
    pub(super) fn weigh(&mut self, name: &ServiceName, now: Moment) {
        let samples = Side::BOTH.map(|side| self.fleet.sample(name, side));
        let Some(service) = self.services.get_mut(name) else { return };
        for (rate, sample) in service.rates.iter_mut().zip(&samples) {
            rate.note(sample.requests(), now);
        }
        let Some(active) = &mut service.active else { return };
        if active.rollout.phase == Phase::Mirroring {
            self.weigh_mirror(name);
            return;
        }
        if !active.rollout.phase.is_weighed() || active.pending.is_some() {
            return;
        }
        let Some(judge) = &mut active.judge else { return };
        let [_, canary] = samples;
        let weight = self.fleet.weight(name);
        let stable = self.fleet.compared(name);
        let instances = self.fleet.instances(name);
        let clients = self.fleet.clients(name);
        let newly = [stable.since(&active.seen[0]), canary.since(&active.seen[1])];
        active.seen_of.resize_with(instances.len(), Default::default);
        let each: Vec<_> =
            instances.iter().zip(&active.seen_of).map(|(now, then)| now.since(then)).collect();
        judge.observe_instances(&each);
        judge.observe_clients(clients.unwrap_or_default());
        let mut verdict = judge.observe(&newly[0], &newly[1], now);
        if let Some(recorder) = &mut active.recorder {
            recorder.record(&Record {
                at: now.0,
                epoch: active.epoch,
                began: None,
                resumed: false,
                weight,
                compared: None,
                stable: replay::counts(&newly[0]),
                canary: replay::counts(&newly[1]),
                instances: each.iter().map(replay::counts).collect(),
                clients,
            });
        }
        let had_errors = canary.errors() > 0;
        (active.seen, active.seen_of) = ([stable, canary], instances);
        let trouble = active.recorder.as_ref().and_then(Recorder::trouble);
        let slots = judge.slots();
        let remember = slots != active.remembered;
        active.remembered = slots;
        if had_errors {
            self.name_worst_routes(name, &mut verdict);
        }
        if let Some(active) = self.services.get_mut(name).and_then(|s| s.active.as_mut()) {
            active.verdict = Some(verdict.clone());
        }
        if let Some(trouble) = trouble {
            self.stop_recording(name, &trouble);
        }
        self.step(name, Event::Sampled(verdict));
        if remember {
            self.save(name);
        }
    }

    fn name_worst_routes(&self, name: &ServiceName, verdict: &mut Verdict) {
        let [stable, canary] = Side::BOTH.map(|side| self.fleet.troubled(name, side));
        let worst = canary.worst(WORST).into_iter();
        verdict.worst_routes = worst
            .map(|(route, errors)| WorstRoute { stable: stable.on(&route), route, canary: errors })
            .collect();
    }

    /// Gives the canary a weight, and the judge a step.
    pub(super) fn shift(&mut self, name: &ServiceName, weight: Weight) {
        let now = self.now();
        let history = self.fleet.stable_history(name);
        let compared = self.fleet.compared_weight(name, weight);
        let Some(active) = self.services.get_mut(name).and_then(|s| s.active.as_mut()) else {
            return;
        };
        active.seen = Default::default();
        active.seen_of.clear();
        let began = active.judge.is_none();
        let each = weight > Weight::ZERO && active.rollout.plan.criteria.compares_instances;
        self.fleet.compare_instances(name, each);
        if weight > Weight::ZERO {
            let criteria = active.rollout.plan.criteria.clone();
            let attempts = active.attempts;
            let is_first = active.epoch == 0;
            let resumed = active.judge.is_some() && is_first;
            let judge = active
                .judge
                .get_or_insert_with(|| Judge::again(criteria.clone(), &history, attempts, now));
            if active.rollout.plan.record && is_first {
                let opening = Opening {
                    recording: replay::VERSION,
                    service: name.to_string(),
                    rollout: active.rollout.id.0,
                    criteria,
                    attempt: attempts,
                    history: replay::counts(&history),
                };
                let file = self.recordings.join(name.as_str());
                active.recorder =
                    Some(Recorder::begin(&self.tasks, file, &opening, resumed, self.base));
            }
            let is_new = !judge.is_at(weight, compared);
            if is_new {
                judge.begin_step_beside(weight, compared, now);
            }
            active.epoch = u64::from(judge.steps());
            if let Some(recorder) = active.recorder.as_mut().filter(|_| is_new || resumed) {
                recorder.begin_epoch(now, resumed, compared);
            }
        }
        let salt = active.rollout.id.0;
        let (is_again, attempts) = (active.judge.is_some() && began, active.attempts);
        self.fleet.shift(name, weight, salt);
        self.restart_rates(name);
        if is_again && attempts > 0 {
            let fraction = 2_u64.saturating_pow(attempts);
            let message = format!(
                "the same revision was taken back before ({attempts}): what is evidence against it begins at 1/{fraction}"
            );
            self.tell(name, Kind::Note, message);
        }
    }

    fn stop_recording(&mut self, name: &ServiceName, trouble: &str) {
        if let Some(active) = self.services.get_mut(name).and_then(|s| s.active.as_mut()) {
            active.recorder = None;
        }
        self.tell(name, Kind::Note, format!("the rollout is not recorded any further: {trouble}"));
    }

    /// What each step of a rollout would take, from what stable does now.
    pub(super) fn foretell(
        &self,
        name: &ServiceName,
        request: &DeployRequest,
    ) -> Result<Vec<StepForecast>, Refused> {
        let service = self.known(name)?;
        let plan = super::settings::plan_of(&service.config, request)?;
        let plan = plan.carried_out(service.config.template.instances());
        let history = self.fleet.stable_history(name);
        let rate = service.rates.iter().map(super::service::Rate::per_second).sum::<f64>();
        // As if all that is known of stable had been seen at the present rate.
        let lasted = if rate > 0.0 { history.requests() as f64 / rate } else { 0.0 };
        let lasted = std::time::Duration::try_from_secs_f64(lasted).unwrap_or_default();
        let steps = (0..plan.steps.count()).map(|step| {
            let weight = plan.weight(step);
            let forecast = forecast::step(&plan.criteria, &history, lasted, weight);
            let seconds = forecast.time.map(|time| time.max(plan.bake));
            StepForecast {
                weight: weight.percent(),
                requests: forecast.requests,
                seconds: seconds.map(|time| time.as_secs_f64()),
                catches_error_rate: forecast.catches_errors,
                catches_slower: forecast.catches_slower,
            }
        });
        Ok(steps.collect())
    }
}
