//! What a person may say to a rollout, and when.

use crate::model::weight::Weight;

use super::machine::Rollout;
use super::phase::{PauseReason, Phase};

/// What a person says to a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Skip what is left: the canary becomes stable now (`full`), or its next step begins.
    Promote {
        /// Skip all steps.
        full: bool,
    },
    /// Take the canary back.
    Abort,
    /// Stay at this weight.
    Pause,
    /// Go on.
    Resume,
    /// Give the canary this weight and stay there.
    Weight(Weight),
}

/// Why something that a person said cannot be done now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {verb} while {service_state}: {advice}")]
pub struct Refusal {
    /// The verb.
    pub verb: &'static str,
    /// The phase, as the contract writes it.
    pub phase: &'static str,
    service_state: &'static str,
    advice: &'static str,
}

impl Command {
    /// The verb as the operator types it.
    #[must_use]
    pub fn verb(self) -> &'static str {
        match self {
            Self::Promote { .. } => "promote",
            Self::Abort => "abort",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Weight(_) => "set the weight",
        }
    }

    /// Whether this may be done in this phase.
    pub fn admit(self, phase: &Phase) -> Result<(), Refusal> {
        let refuse = |service_state, advice| {
            Err(Refusal { verb: self.verb(), phase: phase.as_str(), service_state, advice })
        };
        match (self, phase) {
            (_, Phase::Promoted | Phase::RolledBack { .. }) => {
                refuse("no rollout is under way", "begin one with `switchback deploy`")
            }
            (_, Phase::RollingBack { .. } | Phase::Restoring { .. }) => {
                refuse("rolling back", "wait until the rollback is done, then deploy again")
            }
            (_, Phase::Promoting) => {
                refuse("promoting", "wait a moment, then `switchback rollback` takes it back")
            }
            (Self::Abort, _) => Ok(()),
            (_, Phase::Growing { .. }) => {
                refuse("its next instance starts", "wait for it, or `switchback abort`")
            }
            (_, Phase::Clearing | Phase::Launching | Phase::Probing) => {
                refuse("the canary is not healthy yet", "wait for it, or `switchback abort`")
            }
            (_, Phase::Smoke) => {
                refuse("its smoke tests run", "wait for them, or `switchback abort`")
            }
            (Self::Pause | Self::Resume | Self::Weight(_), Phase::Mirroring) => refuse(
                "copies of requests are compared",
                "wait for it; `switchback promote` skips it, `switchback abort` takes the canary back",
            ),
            (
                Self::Promote { full: false } | Self::Pause | Self::Resume,
                Phase::Paused { reason: PauseReason::Others, .. },
            ) => refuse(
                "the others of its group are not as far",
                "wait for them; `switchback abort` takes all of them back",
            ),
            (Self::Pause, Phase::Paused { .. }) => {
                refuse("paused already", "`switchback resume` goes on")
            }
            (Self::Resume, Phase::Baking { .. }) => {
                refuse("baking", "it is not paused; `switchback promote` skips the step")
            }
            (Self::Promote { .. } | Self::Pause | Self::Resume | Self::Weight(_), _) => Ok(()),
        }
    }
}

impl Rollout {
    /// Whether this may be done now: what its phase says, and its strategy.
    pub fn admit(&self, command: Command) -> Result<(), Refusal> {
        command.admit(&self.phase)?;
        let refuse = |service_state, advice| {
            let phase = self.phase.as_str();
            Err(Refusal { verb: command.verb(), phase, service_state, advice })
        };
        match command {
            Command::Promote { full: true } if self.wanted() < self.plan.instances => refuse(
                "not all of its instances run",
                "`switchback promote` without --full goes on to the next one",
            ),
            Command::Promote { full: true } | Command::Weight(_) if self.is_joined() => refuse(
                "it goes step by step with its group",
                "`switchback promote` without --full ends its step; `switchback abort` takes all back",
            ),
            Command::Pause if self.recreates() && self.settled == Weight::ZERO => refuse(
                "visitors still wait",
                "say it when they have come in, or `switchback abort`",
            ),
            Command::Weight(_) if self.recreates() => {
                refuse("no instance of stable runs", "`switchback abort` takes the canary back")
            }
            _ => Ok(()),
        }
    }
}
