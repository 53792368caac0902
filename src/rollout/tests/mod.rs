//! The law, row by row, and then at random.

use super::checkpoint::Checkpoint;
use super::effect::Effect;
use super::event::Event;
use super::machine::{Kind, Rollout, Step};
use super::phase::{Cause, PauseReason, Phase};
use super::plan::Plan;
use crate::analysis::verdict::{Finding, Verdict};
use crate::model::id::{InstanceId, RevisionId, RolloutId, ServiceName};
use crate::model::instance::Instance;
use crate::model::moment::Moment;
use crate::model::weight::Weight;

mod admission;
mod chance;
mod crash;
mod disk;
mod exchange;
mod invariants;
mod law;
mod mirror;
mod recovery;
mod simulation;
mod strategies;
mod world;

const MUST: Effect = Effect::Checkpoint { must: true };
const MAY: Effect = Effect::Checkpoint { must: false };
const BACK: [Effect; 3] = [MAY, Effect::Shift(Weight::ZERO), Effect::Drain];

fn percent(percent: u16) -> Weight {
    Weight::from_basis_points(percent * 100).expect("a percentage")
}

fn said(text: &str) -> String {
    text.to_owned()
}

fn instance(number: u32) -> Instance {
    Instance {
        id: InstanceId::new(&format!("web-{number}")),
        address: "127.0.0.1:3000".parse().expect("an address"),
    }
}

/// Revision 4 of `web`, after revision 3, by the default plan: 5, 25, 50, 100 %.
fn checkpoint(phase: Phase) -> Checkpoint {
    Checkpoint {
        id: RolloutId(12),
        service: ServiceName::new("web").expect("a name"),
        kind: Kind::Canary,
        stable: Some(RevisionId(3)),
        canary: RevisionId(4),
        plan: Plan::default(),
        phase,
        instances: vec![instance(1)],
        memory: None,
        started: 1_795_000_000_000,
    }
}

/// A rollout in this phase, entered at moment 0, its checkpoint written.
fn at(phase: Phase) -> Rollout {
    let is_promoting = phase == Phase::Promoting;
    let mut rollout = Rollout::resume(checkpoint(phase), Moment(0)).0;
    if is_promoting {
        let step = saved(&mut rollout);
        assert!(!step.ignored);
    }
    rollout
}

fn baking(step: usize) -> Phase {
    Phase::Baking { step }
}

fn paused(step: usize, weight: Weight, reason: PauseReason) -> Phase {
    Phase::Paused { step, weight, reason }
}

fn going_back(cause: Cause) -> Phase {
    Phase::RollingBack { cause, drained: false }
}

fn saved(rollout: &mut Rollout) -> Step {
    let attempt = rollout.attempt;
    rollout.step(Event::Saved { attempt }, Moment(0))
}

fn unsaved(rollout: &mut Rollout, now: Moment) -> Step {
    let attempt = rollout.attempt;
    rollout.step(Event::Unsaved { attempt, sentence: said("the disk is full") }, now)
}

fn tick() -> Event {
    Event::Tick { diagnosis: None }
}

fn sampled(result: Finding) -> Event {
    Event::Sampled(Verdict { result, ..Verdict::unknown("errors 5% > 1%") })
}

fn held(result: Finding) -> Event {
    let hold = Some(said("both sides are worse"));
    Event::Sampled(Verdict { result, hold, ..Verdict::unknown("") })
}

fn seconds(seconds: u64) -> Moment {
    Moment(seconds * 1_000)
}
