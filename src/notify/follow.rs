//! Follows the driver's events, and makes messages of those that mean something to people.

use tokio::sync::broadcast::error::RecvError;

use super::Notifier;
use super::message::messages;
use crate::controller::handle::Handle;
use crate::controller::status::{EventRecord, RolloutRecord};
use crate::model::id::RolloutId;
use crate::telemetry::audit::{Audit, Entry};

/// Rollouts whose ends are remembered as written down.
const REMEMBERED: usize = 64;

/// Follows events to their end.
pub(super) struct Follower {
    handle: Handle,
    notifier: Notifier,
    audit: Audit,
    last: u64,
    ended: std::collections::VecDeque<u64>,
}

impl Follower {
    /// Follows from now on.
    pub(super) fn new(handle: Handle, notifier: Notifier, audit: Audit) -> Self {
        let (recent, _) = handle.events_after(0);
        let last = recent.last().map_or(0, |event| event.id);
        Self { handle, notifier, audit, last, ended: Default::default() }
    }

    /// Until the driver is gone.
    pub(super) async fn run(mut self) {
        loop {
            // Whoever falls behind looks up what was missed, and goes on from there.
            let (missed, mut events) = self.handle.events_after(self.last);
            for event in missed {
                self.take(event).await;
            }
            loop {
                match events.recv().await {
                    Ok(event) => self.take(event).await,
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return,
                }
            }
        }
    }

    async fn take(&mut self, event: EventRecord) {
        if event.id <= self.last {
            return;
        }
        self.last = event.id;
        let (Some(_), Some(name), Some(rollout)) = (&event.phase, &event.service, event.rollout)
        else {
            return;
        };
        let is_end = matches!(event.phase.as_deref(), Some("promoted" | "rolled_back"));
        if !is_end && !self.notifier.tells_anybody() {
            return;
        }
        let Ok(record) = self.handle.rollout(RolloutId(rollout)).await else { return };
        let Some(service) = self.handle.service(name) else { return };
        for message in messages(&event, &service, &record) {
            self.notifier.tell(message);
        }
        if is_end && !self.ended.contains(&rollout) {
            if self.ended.len() >= REMEMBERED {
                self.ended.pop_front();
            }
            self.ended.push_back(rollout);
            self.audit.write(ended(&record)).await;
        }
    }
}

/// The end of a rollout, for the audit log.
fn ended(record: &RolloutRecord) -> Entry {
    Entry {
        verb: "rollout".to_owned(),
        service: Some(record.service.clone()),
        who: "switchback".to_owned(),
        says: record.by.clone(),
        from: "the controller".to_owned(),
        outcome: record.outcome.clone().unwrap_or_else(|| record.phase.clone()),
        detail: record.cause.clone(),
        rollout: Some(record.rollout),
        revision: Some(record.to),
        image: Some(record.image.clone()),
        digest: record.digest.clone(),
        commit: record.origin.as_ref().and_then(|origin| origin.commit.clone()),
        ..Entry::default()
    }
}
