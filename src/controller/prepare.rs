//! From what a deploy asks for to a revision: admitted, prepared by its runtime, numbered.

use super::archivist::{ArchiveTrouble, Subject};
use super::asks::DeployAnswer;
use super::driver::Driver;
use super::fit::{self, Serving};
use super::handle::{Held, Launching, Refused};
use super::journal::Kind;
use super::service::Service;
use super::status::DeployRequest;
use super::way_back::Start;
use crate::model::hook::{HookMoment, Hooks};
use crate::model::id::{RevisionId, ServiceName};
use crate::model::progress::Listener;
use crate::model::revision::{Origin, Revision, RevisionSpec, Source};
use crate::rollout::machine::Kind as RolloutKind;
use crate::rollout::plan::Plan;
use crate::runtime::RuntimeError;
use crate::store::Change;
use crate::store::records::Exported;

/// What shall become a revision.
pub(super) struct Wanted {
    pub spec: RevisionSpec,
    pub plan: Plan,
    /// By steps, or at once.
    pub kind: RolloutKind,
    /// The source that it was built from.
    pub origin: Option<Origin>,
    /// Whether a checkpoint is archived first, if the configuration says so.
    pub checkpoint: bool,
    /// Who hears how far it is.
    pub told: Listener,
    /// What is to be told of it when it begins.
    pub notes: Vec<String>,
}

impl Wanted {
    pub(super) fn new(spec: RevisionSpec, plan: Plan) -> Self {
        Self {
            spec,
            plan,
            kind: RolloutKind::Canary,
            origin: None,
            checkpoint: true,
            told: Listener::default(),
            notes: Vec::new(),
        }
    }
}

/// A deploy that was prepared.
pub(super) struct Prepared {
    pub service: ServiceName,
    pub spec: Result<RevisionSpec, Unprepared>,
    pub plan: Plan,
    pub kind: RolloutKind,
    pub origin: Option<Origin>,
    /// What is to be told of it.
    pub notes: Vec<String>,
    pub answer: Option<DeployAnswer>,
}

/// Why a deploy could not be prepared.
pub(super) enum Unprepared {
    /// Its runtime cannot run it.
    Runtime(RuntimeError),
    /// The machine has no room for it.
    NoRoom(String),
    /// The checkpoint before it could not be archived.
    Checkpoint(ArchiveTrouble),
}

/// What people see of a digest or an id: as much as Docker's own tools show.
const DIGEST_SHOWN: usize = "sha256:".len() + 12;

/// The plan for what a checkpoint has, and what is to be said of it. Its revision and its data were
/// archived together: to migrate the data would part them, and there is nothing to take back.
fn without_migrations(plan: Plan) -> (Plan, Vec<String>) {
    let moments = [HookMoment::BeforeDeploy, HookMoment::OnRollback];
    let left_out: Vec<&str> = moments
        .into_iter()
        .filter(|moment| plan.hooks.at(*moment).is_some())
        .map(HookMoment::as_str)
        .collect();
    let note = (!left_out.is_empty()).then(|| {
        let hooks = left_out.join(" and ");
        let not = if left_out.len() > 1 { "do not run" } else { "does not run" };
        format!("{hooks} {not}: what a checkpoint has fits together as it was archived")
    });
    let hooks = Hooks { before_deploy: None, on_rollback: None, ..plan.hooks };
    (Plan { hooks, ..plan }, note.into_iter().collect())
}

impl Driver {
    pub(super) fn deploy(
        &mut self,
        name: &ServiceName,
        request: &DeployRequest,
        told: Listener,
        answer: DeployAnswer,
    ) {
        match self.admit_deploy(name, request) {
            Ok(wanted) => self.prepare(name, Wanted { told, ..wanted }, Some(answer)),
            Err(refused) => {
                let _ = answer.send(Err(refused));
            }
        }
    }

    pub(super) fn admit_deploy(
        &self,
        name: &ServiceName,
        request: &DeployRequest,
    ) -> Result<Wanted, Refused> {
        let service = self.known(name)?;
        self.admit_new_rollout(service)?;
        self.admit_by_hand(service, request)?;
        let mut spec = super::settings::spec_of(&service.config, request)?;
        if let Some(stable) = service.stable_spec() {
            super::settings::inherit(&mut spec, stable);
        }
        let mut plan = super::settings::plan_of(&service.config, request)?;
        plan.joined = request.joined.clone();
        let (origin, checkpoint) = (request.origin.clone(), !request.no_checkpoint);
        let notes = super::gates::who(service, request).into_iter().collect();
        Ok(Wanted { origin, checkpoint, notes, ..Wanted::new(spec, plan) })
    }

    /// Begins a rollout to exactly this, by the service's plan.
    pub(super) fn deploy_exactly(
        &mut self,
        name: &ServiceName,
        spec: RevisionSpec,
        why: Launching,
        answer: DeployAnswer,
    ) {
        let admitted = self.known(name).and_then(|service| {
            self.admit_new_rollout(service)?;
            let plan = service.config.plan.clone();
            Ok(match why {
                Launching::Restored => without_migrations(plan),
                Launching::Adopted => {
                    let plan = Plan { hooks: Hooks::default(), webhooks: Vec::new(), ..plan };
                    (plan, Vec::new())
                }
            })
        });
        match admitted {
            Ok((plan, notes)) => {
                // Whoever asks for exactly this has archived what there was.
                let wanted = Wanted { checkpoint: false, notes, ..Wanted::new(spec, plan) };
                self.prepare(name, wanted, Some(answer));
            }
            Err(refused) => {
                let _ = answer.send(Err(refused));
            }
        }
    }

    /// Asks the runtime whether a revision can be run; its answer begins the rollout.
    pub(super) fn prepare(
        &mut self,
        name: &ServiceName,
        wanted: Wanted,
        answer: Option<DeployAnswer>,
    ) {
        let runtime = self.runtimes.of(&wanted.spec.source);
        let subject = self.subject(name).filter(|s| wanted.checkpoint && s.config.keeping.auto);
        let archive = self.archivist.clone().zip(subject);
        let serving = self.serving(name);
        let Some(service) = self.services.get_mut(name) else { return };
        let may_wait = service.config.listen.is_empty();
        service.preparing = true;
        let (service, prepared) = (name.clone(), self.prepared.clone());
        self.tasks.spawn(async move {
            let Wanted { spec, mut plan, kind, origin, told, mut notes, .. } = wanted;
            let ready = async {
                // First what may be refused for less: an image that does not exist.
                let spec = runtime.prepare_telling(&spec, &told).await;
                let spec = spec.map_err(Unprepared::Runtime)?;
                let fits = fit::look(&runtime, &spec, &mut plan, serving, may_wait).await;
                notes.extend(fits.map_err(Unprepared::NoRoom)?);
                if let Some((archivist, subject)) = archive {
                    let note = format!("before the deploy of {}", spec.source);
                    let made = archivist.create(subject, &note, true, &told).await;
                    let listed = made.map_err(Unprepared::Checkpoint)?;
                    notes.push(format!("checkpoint {} archived {note}", listed.id));
                }
                Ok(spec)
            };
            let spec = Box::pin(ready).await;
            let _ =
                prepared.send(Prepared { service, spec, plan, kind, origin, notes, answer }).await;
        });
    }

    /// What serves now, to be measured.
    pub(super) fn serving(&self, name: &ServiceName) -> Option<Serving> {
        let service = self.services.get(name)?;
        let spec = service.stable_spec()?.clone();
        let runtime = self.runtimes.of(&spec.source);
        let instances = service.record.stable.as_ref()?.instances.clone();
        Some(Serving { runtime, instances })
    }

    /// What a checkpoint of a service is made of: its stable revision.
    pub(super) fn subject(&self, name: &ServiceName) -> Option<Subject> {
        let service = self.services.get(name)?;
        let stable = service.record.stable.as_ref()?;
        Some(Subject {
            config: service.config.clone(),
            revision: service.revisions.get(&stable.revision)?.clone(),
            instances: stable.instances.clone(),
        })
    }

    pub(super) fn begin_prepared(&mut self, prepared: Prepared) {
        let Prepared { service: name, spec, plan, kind, origin, notes, answer } = prepared;
        let Some(service) = self.services.get_mut(&name) else { return };
        service.preparing = false;
        match spec {
            Err(error) => {
                let refused = match error {
                    Unprepared::Runtime(RuntimeError::NotFound(sentence)) => {
                        Refused::Invalid(sentence)
                    }
                    Unprepared::Runtime(error) => Refused::Unavailable(error.to_string()),
                    Unprepared::NoRoom(sentence) => {
                        Refused::Conflict { sentence, phase: "idle".to_owned() }
                    }
                    Unprepared::Checkpoint(error) => Refused::Unavailable(format!(
                        "no checkpoint could be archived before the deploy: {error}; \
                         --no-checkpoint deploys without"
                    )),
                };
                self.tell(&name, Kind::Note, format!("cannot deploy: {refused}"));
                if let Some(answer) = answer {
                    let _ = answer.send(Err(refused));
                }
            }
            Ok(spec) => {
                let revision = self.add_revision(&name, spec, origin);
                let compared = self.compared(&name, revision);
                self.begin(&name, revision, kind, plan, Start::Anew, answer);
                for sentence in compared.into_iter().chain(notes) {
                    self.tell(&name, Kind::Note, sentence);
                }
            }
        }
    }

    fn add_revision(
        &mut self,
        name: &ServiceName,
        spec: RevisionSpec,
        origin: Option<Origin>,
    ) -> RevisionId {
        let created = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
        let Some(service) = self.services.get_mut(name) else { return RevisionId(0) };
        service.record.last_revision += 1;
        let id = RevisionId(service.record.last_revision);
        let revision = Revision { id, spec, created, origin };
        service.revisions.insert(id, revision.clone());
        let mut changes = vec![Change::Revision(name.clone(), Box::new(revision.clone()))];
        let in_use = [
            service.record.stable.as_ref().map(|placed| placed.revision),
            service.record.warm.as_ref().map(|warm| warm.placed.revision),
            Some(id),
        ];
        let mut dropped = Vec::new();
        while service.revisions.len() > service.config.keeping.revisions {
            let oldest = service.revisions.keys().find(|id| !in_use.contains(&Some(**id))).copied();
            let Some(oldest) = oldest else { break };
            service.revisions.remove(&oldest);
            changes.push(Change::DropRevision(name.clone(), oldest));
            dropped.push(oldest);
        }
        // The rollout's own first checkpoint is queued behind this batch and must stand, so this one
        // needs nobody to wait for it.
        let written = self.writer.write(changes);
        self.tasks.spawn(async move { written.await.is_ok() });
        self.keep_images(name, &revision, dropped);
        id
    }

    /// Gives the image of a new revision our tag, so that whoever removes images without a name leaves
    /// it, and takes that of revisions which are not kept any more.
    fn keep_images(&self, name: &ServiceName, revision: &Revision, dropped: Vec<RevisionId>) {
        let (Some(images), Some(id)) = (&self.images, &revision.spec.container.image_id) else {
            return;
        };
        let (images, name) = (images.clone(), name.clone());
        let (revision, id) = (revision.id, id.clone());
        self.tasks.spawn(async move {
            if let Err(error) = images.keep_image(&name, revision, &id).await {
                tracing::warn!(service = %name, %revision, %error, "its image has no tag of ours");
            }
            for old in dropped {
                if let Err(error) = images.release_image(&name, old).await {
                    tracing::warn!(service = %name, revision = %old, %error, "its image stays");
                }
            }
        });
    }

    /// The stable revision, when this one runs the very same image.
    pub(super) fn same_image(&self, name: &ServiceName, revision: RevisionId) -> Option<u32> {
        let service = self.services.get(name)?;
        let new = service.revisions.get(&revision)?.spec.container.image_id.as_ref()?;
        let stable = service.stable_spec()?.container.image_id.as_ref()?;
        let number = service.record.stable.as_ref()?.revision;
        (new == stable && number != revision).then_some(number.0)
    }

    /// How the image of a new revision compares with stable's, where they go by the same name: the same
    /// after all, or another one under it.
    fn compared(&self, name: &ServiceName, revision: RevisionId) -> Option<String> {
        let service = self.services.get(name)?;
        let new = &service.revisions.get(&revision)?.spec;
        let stable = service.stable_spec()?;
        let number = service.record.stable.as_ref()?.revision;
        let Source::Image(image) = &new.source else { return None };
        if let Some(same) = self.same_image(name, revision) {
            let digest = shown(new)?;
            return Some(format!(
                "revision {revision} runs the same image as revision {same}: {image} is {digest}"
            ));
        }
        (new.source == stable.source).then_some(())?;
        let (before, after) = (shown(stable)?, shown(new)?);
        Some(format!(
            "{image} is not the image of revision {number} any more: {before} before, {after} now"
        ))
    }

    /// The state, to be taken to another host.
    pub(super) fn export(&self) -> Exported {
        let mut state = Exported::default();
        for (name, service) in &self.services {
            state.services.push((name.clone(), service.record.clone()));
            let revisions = service.revisions.values().cloned();
            state.revisions.extend(revisions.map(|revision| (name.clone(), revision)));
            state.history.extend(service.history.iter().cloned());
        }
        state
    }

    /// What is held of one service, or of all.
    pub(super) fn held(&self, name: Option<&ServiceName>) -> Result<Vec<Held>, Refused> {
        let held = |service: &Service| Held {
            config: service.config.clone(),
            revisions: service.revisions.values().cloned().collect(),
            stable: service.record.stable.clone(),
            placed: service.placed(),
            busy: self.admit_new_rollout(service).err(),
        };
        match name {
            Some(name) => Ok(vec![held(self.known(name)?)]),
            None => Ok(self.services.values().map(held).collect()),
        }
    }
}

/// What identifies an image, as short as people read it.
fn shown(spec: &RevisionSpec) -> Option<&str> {
    let container = &spec.container;
    let whole = container.digest.as_deref().or(container.image_id.as_deref())?;
    Some(whole.get(..DIGEST_SHOWN).unwrap_or(whole))
}
