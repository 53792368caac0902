//! The plan of a rollout: its steps, times and limits, fixed when it begins.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::strategy::Strategy;
use crate::analysis::criteria::Criteria;
use crate::model::hook::{Hooks, Smoke};
use crate::model::mirror::MirrorSpec;
use crate::model::revision::duration_millis;
use crate::model::webhook::{Webhook, WebhookKind};
use crate::model::weight::{InvalidWeight, Weight};

/// How a rollout is carried out. Changing the configuration does not change a rollout under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// How the new revision takes the place of the old one.
    #[serde(default)]
    pub strategy: Strategy,
    /// How many instances the canary has at the end; 0 before that is known.
    #[serde(default)]
    pub instances: u32,
    /// What happens when the host has no room for both revisions.
    #[serde(default)]
    pub fit: Fit,
    /// How long each visitor waits, where nothing runs that could answer (`recreate`).
    #[serde(default = "queue", with = "duration_millis")]
    pub queue: Duration,
    /// How many of them wait at a time; more are answered at once.
    #[serde(default = "queue_limit")]
    pub queue_limit: u32,
    /// The canary's weights.
    pub steps: Steps,
    /// The least time at a step.
    #[serde(with = "duration_millis")]
    pub bake: Duration,
    /// The most time at a step; then `on_inconclusive` decides.
    #[serde(with = "duration_millis")]
    pub bake_max: Duration,
    /// What to do when a step has lasted `bake_max` and the evidence shows nothing.
    pub on_inconclusive: OnInconclusive,
    /// How long launching all instances may take.
    #[serde(with = "duration_millis")]
    pub launch_deadline: Duration,
    /// How long all instances together may take to become healthy.
    #[serde(with = "duration_millis")]
    pub probe_deadline: Duration,
    /// How long requests in flight have to finish before they are cut.
    #[serde(with = "duration_millis")]
    pub drain_deadline: Duration,
    /// How long the former revision stays up after promotion.
    #[serde(with = "duration_millis")]
    pub keep_warm: Duration,
    /// What stable keeps at the last step, until the promotion: something to compare with.
    #[serde(default)]
    pub hold_back: Weight,
    /// Whether one more instance of stable is started with the canary, to compare with.
    #[serde(default)]
    pub fresh_baseline: bool,
    /// Whether what the rollout is judged by is recorded.
    #[serde(default)]
    pub record: bool,
    /// What is held against the canary.
    pub criteria: Criteria,
    /// Steps that the canary does not leave before a person says so.
    #[serde(default)]
    pub gates: Vec<Weight>,
    /// How long a gate waits.
    #[serde(default = "gate_timeout", with = "duration_millis")]
    pub gate_timeout: Duration,
    /// What happens when nobody came.
    #[serde(default)]
    pub on_gate_timeout: OnInconclusive,
    /// How long after its promotion a person may confirm it, before it is taken back; 0 needs none.
    #[serde(default, with = "duration_millis")]
    pub confirm_within: Duration,
    /// What must go well on the canary before any visitor meets it.
    #[serde(default)]
    pub smoke: Vec<Smoke>,
    /// Which requests are copied to the canary before it has visitors, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorSpec>,
    /// What is run around the rollout.
    #[serde(default)]
    pub hooks: Hooks,
    /// Programs elsewhere that have a say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub webhooks: Vec<Webhook>,
}

impl Plan {
    /// The canary's weight at a step, counted from 0: at the last one less what stable keeps, but
    /// never less than at the step before.
    #[must_use]
    pub fn weight(&self, step: usize) -> Weight {
        let weight = self.steps.weight(step);
        if !self.steps.is_last(step) {
            return weight;
        }
        let before = step.checked_sub(1).map_or(Weight::ZERO, |before| self.steps.weight(before));
        weight.min(self.hold_back.complement()).max(before)
    }

    /// Whether a person must say so before the canary leaves this step: a gate lies at its weight, or
    /// between the step before and it.
    #[must_use]
    pub fn is_gated_by_a_person(&self, step: usize) -> bool {
        let before = step.checked_sub(1).map_or(Weight::ZERO, |before| self.steps.weight(before));
        self.gates.iter().any(|gate| *gate > before && *gate <= self.steps.weight(step))
    }

    /// Whether the canary does not leave this step before a person or a webhook says so.
    #[must_use]
    pub fn is_gated(&self, step: usize) -> bool {
        self.is_gated_by_a_person(step) || self.webhook_gates(step).next().is_some()
    }

    /// Whether something must go well on the canary before its first visitor.
    #[must_use]
    pub fn is_tested(&self) -> bool {
        !self.smoke.is_empty() || self.webhooks_of(WebhookKind::PreRollout).next().is_some()
    }

    /// The webhooks of a kind.
    pub fn webhooks_of(&self, kind: WebhookKind) -> impl Iterator<Item = &Webhook> {
        self.webhooks.iter().filter(move |webhook| webhook.kind == kind)
    }

    /// The webhooks that must say yes before the canary leaves a step.
    pub fn webhook_gates(&self, step: usize) -> impl Iterator<Item = &Webhook> {
        self.webhooks_of(if self.steps.is_last(step) {
            WebhookKind::ConfirmPromotion
        } else {
            WebhookKind::ConfirmTrafficIncrease
        })
    }

    /// How long launching may take, with the hook before it.
    #[must_use]
    pub fn launch_within(&self) -> Duration {
        let hook = self.hooks.before_deploy.as_ref().map_or(Duration::ZERO, |hook| hook.timeout);
        let confirmed = self.webhooks_of(WebhookKind::ConfirmRollout).map(|one| one.wait).max();
        self.launch_deadline.saturating_add(hook).saturating_add(confirmed.unwrap_or_default())
    }

    /// How long the smoke tests may take: instances are tested at the same time, tests in order.
    #[must_use]
    pub fn smoke_within(&self) -> Duration {
        let asked = self.webhooks_of(WebhookKind::PreRollout).map(|webhook| {
            webhook.timeout.saturating_add(webhook.interval).saturating_mul(webhook.failures)
        });
        let each = self.smoke.iter().map(Smoke::longest).chain(asked);
        each.fold(SMOKE_SLACK, Duration::saturating_add)
    }
}

/// A day: whoever is asked in the evening answers in the morning.
fn gate_timeout() -> Duration {
    Duration::from_secs(24 * 60 * 60)
}

/// As long as browsers and proxies before us are patient in any case.
fn queue() -> Duration {
    Duration::from_secs(30)
}

fn queue_limit() -> u32 {
    1_000
}

/// What smoke tests may take beyond their own limits, on a busy machine.
const SMOKE_SLACK: Duration = Duration::from_secs(10);

impl Default for Plan {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            instances: 0,
            fit: Fit::default(),
            queue: queue(),
            queue_limit: queue_limit(),
            steps: Steps::default(),
            bake: Duration::from_secs(30),
            bake_max: Duration::from_secs(15 * 60),
            on_inconclusive: OnInconclusive::Hold,
            launch_deadline: Duration::from_secs(120),
            probe_deadline: Duration::from_secs(60),
            drain_deadline: Duration::from_secs(30),
            keep_warm: Duration::from_secs(10 * 60),
            hold_back: Weight::ZERO,
            fresh_baseline: false,
            record: false,
            criteria: Criteria::default(),
            gates: Vec::new(),
            gate_timeout: gate_timeout(),
            on_gate_timeout: OnInconclusive::Rollback,
            confirm_within: Duration::ZERO,
            smoke: Vec::new(),
            mirror: None,
            hooks: Hooks::default(),
            webhooks: Vec::new(),
        }
    }
}

/// What happens when the host has no room for what a strategy would run at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// The deploy is refused.
    #[default]
    Refuse,
    /// A strategy that fits takes its place.
    Auto,
    /// Nobody looks.
    Off,
}

/// What happens when a step's time is up and nothing is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnInconclusive {
    /// Stay at this weight and wait for a person.
    #[default]
    Hold,
    /// Go on to the next step.
    Advance,
    /// Take the canary back.
    Rollback,
}

/// The canary's weights, rising to 100 %.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Steps(Vec<Weight>);

/// Why a text is not a list of steps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSteps {
    /// No step.
    #[error("there are no steps: write them as \"5% 25% 50% 100%\"")]
    Empty,
    /// A step that is not a weight.
    #[error(transparent)]
    Weight(#[from] InvalidWeight),
    /// A step that is no greater than the one before.
    #[error("steps must rise: {1} does not follow {0}")]
    NotRising(Weight, Weight),
    /// The last step is not the whole.
    #[error("the last step must be 100%, not {0}: add 100% at the end")]
    NotWhole(Weight),
    /// More steps than anyone means.
    #[error("{0} steps are too many: at most {max}", max = Steps::MAX)]
    TooMany(usize),
}

impl Steps {
    /// The most steps a plan may have; a step lasts seconds at least, so this is hours.
    pub const MAX: usize = 100;

    /// Checks that steps rise to the whole.
    pub fn new(weights: Vec<Weight>) -> Result<Self, InvalidSteps> {
        if weights.len() > Self::MAX {
            return Err(InvalidSteps::TooMany(weights.len()));
        }
        let Some(last) = weights.last() else { return Err(InvalidSteps::Empty) };
        let mut before = Weight::ZERO;
        for weight in &weights {
            if *weight <= before {
                return Err(InvalidSteps::NotRising(before, *weight));
            }
            before = *weight;
        }
        if *last != Weight::FULL {
            return Err(InvalidSteps::NotWhole(*last));
        }
        Ok(Self(weights))
    }

    /// How many steps there are; at least one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The weight of a step, counted from 0; the whole beyond the last.
    #[must_use]
    pub fn weight(&self, step: usize) -> Weight {
        self.0.get(step).copied().unwrap_or(Weight::FULL)
    }

    /// Whether this is the last step.
    #[must_use]
    pub fn is_last(&self, step: usize) -> bool {
        step + 1 >= self.0.len()
    }

    /// All weights in order.
    #[must_use]
    pub fn weights(&self) -> &[Weight] {
        &self.0
    }
}

impl Default for Steps {
    fn default() -> Self {
        let weights = [500, 2_500, 5_000, Weight::WHOLE];
        Self(weights.into_iter().filter_map(|w| Weight::from_basis_points(w).ok()).collect())
    }
}

/// Parses `5% 25% 50% 100%`; commas and arrows between steps are fine too, and `%` may be left out.
impl FromStr for Steps {
    type Err = InvalidSteps;
    fn from_str(text: &str) -> Result<Self, InvalidSteps> {
        let words = text.split(|c: char| c.is_whitespace() || c == ',' || c == '→');
        let weights: Result<Vec<Weight>, _> =
            words.filter(|word| !word.is_empty() && *word != "->").map(str::parse).collect();
        Self::new(weights?)
    }
}

impl TryFrom<String> for Steps {
    type Error = InvalidSteps;
    fn try_from(text: String) -> Result<Self, InvalidSteps> {
        text.parse()
    }
}

impl From<Steps> for String {
    fn from(steps: Steps) -> Self {
        steps.to_string()
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, weight) in self.0.iter().enumerate() {
            let space = if n == 0 { "" } else { " " };
            write!(f, "{space}{weight}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_keeps_a_part_at_the_last_step() {
        let weight = |percent: f64| Weight::from_percent(percent).expect("a weight");
        let plan = Plan { hold_back: weight(5.0), ..Plan::default() };
        let weights: Vec<Weight> = (0..4).map(|step| plan.weight(step)).collect();
        assert_eq!(weights, [5.0, 25.0, 50.0, 95.0].map(weight));
        let steps = "50% 98% 100%".parse().expect("steps");
        assert_eq!(Plan { steps, ..plan }.weight(2), weight(98.0));
        assert_eq!(Plan::default().weight(3), Weight::FULL);
    }

    #[test]
    fn steps_rise_to_the_whole() {
        let parse = |text: &str| text.parse::<Steps>().map(|steps| steps.to_string());
        assert_eq!(parse("5% 25% 50% 100%").as_deref(), Ok("5% 25% 50% 100%"));
        assert_eq!(parse("1,12.5 , 100").as_deref(), Ok("1% 12.5% 100%"));
        assert_eq!(parse("5 → 100").as_deref(), Ok("5% 100%"));
        assert_eq!(parse(""), Err(InvalidSteps::Empty));
        assert!(matches!(parse("5% 5% 100%"), Err(InvalidSteps::NotRising(..))));
        assert!(matches!(parse("0% 100%"), Err(InvalidSteps::NotRising(..))));
        assert!(matches!(parse("5% 50%"), Err(InvalidSteps::NotWhole(_))));
        assert!(matches!(parse("5% fifty"), Err(InvalidSteps::Weight(_))));
        assert_eq!(Steps::default().to_string(), "5% 25% 50% 100%");
    }
}
