//! What a judge must remember to go on after a restart.
//!
//! One record per slot, to be stored together with whatever says which counts it rests on. Nothing is
//! ever counted twice: what came after the record is a bet of zero, which is always fair, while
//! replaying it is not (measured: 3 to 28 % false rollbacks). Moments are not kept, because those of
//! two processes do not compare.

use serde::{Deserialize, Serialize};

use super::baseline::BaselineMemory;
use super::limits::LimitMemory;
use super::mixture::Purse;
use super::promotion::PromotionMemory;
use super::rates::RateMemory;
use super::share::Share;
use crate::model::weight::Weight;

/// What is kept.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct Memory {
    /// The canary's weight at the present step.
    pub weight: Weight,
    /// The weight of what the canary is compared with; all the rest where nothing is said.
    #[serde(default)]
    pub compared: Option<Weight>,
    /// The most evidence that there was against one of stable's own instances.
    #[serde(default)]
    pub highest_instance: f64,
    /// Steps that have begun.
    pub steps: u32,
    /// Slots that are over.
    pub slots: u64,
    /// How often this rollout, or this revision, has been judged from nothing before.
    pub attempt: u32,
    /// Milliseconds since the first step began.
    pub age: u64,
    /// The sentence and the check that ended the rollout, if it has ended.
    pub failed: Option<Failure>,
    /// What stable's history was: error rate, and how many requests it rests on.
    pub history_errors: (u64, u64),
    pub(super) slow_from: u16,
    pub(super) errors: RateMemory,
    pub(super) rejected: RateMemory,
    pub(super) latency: Purse,
    pub(super) limits: Vec<LimitMemory>,
    pub(super) promotion: PromotionMemory,
    pub(super) baseline: BaselineMemory,
    pub(super) share: (u64, u64),
}

/// Why a canary was taken back. Once said it stays said.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct Failure {
    /// The check that decided.
    pub check: String,
    /// Its sentence.
    pub sentence: String,
}

impl From<(u64, u64)> for Share {
    fn from((canary, stable): (u64, u64)) -> Self {
        Self { canary, stable }
    }
}
