//! How the outside speaks to the driver: a bounded channel in, an answer out.
//!
//! Cancel safety: every call may be dropped; a command that was sent is carried out regardless.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot, watch};

pub use super::measured::{Measured, fill};
pub use super::output::Output;
pub use super::return_together::ReturnTogether;
use super::status::{
    DaemonStatus, DeployAccepted, DeployRequest, EventRecord, FitStatus, InstanceLogs,
    MaintenanceRequest, RolloutRecord, ServiceStatus, StepForecast,
};
use super::together::{Accepted, Requests};
pub use super::way_back::ReturnTo;
use crate::analysis::scorecard::Sample;
use crate::config::Service as ServiceConfig;
use crate::model::id::{RevisionId, RolloutId, ServiceName};
use crate::model::progress::Listener;
use crate::model::revision::{Revision, RevisionSpec};
use crate::model::weight::Side;
use crate::rollout::command::Command;
use crate::store::records::{Exported, Placed};

/// Why the driver did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refused {
    /// No such service, rollout or revision. 404.
    #[error("{0}")]
    NotFound(String),
    /// Not in this phase. 409; the sentence says what to do.
    #[error("{sentence}")]
    Conflict {
        /// What and what to do.
        sentence: String,
        /// The phase that refused it, as the contract writes it.
        phase: String,
    },
    /// The request makes no sense. 422.
    #[error("{0}")]
    Invalid(String),
    /// It could not be done: an engine that is gone, a disk that is full. 503.
    #[error("{0}")]
    Unavailable(String),
}

/// What the driver is asked.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a few a minute, each moved once")]
pub enum Ask {
    /// Begin a rollout.
    Deploy(
        ServiceName,
        Box<DeployRequest>,
        Listener,
        oneshot::Sender<Result<DeployAccepted, Refused>>,
    ),
    /// Begin rollouts that go together.
    DeployTogether(Requests, oneshot::Sender<Result<Accepted, Refused>>),
    /// Begin a rollout to exactly this.
    Launch(
        ServiceName,
        Box<RevisionSpec>,
        Launching,
        oneshot::Sender<Result<DeployAccepted, Refused>>,
    ),
    /// What is held of services: of one, or of all.
    Held(Option<ServiceName>, oneshot::Sender<Result<Vec<Held>, Refused>>),
    /// The state, to be taken to another host.
    Export(oneshot::Sender<Exported>),
    /// Write a sentence about a service into the journal.
    Tell(ServiceName, String),
    /// Say something to the rollout under way; who says so, as far as that is known.
    Command(ServiceName, Command, Option<String>, oneshot::Sender<Result<ServiceStatus, Refused>>),
    /// Say something that concerns no rollout under way.
    Say(ServiceName, Say, oneshot::Sender<Result<ServiceStatus, Refused>>),
    /// Return to the warm revision, or to a kept one.
    Rollback(ServiceName, ReturnTo, oneshot::Sender<Result<DeployAccepted, Refused>>),
    /// Return to what services of one group had before, all of them or none.
    RollbackTogether(ReturnTogether, oneshot::Sender<Result<Accepted, Refused>>),
    /// Keep visitors from a service, or let them in again.
    Maintain(ServiceName, MaintenanceRequest, oneshot::Sender<Result<ServiceStatus, Refused>>),
    /// Past rollouts of a service, newest first.
    History(ServiceName, oneshot::Sender<Result<Vec<RolloutRecord>, Refused>>),
    /// One rollout.
    Rollout(RolloutId, oneshot::Sender<Result<RolloutRecord, Refused>>),
    /// The last lines of output, per instance.
    Logs(ServiceName, Output, oneshot::Sender<Result<Vec<InstanceLogs>, Refused>>),
    /// What each step of a rollout would take, with these steps or the configured ones.
    Forecast(ServiceName, Box<DeployRequest>, oneshot::Sender<Result<Vec<StepForecast>, Refused>>),
    /// Whether what is configured would fit on the machine, by this request's strategy or the configured
    /// one.
    Fit(ServiceName, Box<DeployRequest>, oneshot::Sender<Result<FitStatus, Refused>>),
    /// Cumulative scorecards for `/metrics`.
    Scorecards(oneshot::Sender<Vec<ServiceCounts>>),
    /// What the instances of a service, or of all, take of the machine.
    Measure(Option<ServiceName>, oneshot::Sender<Vec<Measured>>),
    /// Read the configuration again.
    Reload(oneshot::Sender<Result<String, Refused>>),
}

impl Ask {
    /// Whether it is only a question, after which everything is as it was.
    #[must_use]
    pub fn is_question(&self) -> bool {
        matches!(
            self,
            Self::Held(..)
                | Self::Export(_)
                | Self::History(..)
                | Self::Rollout(..)
                | Self::Logs(..)
                | Self::Forecast(..)
                | Self::Fit(..)
                | Self::Scorecards(_)
                | Self::Measure(..)
        )
    }
}

/// Why a revision is launched that is exactly this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Launching {
    /// A checkpoint has it, with data that fit to it: nothing is migrated, and nothing taken back.
    Restored,
    /// It runs already, in a container of somebody else's. To take that over is no release: no hook runs
    /// and nobody is asked, only the smoke tests are put to it.
    Adopted,
}

/// What a person says apart from a rollout's own course. `by` is who and from where, as they say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Say {
    /// The promotion stands.
    Confirm {
        /// Who.
        by: Option<String>,
    },
    /// No deploy may begin.
    Freeze {
        /// Why.
        reason: String,
        /// Until when: a moment, or a time from now; for good when absent.
        until: Option<String>,
        /// Who.
        by: Option<String>,
    },
    /// Deploys may begin again.
    Unfreeze {
        /// Who.
        by: Option<String>,
    },
}

/// What is held of a service, for what is kept of it.
#[derive(Debug, Clone)]
pub struct Held {
    /// As configured.
    pub config: ServiceConfig,
    /// The revisions that can be returned to.
    pub revisions: Vec<Revision>,
    /// The one that holds the traffic.
    pub stable: Option<Placed>,
    /// Every revision that has instances.
    pub placed: Vec<Placed>,
    /// Why no rollout can begin now.
    pub busy: Option<Refused>,
}

impl Held {
    /// The stable revision.
    #[must_use]
    pub fn stable_revision(&self) -> Option<&Revision> {
        let stable = self.stable.as_ref()?;
        self.revisions.iter().find(|revision| revision.id == stable.revision)
    }
}

/// What was counted of one revision since the daemon started.
#[derive(Debug, Clone)]
pub struct ServiceCounts {
    /// The service.
    pub service: ServiceName,
    /// The revision.
    pub revision: RevisionId,
    /// Its side now.
    pub side: Side,
    /// All requests since the start, also those that were no observations.
    pub total: Arc<Sample>,
}

/// Speaks to the driver. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    asks: mpsc::Sender<Ask>,
    services: watch::Receiver<Arc<Vec<ServiceStatus>>>,
    daemon: watch::Receiver<Arc<DaemonStatus>>,
    events: broadcast::Sender<EventRecord>,
    recent: Arc<std::sync::Mutex<std::collections::VecDeque<EventRecord>>>,
}

/// How long an answer may take before the daemon is called hung.
const ANSWER_WITHIN: Duration = Duration::from_secs(300);

/// The same for a deploy, which pulls an image and archives a checkpoint first: both take minutes for
/// gigabytes, and give up by themselves.
const PREPARE_WITHIN: Duration = Duration::from_secs(2 * 60 * 60);

impl Handle {
    /// Joins the ends that the driver made.
    #[must_use]
    pub fn new(
        asks: mpsc::Sender<Ask>,
        services: watch::Receiver<Arc<Vec<ServiceStatus>>>,
        daemon: watch::Receiver<Arc<DaemonStatus>>,
        events: broadcast::Sender<EventRecord>,
        recent: Arc<std::sync::Mutex<std::collections::VecDeque<EventRecord>>>,
    ) -> Self {
        Self { asks, services, daemon, events, recent }
    }

    /// All services as they are now. Refreshed with every change and ten times a second.
    #[must_use]
    pub fn services(&self) -> Arc<Vec<ServiceStatus>> {
        self.services.borrow().clone()
    }

    /// One service.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<ServiceStatus> {
        self.services.borrow().iter().find(|service| service.service == name).cloned()
    }

    /// Waits for the next change of any service's status.
    pub async fn changed(&mut self) -> bool {
        self.services.changed().await.is_ok()
    }

    /// The daemon as a whole.
    #[must_use]
    pub fn daemon(&self) -> Arc<DaemonStatus> {
        self.daemon.borrow().clone()
    }

    /// Events after `id` that are still remembered (the last few hundred), and all that follow. The
    /// receiver may repeat what the list has; compare ids.
    #[must_use]
    pub fn events_after(&self, id: u64) -> (Vec<EventRecord>, broadcast::Receiver<EventRecord>) {
        let receiver = self.events.subscribe();
        let recent = self.recent.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        (recent.iter().filter(|event| event.id > id).cloned().collect(), receiver)
    }

    /// Begins a rollout.
    pub async fn deploy(
        &self,
        service: ServiceName,
        request: DeployRequest,
    ) -> Result<DeployAccepted, Refused> {
        self.deploy_telling(service, request, Listener::default()).await
    }

    /// Begins a rollout, and tells how far its preparation is.
    pub async fn deploy_telling(
        &self,
        service: ServiceName,
        request: DeployRequest,
        told: Listener,
    ) -> Result<DeployAccepted, Refused> {
        // An image is pulled, and a checkpoint archived; both have deadlines of their own.
        self.ask_within(PREPARE_WITHIN, |answer| {
            Ask::Deploy(service, Box::new(request), told, answer)
        })
        .await?
    }

    /// Begins rollouts that go together.
    pub async fn deploy_together(&self, requests: Requests) -> Result<Accepted, Refused> {
        self.ask_within(PREPARE_WITHIN, |answer| Ask::DeployTogether(requests, answer)).await?
    }

    /// Begins a rollout to a revision that is exactly this.
    pub async fn launch(
        &self,
        service: ServiceName,
        spec: RevisionSpec,
        why: Launching,
    ) -> Result<DeployAccepted, Refused> {
        self.ask(|answer| Ask::Launch(service, Box::new(spec), why, answer)).await?
    }

    /// What is held of services: of one, or of all.
    pub async fn held(&self, service: Option<ServiceName>) -> Result<Vec<Held>, Refused> {
        self.ask(|answer| Ask::Held(service, answer)).await?
    }

    /// What is held of one service.
    pub async fn held_of(&self, service: &ServiceName) -> Result<Held, Refused> {
        let held = self.held(Some(service.clone())).await?.pop();
        held.ok_or_else(|| Refused::NotFound(format!("there is no service {service}")))
    }

    /// The state, to be taken to another host.
    pub async fn export(&self) -> Result<Exported, Refused> {
        self.ask(Ask::Export).await
    }

    /// Writes a sentence about a service into the journal.
    pub async fn tell(&self, service: ServiceName, sentence: String) {
        // A driver that is gone keeps no journal.
        let _ = self.asks.send(Ask::Tell(service, sentence)).await;
    }

    /// Says something to the rollout under way.
    pub async fn command(
        &self,
        service: ServiceName,
        command: Command,
    ) -> Result<ServiceStatus, Refused> {
        self.command_by(service, command, None).await
    }

    /// The same, and who says it.
    pub async fn command_by(
        &self,
        service: ServiceName,
        command: Command,
        by: Option<String>,
    ) -> Result<ServiceStatus, Refused> {
        self.ask(|answer| Ask::Command(service, command, by, answer)).await?
    }

    /// Says something that concerns no rollout under way.
    pub async fn say(&self, service: ServiceName, say: Say) -> Result<ServiceStatus, Refused> {
        self.ask(|answer| Ask::Say(service, say, answer)).await?
    }

    /// Returns to the warm revision, or to a kept one.
    pub async fn rollback(
        &self,
        service: ServiceName,
        to: Option<RevisionId>,
    ) -> Result<DeployAccepted, Refused> {
        let to = ReturnTo { revision: to, checkpoint: true, told: Listener::default() };
        self.rollback_telling(service, to).await
    }

    /// The same, and tells how far a checkpoint is that is archived before.
    pub async fn rollback_telling(
        &self,
        service: ServiceName,
        to: ReturnTo,
    ) -> Result<DeployAccepted, Refused> {
        self.ask_within(PREPARE_WITHIN, |answer| Ask::Rollback(service, to, answer)).await?
    }

    /// Returns services of one group to what each had before: all of them, or none.
    pub async fn rollback_together(&self, back: ReturnTogether) -> Result<Accepted, Refused> {
        self.ask_within(PREPARE_WITHIN, |answer| Ask::RollbackTogether(back, answer)).await?
    }

    /// Keeps visitors from a service, or lets them in again.
    pub async fn maintain(
        &self,
        service: ServiceName,
        request: MaintenanceRequest,
    ) -> Result<ServiceStatus, Refused> {
        self.ask(|answer| Ask::Maintain(service, request, answer)).await?
    }

    /// Past rollouts of a service, newest first.
    pub async fn history(&self, service: ServiceName) -> Result<Vec<RolloutRecord>, Refused> {
        self.ask(|answer| Ask::History(service, answer)).await?
    }

    /// One rollout.
    pub async fn rollout(&self, id: RolloutId) -> Result<RolloutRecord, Refused> {
        self.ask(|answer| Ask::Rollout(id, answer)).await?
    }

    /// The last lines of output of instances.
    pub async fn logs(
        &self,
        service: ServiceName,
        wanted: Output,
    ) -> Result<Vec<InstanceLogs>, Refused> {
        self.ask(|answer| Ask::Logs(service, wanted, answer)).await?
    }

    /// What each step of a rollout would take, by the strategy and the steps of this request or the
    /// configured ones.
    pub async fn forecast(
        &self,
        service: ServiceName,
        request: DeployRequest,
    ) -> Result<Vec<StepForecast>, Refused> {
        self.ask(|answer| Ask::Forecast(service, Box::new(request), answer)).await?
    }

    /// Whether what is configured would fit on the machine now.
    pub async fn fits(
        &self,
        service: ServiceName,
        request: DeployRequest,
    ) -> Result<FitStatus, Refused> {
        self.ask(|answer| Ask::Fit(service, Box::new(request), answer)).await?
    }

    /// Cumulative scorecards for `/metrics`.
    pub async fn scorecards(&self) -> Vec<ServiceCounts> {
        self.ask(Ask::Scorecards).await.unwrap_or_default()
    }

    /// What the instances of a service, or of all, take of processors and memory. Takes a moment.
    pub async fn measure(&self, service: Option<ServiceName>) -> Vec<Measured> {
        self.ask(|answer| Ask::Measure(service, answer)).await.unwrap_or_default()
    }

    /// Reads the configuration again; answers what changed.
    pub async fn reload(&self) -> Result<String, Refused> {
        self.ask(Ask::Reload).await?
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Refused> {
        self.ask_within(ANSWER_WITHIN, ask).await
    }

    async fn ask_within<T>(
        &self,
        within: Duration,
        ask: impl FnOnce(oneshot::Sender<T>) -> Ask,
    ) -> Result<T, Refused> {
        let stopping = || Refused::Unavailable("the daemon is stopping".to_owned());
        let (sender, receiver) = oneshot::channel();
        self.asks.send(ask(sender)).await.map_err(|_| stopping())?;
        match tokio::time::timeout(within, receiver).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(stopping()),
            Err(_) => Err(Refused::Unavailable(format!("no answer within {within:?}"))),
        }
    }
}
