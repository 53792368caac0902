//! Asking on and on: intervals, rise and fall, changes of mind.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Diagnosis, ProbeResult, probe};
use crate::model::id::InstanceId;
use crate::model::instance::Instance;
use crate::model::revision::{ProbeKind, ProbeSpec, Speech};

/// A new instance is asked soon and then less and less often, up to its interval: most apps are up
/// within a fraction of a second, and a release waits for it.
const FIRST_INTERVAL: Duration = Duration::from_millis(50);

/// Each interval varies by a tenth either way, so that instances launched together are not asked
/// together for ever.
const JITTER: f64 = 0.1;

/// Who is asked, and how.
#[derive(Debug, Clone)]
pub struct Target {
    /// Who.
    pub instance: Instance,
    /// How.
    pub spec: ProbeSpec,
    /// In which words.
    pub speech: Speech,
    /// The engine's own health check, when the instance has one; `ProbeKind::Auto` then goes by it
    /// and sends nothing.
    pub engine: Option<EngineHealth>,
}

/// What the engine's own health check says: none while it has not yet come to a conclusion.
pub type EngineHealth = tokio::sync::watch::Receiver<Option<bool>>;

/// A conclusion about an instance: the first one, each change of mind, and, while it is unhealthy,
/// each change of the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeEvent {
    /// About whom.
    pub instance: InstanceId,
    /// Whether it is well.
    pub healthy: bool,
    /// Why.
    pub diagnosis: Diagnosis,
}

/// Asks until cancelled, or until nobody listens any more.
///
/// Cancel safety: may be dropped at any time.
pub async fn watch(target: Target, events: mpsc::Sender<ProbeEvent>, cancel: CancellationToken) {
    let asking = async {
        match (&target.spec.kind, target.engine.clone()) {
            (ProbeKind::Auto, Some(engine)) => follow(&target, engine, &events).await,
            _ => ask_on(&target, &events).await,
        }
    };
    // A listener that left is seen at the next event; an instance that stays well sends none.
    tokio::select! {
        () = asking => {}
        () = events.closed() => {}
        () = cancel.cancelled() => {}
    }
}

async fn follow(target: &Target, mut engine: EngineHealth, events: &mpsc::Sender<ProbeEvent>) {
    let mut told = None;
    engine.mark_changed();
    // The engine has its own intervals and retries; its word is a conclusion.
    while engine.changed().await.is_ok() {
        let said = *engine.borrow_and_update();
        let Some(healthy) = said else { continue };
        if told.replace(healthy) != Some(healthy) {
            let instance = target.instance.id.clone();
            let event = ProbeEvent { instance, healthy, diagnosis: Diagnosis::Engine { healthy } };
            if events.send(event).await.is_err() {
                return;
            }
        }
    }
    // Nobody will say more; the watch itself lasts until it is cancelled.
    std::future::pending::<()>().await;
}

async fn ask_on(target: &Target, events: &mpsc::Sender<ProbeEvent>) {
    let mut mind = Mind::default();
    let mut eager = FIRST_INTERVAL;
    loop {
        let begun = Instant::now();
        let result = probe(&target.instance, &target.spec, target.speech).await;
        if let Some((healthy, diagnosis)) = mind.hear(result, &target.spec) {
            let event = ProbeEvent { instance: target.instance.id.clone(), healthy, diagnosis };
            if events.send(event).await.is_err() {
                return;
            }
        }
        let interval =
            if mind.was_healthy { target.spec.interval } else { eager.min(target.spec.interval) };
        eager = eager.saturating_mul(2);
        sleep_until(begun + interval.mul_f64(1.0 + JITTER * (2.0 * fastrand::f64() - 1.0))).await;
    }
}

/// What is thought of an instance.
#[derive(Debug, Default)]
pub(super) struct Mind {
    told: Option<(bool, Diagnosis)>,
    was_healthy: bool,
    successes: u32,
    failures: u32,
}

impl Mind {
    /// Takes one result in; a conclusion to tell, if it is news.
    pub(super) fn hear(
        &mut self,
        result: ProbeResult,
        spec: &ProbeSpec,
    ) -> Option<(bool, Diagnosis)> {
        let ProbeResult { healthy, diagnosis, .. } = result;
        if healthy {
            (self.successes, self.failures) = (self.successes.saturating_add(1), 0);
        } else {
            (self.successes, self.failures) = (0, self.failures.saturating_add(1));
        }
        // At least one of each: a rise of 0 would conclude from nothing.
        let concluded = if healthy {
            self.successes >= spec.rise.max(1)
        } else {
            self.failures >= spec.fall.max(1)
        };
        let news = match &self.told {
            None => true,
            Some((told, _)) if *told != healthy => true,
            // Well is well, however it is said.
            Some((_, said)) => !healthy && *said != diagnosis,
        };
        if !(concluded && news) {
            return None;
        }
        self.was_healthy |= healthy;
        self.told = Some((healthy, diagnosis.clone()));
        Some((healthy, diagnosis))
    }
}
