//! The way back: a rollback, and the revisions that are kept warm for it.
//!
//! Of a revision that still runs nothing has to be started, and nobody has to be asked: it held the
//! traffic before. So its return is one publish, done before anything is written, because a disk that
//! is full or slow must not keep visitors on what an operator has found bad. Until it is written the
//! revision that was left is kept running, whatever its time: a daemon that dies in between comes back
//! to what the disk says, and finds it.

use std::collections::BTreeSet;

use super::archivist::{Archivist, Subject};
use super::asks::DeployAnswer;
use super::driver::Driver;
use super::handle::Refused;
use super::journal::Kind as JournalKind;
use super::service::Waiting;
use super::status::DeployAccepted;
use super::together::TogetherAnswer;
use crate::model::id::{RevisionId, ServiceName};
use crate::model::instance::Instance;
use crate::model::progress::Listener;
use crate::rollout::command::Command;
use crate::rollout::machine::Kind;
use crate::rollout::plan::Plan;
use crate::rollout::strategy::Strategy;

/// Where a rollback goes, and how.
#[derive(Debug, Default)]
pub struct ReturnTo {
    /// To which revision; the one before where nothing is said.
    pub revision: Option<RevisionId>,
    /// Whether a checkpoint may be archived, as the service's configuration says.
    pub checkpoint: bool,
    /// Who hears how far it is.
    pub told: Listener,
}

/// Checkpoints were archived, or not, and what waits for that.
pub(super) struct Archived {
    /// Of which service, and what came of it.
    told: Vec<(ServiceName, String)>,
    then: Option<Then>,
}

/// The rollback that waits for a checkpoint.
pub(super) enum Then {
    /// Of one service.
    One(ServiceName, Option<RevisionId>, DeployAnswer),
    /// Of several that return together.
    Together(BTreeSet<ServiceName>, TogetherAnswer),
}

/// What a rollout begins with.
pub(super) enum Start {
    /// Instances have to be started.
    Anew,
    /// These run, and it is not known yet whether they are healthy.
    Asked(Vec<Instance>),
    /// These are healthy.
    AtOnce(Vec<Instance>),
}

/// How a service returns to an earlier revision.
pub(super) enum WayBack {
    /// The canary was taken back.
    Abort(DeployAccepted),
    /// By a rollout to this revision.
    Begin(RevisionId, Box<Plan>),
}

impl Driver {
    /// A new revision takes the place of the one that is warm: a small host has room for two, not for
    /// three. What may still be what the disk says is stable stays until the disk says otherwise.
    pub(super) fn make_room(
        &mut self,
        name: &ServiceName,
        revision: RevisionId,
    ) -> Option<RevisionId> {
        let service = self.services.get_mut(name)?;
        if !service.is_written() {
            return None;
        }
        let warm = service.record.warm.take_if(|warm| warm.placed.revision != revision)?;
        let gone = warm.placed.revision;
        self.retire(name, warm.placed);
        Some(gone)
    }

    /// Returns. Where a checkpoint of the present state is wanted first, it is archived first, unless
    /// the way back is at once: then it is archived beside it. An archive that fails holds nobody up.
    pub(super) fn rollback(
        &mut self,
        name: &ServiceName,
        return_to: ReturnTo,
        answer: DeployAnswer,
    ) {
        let ReturnTo { revision: to, checkpoint, told } = return_to;
        let subject =
            self.subject(name).filter(|subject| checkpoint && subject.config.keeping.auto);
        let (Some(subject), Some(archivist)) = (subject, self.archivist.clone()) else {
            return self.go_back(name, to, answer);
        };
        let Some(service) = self.services.get_mut(name) else { return };
        if service.active.is_some() || service.preparing {
            return self.go_back(name, to, answer);
        }
        let wanted = to.or_else(|| service.previous());
        let is_known = wanted.is_some_and(|id| service.revisions.contains_key(&id));
        let warm = service.record.warm.as_ref().map(|warm| warm.placed.revision);
        let note = match wanted {
            Some(to) if is_known && Some(to) != Some(subject.revision.id) => {
                format!("before the rollback to revision {to}")
            }
            _ => return self.go_back(name, to, answer),
        };
        if warm == wanted {
            self.archive(archivist, vec![(subject, note)], told, None);
            return self.go_back(name, to, answer);
        }
        service.preparing = true;
        let then = Then::One(name.clone(), to, answer);
        self.archive(archivist, vec![(subject, note)], told, Some(then));
    }

    /// Archives, tells, and goes on with the rollback that waits for it.
    pub(super) fn archive(
        &self,
        archivist: Archivist,
        subjects: Vec<(Subject, String)>,
        told: Listener,
        then: Option<Then>,
    ) {
        let archived = self.archived.clone();
        self.tasks.spawn(async move {
            let mut done = Vec::new();
            for (subject, note) in subjects {
                let service = subject.config.name.clone();
                let sentence = match archivist.create(subject, &note, true, &told).await {
                    Ok(listed) => format!("checkpoint {} archived {note}", listed.id),
                    Err(error) => format!("no checkpoint was archived {note}: {error}"),
                };
                done.push((service, sentence));
            }
            let _ = archived.send(Archived { told: done, then }).await;
        });
    }

    /// Archives are there, or could not be.
    pub(super) fn archived(&mut self, archived: Archived) {
        let Archived { told, then } = archived;
        for (name, sentence) in told {
            self.tell(&name, JournalKind::Note, sentence);
        }
        match then {
            None => {}
            Some(Then::One(name, to, answer)) => {
                self.is_prepared(&name);
                self.go_back(&name, to, answer);
            }
            Some(Then::Together(services, answer)) => {
                for name in &services {
                    self.is_prepared(name);
                }
                self.return_all(&services, answer);
            }
        }
    }

    fn is_prepared(&mut self, name: &ServiceName) {
        if let Some(service) = self.services.get_mut(name) {
            service.preparing = false;
        }
    }

    fn go_back(&mut self, name: &ServiceName, to: Option<RevisionId>, answer: DeployAnswer) {
        match self.way_back(name, to) {
            Ok(WayBack::Abort(accepted)) => {
                self.answer_when_written(name, Waiting::Rollout(answer, accepted));
            }
            Ok(WayBack::Begin(revision, plan)) => {
                let start = self.start_of(name, revision);
                self.begin(name, revision, Kind::Direct, *plan, start, Some(answer));
            }
            Err(refused) => {
                let _ = answer.send(Err(refused));
            }
        }
    }

    /// Returns to a kept revision without being asked.
    pub(super) fn return_to(
        &mut self,
        name: &ServiceName,
        revision: RevisionId,
    ) -> Result<(), Refused> {
        if let WayBack::Begin(revision, plan) = self.way_back(name, Some(revision))? {
            let start = self.start_of(name, revision);
            self.begin(name, revision, Kind::Direct, *plan, start, None);
        }
        Ok(())
    }

    pub(super) fn way_back(
        &mut self,
        name: &ServiceName,
        to: Option<RevisionId>,
    ) -> Result<WayBack, Refused> {
        let service = self.known(name)?;
        if let Some(active) = &service.active {
            let (id, stable) = (active.rollout.id, active.rollout.stable);
            if to.is_some() && to != stable {
                self.admit_new_rollout(service)?;
            }
            self.command(name, Command::Abort, None)?;
            let revision = stable.map_or(0, |id| id.0);
            return Ok(WayBack::Abort(DeployAccepted {
                rollout: id.0,
                revision,
                same_image_as: None,
                strategy: Strategy::default(),
            }));
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
        Ok(WayBack::Begin(wanted, Box::new(service.config.plan.clone())))
    }

    /// What of a revision still runs. Instances that probes have given up make room for new ones.
    pub(super) fn start_of(&mut self, name: &ServiceName, revision: RevisionId) -> Start {
        let Some(service) = self.services.get_mut(name) else { return Start::Anew };
        let Some(warm) = service.record.warm.take_if(|warm| warm.placed.revision == revision)
        else {
            return Start::Anew;
        };
        let instances = warm.placed.instances.clone();
        let given_up = instances.iter().any(|instance| service.is_given_up(&instance.id));
        let serves = self.fleet.endpoints(name, revision).iter().any(|e| e.is_healthy());
        if given_up && !serves {
            self.retire(name, warm.placed);
            return Start::Anew;
        }
        service.record.warm = Some(warm);
        self.fleet.bring_back(name, revision);
        if serves { Start::AtOnce(instances) } else { Start::Asked(instances) }
    }
}
