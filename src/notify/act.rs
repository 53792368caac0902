//! Does what a link says, if the rollout still stands where the link was made.

use super::links::{Claims, Link};
use crate::controller::handle::{Handle, Refused, Say};
use crate::controller::status::ServiceStatus;
use crate::model::id::ServiceName;
use crate::rollout::command::Command;

/// What came of a link.
#[derive(Debug, Clone)]
pub struct Acted {
    /// What it said.
    pub claims: Claims,
    /// One sentence: what was done, or why it was not.
    pub result: Result<String, String>,
}

/// Does what a link says.
pub(super) async fn act(handle: &Handle, claims: Claims) -> Acted {
    let result = perform(handle, &claims).await;
    Acted { claims, result }
}

async fn perform(handle: &Handle, claims: &Claims) -> Result<String, String> {
    let by = Some(format!("the link sent to {}", claims.to));
    let name = ServiceName::new(&claims.service).map_err(|error| error.to_string())?;
    let service = handle
        .service(name.as_str())
        .ok_or_else(|| format!("there is no service {name} any more"))?;
    let said = |refused: Refused| refused.to_string();
    let revision = claims.revision;
    match claims.link {
        Link::Promote => {
            stands(&service, claims)?;
            let command = Command::Promote { full: false };
            handle.command_by(name.clone(), command, by).await.map_err(said)?;
            Ok(format!("{name}: revision {revision} goes on"))
        }
        Link::Confirm => {
            if service.stable.as_ref().map(|side| side.revision) != Some(revision.0) {
                return Err(format!("revision {revision} of {name} is not stable any more"));
            }
            handle.say(name.clone(), Say::Confirm { by }).await.map_err(said)?;
            Ok(format!("{name}: revision {revision} stays"))
        }
        Link::Rollback if service.canary.as_ref().is_some_and(|c| c.revision == revision.0) => {
            handle.command_by(name.clone(), Command::Abort, by).await.map_err(said)?;
            Ok(format!("{name}: revision {revision} is taken back"))
        }
        Link::Rollback => {
            if service.stable.as_ref().map(|side| side.revision) != Some(revision.0) {
                return Err(format!("revision {revision} of {name} holds no traffic any more"));
            }
            let accepted = handle.rollback(name.clone(), None).await.map_err(said)?;
            Ok(format!(
                "{name}: back to revision {}, rollout {}",
                accepted.revision, accepted.rollout
            ))
        }
    }
}

/// Whether the rollout waits where it did when the link was made.
fn stands(service: &ServiceStatus, claims: &Claims) -> Result<(), String> {
    let (name, rollout) = (&service.service, claims.rollout);
    if service.rollout != Some(rollout.0) || service.canary.is_none() {
        return Err(format!("rollout {rollout} of {name} is over"));
    }
    if service.step != claims.step {
        return Err(format!(
            "rollout {rollout} of {name} has left the step that this link is about"
        ));
    }
    Ok(())
}
