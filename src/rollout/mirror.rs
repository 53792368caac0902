//! The phase before the first step: copies of requests, whose answers nobody sees.
//!
//! It ends by itself: what takes a canary back is shown in it or is not. Where nobody came whose requests
//! could be copied nothing was shown, and the rollout goes on all the same, because nothing is promoted by
//! the mirror: the steps ask for their own evidence.

use std::time::Duration;

use super::effect::Effect;
use super::event::Event;
use super::machine::{Kind, Rollout, Step};
use super::phase::{Cause, Phase};
use crate::analysis::verdict::Finding;
use crate::model::moment::Moment;

impl Rollout {
    /// Whether copies come before visitors: where stable answers visitors, and the canary is new.
    pub(super) fn is_mirrored(&self) -> bool {
        self.plan.mirror.is_some() && self.kind == Kind::Canary && !self.recreates()
    }

    /// How long copies are sent.
    pub(super) fn mirrors_for(&self) -> Duration {
        self.plan.mirror.as_ref().map_or(Duration::ZERO, |mirror| mirror.lasts)
    }

    /// Begins to send copies.
    pub(super) fn mirror(&mut self, now: Moment) -> Step {
        self.enter(Phase::Mirroring, vec![Effect::Checkpoint { must: false }, Effect::Mirror], now)
    }

    /// What an event leads to while copies are sent.
    pub(super) fn mirrored(&mut self, event: Event, now: Moment) -> Step {
        match event {
            Event::Sampled(verdict) => match verdict.result {
                Finding::Fail => {
                    self.roll_back(Cause::Regression { sentence: verdict.sentence }, now)
                }
                Finding::Pass | Finding::Inconclusive => Step::nothing(),
            },
            Event::Lost { sentence } => self.roll_back(Cause::Lost { sentence }, now),
            Event::Vetoed { sentence } => self.roll_back(Cause::Vetoed { sentence }, now),
            Event::Tick { .. } if self.is_late(now) => self.bake(0, now),
            Event::Tick { .. } if self.is_time_to_save_again(now) => self.save_again(),
            Event::Tick { .. } => Step::nothing(),
            _ => Step::ignored(),
        }
    }
}
