//! Makes a checkpoint of what serves.

use std::io::Read;

use tokio::runtime::Handle as Runtime;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::source::Source;
use super::{ArchiveTrouble, Archivist, Counted, Subject, aside};
use crate::archive::format::{About, CONFIGURATION, DUMP, FORMAT, Head, IMAGE, REVISION, volume};
use crate::archive::shelf::{Listed, expired};
use crate::archive::writer::Writer;
use crate::archive::{ArchiveError, reader};
use crate::config::keeping::names;
use crate::controller::handle::Handle;
use crate::model::id::ServiceName;
use crate::model::progress::Listener;
use crate::model::revision::{RevisionSpec, Source as Runs};
use crate::telemetry::metrics;

/// A part that shall be written.
struct Wanted {
    name: String,
    about: About,
    source: Source,
    /// What is said while it is written.
    what: String,
    /// Its length, where that is known before.
    bytes: Option<u64>,
}

impl Archivist {
    /// Archives a checkpoint, and removes automatic ones whose time is up.
    pub async fn create(
        &self,
        subject: Subject,
        note: &str,
        automatic: bool,
        told: &Listener,
    ) -> Result<Listed, ArchiveTrouble> {
        let name = subject.config.name.clone();
        let _taken = self.take(&name)?;
        let made = self.create_taken(subject, note, automatic, told).await;
        let result = if made.is_ok() { "archived" } else { "failed" };
        let labels = [("service", name.as_str()), ("result", result)];
        metrics::count(&metrics::CHECKPOINTS, &labels);
        made
    }

    /// Archives a checkpoint of what serves, because a person asks for it.
    pub async fn create_of(
        &self,
        handle: &Handle,
        service: &ServiceName,
        note: &str,
        told: &Listener,
    ) -> Result<Listed, ArchiveTrouble> {
        let held = handle.held_of(service).await?;
        let subject = super::restore::subject_of(held).ok_or_else(|| {
            ArchiveTrouble::Invalid(format!(
                "nothing of {service} serves yet: there is nothing to archive"
            ))
        })?;
        let listed = self.create(subject, note, false, told).await?;
        handle.tell(service.clone(), format!("checkpoint {} archived", listed.id)).await;
        Ok(listed)
    }

    /// The same for who has taken the service already.
    pub(super) async fn create_taken(
        &self,
        subject: Subject,
        note: &str,
        automatic: bool,
        told: &Listener,
    ) -> Result<Listed, ArchiveTrouble> {
        let parts = self.parts_of(&subject).await?;
        let service = subject.config.name.clone();
        let before = self.list(Some(service.clone())).await?;
        // As much as the last time and a quarter, or all of the image: it is compressed, and what it
        // comes to is not known before.
        let image = parts.iter().filter_map(|part| part.bytes).sum();
        let needed = before.first().map_or(image, |last| last.bytes + last.bytes / 4);
        self.shelf.has_room(needed)?;
        let head = Head {
            format: FORMAT,
            written_by: env!("CARGO_PKG_VERSION").to_owned(),
            service: service.clone(),
            revision: subject.revision.id,
            runs: subject.revision.spec.source.to_string(),
            created: format!("{:.3}", jiff::Timestamp::now()),
            note: (!note.is_empty()).then(|| note.to_owned()),
            automatic,
        };
        let (shelf, docker, told) = (self.shelf.clone(), self.docker.clone(), told.clone());
        let runtime = Runtime::current();
        let keeping = subject.config.keeping.clone();
        aside(move || {
            let (id, path) = shelf.place(&head)?;
            let mut writer = Writer::create(&path, head)?;
            for Wanted { name, about, source, what, bytes } in parts {
                told.begin(&what);
                let flow = runtime.block_on(source.open(&docker))?;
                let _within = runtime.enter();
                let mut bytes_of = SyncIoBridge::new(StreamReader::new(flow));
                let mut counted = Counted::new(&told, &what, bytes);
                let source: &mut dyn Read = &mut bytes_of;
                writer.part(&name, about, source, &mut |bytes| counted.note(bytes))?;
            }
            writer.finish()?;
            let all = shelf.list(Some(&service))?;
            let now = jiff::Timestamp::now();
            for old in expired(&all, keeping.archives, keeping.max_age, now) {
                // One that cannot be removed now is there again the next time.
                if let Err(error) = shelf.remove(&old) {
                    tracing::warn!(checkpoint = old, %error, "an old checkpoint stays");
                }
            }
            let head = Some(reader::head(&path)?);
            let bytes = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
            Ok(Listed { id, path, bytes, head, trouble: None })
        })
        .await
    }

    async fn parts_of(&self, subject: &Subject) -> Result<Vec<Wanted>, ArchiveTrouble> {
        let Subject { config, revision, instances } = subject;
        let text = self.text.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let json = serde_json::to_vec_pretty(revision)
            .map_err(|error| ArchiveTrouble::Invalid(error.to_string()))?;
        let small = |name: &str, about, bytes: Vec<u8>| Wanted {
            name: name.to_owned(),
            about,
            what: format!("archiving {name}"),
            source: Source::Bytes(bytes),
            bytes: None,
        };
        let mut parts = vec![
            small(CONFIGURATION, About::Configuration, text.0.as_bytes().to_vec()),
            small(REVISION, About::Revision, json),
        ];
        let spec = &revision.spec;
        if let (Runs::Image(name), Some(id)) = (&spec.source, &spec.container.image_id) {
            let Some(bytes) = self.docker.image_size(id).await? else {
                return Err(ArchiveTrouble::Invalid(format!(
                    "the image of revision {} ({name}) is not on the engine any more",
                    revision.id
                )));
            };
            parts.push(Wanted {
                name: IMAGE.to_owned(),
                about: About::Image { id: id.clone() },
                what: format!("archiving the image {name}"),
                source: Source::Image(id.clone()),
                bytes: Some(bytes),
            });
            let mounts = config.keeping.volumes.iter().map(|name| mount_of(spec, name));
            for (number, mount) in mounts.enumerate() {
                let (source, original, at) = mount?;
                parts.push(Wanted {
                    name: volume(number),
                    what: format!("archiving the volume {original}"),
                    about: About::Volume { source: original, at },
                    source: Source::Volume(source, id.clone()),
                    bytes: None,
                });
            }
        }
        let command = &config.keeping.command;
        if !command.is_empty() {
            let within = config.keeping.timeout;
            let source = match (&spec.source, instances.first()) {
                (Runs::Image(_), Some(instance)) => {
                    Source::InContainer(instance.id.clone(), command.clone(), within)
                }
                (Runs::Image(_), None) => {
                    return Err(ArchiveTrouble::Invalid(format!(
                        "no instance of {} runs in which the backup command could",
                        config.name
                    )));
                }
                _ => Source::Here(command.clone(), spec.env.clone(), within),
            };
            parts.push(Wanted {
                name: DUMP.to_owned(),
                about: About::Dump { command: command.clone() },
                what: format!("archiving what {} prints", command[0]),
                source,
                bytes: None,
            });
        }
        Ok(parts)
    }
}

/// Of a volume that `backup.volumes` names: what is mounted, what the configuration calls it, and where
/// the app has it.
fn mount_of(spec: &RevisionSpec, name: &str) -> Result<(String, String, String), ArchiveTrouble> {
    let container = &spec.container;
    let original = |source: &str| {
        let restored = container.restored.iter().find(|(_, volume)| volume.as_str() == source);
        restored.map_or_else(|| source.to_owned(), |(original, _)| original.clone())
    };
    for mount in &container.volumes {
        let mut words = mount.split(':');
        let (Some(source), Some(at)) = (words.next(), words.next()) else { continue };
        let original = original(source);
        if names(mount, name) || original == name {
            return Ok((source.to_owned(), original, at.to_owned()));
        }
    }
    Err(ArchiveTrouble::Archive(ArchiveError::Source {
        part: format!("the volume {name}"),
        reason: "the revision that serves has none of this name: deploy it with the volume first"
            .to_owned(),
    }))
}
