//! What people ask of the driver, and the refusals they get.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::driver::{Driver, Prepared};
use super::handle::{Ask, Refused, ServiceCounts};
use super::journal::Kind;
use super::service::{Active, Service, Waiting};
use super::status::{DeployAccepted, DeployRequest, InstanceLogs, RolloutRecord};
use crate::model::id::{RevisionId, ServiceName};
use crate::model::instance::Instance;
use crate::model::revision::{Revision, RevisionSpec};
use crate::rollout::checkpoint::Checkpoint;
use crate::rollout::command::Command;
use crate::rollout::event::Event;
use crate::rollout::machine::{Kind as RolloutKind, Rollout};
use crate::rollout::phase::Phase;
use crate::rollout::plan::Plan;
use crate::runtime::RuntimeError;
use crate::store::records::Placed;

/// Revisions kept per service beside those in use, so that a rollback can name them.
const KEPT_REVISIONS: usize = 20;

type DeployAnswer = oneshot::Sender<Result<DeployAccepted, Refused>>;

/// How a service returns to an earlier revision.
enum WayBack {
    /// The canary was taken back.
    Abort(DeployAccepted),
    /// By a rollout to this revision, whose instances may run already.
    Begin(RevisionId, Box<Plan>, Vec<Instance>),
}

impl Driver {
    pub(super) fn asked(&mut self, ask: Ask) {
        // An asker who went away is no reason not to have done it.
        match ask {
            Ask::Deploy(name, request, answer) => self.deploy(&name, &request, answer),
            Ask::Command(name, command, answer) => match self.command(&name, command) {
                Ok(()) => self.answer_when_written(&name, Waiting::Command(answer)),
                Err(refused) => {
                    let _ = answer.send(Err(refused));
                }
            },
            Ask::Rollback(name, to, answer) => self.rollback(&name, to, answer),
            Ask::History(name, answer) => {
                let history = self.known(&name).map(|service| {
                    let past = service
                        .history
                        .iter()
                        .rev()
                        .map(|entry| super::report::past_of(service, entry));
                    super::report::present(service).into_iter().chain(past).collect()
                });
                let _ = answer.send(history);
            }
            Ask::Rollout(id, answer) => {
                let find = |record: &RolloutRecord| record.rollout == id.0;
                let found = self.services.values().find_map(|service| {
                    let past = || {
                        service
                            .history
                            .iter()
                            .map(|entry| super::report::past_of(service, entry))
                            .find(find)
                    };
                    super::report::present(service).filter(find).or_else(past)
                });
                let none = || Refused::NotFound(format!("there is no rollout {id}"));
                let _ = answer.send(found.ok_or_else(none));
            }
            Ask::Logs(name, revision, lines, answer) => self.logs(&name, revision, lines, answer),
            Ask::Scorecards(answer) => {
                let counts =
                    self.fleet.totals().into_iter().map(|(service, revision, side, total)| {
                        ServiceCounts { service, revision, side, total: Arc::new(total) }
                    });
                let _ = answer.send(counts.collect());
            }
            Ask::Reload(answer) => {
                let _ = answer.send(self.reload_config());
            }
        }
    }

    fn known(&self, name: &ServiceName) -> Result<&Service, Refused> {
        self.services.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.services.keys().map(ServiceName::as_str).collect();
            let there_are = if names.is_empty() {
                "the configuration has none".to_owned()
            } else {
                format!("there are: {}", names.join(", "))
            };
            Refused::NotFound(format!("there is no service {name}; {there_are}"))
        })
    }

    fn deploy(&mut self, name: &ServiceName, request: &DeployRequest, answer: DeployAnswer) {
        match self.admit_deploy(name, request) {
            Ok((spec, plan)) => self.prepare(name, spec, plan, Some(answer)),
            Err(refused) => {
                let _ = answer.send(Err(refused));
            }
        }
    }

    fn admit_deploy(
        &self,
        name: &ServiceName,
        request: &DeployRequest,
    ) -> Result<(RevisionSpec, Plan), Refused> {
        let service = self.known(name)?;
        self.admit_new_rollout(service)?;
        let spec = super::settings::spec_of(&service.config, request)?;
        let plan = super::settings::plan_of(&service.config, request)?;
        Ok((spec, plan))
    }

    fn admit_new_rollout(&self, service: &Service) -> Result<(), Refused> {
        let name = &service.config.name;
        if let Some(active) = &service.active {
            let rollout = &active.rollout;
            let at =
                rollout.phase.step().map_or(String::new(), |_| format!(" at {}", rollout.weight));
            return Err(Refused::Conflict {
                sentence: format!(
                    "rollout {} of {name} is {}{at}: wait for its end, or take it back with \
                     `switchback abort {name}`, or finish it with `switchback promote {name} --full`",
                    rollout.id,
                    rollout.phase.as_str().replace('_', " "),
                ),
                phase: rollout.phase.as_str().to_owned(),
            });
        }
        if service.preparing {
            return Err(Refused::Conflict {
                sentence: format!("a deploy of {name} is being prepared: wait for it"),
                phase: "launching".to_owned(),
            });
        }
        Ok(())
    }

    /// Asks the runtime whether a revision can be run; its answer begins the rollout.
    pub(super) fn prepare(
        &mut self,
        name: &ServiceName,
        spec: RevisionSpec,
        plan: Plan,
        answer: Option<DeployAnswer>,
    ) {
        self.prepare_as(name, spec, plan, RolloutKind::Canary, answer);
    }

    pub(super) fn prepare_as(
        &mut self,
        name: &ServiceName,
        spec: RevisionSpec,
        plan: Plan,
        kind: RolloutKind,
        answer: Option<DeployAnswer>,
    ) {
        let runtime = self.runtimes.of(&spec.source);
        let Some(service) = self.services.get_mut(name) else { return };
        service.preparing = true;
        let (service, prepared) = (name.clone(), self.prepared.clone());
        self.tasks.spawn(async move {
            let spec = runtime.prepare(&spec).await;
            let _ = prepared.send(Prepared { service, spec, plan, kind, answer }).await;
        });
    }

    pub(super) fn begin_prepared(&mut self, prepared: Prepared) {
        let Prepared { service: name, spec, plan, kind, answer } = prepared;
        let Some(service) = self.services.get_mut(&name) else { return };
        service.preparing = false;
        match spec {
            Err(error) => {
                let sentence = error.to_string();
                self.tell(&name, Kind::Note, format!("cannot deploy: {sentence}"));
                let refused = match error {
                    RuntimeError::NotFound(_) => Refused::Invalid(sentence),
                    _ => Refused::Unavailable(sentence),
                };
                if let Some(answer) = answer {
                    let _ = answer.send(Err(refused));
                }
            }
            Ok(spec) => {
                let revision = self.add_revision(&name, spec);
                self.begin(&name, revision, kind, plan, Vec::new(), answer);
            }
        }
    }

    fn add_revision(&mut self, name: &ServiceName, spec: RevisionSpec) -> RevisionId {
        let created = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
        let Some(service) = self.services.get_mut(name) else { return RevisionId(0) };
        service.record.last_revision += 1;
        let id = RevisionId(service.record.last_revision);
        let revision = Revision { id, spec, created };
        service.revisions.insert(id, revision.clone());
        let mut changes = vec![crate::store::Change::Revision(name.clone(), Box::new(revision))];
        let in_use = [
            service.record.stable.as_ref().map(|placed| placed.revision),
            service.record.warm.as_ref().map(|warm| warm.placed.revision),
            Some(id),
        ];
        while service.revisions.len() > KEPT_REVISIONS {
            let oldest = service.revisions.keys().find(|id| !in_use.contains(&Some(**id))).copied();
            let Some(oldest) = oldest else { break };
            service.revisions.remove(&oldest);
            changes.push(crate::store::Change::DropRevision(name.clone(), oldest));
        }
        // The rollout's own first checkpoint is queued behind this batch and must stand, so this one
        // needs nobody to wait for it.
        let written = self.writer.write(changes);
        self.tasks.spawn(async move { written.await.is_ok() });
        id
    }

    /// Begins a rollout to a revision that exists; with instances, if they run already. Who asked is
    /// answered when its first checkpoint is written: a rollout whose number somebody knows survives.
    fn begin(
        &mut self,
        name: &ServiceName,
        revision: RevisionId,
        kind: RolloutKind,
        plan: Plan,
        instances: Vec<Instance>,
        answer: Option<DeployAnswer>,
    ) {
        let now = self.now();
        let id = self.next_rollout();
        let started = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
        let accepted = DeployAccepted { rollout: id.0, revision: revision.0 };
        self.make_room(name, revision);
        let Some(service) = self.services.get_mut(name) else { return };
        let stable = service.record.stable.as_ref().map(|placed| placed.revision);
        let checkpoint = Checkpoint {
            id,
            service: name.clone(),
            kind: if stable.is_none() { RolloutKind::Direct } else { kind },
            stable,
            canary: revision,
            plan,
            phase: Phase::Launching,
            instances,
            memory: None,
            started,
        };
        let (rollout, effects) = Rollout::begin(checkpoint, now);
        let attempt = rollout.attempt;
        service.active = Some(Active {
            rollout,
            judge: None,
            seen: Default::default(),
            verdict: None,
            started,
            events: Vec::new(),
            pending: None,
            since: 0,
            diagnosis: None,
            remembered: 0,
            launch: None,
            waiting: answer
                .map(|answer| (attempt, Waiting::Rollout(answer, accepted)))
                .into_iter()
                .collect(),
        });
        self.entered(name);
        self.perform(name, effects);
    }

    /// A new revision takes the place of the one that is warm: a small host has room for two, not for
    /// three.
    fn make_room(&mut self, name: &ServiceName, revision: RevisionId) {
        let Some(service) = self.services.get_mut(name) else { return };
        let warm = service.record.warm.take_if(|warm| warm.placed.revision != revision);
        if let Some(warm) = warm {
            self.retire(name, warm.placed);
        }
    }

    /// Answers when the rollout's present phase is written down.
    fn answer_when_written(&mut self, name: &ServiceName, waiting: Waiting) {
        let Some(active) = self.services.get_mut(name).and_then(|s| s.active.as_mut()) else {
            return;
        };
        let attempt = active.rollout.attempt;
        if active.rollout.is_written() {
            self.answer(name, vec![waiting]);
        } else {
            active.waiting.push((attempt, waiting));
        }
    }

    fn command(&mut self, name: &ServiceName, command: Command) -> Result<(), Refused> {
        let service = self.known(name)?;
        let Some(active) = &service.active else {
            return Err(Refused::Conflict {
                sentence: format!(
                    "cannot {} {name}: no rollout is under way; begin one with `switchback deploy \
                     {name}`",
                    command.verb()
                ),
                phase: "idle".to_owned(),
            });
        };
        command.admit(&active.rollout.phase).map_err(|refusal| Refused::Conflict {
            phase: refusal.phase.to_owned(),
            sentence: refusal.to_string(),
        })?;
        self.tell(name, Kind::Note, format!("a person said: {}", spoken(command)));
        self.step(name, Event::Command(command));
        Ok(())
    }

    fn rollback(&mut self, name: &ServiceName, to: Option<RevisionId>, answer: DeployAnswer) {
        match self.way_back(name, to) {
            Ok(WayBack::Abort(accepted)) => {
                self.answer_when_written(name, Waiting::Rollout(answer, accepted));
            }
            Ok(WayBack::Begin(revision, plan, instances)) => {
                self.begin(name, revision, RolloutKind::Direct, *plan, instances, Some(answer));
            }
            Err(refused) => {
                let _ = answer.send(Err(refused));
            }
        }
    }

    fn way_back(&mut self, name: &ServiceName, to: Option<RevisionId>) -> Result<WayBack, Refused> {
        let service = self.known(name)?;
        if let Some(active) = &service.active {
            let (id, stable) = (active.rollout.id, active.rollout.stable);
            if to.is_some() && to != stable {
                self.admit_new_rollout(service)?;
            }
            self.command(name, Command::Abort)?;
            let revision = stable.map_or(0, |id| id.0);
            return Ok(WayBack::Abort(DeployAccepted { rollout: id.0, revision }));
        }
        self.admit_new_rollout(service)?;
        let stable = service.record.stable.as_ref().map(|placed| placed.revision);
        let Some(wanted) = to.or_else(|| service.previous()) else {
            return Err(Refused::Conflict {
                sentence: format!("{name} has no earlier revision to return to"),
                phase: "idle".to_owned(),
            });
        };
        if Some(wanted) == stable {
            return Err(Refused::Conflict {
                sentence: format!("revision {wanted} of {name} holds the traffic already"),
                phase: "idle".to_owned(),
            });
        }
        if !service.revisions.contains_key(&wanted) {
            let kept: Vec<String> = service.revisions.keys().map(ToString::to_string).collect();
            return Err(Refused::NotFound(format!(
                "revision {wanted} of {name} is not kept; kept are: {}",
                kept.join(", ")
            )));
        }
        let plan = service.config.plan.clone();
        let warm = service.record.warm.as_ref().filter(|warm| warm.placed.revision == wanted);
        let serving = self.fleet.endpoints(name, wanted).iter().any(|e| e.is_healthy());
        let instances = match warm {
            Some(warm) if serving => warm.placed.instances.clone(),
            _ => Vec::new(),
        };
        if !instances.is_empty() {
            self.fleet.bring_back(name, wanted);
        }
        Ok(WayBack::Begin(wanted, Box::new(plan), instances))
    }

    fn logs(
        &mut self,
        name: &ServiceName,
        revision: Option<RevisionId>,
        lines: usize,
        answer: oneshot::Sender<Result<Vec<InstanceLogs>, Refused>>,
    ) {
        let service = match self.known(name) {
            Ok(service) => service,
            Err(refused) => {
                let _ = answer.send(Err(refused));
                return;
            }
        };
        let found = service.placed();
        let stable = service.record.stable.as_ref().map(|placed| placed.revision);
        let wanted = revision.or(stable).or(found.first().map(|placed| placed.revision));
        let Some(Placed { revision: id, instances }) =
            found.into_iter().find(|placed| Some(placed.revision) == wanted)
        else {
            let which = revision.map_or_else(String::new, |id| format!(" of revision {id}"));
            let sentence = format!("no instance{which} of {name} runs");
            let _ = answer.send(Err(Refused::NotFound(sentence)));
            return;
        };
        let runtime = match service.source(id) {
            Some(source) => self.runtimes.of(source),
            None => Arc::clone(&service.runtime),
        };
        self.tasks.spawn(async move {
            let mut logs = Vec::new();
            for instance in instances {
                match runtime.logs(&instance.id, lines).await {
                    Ok(lines) => {
                        logs.push(InstanceLogs { instance: instance.id.to_string(), lines });
                    }
                    Err(error) => {
                        let _ = answer.send(Err(Refused::Unavailable(error.to_string())));
                        return;
                    }
                }
            }
            let _ = answer.send(Ok(logs));
        });
    }
}

fn spoken(command: Command) -> String {
    match command {
        Command::Promote { full: true } => "promote --full".to_owned(),
        Command::Weight(weight) => format!("weight {weight}"),
        other => other.verb().to_owned(),
    }
}
