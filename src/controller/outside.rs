//! Webhooks that have a say in a rollout: asked by tasks, answered as events.
//!
//! Each phase asks what belongs to it; when it is left, its tasks end. What a program elsewhere says
//! comes back as a completion of that attempt, so that a late answer means nothing. One that does not
//! answer holds up its own rollout at most, for as long as the plan says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::{join_all, select_all};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::driver::Driver;
use super::executor::Completion;
use super::journal::Kind;
use super::status::WebhookStatus;
use crate::model::id::{RolloutId, ServiceName};
use crate::model::webhook::{Webhook, WebhookKind};
use crate::prober::call::{self, Call, Trust};
use crate::rollout::command::Command;
use crate::rollout::event::{Attempt, Event};
use crate::rollout::machine::Kind as RolloutKind;
use crate::rollout::phase::{PauseReason, Phase};
use crate::telemetry::metrics;

/// What is said of Kubernetes' namespaces, which are not here.
const NAMESPACE: &str = "switchback";

/// What came of asking.
#[derive(Debug)]
pub enum Answer {
    /// Everybody who had to say yes did.
    Confirmed,
    /// The canary goes back, or is not launched.
    Vetoed(String),
    /// It was told, and changes nothing.
    Told,
}

/// What programs elsewhere said in the phase under way.
#[derive(Debug, Default)]
pub struct Outside {
    board: Arc<Mutex<BTreeMap<String, WebhookStatus>>>,
    cancel: CancellationToken,
    /// That the rollout may begin was said.
    confirmed: bool,
}

impl Outside {
    /// For the outside.
    pub fn status(&self) -> Vec<WebhookStatus> {
        let board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        board.values().cloned().collect()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// One webhook with what it is told.
#[derive(Clone)]
pub(super) struct Asking {
    webhook: Webhook,
    service: ServiceName,
    payload: Value,
    board: Arc<Mutex<BTreeMap<String, WebhookStatus>>>,
}

impl Asking {
    /// Asks once: whether it says yes, and what it said.
    async fn once(&self) -> Result<(), String> {
        self.note("asking", None);
        let webhook = &self.webhook;
        let json = Some(self.payload.to_string().into_bytes());
        let asked = Call { url: &webhook.url, json, headers: &[], timeout: webhook.timeout };
        let (state, answer) = match call::call(Trust::system(), asked).await {
            Ok(answered) if answered.is_well() => ("yes", Ok(())),
            Ok(answered) => {
                let body: String = answered.body.trim().chars().take(200).collect();
                let place = call::place(&webhook.url);
                let said = format!("{place} answered {}: {body}", answered.status);
                ("no", Err(said.trim_end_matches([':', ' ']).to_owned()))
            }
            Err(why) => ("failed", Err(why)),
        };
        self.note(state, Some(answer.as_ref().err().cloned()));
        let labels = [
            ("service", self.service.as_str()),
            ("type", webhook.kind.as_str()),
            ("result", state),
        ];
        metrics::count(&metrics::WEBHOOKS, &labels);
        answer
    }

    /// `said` is none while it is asked: what it said before stands until it says something else.
    fn note(&self, state: &str, said: Option<Option<String>>) {
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = board.entry(self.webhook.name.clone()).or_insert_with(|| WebhookStatus {
            name: self.webhook.name.clone(),
            kind: self.webhook.kind.as_str().to_owned(),
            state: String::new(),
            calls: 0,
            said: None,
        });
        match said {
            Some(said) => {
                entry.calls += 1;
                entry.said = said;
                state.clone_into(&mut entry.state);
            }
            None if entry.state.is_empty() => state.clone_into(&mut entry.state),
            None => {}
        }
    }

    fn veto(&self, why: &str) -> String {
        format!("webhook {} ({}): {why}", self.webhook.name, self.webhook.kind.as_str())
    }

    /// Asks until it says yes.
    async fn until_yes(&self) {
        while self.once().await.is_err() {
            tokio::time::sleep(self.webhook.interval).await;
        }
    }

    /// Asks until it says yes, but not for ever.
    async fn confirmed(&self) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            let Err(why) = self.once().await else { return Ok(()) };
            if begun.elapsed() + self.webhook.interval > self.webhook.wait {
                return Err(self.veto(&format!("no yes within {:?}: {why}", self.webhook.wait)));
            }
            tokio::time::sleep(self.webhook.interval).await;
        }
    }

    /// Asks until it says yes, or has failed as often as it may.
    pub(super) async fn passed(&self) -> Result<(), String> {
        let mut failed = 0;
        loop {
            let Err(why) = self.once().await else { return Ok(()) };
            failed += 1;
            if failed >= self.webhook.failures {
                return Err(self.veto(&why));
            }
            tokio::time::sleep(self.webhook.interval).await;
        }
    }

    /// Asks again and again; ends with a reason to go back.
    async fn watched(self) -> String {
        let mut failed = 0;
        loop {
            match (self.once().await, self.webhook.kind) {
                (Ok(()), WebhookKind::Rollback) => {
                    return self.veto("it says that the canary must go back");
                }
                (Ok(()), _) => failed = 0,
                (Err(_), WebhookKind::Rollback) => {}
                (Err(why), _) => {
                    failed += 1;
                    if failed >= self.webhook.failures {
                        return self.veto(&format!("{why} ({failed} times in a row)"));
                    }
                }
            }
            tokio::time::sleep(self.webhook.interval).await;
        }
    }
}

impl Driver {
    /// The webhooks of a kind in the rollout under way, with what they are told now.
    pub(super) fn askings(&self, name: &ServiceName, kind: WebhookKind) -> Vec<Asking> {
        let Some(active) = self.services.get(name).and_then(|s| s.active.as_ref()) else {
            return Vec::new();
        };
        let board = &active.outside.board;
        let asking = |webhook: &Webhook| Asking {
            payload: self.payload(name, webhook),
            webhook: webhook.clone(),
            service: name.clone(),
            board: Arc::clone(board),
        };
        active.rollout.plan.webhooks_of(kind).map(asking).collect()
    }

    /// Flagger's payload, with our numbers beside it.
    fn payload(&self, name: &ServiceName, webhook: &Webhook) -> Value {
        let service = self.services.get(name);
        let Some((service, active)) = service.and_then(|s| Some((s, s.active.as_ref()?))) else {
            return Value::Null;
        };
        let rollout = &active.rollout;
        let phase = match &rollout.phase {
            Phase::Clearing | Phase::Launching => "Waiting",
            Phase::Probing
            | Phase::Smoke
            | Phase::Mirroring
            | Phase::Baking { .. }
            | Phase::Growing { .. } => "Progressing",
            Phase::Paused { reason: PauseReason::Gate, .. } => "WaitingPromotion",
            Phase::Paused { .. } => "Waiting",
            Phase::Promoting => "Promoting",
            Phase::Promoted => "Succeeded",
            Phase::RollingBack { .. } | Phase::Restoring { .. } | Phase::RolledBack { .. } => {
                "Failed"
            }
        };
        let image = super::report::image_of(service, rollout.canary);
        let failed = active.verdict.as_ref().map_or(0, |verdict| {
            let fail = crate::analysis::verdict::Finding::Fail;
            verdict.checks.iter().filter(|check| check.result == fail).count()
        });
        let mut metadata: BTreeMap<String, String> = webhook.metadata.clone();
        if webhook.kind == WebhookKind::Event {
            let worry = matches!(phase, "Failed");
            let entries = [
                ("eventMessage", super::report::sentence(service, rollout)),
                ("eventType", if worry { "Warning" } else { "Normal" }.to_owned()),
                ("timestamp", jiff::Timestamp::now().as_millisecond().to_string()),
            ];
            metadata.extend(entries.map(|(name, value)| (name.to_owned(), value)));
        }
        // Theirs tells one revision's specification from another's; so does this.
        let mark = format!("{name}/{}/{image}", rollout.canary);
        json!({
            "name": name.as_str(),
            "namespace": NAMESPACE,
            "phase": phase,
            "checksum": format!("{:016x}", rapidhash::v3::rapidhash_v3(mark.as_bytes())),
            "failedChecks": failed,
            "canaryWeight": rollout.weight.percent(),
            "iterations": rollout.phase.step().map_or(0, |step| step + 1),
            "metadata": metadata,
            "rollout": rollout.id.0,
            "revision": rollout.canary.0,
            "image": image,
        })
    }

    /// Asks what the phase that was entered asks.
    pub(super) fn ask_outside(&mut self, name: &ServiceName) {
        let events = self.askings(name, WebhookKind::Event);
        let over = self.askings(name, WebhookKind::PostRollout);
        let mut watching = self.askings(name, WebhookKind::Rollout);
        watching.extend(self.askings(name, WebhookKind::Rollback));
        let Some(active) = self.services.get_mut(name).and_then(|s| s.active.as_mut()) else {
            return;
        };
        if active.rollout.plan.webhooks.is_empty() {
            return;
        }
        let rollout = &active.rollout;
        let (id, attempt) = (rollout.id, rollout.attempt);
        let phase = rollout.phase.clone();
        let returns = rollout.kind == RolloutKind::Direct && rollout.stable.is_some();
        active.outside.cancel.cancel();
        active.outside.cancel = CancellationToken::new();
        let cancel = active.outside.cancel.clone();
        let waits = |step: usize| {
            let mine = rollout.plan.webhook_gates(step).next().is_some();
            mine && !rollout.plan.is_gated_by_a_person(step)
        };
        let confirming = match &phase {
            Phase::Paused { step, reason: PauseReason::Gate, .. } if waits(*step) => {
                let is_last = rollout.plan.steps.is_last(*step);
                Some(if is_last {
                    WebhookKind::ConfirmPromotion
                } else {
                    WebhookKind::ConfirmTrafficIncrease
                })
            }
            _ => None,
        };
        let confirming = confirming.map(|kind| self.askings(name, kind)).unwrap_or_default();
        let mut told = events;
        if phase.is_over() {
            told.extend(over);
        }
        if !told.is_empty() {
            let work = async move {
                join_all(told.iter().map(Asking::passed)).await;
                Completion::Outside(Answer::Told)
            };
            self.executor.spawn(name.clone(), id, attempt, work);
        }
        let at_a_step = matches!(phase, Phase::Baking { .. } | Phase::Paused { .. });
        if returns || !at_a_step {
            return;
        }
        if !confirming.is_empty() {
            let cancel = cancel.clone();
            self.executor.spawn(name.clone(), id, attempt, async move {
                let all = join_all(confirming.iter().map(Asking::until_yes));
                let said = cancel.run_until_cancelled(all).await;
                Completion::Outside(said.map_or(Answer::Told, |_| Answer::Confirmed))
            });
        }
        if !watching.is_empty() {
            self.executor.spawn(name.clone(), id, attempt, async move {
                let watched = watching.into_iter().map(|asking| Box::pin(asking.watched()));
                let veto = cancel.run_until_cancelled(select_all(watched)).await;
                Completion::Outside(veto.map_or(Answer::Told, |(why, ..)| Answer::Vetoed(why)))
            });
        }
    }

    /// Whether a launch has to wait for a yes from elsewhere, which is then asked for.
    pub(super) fn waits_outside(&mut self, name: &ServiceName) -> bool {
        let confirming = self.askings(name, WebhookKind::ConfirmRollout);
        let Some(active) = self.services.get(name).and_then(|s| s.active.as_ref()) else {
            return false;
        };
        let rollout = &active.rollout;
        let returns = rollout.kind == RolloutKind::Direct && rollout.stable.is_some();
        if confirming.is_empty() || active.outside.confirmed || returns {
            return false;
        }
        let (id, attempt) = (rollout.id, rollout.attempt);
        let cancel = active.outside.cancel.clone();
        self.executor.spawn(name.clone(), id, attempt, async move {
            let all = join_all(confirming.iter().map(Asking::confirmed));
            let said = cancel.run_until_cancelled(all).await;
            let first = said.map(|said| said.into_iter().find_map(Result::err));
            Completion::Outside(match first {
                None => Answer::Told,
                Some(None) => Answer::Confirmed,
                Some(Some(why)) => Answer::Vetoed(why),
            })
        });
        true
    }

    /// A program elsewhere answered, in the rollout under way.
    pub(super) fn answered_outside(
        &mut self,
        name: &ServiceName,
        rollout: RolloutId,
        attempt: Attempt,
        answer: Answer,
    ) {
        let Some(active) = self.services.get_mut(name).and_then(|s| s.active.as_mut()) else {
            return;
        };
        if active.rollout.id != rollout || active.rollout.attempt != attempt {
            return;
        }
        let launching = active.rollout.phase == Phase::Launching;
        match answer {
            Answer::Told => {}
            Answer::Confirmed if launching => {
                active.outside.confirmed = true;
                self.tell(name, Kind::Note, "webhooks said that it may begin".to_owned());
                self.launch(name);
            }
            Answer::Confirmed => {
                self.tell(name, Kind::Note, "webhooks said that it may go on".to_owned());
                self.step(name, Event::Command(Command::Promote { full: false }));
            }
            Answer::Vetoed(sentence) => {
                self.step(name, Event::Vetoed { sentence });
            }
        }
    }
}
