//! Brings a checkpoint back: beside what serves, never over it.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle as Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use utoipa::ToSchema;

use super::load::Load;
use super::{ArchiveTrouble, Archivist, Contents, Subject, aside};
use crate::archive::format::{About, IMAGE, Manifest, REVISION};
use crate::archive::{ArchiveError, reader};
use crate::config::Service;
use crate::controller::handle::{Handle, Held, Launching};
use crate::controller::hooks::SmokeRun;
use crate::controller::status::DeployAccepted;
use crate::model::id::{RolloutId, ServiceName};
use crate::model::instance::{Instance, Ownership};
use crate::model::progress::Listener;
use crate::model::revision::{ProbeKind, Revision, RevisionSpec, Source};
use crate::prober;
use crate::runtime::docker::data::Flow;
use crate::runtime::{RuntimeError, State};

/// Bytes of a piece on the way to the engine.
const PIECE: usize = 256 * 1024;
/// Pieces that wait for the engine.
const WAITING: usize = 8;
/// Replicas from this number on are of tests; no service has so many.
const TESTED: u32 = 1_000_000;
/// Lines of output that a failed test tells.
const LINES: usize = 20;

/// How often a volume is tried to be removed again, and the pause between: an engine that still removes
/// the container that had it lets go within a second or so.
const LET_GO_TRIES: u32 = 40;
const LET_GO_PAUSE: Duration = Duration::from_millis(250);

/// What came of a restore on the side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Tested {
    /// What the archive has.
    pub contents: Contents,
    /// Whether what was restored became healthy.
    pub healthy: bool,
    /// What the last probe found.
    pub diagnosis: String,
    /// Seconds from its start to that.
    pub seconds: f64,
    /// What it last printed, when it did not become healthy.
    pub output: Vec<String>,
}

/// What was made of an archive.
struct Unpacked {
    spec: RevisionSpec,
    volumes: Vec<String>,
    /// The image was not here before.
    image_came: Option<String>,
}

impl Archivist {
    /// Checks an archive, archives what serves now, and deploys what the archive has.
    pub async fn restore(
        &self,
        handle: &Handle,
        service: &ServiceName,
        id: &str,
        told: &Listener,
    ) -> Result<DeployAccepted, ArchiveTrouble> {
        let held = handle.held_of(service).await?;
        self.belongs_to(service, id).await?;
        if let Some(refused) = held.busy.clone() {
            return Err(refused.into());
        }
        let _taken = self.take(service)?;
        let contents = self.verify(id, told).await?;
        self.has_room_for(&contents).await?;
        let config = held.config.clone();
        if let Some(subject) = subject_of(held) {
            let note = format!("before {id} was restored");
            let listed = self.create_taken(subject, &note, true, told).await?;
            handle.tell(service.clone(), format!("checkpoint {} archived {note}", listed.id)).await;
        }
        let mark = format!("{}", jiff::Timestamp::now().as_millisecond());
        let unpacked = self.unpack(service, &contents, &mark, told).await?;
        if Load::of(&contents, Some(&config)).is_some() {
            // Before anybody meets it, in an instance of its own.
            let tried =
                Box::pin(self.try_out(&contents, &unpacked.spec, Some(&config), told)).await;
            let trouble = match tried {
                Ok(tested) if tested.healthy => None,
                Ok(tested) => Some(ArchiveTrouble::Invalid(format!(
                    "the dump was not loaded: what was restored is not well: {}",
                    tested.diagnosis
                ))),
                Err(trouble) => Some(trouble),
            };
            if let Some(trouble) = trouble {
                self.throw_away(&unpacked.volumes, unpacked.image_came.as_deref()).await;
                return Err(trouble);
            }
        }
        told.begin("starting what was restored");
        match handle.launch(service.clone(), unpacked.spec, Launching::Restored).await {
            Ok(accepted) => {
                let from = contents.manifest.head.revision;
                let revision = accepted.revision;
                let volumes = match unpacked.volumes.as_slice() {
                    [] => String::new(),
                    all => format!(", its data in {}", all.join(", ")),
                };
                let sentence =
                    format!("revision {revision} is revision {from} of checkpoint {id}{volumes}");
                handle.tell(service.clone(), sentence).await;
                Ok(accepted)
            }
            Err(refused) => {
                self.throw_away(&unpacked.volumes, None).await;
                Err(refused.into())
            }
        }
    }

    /// Checks an archive, brings what it has up beside everything, and throws that away.
    pub async fn restore_test(
        &self,
        handle: &Handle,
        id: &str,
        told: &Listener,
    ) -> Result<Tested, ArchiveTrouble> {
        let contents = self.verify(id, told).await?;
        let service = contents.manifest.head.service.clone();
        // One that is not configured has nothing in the way, and no tests.
        let config = handle.held_of(&service).await.ok().map(|held| held.config);
        let _taken = self.take(&service)?;
        let mark = format!("test-{}", jiff::Timestamp::now().as_millisecond());
        let unpacked = self.unpack(&service, &contents, &mark, told).await?;
        let tested = self.try_out(&contents, &unpacked.spec, config.as_ref(), told).await;
        self.throw_away(&unpacked.volumes, unpacked.image_came.as_deref()).await;
        tested
    }

    /// Refuses an archive of another service.
    async fn belongs_to(&self, service: &ServiceName, id: &str) -> Result<(), ArchiveTrouble> {
        let path = self.shelf.find(id)?;
        let head = {
            let path = path.clone();
            aside(move || Ok(reader::head(&path)?)).await?
        };
        if head.service != *service {
            let (of, wanted) = (head.service.to_string(), service.to_string());
            return Err(ArchiveError::Foreign { path, of, wanted }.into());
        }
        Ok(())
    }

    /// Takes in image and volumes. When anything fails, what was made of it is thrown away.
    async fn unpack(
        &self,
        service: &ServiceName,
        contents: &Contents,
        mark: &str,
        told: &Listener,
    ) -> Result<Unpacked, ArchiveTrouble> {
        let manifest = &contents.manifest;
        let image = manifest.image().map(str::to_owned);
        let was_here = match &image {
            Some(id) => self.docker.image_size(id).await?.is_some(),
            None => false,
        };
        self.has_room_for(contents).await?;
        let volumes: Vec<(String, String, String, String)> = manifest
            .parts
            .iter()
            .filter_map(|part| match &part.about {
                About::Volume { source, at } => {
                    let name = new_name(service, source, mark);
                    Some((part.name.clone(), source.clone(), at.clone(), name))
                }
                _ => None,
            })
            .collect();
        let names: Vec<String> = volumes.iter().map(|(.., name)| name.clone()).collect();
        let image_came = image.clone().filter(|_| !was_here);
        let filled = self.fill(service, contents, was_here, &volumes, told).await;
        let looked = match (&filled, &image) {
            (Ok(_), Some(id)) => self.docker.image_size(id).await?.is_some(),
            _ => true,
        };
        let revision = match filled {
            Ok(revision) if looked => revision,
            other => {
                self.throw_away(&names, image_came.as_deref()).await;
                let another = || ArchiveError::Damaged {
                    path: contents.id.clone().into(),
                    part: IMAGE.to_owned(),
                    reason: "it holds another image than the manifest says".to_owned(),
                };
                let trouble = other.err().unwrap_or_else(|| another().into());
                return Err(self.why_not(trouble, contents, was_here).await);
            }
        };
        let mut spec = revision.spec;
        for (_, source, at, name) in &volumes {
            for mount in &mut spec.container.volumes {
                let words: Vec<&str> = mount.splitn(3, ':').collect();
                if words.get(1) == Some(&at.as_str()) {
                    let rest = words.get(2).map(|rest| format!(":{rest}")).unwrap_or_default();
                    *mount = format!("{name}:{at}{rest}");
                }
            }
            spec.container.restored.insert(source.clone(), name.clone());
        }
        Ok(Unpacked { spec, volumes: names, image_came })
    }

    /// Reads the archive once more and pours its parts where they belong.
    async fn fill(
        &self,
        service: &ServiceName,
        contents: &Contents,
        image_is_here: bool,
        volumes: &[(String, String, String, String)],
        told: &Listener,
    ) -> Result<Revision, ArchiveTrouble> {
        for (_, source, _, name) in volumes {
            told.begin(&format!("making {name} for {source}"));
            self.docker.create_volume(name, service).await?;
        }
        let path = self.shelf.find(&contents.id)?;
        let (this, told, runtime) = (self.clone(), told.clone(), Runtime::current());
        let (manifest, volumes) = (contents.manifest.clone(), volumes.to_vec());
        aside(move || {
            let mut revision = None;
            let image = manifest.image().unwrap_or_default().to_owned();
            let mut trouble = None;
            let walked = reader::walk(&path, &mut |name, part| {
                if name == REVISION {
                    revision = Some(serde_json::from_reader::<_, Revision>(part)?);
                    return Ok(());
                }
                let docker = this.docker.clone();
                let (sender, flow) = pipe();
                let into: JoinHandle<Result<(), RuntimeError>> = if name == IMAGE {
                    if image_is_here {
                        return Ok(());
                    }
                    told.begin("taking in the image");
                    runtime.spawn(async move { docker.load_image(flow).await })
                } else if let Some((.., volume)) = volumes.iter().find(|(part, ..)| part == name) {
                    told.begin(&format!("filling {volume}"));
                    let (volume, image) = (volume.clone(), image.clone());
                    runtime.spawn(async move { docker.write_volume(&volume, &image, flow).await })
                } else {
                    return Ok(());
                };
                let poured = pour(part, &sender);
                drop(sender);
                match runtime.block_on(into) {
                    Ok(Ok(())) => poured,
                    Ok(Err(error)) => {
                        let sentence = error.to_string();
                        trouble = Some(error);
                        Err(poured.err().unwrap_or_else(|| io::Error::other(sentence)))
                    }
                    Err(error) => Err(io::Error::other(error)),
                }
            });
            // What the engine says is more than that the pouring broke off.
            if let Some(error) = trouble {
                return Err(error.into());
            }
            let found = walked?;
            changed(&path, &found, &manifest)?;
            revision.ok_or_else(|| {
                let (part, reason) = (REVISION.to_owned(), "it is not there".to_owned());
                ArchiveError::Damaged { path, part, reason }.into()
            })
        })
        .await
    }

    /// Starts what was restored and waits until it is healthy, or its time is up.
    async fn try_out(
        &self,
        contents: &Contents,
        spec: &RevisionSpec,
        config: Option<&Service>,
        told: &Listener,
    ) -> Result<Tested, ArchiveTrouble> {
        told.begin("starting what was restored, on the side");
        let runtime = self.runtimes.of(&spec.source);
        let ownership = Ownership {
            service: contents.manifest.head.service.clone(),
            revision: contents.manifest.head.revision,
            rollout: RolloutId(0),
            replica: TESTED,
        };
        let begun = Instant::now();
        let launched = runtime.launch(spec, &ownership).await;
        let instance = match launched {
            Ok(instance) => instance,
            Err(error) => {
                let diagnosis = error.to_string();
                let output = match error {
                    RuntimeError::Ended { logs, .. } => logs,
                    _ => Vec::new(),
                };
                return Ok(Tested {
                    contents: contents.clone(),
                    healthy: false,
                    diagnosis,
                    seconds: begun.elapsed().as_secs_f64(),
                    output,
                });
            }
        };
        let (mut healthy, mut diagnosis) = self.becomes_healthy(&*runtime, &instance, spec).await;
        if let Some(load) = Load::of(contents, config).filter(|_| healthy) {
            match self.load(contents, &instance, load, told).await {
                Ok(()) => diagnosis.push_str("; the dump was loaded"),
                Err(trouble) => {
                    (healthy, diagnosis) = (false, format!("its dump cannot be loaded: {trouble}"));
                }
            }
        }
        let smoke = config.filter(|config| healthy && !config.plan.smoke.is_empty());
        if let Some(smoke) = smoke.map(|config| SmokeRun::beside(config, &instance, spec)) {
            told.begin("putting it through the smoke tests");
            match smoke.run().await {
                Ok(()) => diagnosis.push_str("; the smoke tests went well"),
                Err(failed) => {
                    (healthy, diagnosis) = (false, format!("a smoke test failed: {failed}"));
                }
            }
        }
        let output = match healthy {
            true => Vec::new(),
            false => runtime.logs(&instance.id, LINES).await.unwrap_or_default(),
        };
        let seconds = begun.elapsed().as_secs_f64();
        if let Err(error) = runtime.stop(&instance.id, spec.stop_grace).await {
            tracing::warn!(instance = %instance.id, %error, "what was tested stays behind");
        }
        Ok(Tested { contents: contents.clone(), healthy, diagnosis, seconds, output })
    }

    async fn becomes_healthy(
        &self,
        runtime: &dyn crate::runtime::Runtime,
        instance: &Instance,
        spec: &RevisionSpec,
    ) -> (bool, String) {
        let deadline = Instant::now() + spec.probe.deadline;
        let (mut in_a_row, mut diagnosis) = (0, "it was not asked".to_owned());
        while Instant::now() < deadline {
            let state = runtime.inspect(&instance.id).await;
            let engine = match state {
                Ok(State::Ended(exit)) => return (false, format!("it {exit}")),
                Ok(State::Gone) => return (false, "somebody removed it".to_owned()),
                Ok(State::Running { health, .. }) => health,
                Err(_) => None,
            };
            let healthy = match (&spec.probe.kind, engine) {
                (ProbeKind::Auto, Some(healthy)) => {
                    diagnosis = format!("its HEALTHCHECK says healthy: {healthy}");
                    // An engine counts for itself.
                    in_a_row += spec.probe.rise;
                    healthy
                }
                _ => {
                    let found = prober::probe(instance, &spec.probe, spec.speech()).await;
                    diagnosis = found.diagnosis.to_string();
                    found.healthy
                }
            };
            in_a_row = if healthy { in_a_row + 1 } else { 0 };
            if in_a_row >= spec.probe.rise {
                return (true, diagnosis);
            }
            tokio::time::sleep(spec.probe.interval.min(Duration::from_secs(1))).await;
        }
        (false, diagnosis)
    }

    /// Removes what a restore made and nobody wants.
    async fn throw_away(&self, volumes: &[String], image: Option<&str>) {
        for volume in volumes {
            let mut removed = self.docker.remove_volume(volume).await;
            for _ in 0..LET_GO_TRIES {
                if removed.is_ok() {
                    break;
                }
                tokio::time::sleep(LET_GO_PAUSE).await;
                removed = self.docker.remove_volume(volume).await;
            }
            if let Err(error) = removed {
                tracing::warn!(volume, %error, "a restored volume stays: `switchback clean` frees it");
            }
        }
        if let Some(image) = image
            && let Err(error) = self.docker.remove_image(image).await
        {
            tracing::warn!(image, %error, "an image that came with an archive stays");
        }
    }
}

/// The stable revision of what is held, if there is one.
pub(super) fn subject_of(held: Held) -> Option<Subject> {
    let revision = held.stable_revision()?.clone();
    let instances = held.stable.map(|placed| placed.instances).unwrap_or_default();
    Some(Subject { config: held.config, revision, instances })
}

/// A name for a new volume: whose it is, what it stands for, and when it was made.
fn new_name(service: &ServiceName, source: &str, mark: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '-' };
    let source: String = source.trim_matches('/').chars().map(plain).collect();
    format!("switchback-{service}-{source}-{mark}")
}

/// An archive that is another one than a moment ago.
fn changed(
    path: &std::path::Path,
    found: &Manifest,
    manifest: &Manifest,
) -> Result<(), ArchiveTrouble> {
    if found == manifest {
        return Ok(());
    }
    let reason = "it was replaced while it was read".to_owned();
    let path = path.to_owned();
    Err(ArchiveError::Damaged { path, part: "manifest.json".to_owned(), reason }.into())
}

pub(super) fn pipe() -> (mpsc::Sender<io::Result<Bytes>>, Flow) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let flow = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let piece: io::Result<Bytes> = receiver.recv().await?;
        Some((piece, receiver))
    });
    (sender, Box::pin(flow))
}

/// Hands a part on, piece by piece. An error of the archive is handed on too, so that the engine does
/// not take half of it for the whole.
pub(super) fn pour(
    part: &mut dyn Read,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        match part.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(read) => {
                // The engine has enough: a tar ends before its padding.
                if sender.blocking_send(Ok(Bytes::copy_from_slice(&piece[..read]))).is_err() {
                    return io::copy(part, &mut io::sink()).map(drop);
                }
            }
            Err(error) => {
                let told = io::Error::other(error.to_string());
                let _ = sender.blocking_send(Err(told));
                return Err(error);
            }
        }
    }
}

/// Of a spec of which something is kept: every source that it mounts.
pub(super) fn mounted(spec: &RevisionSpec) -> impl Iterator<Item = &str> {
    let is_image = matches!(spec.source, Source::Image(_));
    let volumes = spec.container.volumes.iter().filter(move |_| is_image);
    volumes.filter_map(|mount| mount.split(':').next())
}
