//! What a person decides apart from a rollout's own course: whether there may be one at all (a
//! freeze), and whether a promotion stands (`confirm_within`).
//!
//! Both are kept in the service's record, so that they hold over a restart of the daemon.

use super::driver::Driver;
use super::handle::{Refused, Say};
use super::journal::Kind;
use super::service::Service;
use super::status::{ConfirmStatus, DeployRequest, FreezeStatus, ServiceStatus};
use crate::model::id::ServiceName;
use crate::rollout::machine::{Kind as RolloutKind, Rollout};
use crate::store::records::{Confirm, Freeze};

impl Driver {
    /// Does what a person said, and answers how the service stands then.
    pub(super) fn say(&mut self, name: &ServiceName, said: Say) -> Result<ServiceStatus, Refused> {
        self.known(name)?;
        let wall = wall();
        let Some(service) = self.services.get_mut(name) else {
            return Err(Refused::NotFound(format!("there is no service {name}")));
        };
        let by = |by: Option<String>| by.map(|by| format!(" by {by}")).unwrap_or_default();
        let message = match said {
            Say::Confirm { by: who } => match service.record.confirm.take() {
                Some(confirm) => format!("revision {} was confirmed{}", confirm.revision, by(who)),
                None => return Err(idle(format!("nothing of {name} waits to be confirmed"))),
            },
            Say::Freeze { reason, until, by: who } => {
                let until = until.as_deref().map(instant).transpose()?;
                if until.is_some_and(|until| until <= wall) {
                    return Err(Refused::Invalid(
                        "`until` lies in the past: give a moment that is still to come".to_owned(),
                    ));
                }
                let freeze = Freeze { reason, by: who, since: wall, until };
                let message = freeze_sentence(name, &freeze);
                service.record.freeze = Some(freeze);
                message
            }
            Say::Unfreeze { by: who } => match service.record.freeze.take() {
                Some(_) => format!("deploys of {name} are allowed again{}", by(who)),
                None => return Err(idle(format!("{name} is not frozen"))),
            },
        };
        self.tell(name, Kind::Note, message);
        self.save(name);
        let service = self.known(name)?;
        Ok(self.status_of(service, self.now()))
    }

    /// Whether a deploy may begin. Who overrides a freeze is written down.
    pub(super) fn admit_by_hand(
        &self,
        service: &Service,
        request: &DeployRequest,
    ) -> Result<(), Refused> {
        let name = &service.config.name;
        if let Some(confirm) = &service.record.confirm {
            return Err(idle(format!(
                "revision {} of {name} waits to be confirmed: `switchback confirm {name}`, or take \
                 it back with `switchback rollback {name}`",
                confirm.revision
            )));
        }
        match &service.record.freeze {
            Some(freeze) if freeze.holds(wall()) && !request.override_freeze => Err(idle(format!(
                "{}; `switchback unfreeze {name}` ends it, `deploy --override` goes past it",
                freeze_sentence(name, freeze)
            ))),
            _ => Ok(()),
        }
    }

    /// A promotion that is not confirmed in time is taken back.
    pub(super) fn keep_confirmed(&mut self, name: &ServiceName) {
        let Some(service) = self.services.get_mut(name) else { return };
        if service.active.is_some() || service.preparing {
            return;
        }
        let wall = wall();
        let Some(confirm) = service.record.confirm.take_if(|confirm| confirm.until <= wall) else {
            return;
        };
        let Confirm { revision, former, .. } = confirm;
        let message = format!("revision {revision} was not confirmed in time: back to {former}");
        self.tell(name, Kind::Note, message);
        self.save(name);
        if let Err(refused) = self.return_to(name, former) {
            let message = format!("revision {former} cannot come back: {refused}");
            self.tell(name, Kind::Note, message);
        }
    }
}

/// What the sentence in a rollout's record begins with that says who asked for it.
pub(super) const DEPLOYED_BY: &str = "deployed by ";

/// Who asked for a deploy, and past what: for the rollout's record.
pub(super) fn who(service: &Service, request: &DeployRequest) -> Option<String> {
    let freeze = service.record.freeze.as_ref();
    let past = freeze
        .filter(|freeze| request.override_freeze && freeze.holds(wall()))
        .map(|freeze| format!(", past the freeze ({})", freeze.reason));
    (request.by.is_some() || past.is_some()).then(|| {
        let by = request.by.as_deref().unwrap_or("somebody");
        format!("{DEPLOYED_BY}{by}{}", past.unwrap_or_default())
    })
}

/// What a promotion has to wait for, if anything.
pub(super) fn confirm(rollout: &Rollout) -> Option<Confirm> {
    let within = rollout.plan.confirm_within;
    let former = rollout.stable.filter(|_| rollout.kind == RolloutKind::Canary)?;
    (!within.is_zero()).then(|| Confirm {
        revision: rollout.canary,
        former,
        until: wall().saturating_add(u64::try_from(within.as_millis()).unwrap_or(u64::MAX)),
    })
}

/// What a person should know of both.
pub(super) fn notes(service: &Service, notes: &mut Vec<String>) {
    let name = &service.config.name;
    if let Some(freeze) = service.record.freeze.as_ref().filter(|freeze| freeze.holds(wall())) {
        notes.push(freeze_sentence(name, freeze));
    }
    if let Some(confirm) = &service.record.confirm {
        let (revision, former) = (confirm.revision, confirm.former);
        let until = text(confirm.until);
        notes.push(format!(
            "`switchback confirm {name}` until {until}, or revision {former} comes back in place of \
             {revision}"
        ));
    }
}

/// The freeze that holds, for the outside.
pub(super) fn freeze_status(service: &Service) -> Option<FreezeStatus> {
    let freeze = service.record.freeze.as_ref().filter(|freeze| freeze.holds(wall()))?;
    Some(FreezeStatus {
        reason: freeze.reason.clone(),
        by: freeze.by.clone(),
        until: freeze.until.map(text),
    })
}

/// The promotion that waits to be confirmed, for the outside.
pub(super) fn confirm_status(service: &Service) -> Option<ConfirmStatus> {
    let confirm = service.record.confirm.as_ref()?;
    Some(ConfirmStatus {
        revision: confirm.revision.0,
        former: confirm.former.0,
        until: text(confirm.until),
    })
}

fn freeze_sentence(name: &ServiceName, freeze: &Freeze) -> String {
    let by = freeze.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
    let until = freeze.until.map(|until| format!(" until {}", text(until))).unwrap_or_default();
    format!("{name} is frozen{by}{until}: {}", freeze.reason)
}

fn idle(sentence: String) -> Refused {
    Refused::Conflict { sentence, phase: "idle".to_owned() }
}

fn wall() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}

fn text(millis: u64) -> String {
    let at = i64::try_from(millis).ok().and_then(|m| jiff::Timestamp::from_millisecond(m).ok());
    at.map_or_else(String::new, |at| format!("{at:.0}"))
}

/// A moment, or a time from now: `2026-12-01T08:00:00Z`, `12h`.
fn instant(written: &str) -> Result<u64, Refused> {
    let at = written.parse::<jiff::Timestamp>().ok().or_else(|| {
        let span: jiff::SignedDuration = written.parse().ok()?;
        jiff::Timestamp::now().checked_add(span).ok()
    });
    at.and_then(|at| u64::try_from(at.as_millisecond()).ok()).ok_or_else(|| {
        Refused::Invalid(format!(
            "`until` {written:?} is neither a moment such as 2026-12-01T08:00:00Z nor a time from now \
             such as 12h"
        ))
    })
}
