//! Services of one group return together: each to the revision that it had before their last deploy
//! together, or none of them. Where one of them returned by itself since, the others follow it.
//!
//! Where all of those still run and are healthy, each return is one publish, and they follow one another
//! at once. Else whoever is ready waits until all are, as before a step of their deploy, so that nobody
//! meets the former revision of one beside the new one of another for as long as a start takes.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::oneshot;

use super::archivist::Subject;
use super::driver::Driver;
use super::handle::Refused;
use super::service::Waiting;
use super::together::TogetherAnswer;
use super::way_back::{Start, Then, WayBack};
use crate::model::id::{RevisionId, ServiceName};
use crate::model::progress::Listener;
use crate::rollout::command::Command;
use crate::rollout::joined::Joined;
use crate::rollout::machine::Kind;
use crate::rollout::phase::Phase;
use crate::store::records::RolloutEntry;

/// To what each service returns; nothing where it is there already.
type Formers = BTreeMap<ServiceName, Option<RevisionId>>;

/// Which services return, and how.
#[derive(Debug, Clone, Default)]
pub struct ReturnTogether {
    /// They are of one group.
    pub services: BTreeSet<ServiceName>,
    /// Whether checkpoints may be archived, as each service's configuration says.
    pub checkpoint: bool,
}

impl Driver {
    /// Returns. Refused as a whole if any of them would be. Checkpoints of the present state are archived
    /// first where that is configured, unless all ways back are at once: then beside them.
    pub(super) fn rollback_together(&mut self, back: ReturnTogether, answer: TogetherAnswer) {
        let ReturnTogether { services, checkpoint } = back;
        let formers = match self.admit_return(&services) {
            Ok((_, formers)) => formers,
            Err(refused) => {
                let _ = answer.send(Err(refused));
                return;
            }
        };
        let wanted = formers.iter().filter(|_| checkpoint);
        let subjects: Vec<_> =
            wanted.filter_map(|(name, to)| self.to_archive(name, (*to)?)).collect();
        let (Some(archivist), false) = (self.archivist.clone(), subjects.is_empty()) else {
            return self.return_all(&services, answer);
        };
        let told = Listener::default();
        if formers.iter().all(|(name, to)| self.is_warm(name, *to)) {
            for (subject, note) in subjects {
                self.archive(archivist.clone(), vec![(subject, note)], told.clone(), None);
            }
            return self.return_all(&services, answer);
        }
        for name in &services {
            if let Some(service) = self.services.get_mut(name) {
                service.preparing = true;
            }
        }
        self.archive(archivist, subjects, told, Some(Then::Together(services, answer)));
    }

    /// To what each of them returns; a service that is there already has none. Where they never were
    /// deployed together, or one of them was deployed since, each returns to its own former revision.
    fn former_of(&self, services: &BTreeSet<ServiceName>) -> Formers {
        let own = || {
            let former = |name: &ServiceName| self.services.get(name)?.previous();
            services.iter().map(|name| (name.clone(), former(name))).collect()
        };
        let Some(moves) = self.last_together(services) else { return own() };
        let back = moves.iter().any(|[now, _, to]| now == to);
        let to = moves.iter().map(|[now, from, to]| {
            // Like a rollback of one: said again, it leads where it came from.
            let target = if back { from } else { to };
            (target != now).then_some(*target)
        });
        services.iter().cloned().zip(to).collect()
    }

    /// Of each: what holds its traffic now, and what their last deploy together replaced by what. None
    /// where something else holds the traffic of one.
    fn last_together(&self, services: &BTreeSet<ServiceName>) -> Option<Vec<[RevisionId; 3]>> {
        let (name, all) = (services.first()?, services.iter());
        let of = |entry: &RolloutEntry| {
            let checkpoint = &entry.checkpoint;
            let is_deploy = checkpoint.kind == Kind::Canary && checkpoint.phase == Phase::Promoted;
            checkpoint.plan.joined.clone().filter(|_| is_deploy)
        };
        let mut past = self.services.get(name)?.history.iter().rev().filter_map(of);
        let joined = past.find(|joined| all.clone().all(|one| joined.members.contains(one)))?;
        let of_one = |name: &ServiceName| {
            let service = self.services.get(name)?;
            let is_it = |e: &&RolloutEntry| of(e).is_some_and(|j| j.number == joined.number);
            let checkpoint = &service.history.iter().rev().find(is_it)?.checkpoint;
            let now = service.record.stable.as_ref()?.revision;
            let (from, to) = (checkpoint.stable?, checkpoint.canary);
            (now == from || now == to).then_some([now, from, to])
        };
        all.map(of_one).collect()
    }

    /// Whether all of these may return now, and to what.
    fn admit_return(&self, services: &BTreeSet<ServiceName>) -> Result<(Joined, Formers), Refused> {
        let joined = self.joined(services.iter())?;
        let formers = self.former_of(services);
        for name in services {
            let service = self.known(name)?;
            if let Some(active) = &service.active {
                active.rollout.admit(Command::Abort).map_err(|refusal| Refused::Conflict {
                    phase: refusal.phase.to_owned(),
                    sentence: format!("{name}: {refusal}"),
                })?;
                continue;
            }
            self.admit_new_rollout(service)?;
            let strategy = service.config.plan.strategy;
            if !strategy.goes_together() {
                let group = &joined.group;
                return Err(Refused::Invalid(format!(
                    "{name} of group {group} cannot return with the others by strategy {strategy}: \
                     name it alone"
                )));
            }
            let is_kept = |former: &RevisionId| service.revisions.contains_key(former);
            let stays = self.last_together(services).is_some() && formers[name].is_none();
            if !stays && !formers[name].as_ref().is_some_and(is_kept) {
                return Err(Refused::Conflict {
                    sentence: format!("{name} has no earlier revision to return to"),
                    phase: "idle".to_owned(),
                });
            }
        }
        Ok((joined, formers))
    }

    /// What is archived before a service returns, if its configuration says so.
    fn to_archive(&self, name: &ServiceName, to: RevisionId) -> Option<(Subject, String)> {
        self.services.get(name).filter(|service| service.active.is_none())?;
        let subject = self.subject(name).filter(|subject| subject.config.keeping.auto)?;
        Some((subject, format!("before the rollback to revision {to}")))
    }

    /// Whether what a service returns to still runs.
    fn is_warm(&self, name: &ServiceName, to: Option<RevisionId>) -> bool {
        self.services.get(name).is_some_and(|service| {
            let warm = service.record.warm.as_ref().map(|warm| warm.placed.revision);
            service.active.is_some() || to.is_none() || warm == to
        })
    }

    /// Takes canaries back where rollouts are under way, and begins a return of each of the others.
    pub(super) fn return_all(&mut self, services: &BTreeSet<ServiceName>, answer: TogetherAnswer) {
        // Much may have happened while a checkpoint was archived.
        let admitted = self.admit_return(services);
        let (joined, formers) = match admitted {
            Ok(admitted) => admitted,
            Err(refused) => {
                let _ = answer.send(Err(refused));
                return;
            }
        };
        let (mut answers, mut starts) = (Vec::new(), Vec::new());
        for (name, former) in formers {
            let is_active = self.services.get(&name).is_some_and(|one| one.active.is_some());
            if former.is_none() && !is_active {
                continue;
            }
            let (sender, receiver) = oneshot::channel();
            match self.way_back(&name, former.filter(|_| !is_active)) {
                Ok(WayBack::Abort(accepted)) => {
                    self.answer_when_written(&name, Waiting::Rollout(sender, accepted));
                }
                Ok(WayBack::Begin(revision, plan)) => {
                    let start = self.start_of(&name, revision);
                    starts.push((name.clone(), revision, plan, start, sender));
                }
                Err(refused) => {
                    let _ = sender.send(Err(refused));
                }
            }
            answers.push((name, receiver));
        }
        let members: Vec<ServiceName> = starts.iter().map(|(name, ..)| name.clone()).collect();
        let at_once = starts.iter().all(|(.., start, _)| matches!(start, Start::AtOnce(_)));
        let joined = Joined { members, ..joined };
        let waits = !at_once && joined.members.len() > 1;
        for (name, revision, mut plan, start, sender) in starts {
            let start = match start {
                Start::AtOnce(instances) if waits => Start::Asked(instances),
                start => start,
            };
            plan.joined = waits.then(|| joined.clone());
            self.begin(&name, revision, Kind::Direct, *plan, start, Some(sender));
        }
        self.answer_together(answers, answer);
    }
}
