//! Performs what takes time: launches, drains, stops. Each is a task whose completion comes back as
//! a [`Done`], named by service, rollout and attempt; the driver drops those that are not current.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::hooks::HookRun;
use crate::model::hook::HookMoment;
use crate::model::id::{InstanceId, RevisionId, RolloutId, ServiceName};
use crate::model::instance::{Instance, Ownership};
use crate::model::revision::RevisionSpec;
use crate::rollout::event::Attempt;
use crate::routing::endpoint::Endpoint;
use crate::runtime::hook::Ran;
use crate::runtime::{Runtime, RuntimeError};
use crate::store::StoreError;

/// How often a drain looks whether requests have finished.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
/// What workers need to cut what is left after the deadline: a few of their ticks.
const CUT_SLACK: Duration = Duration::from_millis(500);
/// How long to wait before an instance that was not stopped is stopped again, at first and at last.
const STOP_AGAIN_FIRST: Duration = Duration::from_secs(1);
const STOP_AGAIN_LAST: Duration = Duration::from_secs(30);
/// How many lines of output are kept of an instance of a failed rollout.
pub const LOG_LINES: usize = 50;

/// A completion: who asked, and what came of it.
#[derive(Debug)]
pub struct Done {
    pub service: ServiceName,
    pub rollout: RolloutId,
    pub attempt: Attempt,
    pub what: Completion,
}

/// What came of it.
#[derive(Debug)]
pub enum Completion {
    /// All instances run, or why not.
    Launched { revision: RevisionId, result: Result<Vec<Instance>, Failure> },
    /// No request is in flight any more; how many were cut.
    Drained { cut: u32 },
    /// The instances are gone; what they last said.
    Stopped { logs: Vec<(InstanceId, Vec<String>)> },
    /// A checkpoint was written, or not.
    Saved(Result<(), StoreError>),
    /// A replica of stable was launched again, or not.
    Relaunched { revision: RevisionId, replica: u32, result: Result<Instance, RuntimeError> },
    /// Instances of stable that were given up are gone.
    Left { revision: RevisionId },
    /// A former revision is gone.
    Retired { revision: RevisionId },
    /// The smoke tests are done; what failed.
    Smoked { failure: Option<String> },
    /// Programs elsewhere were asked.
    Outside(super::outside::Answer),
    /// A hook has run.
    Hooked { moment: HookMoment, ran: Ran },
    /// One more instance of stable was launched, to compare the canary with, or not.
    Fresh { revision: RevisionId, result: Result<Instance, RuntimeError> },
}

/// Why a launch failed, with what the instance last said.
#[derive(Debug)]
pub struct Failure {
    pub sentence: String,
    pub logs: Vec<String>,
}

/// Starts the tasks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Executor {
    done: mpsc::Sender<Done>,
    tasks: tokio_util::task::TaskTracker,
    shutdown: CancellationToken,
    /// Cancelled once no former process has requests in flight: what those claim is not seen here.
    alone: CancellationToken,
}

impl Executor {
    pub fn new(
        done: mpsc::Sender<Done>,
        tasks: tokio_util::task::TaskTracker,
        shutdown: CancellationToken,
        alone: CancellationToken,
    ) -> Self {
        Self { done, tasks, shutdown, alone }
    }

    pub(super) fn spawn(
        &self,
        service: ServiceName,
        rollout: RolloutId,
        attempt: Attempt,
        work: impl Future<Output = Completion> + Send + 'static,
    ) {
        let done = self.done.clone();
        self.tasks.spawn(async move {
            let what = work.await;
            // The driver is gone only when the daemon is.
            let _ = done.send(Done { service, rollout, attempt, what }).await;
        });
    }

    /// Runs the hook that comes first, then launches these replicas at once. When one fails, those
    /// that run are stopped again. Cancelling `cancel` stops them too.
    pub fn launch(
        &self,
        runtime: Arc<dyn Runtime>,
        spec: RevisionSpec,
        ownership: Ownership,
        attempt: Attempt,
        cancel: CancellationToken,
        (before, replicas): (Option<HookRun>, Range<u32>),
    ) {
        let (service, rollout) = (ownership.service.clone(), ownership.rollout);
        let (done, name) = (self.done.clone(), service.clone());
        let revision = ownership.revision;
        let work = async move {
            if let Some(hook) = before {
                let Some(ran) = cancel.run_until_cancelled(hook.run()).await else {
                    return Completion::Launched { revision, result: Err(Failure::unwanted()) };
                };
                let failure = ran.failure.clone();
                let what = Completion::Hooked { moment: hook.moment, ran };
                let _ = done.send(Done { service: name, rollout, attempt, what }).await;
                if let Some(why) = failure {
                    let sentence = format!("{} failed: {why}", hook.moment.as_str());
                    let result = Err(Failure { sentence, logs: Vec::new() });
                    return Completion::Launched { revision, result };
                }
            }
            let launches = replicas.map(|replica| {
                let ownership = Ownership { replica, ..ownership.clone() };
                let (runtime, spec) = (Arc::clone(&runtime), &spec);
                async move { runtime.launch(spec, &ownership).await }
            });
            let results = join_all(launches).await;
            let mut instances = Vec::new();
            let mut failure = None;
            for result in results {
                match result {
                    Ok(instance) => instances.push(instance),
                    Err(error) => failure = failure.or(Some(Failure::from(error))),
                }
            }
            if cancel.is_cancelled() && failure.is_none() {
                failure = Some(Failure::unwanted());
            }
            let result = match failure {
                None => Ok(instances),
                Some(failure) => {
                    join_all(instances.iter().map(|i| runtime.stop(&i.id, spec.stop_grace))).await;
                    Err(failure)
                }
            };
            Completion::Launched { revision: ownership.revision, result }
        };
        self.spawn(service, rollout, attempt, work);
    }

    /// Launches one replica of stable again.
    pub fn relaunch(&self, runtime: Arc<dyn Runtime>, spec: RevisionSpec, ownership: Ownership) {
        let (service, rollout) = (ownership.service.clone(), ownership.rollout);
        let work = async move {
            let result = runtime.launch(&spec, &ownership).await;
            let (revision, replica) = (ownership.revision, ownership.replica);
            Completion::Relaunched { revision, replica, result }
        };
        self.spawn(service, rollout, 0, work);
    }

    /// Launches one more instance of stable, to compare the canary with.
    pub fn launch_fresh(
        &self,
        runtime: Arc<dyn Runtime>,
        spec: RevisionSpec,
        ownership: Ownership,
    ) {
        let (service, rollout) = (ownership.service.clone(), ownership.rollout);
        let work = async move {
            let result = runtime.launch(&spec, &ownership).await;
            Completion::Fresh { revision: ownership.revision, result }
        };
        self.spawn(service, rollout, 0, work);
    }

    /// Drains an instance and stops it; nobody waits for that.
    pub fn release(
        &self,
        runtime: Arc<dyn Runtime>,
        endpoints: Vec<Arc<Endpoint>>,
        instance: InstanceId,
        times: (Duration, Duration),
    ) {
        let (drain_deadline, grace) = times;
        let this = self.clone();
        self.tasks.spawn(async move {
            drained(&endpoints, drain_deadline, &this.alone).await;
            this.end(&runtime, &instance, grace).await;
        });
    }

    /// Waits until no request is in flight on endpoints whose drain has begun; cuts at the deadline.
    pub fn drain(
        &self,
        service: ServiceName,
        rollout: RolloutId,
        attempt: Attempt,
        endpoints: Vec<Arc<Endpoint>>,
        deadline: Duration,
    ) {
        let alone = self.alone.clone();
        let work =
            async move { Completion::Drained { cut: drained(&endpoints, deadline, &alone).await } };
        self.spawn(service, rollout, attempt, work);
    }

    /// Reads the last output of instances, then stops them.
    pub fn stop(
        &self,
        service: ServiceName,
        rollout: RolloutId,
        attempt: Attempt,
        runtime: Arc<dyn Runtime>,
        instances: Vec<Instance>,
        grace: Duration,
    ) {
        let this = self.clone();
        let work = async move {
            let stops = instances.iter().map(|instance| {
                let (runtime, this) = (&runtime, &this);
                async move {
                    let logs = runtime.logs(&instance.id, LOG_LINES).await.unwrap_or_default();
                    this.end(runtime, &instance.id, grace).await;
                    (instance.id.clone(), logs)
                }
            });
            Completion::Stopped { logs: join_all(stops).await }
        };
        self.spawn(service, rollout, attempt, work);
    }

    /// Waits until nobody is served by them, then stops them.
    async fn let_go(
        &self,
        runtime: &Arc<dyn Runtime>,
        endpoints: &[Arc<Endpoint>],
        instances: &[Instance],
        (drain_deadline, grace): (Duration, Duration),
    ) {
        drained(endpoints, drain_deadline, &self.alone).await;
        join_all(instances.iter().map(|instance| self.end(runtime, &instance.id, grace))).await;
    }

    /// Drains a former revision and stops it.
    pub fn retire(
        &self,
        service: ServiceName,
        runtime: Arc<dyn Runtime>,
        revision: RevisionId,
        endpoints: Vec<Arc<Endpoint>>,
        instances: Vec<Instance>,
        times: (Duration, Duration),
    ) {
        let this = self.clone();
        let work = async move {
            this.let_go(&runtime, &endpoints, &instances, times).await;
            Completion::Retired { revision }
        };
        self.spawn(service, RolloutId(0), 0, work);
    }

    /// Drains instances of stable that were given up, and stops them.
    pub fn leave(
        &self,
        asked: (ServiceName, RolloutId, Attempt),
        runtime: Arc<dyn Runtime>,
        revision: RevisionId,
        endpoints: Vec<Arc<Endpoint>>,
        instances: Vec<Instance>,
        times: (Duration, Duration),
    ) {
        let this = self.clone();
        let work = async move {
            this.let_go(&runtime, &endpoints, &instances, times).await;
            Completion::Left { revision }
        };
        let (service, rollout, attempt) = asked;
        self.spawn(service, rollout, attempt, work);
    }

    /// Stops an instance. Where that fails, because its engine is gone for now, it is tried again for
    /// as long as the daemon runs, and nobody waits for it.
    async fn end(&self, runtime: &Arc<dyn Runtime>, id: &InstanceId, grace: Duration) {
        let Err(error) = runtime.stop(id, grace).await else { return };
        tracing::warn!(instance = %id, %error, "not stopped; trying again until it is");
        let (runtime, id) = (Arc::clone(runtime), id.clone());
        let again = async move {
            let mut pause = STOP_AGAIN_FIRST;
            loop {
                tokio::time::sleep(pause).await;
                if runtime.stop(&id, grace).await.is_ok() {
                    tracing::info!(instance = %id, "stopped after all");
                    return;
                }
                pause = (pause * 2).min(STOP_AGAIN_LAST);
            }
        };
        self.tasks.spawn(self.shutdown.clone().run_until_cancelled_owned(again));
    }

    /// Reports whether a batch was written.
    pub fn saved(
        &self,
        service: ServiceName,
        rollout: RolloutId,
        attempt: Attempt,
        written: impl Future<Output = Result<(), StoreError>> + Send + 'static,
    ) {
        self.spawn(service, rollout, attempt, async move { Completion::Saved(written.await) });
    }
}

/// Begins to drain, waits, cuts at the deadline; returns how many requests were cut.
async fn drained(
    endpoints: &[Arc<Endpoint>],
    deadline: Duration,
    alone: &CancellationToken,
) -> u32 {
    for endpoint in endpoints {
        endpoint.begin_drain();
    }
    let in_flight = || endpoints.iter().map(|e| e.in_flight()).sum::<u32>();
    let quiet = async {
        while in_flight() > 0 {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
        alone.cancelled().await;
    };
    if tokio::time::timeout(deadline, quiet).await.is_ok() {
        return 0;
    }
    let cut = in_flight();
    for endpoint in endpoints {
        endpoint.cut();
    }
    let gone = async {
        while in_flight() > 0 {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    };
    // What does not go even now is left to the stop.
    let _ = tokio::time::timeout(CUT_SLACK, gone).await;
    cut
}

impl Failure {
    fn unwanted() -> Self {
        Self { sentence: "not wanted any more".to_owned(), logs: Vec::new() }
    }
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        let sentence = error.to_string();
        let logs = match error {
            RuntimeError::Ended { logs, .. } => logs,
            _ => Vec::new(),
        };
        Self { sentence, logs }
    }
}
