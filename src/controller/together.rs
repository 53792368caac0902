//! Services that belong together: deployed by one request, through each step together, back together.
//!
//! Nothing is kept for a group but what each member's checkpoint says of it, so that a restart has
//! nothing else to find: who waits goes on when all others are as far, and who is alone goes back.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use super::driver::Driver;
use super::handle::Refused;
use super::journal::Kind;
use super::status::{DeployAccepted, DeployRequest};
use crate::model::id::{RevisionId, ServiceName};
use crate::model::progress::Listener;
use crate::rollout::event::Event;
use crate::rollout::joined::Joined;
use crate::rollout::machine::Rollout;
use crate::rollout::phase::Phase;
use crate::store::records::RolloutEntry;

/// What each member is deployed with.
pub type Requests = BTreeMap<ServiceName, DeployRequest>;
/// What each member's deploy answered.
pub type Accepted = BTreeMap<ServiceName, DeployAccepted>;
pub(super) type TogetherAnswer = oneshot::Sender<Result<Accepted, Refused>>;

/// How a member stands.
enum Standing {
    /// Its image is looked for, or its checkpoint archived.
    Coming,
    /// Under way: it was let into so many steps.
    UnderWay(Option<usize>),
    /// It has been promoted, in the place of this revision.
    Promoted { from: Option<RevisionId>, to: RevisionId },
    /// It goes back or went back, and why.
    Back(String),
    /// There is none: it could not be begun.
    Missing,
}

impl Driver {
    /// Begins rollouts that go together. Refused as a whole if any of them would be.
    pub(super) fn deploy_together(&mut self, requests: Requests, answer: TogetherAnswer) {
        let joined = match self.admit_together(&requests) {
            Ok(joined) => joined,
            Err(refused) => {
                let _ = answer.send(Err(refused));
                return;
            }
        };
        let mut answers = Vec::new();
        for (name, request) in requests {
            let (sender, receiver) = oneshot::channel();
            let request = DeployRequest { joined: Some(joined.clone()), ..request };
            self.deploy(&name, &request, Listener::default(), sender);
            answers.push((name, receiver));
        }
        self.answer_together(answers, answer);
    }

    /// Answers when each of them has been answered.
    pub(super) fn answer_together(
        &self,
        answers: Vec<(ServiceName, oneshot::Receiver<Result<DeployAccepted, Refused>>)>,
        answer: TogetherAnswer,
    ) {
        self.tasks.spawn(async move {
            let mut accepted = Accepted::new();
            let mut refused = None;
            for (name, receiver) in answers {
                match receiver.await {
                    Ok(Ok(one)) => {
                        accepted.insert(name, one);
                    }
                    // The others go back by themselves.
                    Ok(Err(why)) => refused = refused.or(Some(why)),
                    Err(_) => {}
                }
            }
            // An asker who went away is no reason not to have done it.
            let _ = answer.send(refused.map_or(Ok(accepted), Err));
        });
    }

    /// The one group that services belong to, with a number for what they do together now.
    pub(super) fn joined<'a>(
        &self,
        names: impl Iterator<Item = &'a ServiceName>,
    ) -> Result<Joined, Refused> {
        let groups = names.map(|name| {
            let group = self.known(name)?.config.group.clone();
            group.map(|group| (name.clone(), group)).ok_or_else(|| {
                Refused::Invalid(format!(
                    "{name} belongs to no group: name it alone, or write `group` in [service.{name}]"
                ))
            })
        });
        let groups = groups.collect::<Result<Vec<_>, Refused>>()?;
        let Some((first, group)) = groups.first().cloned() else {
            return Err(Refused::Invalid("no service is named".to_owned()));
        };
        if let Some((other, another)) = groups.iter().find(|(_, other)| *other != group) {
            return Err(Refused::Invalid(format!(
                "{first} belongs to group {group} and {other} to {another}: they do not go together"
            )));
        }
        let number = u64::try_from(jiff::Timestamp::now().as_microsecond()).unwrap_or(0);
        Ok(Joined { group, number, members: groups.into_iter().map(|(name, _)| name).collect() })
    }

    fn admit_together(&self, requests: &Requests) -> Result<Joined, Refused> {
        let joined = self.joined(requests.keys())?;
        let (group, first) = (&joined.group, joined.members.first());
        let mut steps = None;
        for (name, request) in requests {
            self.admit_deploy(name, request)?;
            let plan = super::settings::plan_of(&self.known(name)?.config, request)?;
            let own = (plan.strategy, plan.steps.to_string());
            if !plan.strategy.goes_together() {
                return Err(Refused::Invalid(format!(
                    "{name} of group {group} cannot be deployed with the others by strategy {}",
                    plan.strategy
                )));
            }
            if *steps.get_or_insert_with(|| own.clone()) != own {
                let first = first.unwrap_or(name);
                return Err(Refused::Invalid(format!(
                    "{name} has other steps than {first}: those of a group take each together"
                )));
            }
        }
        Ok(joined)
    }

    /// Lets those go on who waited for others that are as far now, and takes back those whose others went
    /// back.
    pub(super) fn keep_together(&mut self) {
        let mut all: BTreeMap<u64, Joined> = BTreeMap::new();
        for service in self.services.values() {
            let plan = service.active.as_ref().map(|active| &active.rollout.plan);
            let last = service.history.last().map(|entry| &entry.checkpoint.plan);
            for joined in [plan, last].into_iter().flatten().filter_map(|p| p.joined.as_ref()) {
                all.entry(joined.number).or_insert_with(|| joined.clone());
            }
        }
        for joined in all.values() {
            self.keep_joined(joined);
        }
    }

    fn keep_joined(&mut self, joined: &Joined) {
        let members: Vec<(ServiceName, Standing)> = joined
            .members
            .iter()
            .map(|name| (name.clone(), self.standing(name, joined.number)))
            .collect();
        let gone = members.iter().find_map(|(name, standing)| match standing {
            Standing::Back(cause) => Some(format!("{name} went back: {cause}")),
            Standing::Missing => Some(format!("{name} was not deployed")),
            Standing::Coming | Standing::UnderWay(_) | Standing::Promoted { .. } => None,
        });
        if let Some(gone) = gone {
            let sentence = format!("group {}: {gone}", joined.group);
            let went_back = members.iter().any(|(_, one)| matches!(one, Standing::Back(_)));
            for (name, standing) in &members {
                match standing {
                    Standing::UnderWay(_) => {
                        let sentence = sentence.clone();
                        self.step(name, Event::Vetoed { sentence });
                    }
                    // It had all the traffic already when another one failed at the last moment.
                    Standing::Promoted { from: Some(from), to } if went_back => {
                        self.take_back(name, joined.number, (*from, *to), &sentence);
                    }
                    _ => {}
                }
            }
            return;
        }
        let least = members.iter().map(|(_, standing)| match standing {
            Standing::UnderWay(reached) => reached.map_or(0, |reached| reached.saturating_add(1)),
            Standing::Promoted { .. } => usize::MAX,
            Standing::Coming | Standing::Back(_) | Standing::Missing => 0,
        });
        let Some(least) = least.min() else { return };
        for (name, _) in &members {
            let active = self.services.get(name).and_then(|service| service.active.as_ref());
            let waits_at = active.and_then(|active| active.rollout.waits_at());
            if waits_at.is_some_and(|at| at < least) {
                self.step(name, Event::Together);
            }
        }
    }

    /// Returns a service to its former revision, if the last thing that happened to it was that it was
    /// promoted with its group.
    fn take_back(
        &mut self,
        name: &ServiceName,
        number: u64,
        (from, to): (RevisionId, RevisionId),
        sentence: &str,
    ) {
        let Some(service) = self.services.get(name) else { return };
        let stable = service.record.stable.as_ref().map(|placed| placed.revision);
        let last = service.history.last().and_then(|e| e.checkpoint.plan.joined.as_ref());
        let is_last = last.is_some_and(|last| last.number == number);
        if !is_last || stable != Some(to) || service.active.is_some() || service.preparing {
            return;
        }
        if self.return_to(name, from).is_ok() {
            self.tell(name, Kind::Note, format!("taken back with its group: {sentence}"));
        }
    }

    fn standing(&self, name: &ServiceName, number: u64) -> Standing {
        let Some(service) = self.services.get(name) else { return Standing::Missing };
        let is_it = |joined: &Option<Joined>| joined.as_ref().is_some_and(|j| j.number == number);
        if let Some(active) = &service.active
            && is_it(&active.rollout.plan.joined)
        {
            return of_rollout(&active.rollout);
        }
        let entry = service.history.iter().rev().find(|e| is_it(&e.checkpoint.plan.joined));
        match entry {
            Some(entry) => of_entry(entry),
            None if service.preparing => Standing::Coming,
            None => Standing::Missing,
        }
    }
}

fn of_rollout(rollout: &Rollout) -> Standing {
    match &rollout.phase {
        Phase::RollingBack { cause, .. }
        | Phase::Restoring { cause }
        | Phase::RolledBack { cause } => Standing::Back(cause.to_string()),
        Phase::Promoted => Standing::Promoted { from: rollout.stable, to: rollout.canary },
        _ => Standing::UnderWay(rollout.reached()),
    }
}

fn of_entry(entry: &RolloutEntry) -> Standing {
    let checkpoint = &entry.checkpoint;
    match &checkpoint.phase {
        Phase::RolledBack { cause } => Standing::Back(cause.to_string()),
        _ => Standing::Promoted { from: checkpoint.stable, to: checkpoint.canary },
    }
}
