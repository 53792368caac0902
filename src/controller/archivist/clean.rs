//! What is ours and nobody needs any more: found, shown, and only then freed.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::restore::mounted;
use super::{ArchiveTrouble, Archivist, aside};
use crate::archive::shelf::expired;
use crate::controller::handle::{Handle, Held};
use crate::model::id::InstanceId;
use crate::model::revision::Source;
use crate::runtime::{Runtime as _, State};

/// Something that can be freed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Freed {
    /// `container`, `image`, `volume`, `network`, `checkpoint`, `file`.
    pub kind: String,
    /// What it is called.
    pub name: String,
    /// Bytes that this frees, as far as that is known; what images share is counted with each.
    pub bytes: Option<u64>,
    /// Why nobody needs it.
    pub why: String,
    /// Why it was not freed after all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// What can be freed, or was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Clean {
    /// One after the other.
    pub freed: Vec<Freed>,
    /// Whether it was done, not only shown.
    pub done: bool,
    /// What could not be looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// How a thing is freed.
enum Way {
    Container(InstanceId),
    Image(String),
    Volume(String),
    Network(String),
    Checkpoint(String),
    File(std::path::PathBuf),
}

impl Archivist {
    /// Finds what nobody needs, and frees it when `does`.
    pub async fn clean(&self, handle: &Handle, does: bool) -> Result<Clean, ArchiveTrouble> {
        let held = handle.held(None).await?;
        let mut notes = Vec::new();
        let mut found = self.files(&held).await?;
        let uses_docker = held.iter().any(|held| {
            let template = &held.config.template.source;
            let sources = held.revisions.iter().map(|revision| &revision.spec.source);
            sources.chain([template]).any(|source| matches!(source, Source::Image(_)))
        });
        if uses_docker {
            match self.on_the_engine(&held).await {
                Ok(more) => found.extend(more),
                Err(error) => notes.push(format!("the engine could not be looked at: {error}")),
            }
        }
        let mut clean = Clean { freed: Vec::new(), done: does, notes };
        for (way, mut freed) in found {
            if does && let Err(error) = self.free(way).await {
                freed.trouble = Some(error.to_string());
            }
            clean.freed.push(freed);
        }
        Ok(clean)
    }

    async fn free(&self, way: Way) -> Result<(), ArchiveTrouble> {
        match way {
            Way::Container(id) => Ok(self.docker.remove_container(&id).await?),
            Way::Image(name) => Ok(self.docker.remove_image(&name).await?),
            Way::Volume(name) => Ok(self.docker.remove_volume(&name).await?),
            Way::Network(name) => Ok(self.docker.remove_network(&name).await?),
            Way::Checkpoint(id) => self.remove(&id).await.map(drop),
            Way::File(path) => {
                let removed = tokio::fs::remove_file(&path).await;
                removed.map_err(|error| ArchiveTrouble::Invalid(error.to_string()))
            }
        }
    }

    /// Archives whose time is up, and what is left of those that were never finished.
    async fn files(&self, held: &[Held]) -> Result<Vec<(Way, Freed)>, ArchiveTrouble> {
        let (shelf, held) = (self.shelf.clone(), held.to_vec());
        let busy = self.busy.lock().map(|busy| !busy.is_empty()).unwrap_or(true);
        aside(move || {
            let mut found = Vec::new();
            let now = jiff::Timestamp::now();
            for held in &held {
                let listed = shelf.list(Some(&held.config.name))?;
                let keeping = &held.config.keeping;
                for id in expired(&listed, keeping.archives, keeping.max_age, now) {
                    let bytes = listed.iter().find(|one| one.id == id).map(|one| one.bytes);
                    let why = "an automatic checkpoint beyond `backup.keep` or `backup.max_age`";
                    found.push((Way::Checkpoint(id.clone()), freed("checkpoint", &id, bytes, why)));
                }
            }
            // While one is being written, its file looks just the same.
            for (path, bytes) in shelf.unfinished().into_iter().filter(|_| !busy) {
                let name = path.display().to_string();
                let why = "a checkpoint that was never finished";
                found.push((Way::File(path), freed("file", &name, Some(bytes), why)));
            }
            Ok(found)
        })
        .await
    }

    async fn on_the_engine(&self, held: &[Held]) -> Result<Vec<(Way, Freed)>, ArchiveTrouble> {
        let mut found = Vec::new();
        let known: BTreeSet<InstanceId> = held
            .iter()
            .flat_map(|held| held.placed.iter().flat_map(|placed| &placed.instances))
            .map(|instance| instance.id.clone())
            .collect();
        for container in self.docker.list().await? {
            // One that runs and is not known may be about to be; it is stopped by whoever starts it.
            let ended = matches!(container.state, State::Ended(_));
            if ended && !known.contains(&container.id) {
                let name = container.id.short().to_owned();
                let why = format!(
                    "an instance of {} revision {} that ended",
                    container.ownership.service, container.ownership.revision
                );
                found.push((Way::Container(container.id), freed("container", &name, None, &why)));
            }
        }
        if self.busy.lock().is_ok_and(|busy| busy.is_empty()) {
            for id in self.docker.left_holders().await? {
                let name = id.short().to_owned();
                let why = "it held a volume for a checkpoint";
                found.push((Way::Container(id), freed("container", &name, None, why)));
            }
        }
        for image in self.docker.kept_images().await? {
            let service = held.iter().find(|held| held.config.name == image.service);
            let kept = |held: &Held| held.revisions.iter().any(|one| one.id == image.revision);
            // Of a service that is not configured now, everything is kept: it can come back.
            if service.is_some_and(|held| !kept(held)) {
                let bytes = (!image.has_other_names).then_some(image.size);
                let why = format!("revision {} of {} is not kept", image.revision, image.service);
                let way = Way::Image(image.name.clone());
                found.push((way, freed("image", &image.name, bytes, &why)));
            }
        }
        let wanted: BTreeSet<&str> = held
            .iter()
            .flat_map(|held| held.revisions.iter().flat_map(|one| mounted(&one.spec)))
            .collect();
        for volume in self.docker.kept_volumes().await? {
            let configured = held.iter().any(|held| held.config.name.as_str() == volume.service);
            if configured && !volume.in_use && !wanted.contains(volume.name.as_str()) {
                let why = "restored from a checkpoint, and no kept revision has it";
                let way = Way::Volume(volume.name.clone());
                found.push((way, freed("volume", &volume.name, None, why)));
            }
        }
        for (name, service) in self.docker.idle_networks().await? {
            // One that is wanted is made again by whoever needs it, and may be about to be joined.
            let wants = |held: &&Held| held.config.name.as_str() == service;
            let wanted = held.iter().find(wants).is_some_and(|held| {
                held.config.template.container.own_network || held.busy.is_some()
            });
            if !wanted {
                let why = format!("no container of {service} is on it");
                found.push((Way::Network(name.clone()), freed("network", &name, None, &why)));
            }
        }
        Ok(found)
    }
}

fn freed(kind: &str, name: &str, bytes: Option<u64>, why: &str) -> Freed {
    let (kind, name, why) = (kind.to_owned(), name.to_owned(), why.to_owned());
    Freed { kind, name, bytes, why, trouble: None }
}
