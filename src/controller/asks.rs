//! What people ask of the driver, and the refusals they get.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::driver::Driver;
use super::fresh::Fresh;
use super::handle::{Ask, Refused, ServiceCounts};
use super::journal::Kind;
use super::service::{Active, Service, Waiting};
use super::status::{DeployAccepted, RolloutRecord};
use super::way_back::Start;
use crate::model::id::{RevisionId, ServiceName};
use crate::rollout::checkpoint::Checkpoint;
use crate::rollout::command::Command;
use crate::rollout::event::Event;
use crate::rollout::machine::{Kind as RolloutKind, Rollout};
use crate::rollout::phase::Phase;
use crate::rollout::plan::Plan;

pub(super) type DeployAnswer = oneshot::Sender<Result<DeployAccepted, Refused>>;

impl Driver {
    pub(super) fn asked(&mut self, ask: Ask) {
        // An asker who went away is no reason not to have done it.
        match ask {
            Ask::Deploy(name, request, told, answer) => {
                self.deploy(&name, &request, told, answer);
            }
            Ask::DeployTogether(requests, answer) => self.deploy_together(requests, answer),
            Ask::Launch(name, spec, why, answer) => {
                self.deploy_exactly(&name, *spec, why, answer);
            }
            Ask::Held(name, answer) => {
                let _ = answer.send(self.held(name.as_ref()));
            }
            Ask::Export(answer) => {
                let _ = answer.send(self.export());
            }
            Ask::Tell(name, sentence) => self.tell(&name, Kind::Note, sentence),
            Ask::Command(name, command, by, answer) => match self.command(&name, command, by) {
                Ok(()) => self.answer_when_written(&name, Waiting::Command(answer)),
                Err(refused) => {
                    let _ = answer.send(Err(refused));
                }
            },
            Ask::Maintain(name, request, answer) => {
                let _ = answer.send(self.maintain(&name, &request));
            }
            Ask::Say(name, said, answer) => {
                let _ = answer.send(self.say(&name, said));
            }
            Ask::Rollback(name, to, answer) => self.rollback(&name, to, answer),
            Ask::RollbackTogether(back, answer) => self.rollback_together(back, answer),
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
            Ask::Logs(name, wanted, answer) => self.logs(&name, wanted, answer),
            Ask::Forecast(name, request, answer) => {
                let _ = answer.send(self.foretell(&name, &request));
            }
            Ask::Fit(name, request, answer) => self.fits(&name, &request, answer),
            Ask::Scorecards(answer) => {
                let counts =
                    self.fleet.totals().into_iter().map(|(service, revision, side, total)| {
                        ServiceCounts { service, revision, side, total: Arc::new(total) }
                    });
                let _ = answer.send(counts.collect());
            }
            Ask::Measure(name, answer) => self.measure(name.as_ref(), answer),
            Ask::Reload(answer) => {
                let _ = answer.send(self.reload_config());
            }
        }
    }

    pub(super) fn admit_new_rollout(&self, service: &Service) -> Result<(), Refused> {
        let name = &service.config.name;
        if let Some(active) = &service.active {
            let rollout = &active.rollout;
            let at =
                rollout.phase.step().map_or(String::new(), |_| format!(" at {}", rollout.weight));
            // Only what would be admitted now is advised.
            let may = |command: Command| rollout.admit(command).is_ok();
            let mut ways = String::new();
            if may(Command::Abort) {
                ways = format!(", or take it back with `switchback abort {name}`");
            }
            if may(Command::Promote { full: true }) {
                ways += &format!(", or finish it with `switchback promote {name} --full`");
            }
            return Err(Refused::Conflict {
                sentence: format!(
                    "rollout {} of {name} is {}{at}: wait for its end{ways}",
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

    /// Begins a rollout to a revision that exists. Who asked is answered when its first checkpoint is
    /// written: a rollout whose number somebody knows survives.
    pub(super) fn begin(
        &mut self,
        name: &ServiceName,
        revision: RevisionId,
        kind: RolloutKind,
        plan: Plan,
        start: Start,
        answer: Option<DeployAnswer>,
    ) {
        let now = self.now();
        let id = self.next_rollout();
        let started = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
        let accepted = DeployAccepted {
            rollout: id.0,
            revision: revision.0,
            same_image_as: self.same_image(name, revision),
            strategy: plan.strategy,
        };
        let gone = self.make_room(name, revision);
        let (phase, instances) = match start {
            Start::Anew => (Phase::Launching, Vec::new()),
            Start::Asked(instances) => (Phase::Probing, instances),
            Start::AtOnce(instances) => (Phase::Promoting, instances),
        };
        let Some(service) = self.services.get_mut(name) else { return };
        let stable = service.record.stable.as_ref().map(|placed| placed.revision);
        let count = service.revisions.get(&revision).map_or(1, |r| r.spec.instances());
        let plan = plan.carried_out(count);
        let checkpoint = Checkpoint {
            id,
            service: name.clone(),
            kind: if stable.is_none() { RolloutKind::Direct } else { kind },
            stable,
            canary: revision,
            plan,
            phase,
            instances,
            memory: None,
            started,
        };
        let attempts = service.attempts_at(revision);
        self.fleet.join(name, checkpoint.plan.joined.as_ref().map(|joined| joined.number));
        let (rollout, effects) = Rollout::begin(checkpoint, now);
        let shielded = self.fleet.shielded(name);
        let attempt = rollout.attempt;
        service.active = Some(Active {
            rollout,
            judge: None,
            seen: Default::default(),
            seen_of: Vec::new(),
            verdict: None,
            started,
            events: Vec::new(),
            pending: None,
            since: 0,
            diagnosis: None,
            remembered: 0,
            shielded,
            launch: None,
            attempts,
            fresh: Fresh::None,
            recorder: None,
            epoch: 0,
            mirror: None,
            outside: Default::default(),
            waiting: answer
                .map(|answer| (attempt, Waiting::Rollout(answer, accepted)))
                .into_iter()
                .collect(),
        });
        // It may be the first that needs this one.
        self.watch_runtimes();
        self.entered(name);
        if let Some(gone) = gone {
            let message =
                format!("revision {gone} was warm and stops: there is room for two revisions");
            self.tell(name, Kind::Note, message);
        }
        self.perform(name, effects);
    }

    /// Answers when the rollout's present phase is written down.
    pub(super) fn answer_when_written(&mut self, name: &ServiceName, waiting: Waiting) {
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

    pub(super) fn command(
        &mut self,
        name: &ServiceName,
        command: Command,
        by: Option<String>,
    ) -> Result<(), Refused> {
        let service = self.known(name)?;
        let Some(active) = &service.active else {
            return Err(Refused::Conflict {
                sentence: format!(
                    "cannot {}{} {name}: no rollout is under way; begin one with `switchback deploy \
                     {name}`",
                    command.verb(),
                    if matches!(command, Command::Weight(_)) { " of" } else { "" }
                ),
                phase: "idle".to_owned(),
            });
        };
        active.rollout.admit(command).map_err(|refusal| Refused::Conflict {
            phase: refusal.phase.to_owned(),
            sentence: refusal.to_string(),
        })?;
        let by = by.unwrap_or_else(|| "a person".to_owned());
        self.tell(name, Kind::Note, format!("{by} said: {}", spoken(command)));
        self.step(name, Event::Command(command));
        Ok(())
    }
}

fn spoken(command: Command) -> String {
    match command {
        Command::Promote { full: true } => "promote --full".to_owned(),
        Command::Weight(weight) => format!("weight {weight}"),
        other => other.verb().to_owned(),
    }
}
