//! What launches instances, stops them, and says what became of them.
//!
//! [`Runtime`] is the seam; `process`, `docker` and `static` implement it. A runtime knows nothing
//! of rollouts or routes: it is told to launch and to stop, and reports. Every call has a deadline
//! of its own and can fail without harm to what already serves.

pub mod docker;
pub mod files;
pub mod fixed;
pub mod hook;
pub mod process;
pub mod rank;
pub mod room;
pub mod shim;

mod listening;
mod procfs;
mod secrets;

use std::collections::BTreeMap;
use std::time::Duration;

use self::room::{Room, Spent, Usage};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::model::id::InstanceId;
use crate::model::instance::{Exit, Instance, Ownership};
use crate::model::progress::Listener;
use crate::model::revision::RevisionSpec;

/// Launches and stops instances.
///
/// Cancel safety: dropping a returned future may leave an instance launched or a stop under way;
/// [`Runtime::list`] finds it again by its [`Ownership`].
pub trait Runtime: Send + Sync + std::fmt::Debug {
    /// `process`, `docker` or `static`.
    fn name(&self) -> &'static str;

    /// Checks that a revision can be run here and resolves what may change under a name (an image
    /// tag), without starting anything. Returns the spec to record.
    fn prepare<'a>(
        &'a self,
        spec: &'a RevisionSpec,
    ) -> BoxFuture<'a, Result<RevisionSpec, RuntimeError>>;

    /// As [`Runtime::prepare`], and tells how far a pull is.
    fn prepare_telling<'a>(
        &'a self,
        spec: &'a RevisionSpec,
        _told: &'a Listener,
    ) -> BoxFuture<'a, Result<RevisionSpec, RuntimeError>> {
        self.prepare(spec)
    }

    /// Starts one instance and returns when it runs and has an address; not when it is healthy.
    /// Idempotent by ownership: when an instance with the same ownership already runs, it is
    /// returned.
    fn launch<'a>(
        &'a self,
        spec: &'a RevisionSpec,
        ownership: &'a Ownership,
    ) -> BoxFuture<'a, Result<Instance, RuntimeError>>;

    /// Asks an instance to stop, kills it after `grace`, and removes what it leaves. Stopping what
    /// is already gone succeeds.
    fn stop<'a>(
        &'a self,
        instance: &'a InstanceId,
        grace: Duration,
    ) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// All instances that are ours, running or ended.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Found>, RuntimeError>>;

    /// The state of one instance.
    fn inspect<'a>(
        &'a self,
        instance: &'a InstanceId,
    ) -> BoxFuture<'a, Result<State, RuntimeError>>;

    /// The last `lines` lines of output of an instance, oldest first.
    fn logs<'a>(
        &'a self,
        instance: &'a InstanceId,
        lines: usize,
    ) -> BoxFuture<'a, Result<Vec<String>, RuntimeError>>;

    /// The same with the moment at which each line was written, as far as that is known; only lines since
    /// `since`.
    fn written<'a>(
        &'a self,
        instance: &'a InstanceId,
        lines: usize,
        since: Option<Timestamp>,
    ) -> BoxFuture<'a, Result<Vec<Written>, RuntimeError>>;

    /// What keeps a running instance from being reached, in one sentence, as far as can be told from
    /// outside of it (it listens on another port, or for itself alone). None when that is unknown.
    fn diagnose<'a>(&'a self, _instance: &'a Instance) -> BoxFuture<'a, Option<String>> {
        Box::pin(std::future::ready(None))
    }

    /// What an instance uses now. None when that is unknown.
    fn usage<'a>(&'a self, _instance: &'a InstanceId) -> BoxFuture<'a, Option<Usage>> {
        Box::pin(std::future::ready(None))
    }

    /// What an instance takes of processors and memory. None when that is unknown. Cheap enough to be
    /// asked every second.
    fn spent<'a>(&'a self, _instance: &'a InstanceId) -> BoxFuture<'a, Option<Spent>> {
        Box::pin(std::future::ready(None))
    }

    /// What is left for more instances; all unknown where nobody can tell.
    fn room(&self) -> BoxFuture<'_, Room> {
        Box::pin(std::future::ready(Room::default()))
    }

    /// Runs a command in what the revision runs in, apart from its instances, and waits for its end:
    /// with `docker` a container of the image. Elsewhere there is no such place.
    fn run_once<'a>(
        &'a self,
        _spec: &'a RevisionSpec,
        _ownership: &'a Ownership,
        _what: &'a str,
        _command: &'a [String],
        _env: &'a BTreeMap<String, String>,
        _limit: Duration,
    ) -> BoxFuture<'a, Result<hook::Ran, RuntimeError>> {
        let reason = format!("the runtime {} has no image to run it in", self.name());
        Box::pin(std::future::ready(Err(RuntimeError::Failed(reason))))
    }

    /// Begins to watch. What happens to instances of ours, and to the runtime itself, is sent until
    /// the receiver is dropped. Events may be lost with the connection to an engine; after
    /// [`RuntimeEvent::Connected`] the listener must list again.
    fn watch(&self, events: mpsc::Sender<RuntimeEvent>);
}

/// A line of an instance's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// When it was written.
    pub at: Option<Timestamp>,
    /// The line.
    pub text: String,
}

/// An instance found by [`Runtime::list`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The instance; no address when it does not run.
    pub id: InstanceId,
    /// Whose it is.
    pub ownership: Ownership,
    /// How it is.
    pub state: State,
}

/// How an instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It runs, at this address.
    Running {
        /// Where it listens.
        instance: Instance,
        /// What the engine's own health check says, when it has one.
        health: Option<bool>,
    },
    /// It ended.
    Ended(Exit),
    /// It is not known any more.
    Gone,
}

/// What a runtime reports by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeEvent {
    /// An instance ended.
    Ended {
        /// Which.
        instance: InstanceId,
        /// How.
        exit: Exit,
    },
    /// The engine's own health check changed its mind.
    Health {
        /// About which.
        instance: InstanceId,
        /// What it says now.
        healthy: bool,
    },
    /// The engine can be reached (again).
    Connected,
    /// The engine cannot be reached; what serves goes on serving.
    Disconnected {
        /// Why, in one sentence.
        reason: String,
    },
}

/// Why a runtime could not do what it was told. Each display is one sentence that says what to change.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RuntimeError {
    /// The engine is not there: socket missing, refused, or hung.
    #[error("{0}")]
    Unreachable(String),
    /// There is nothing to launch: no such image, no such program, no right to run it.
    #[error("{0}")]
    NotFound(String),
    /// It started and ended before it had an address.
    #[error("the instance {exit} right after its start{}", .hint.map_or(String::new(), |hint| format!(": {hint}")))]
    Ended {
        /// How.
        exit: Exit,
        /// Its last lines of output.
        logs: Vec<String>,
        /// What that output tells of what it is not allowed to do.
        hint: Option<&'static str>,
    },
    /// The call took longer than its deadline.
    #[error("{what} took longer than {after:?}")]
    Timeout {
        /// Which call.
        what: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// Anything else, in the engine's words.
    #[error("{0}")]
    Failed(String),
}
