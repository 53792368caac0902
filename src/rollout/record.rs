//! What became of a phase's checkpoint.

use std::time::Duration;

use super::effect::Effect;
use super::machine::{Rollout, Step};
use super::phase::Phase;
use crate::model::moment::Moment;

/// How long after a failed write the next is tried. A full disk is not freed any faster by asking.
const RETRY: Duration = Duration::from_secs(1);

/// What became of the last checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record {
    /// It is being written.
    Writing {
        /// Effects wait for it.
        must: bool,
    },
    /// It is on disk.
    Saved,
    /// It could not be written, as was heard at this moment.
    Failed(Moment),
}

impl Rollout {
    /// Whether the driver may forget it: it is over, and the disk knows.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.phase.is_over() && self.record == Record::Saved
    }

    /// Whether the disk knows of this phase, or was found not to take it.
    #[must_use]
    pub fn is_written(&self) -> bool {
        !matches!(self.record, Record::Writing { .. })
    }

    pub(super) fn saved(&mut self) -> Step {
        let Record::Writing { .. } = self.record else { return Step::ignored() };
        self.record = Record::Saved;
        self.settled = self.weight;
        self.committed |= self.phase == Phase::Promoting;
        Step::nothing()
    }

    pub(super) fn unsaved(&mut self, now: Moment) -> Step {
        let Record::Writing { .. } = self.record else { return Step::ignored() };
        self.record = Record::Failed(now);
        Step::nothing()
    }

    pub(super) fn save_again(&mut self) -> Step {
        self.record = Record::Writing { must: false };
        Step { effects: vec![Effect::Checkpoint { must: false }], ignored: false }
    }

    pub(super) fn is_time_to_save_again(&self, now: Moment) -> bool {
        matches!(self.record, Record::Failed(heard) if now.since(heard) >= RETRY)
    }
}
