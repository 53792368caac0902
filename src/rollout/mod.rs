//! What should happen next?
//!
//! The rollout machine and everything that belongs to its law: plan, phase, event, effect, command.
//! Pure: a state, an event and a moment go in, effects come out. It launches nothing, routes nothing
//! and measures nothing; the controller performs its effects and reports back.

pub mod checkpoint;
pub mod command;
pub mod effect;
pub mod event;
mod invariants;
pub mod machine;
mod mirror;
pub mod phase;
pub mod plan;
mod record;
mod recovery;
pub mod strategy;
#[cfg(test)]
mod tests;
mod waiting;
