//! Hooks and smoke tests: what is run around a rollout, and where what it said is kept.
//!
//! `before_deploy` belongs to the launch: a daemon that dies while it runs begins the launch again
//! with it, so a hook must bear to be run twice. The hooks at the end are written down with the end
//! itself and forgotten when they have run, so that none is lost; their failure changes nothing any
//! more and is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::driver::Driver;
use super::executor::{Completion, Executor};
use super::journal::{Happening, Kind};
use super::outside::Asking;
use crate::config::Service as ServiceConfig;
use crate::model::hook::{Hook, HookMoment, HookPlace, SMOKE_PAUSE, Smoke, SmokeAct};
use crate::model::id::{RevisionId, RolloutId, ServiceName};
use crate::model::instance::{Instance, Ownership};
use crate::model::revision::{RevisionSpec, Speech};
use crate::model::webhook::WebhookKind;
use crate::prober::smoke;
use crate::rollout::checkpoint::Checkpoint;
use crate::rollout::event::Attempt;
use crate::rollout::machine::Kind as RolloutKind;
use crate::rollout::phase::{Cause, Phase};
use crate::routing::table::{HostPattern, Route};
use crate::runtime::Runtime;
use crate::runtime::hook::{Ran, run_here};
use crate::store::Change;
use crate::store::records::PendingHook;
use crate::telemetry::metrics;

/// A hook about to run.
pub(super) struct HookRun {
    runtime: Arc<dyn Runtime>,
    spec: RevisionSpec,
    ownership: Ownership,
    pub(super) moment: HookMoment,
    hook: Hook,
    env: BTreeMap<String, String>,
}

impl HookRun {
    /// Runs it to its end.
    ///
    /// Cancel safety: dropped midway, it is ended.
    pub(super) async fn run(&self) -> Ran {
        let (command, limit) = (&self.hook.command, self.hook.timeout);
        match self.hook.place {
            HookPlace::Host => run_here(command, &self.env, limit).await,
            HookPlace::Image => {
                let what = self.moment.as_str();
                let run = self.runtime.run_once(
                    &self.spec,
                    &self.ownership,
                    what,
                    command,
                    &self.env,
                    limit,
                );
                let late = || Ran::late(limit, Vec::new());
                // The limit is the runtime's to keep; this is for an engine that does not answer.
                match tokio::time::timeout(limit + ENGINE_SLACK, run).await {
                    Ok(ran) => ran.unwrap_or_else(|error| Ran {
                        failure: Some(error.to_string()),
                        lines: Vec::new(),
                    }),
                    Err(_) => late(),
                }
            }
        }
    }
}

/// What an engine may take beyond a hook's own limit.
const ENGINE_SLACK: Duration = Duration::from_secs(60);

/// Smoke tests about to run.
pub(super) struct SmokeRun {
    pub(super) tests: Vec<Smoke>,
    pub(super) instances: Vec<Instance>,
    pub(super) speech: Speech,
    pub(super) host: Option<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) outside: Vec<Asking>,
}

impl SmokeRun {
    /// A service's tests for an instance that belongs to no rollout.
    pub(super) fn beside(config: &ServiceConfig, instance: &Instance, spec: &RevisionSpec) -> Self {
        Self {
            tests: config.plan.smoke.clone(),
            instances: vec![instance.clone()],
            speech: spec.speech(),
            host: first_host(&config.routes),
            env: [
                ("SWITCHBACK_SERVICE".to_owned(), config.name.to_string()),
                ("SWITCHBACK_IMAGE".to_owned(), spec.source.to_string()),
            ]
            .into(),
            outside: Vec::new(),
        }
    }

    /// Every test in order, each on all instances at the same time. The first that fails ends it.
    pub(super) async fn run(&self) -> Result<(), String> {
        for test in &self.tests {
            let tried = self.instances.iter().map(|instance| self.persist(test, instance));
            for result in join_all(tried).await {
                result?;
            }
        }
        join_all(self.outside.iter().map(Asking::passed)).await.into_iter().collect()
    }

    async fn persist(&self, test: &Smoke, instance: &Instance) -> Result<(), String> {
        let mut left = test.retries;
        loop {
            let wrong = match self.attempt(test, instance).await {
                Ok(()) => return Ok(()),
                Err(wrong) => wrong,
            };
            if left == 0 {
                let times = match test.retries {
                    0 => String::new(),
                    retries => format!(" ({} times)", retries + 1),
                };
                return Err(format!("{}: {wrong}{times}", instance.id.short()));
            }
            left -= 1;
            tokio::time::sleep(SMOKE_PAUSE).await;
        }
    }

    async fn attempt(&self, test: &Smoke, instance: &Instance) -> Result<(), String> {
        match &test.act {
            SmokeAct::Request(request) => {
                let host = self.host.as_deref();
                smoke::ask(test, request, instance.address, self.speech, host).await
            }
            SmokeAct::Command(command) => {
                let mut env = self.env.clone();
                let address = instance.address.to_string();
                env.insert("SWITCHBACK_URL".to_owned(), format!("http://{address}"));
                env.insert("SWITCHBACK_ADDRESS".to_owned(), address);
                let ran = run_here(command, &env, test.timeout).await;
                let shown = ran.lines.join("\n  ");
                ran.failure
                    .map_or(Ok(()), |why| Err(format!("{}: {why}\n  {shown}", command.join(" "))))
            }
        }
    }
}

/// What its visitors call a service first.
fn first_host(routes: &[Route]) -> Option<String> {
    routes.iter().find_map(|route| match &route.host {
        HostPattern::Exact(host) => Some(host.clone()),
        HostPattern::Any | HostPattern::Below(_) => None,
    })
}

impl Executor {
    /// Puts the canary through its smoke tests.
    pub(super) fn smoke(
        &self,
        service: ServiceName,
        rollout: RolloutId,
        attempt: Attempt,
        run: SmokeRun,
        cancel: CancellationToken,
    ) {
        let work = async move {
            let done = cancel.run_until_cancelled(run.run()).await;
            let failure = done.unwrap_or_else(|| Err("not wanted any more".to_owned())).err();
            Completion::Smoked { failure }
        };
        self.spawn(service, rollout, attempt, work);
    }

    /// Runs a hook for which nobody waits.
    pub(super) fn hook(&self, service: ServiceName, rollout: RolloutId, run: HookRun) {
        let work = async move {
            let ran = run.run().await;
            Completion::Hooked { moment: run.moment, ran }
        };
        self.spawn(service, rollout, 0, work);
    }
}

impl Driver {
    /// What every hook is told.
    fn hook_env(
        &self,
        name: &ServiceName,
        rollout: RolloutId,
        revision: RevisionId,
    ) -> BTreeMap<String, String> {
        let image = self.services.get(name).map(|s| super::report::image_of(s, revision));
        let pairs = [
            ("SWITCHBACK_SERVICE", name.to_string()),
            ("SWITCHBACK_ROLLOUT", rollout.to_string()),
            ("SWITCHBACK_REVISION", revision.to_string()),
            ("SWITCHBACK_IMAGE", image.unwrap_or_default()),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// The hook before the launch of the rollout under way.
    pub(super) fn hook_before(&self, name: &ServiceName) -> Option<HookRun> {
        let active = self.services.get(name)?.active.as_ref()?;
        let rollout = &active.rollout;
        if rollout.kind == RolloutKind::Direct && rollout.stable.is_some() {
            // A kept revision comes back: there is nothing to prepare.
            return None;
        }
        let hook = rollout.plan.hooks.before_deploy.clone()?;
        let pending = PendingHook {
            rollout: rollout.id,
            revision: rollout.canary,
            moment: HookMoment::BeforeDeploy,
            hook,
            cause: None,
        };
        self.hook_run(name, pending)
    }

    fn hook_run(&self, name: &ServiceName, pending: PendingHook) -> Option<HookRun> {
        let PendingHook { rollout, revision, moment, hook, cause } = pending;
        let spec = self.services.get(name)?.revisions.get(&revision)?.spec.clone();
        let mut env = self.hook_env(name, rollout, revision);
        env.insert("SWITCHBACK_HOOK".to_owned(), moment.as_str().to_owned());
        env.extend(cause.map(|cause| ("SWITCHBACK_CAUSE".to_owned(), cause)));
        let ownership = Ownership { service: name.clone(), revision, rollout, replica: 0 };
        let runtime = self.runtimes.of(&spec.source);
        Some(HookRun { runtime, spec, ownership, moment, hook, env })
    }

    /// Runs what was written down to be run at an end.
    pub(super) fn run_pending(&mut self, name: &ServiceName, pending: PendingHook) {
        let rollout = pending.rollout;
        if let Some(run) = self.hook_run(name, pending) {
            self.executor.hook(name.clone(), rollout, run);
        }
    }

    /// Runs what a former daemon did not come to, or did not hear the end of.
    pub(super) fn recover_hooks(&mut self, name: &ServiceName) {
        let pending = self.services.get(name).map(|service| service.record.hooks.clone());
        for pending in pending.unwrap_or_default() {
            let hook = pending.moment.as_str();
            let message = format!(
                "{hook} had not ended when the daemon did: it runs now, perhaps for the second time"
            );
            self.tell(name, Kind::Note, message);
            self.run_pending(name, pending);
        }
    }

    /// A hook has run.
    pub(super) fn hooked(
        &mut self,
        name: &ServiceName,
        rollout: RolloutId,
        moment: HookMoment,
        ran: &Ran,
    ) {
        let hook = moment.as_str();
        let result = if ran.failure.is_none() { "done" } else { "failed" };
        let labels = [("service", name.as_str()), ("hook", hook), ("result", result)];
        metrics::count(&metrics::HOOKS, &labels);
        let mut message = match &ran.failure {
            None => format!("{hook}: done"),
            Some(why) => format!("{hook} failed: {why}"),
        };
        if !ran.lines.is_empty() {
            message = format!("{message}\n  {}", ran.lines.join("\n  "));
        }
        if moment == HookMoment::BeforeDeploy {
            self.tell(name, Kind::Note, message);
            return;
        }
        let happening = Happening {
            kind: Kind::Note,
            service: Some(name),
            rollout: Some(rollout),
            phase: None,
            message,
        };
        let recorded = self.journal.tell(happening);
        let Some(service) = self.services.get_mut(name) else { return };
        service.record.hooks.retain(|p| (p.rollout, p.moment) != (rollout, moment));
        let entry = service.history.iter_mut().find(|entry| entry.checkpoint.id == rollout);
        let mut changes = Vec::new();
        if let Some(entry) = entry {
            entry.events.push(recorded);
            changes.push(Change::History(Box::new(entry.clone())));
        }
        changes.extend(self.changes(name));
        let written = self.writer.write(changes);
        self.executor.saved(name.clone(), RolloutId(0), 0, written);
    }

    /// Begins the smoke tests of the canary.
    pub(super) fn smoke(&mut self, name: &ServiceName) {
        let Some(service) = self.services.get(name) else { return };
        let Some(active) = &service.active else { return };
        let rollout = &active.rollout;
        let Some(revision) = service.revisions.get(&rollout.canary) else { return };
        let host = first_host(&service.config.routes);
        let run = SmokeRun {
            tests: rollout.plan.smoke.clone(),
            instances: rollout.newest().to_vec(),
            speech: revision.spec.speech(),
            host,
            env: self.hook_env(name, rollout.id, rollout.canary),
            outside: self.askings(name, WebhookKind::PreRollout),
        };
        let (id, attempt) = (rollout.id, rollout.attempt);
        let cancel = CancellationToken::new();
        self.executor.smoke(name.clone(), id, attempt, run, cancel.clone());
        if let Some(active) = self.services.get_mut(name).and_then(|s| s.active.as_mut()) {
            // Going back cancels it as it cancels a launch.
            active.launch = Some(cancel);
        }
    }

    pub(super) fn tell_logs(&mut self, name: &ServiceName, who: &str, lines: &[String]) {
        if !lines.is_empty() {
            let message = format!("last output of {who}:\n  {}", lines.join("\n  "));
            self.tell(name, Kind::Instance, message);
        }
    }
}

/// The hook that follows the end of a rollout.
pub(super) fn after(checkpoint: &Checkpoint) -> Option<PendingHook> {
    let returned = checkpoint.kind == RolloutKind::Direct && checkpoint.stable.is_some();
    let (moment, revision, cause) = match &checkpoint.phase {
        Phase::Promoted if returned => {
            (HookMoment::OnRollback, checkpoint.stable?, Some(Cause::Aborted))
        }
        Phase::Promoted => (HookMoment::AfterPromote, checkpoint.canary, None),
        Phase::RolledBack { cause } => {
            (HookMoment::OnRollback, checkpoint.canary, Some(cause.clone()))
        }
        _ => return None,
    };
    let hook = checkpoint.plan.hooks.at(moment)?.clone();
    let cause = cause.map(|cause| cause.to_string());
    Some(PendingHook { rollout: checkpoint.id, revision, moment, hook, cause })
}
