//! From what was typed to an image id: looked up on the engine, pulled when it is not there.
//!
//! Does not log in to registries, and looks for a newer image under a tag that is already on the
//! engine only when it is told to.

use std::collections::BTreeMap;
use std::time::Duration;

use bollard::query_parameters::CreateImageOptions;
use futures_util::StreamExt;
use tokio::time::{Instant, timeout_at};

use super::client::{ANSWER, Client, Trouble};
use crate::model::progress::Listener;
use crate::runtime::RuntimeError;

/// What a whole pull may take: a gigabyte over 10 Mbit/s takes 14 minutes.
const PULL: Duration = Duration::from_secs(15 * 60);

/// What may pass between two lines of a pull's progress, which come several a second.
const PULL_PROGRESS: Duration = Duration::from_secs(60);

/// What importing an image may take: tens of megabytes to a disk.
const IMPORT: Duration = Duration::from_secs(60);

/// How often the progress of a pull is told; the engine sends it many times a second.
const TOLD_EVERY: Duration = Duration::from_millis(200);

/// An image on the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Its id.
    pub id: String,
    /// The digest under which the registry of its name has it.
    pub digest: Option<String>,
}

/// The image of a name, pulling it if need be, or in any case when `always`.
///
/// Cancel safety: dropped midway, the engine may go on pulling.
pub async fn resolve(
    client: &Client,
    image: &str,
    always: bool,
    told: &Listener,
) -> Result<Resolved, RuntimeError> {
    let found = look_up(client, image).await?;
    let is_here = found.is_some();
    // What is named by its content cannot have changed.
    let is_fixed = image.starts_with("sha256:") || image.contains("@sha256:");
    if let Some(found) = found
        && (!always || is_fixed)
    {
        return Ok(found);
    }
    let not_here = |reason: &str| {
        RuntimeError::NotFound(if is_here {
            format!(
                "image {image} is on this engine, but pull = \"always\" and it could not be pulled: {}",
                reason.trim()
            )
        } else {
            format!(
                "image {image} is not on this engine and could not be pulled: {}",
                reason.trim()
            )
        })
    };
    if image.starts_with("sha256:") {
        return Err(not_here("an image id alone does not say from where"));
    }
    pull(client, image, told).await.map_err(|reason| not_here(&reason))?;
    look_up(client, image).await?.ok_or_else(|| not_here("the pull ended without it"))
}

/// Makes an image of a root file system (a tar), with a program to start.
///
/// Cancel safety: dropped midway, the engine may keep an image without a name.
pub async fn import(
    client: &Client,
    name: &str,
    root: Vec<u8>,
    program: &str,
) -> Result<(), RuntimeError> {
    let docker = client.engine().await?;
    let (repository, tag) = split(name);
    let options = CreateImageOptions {
        from_src: Some("-".to_owned()),
        repo: Some(repository.to_owned()),
        tag: tag.map(ToOwned::to_owned),
        changes: vec![format!("ENTRYPOINT [{program:?}]")],
        ..CreateImageOptions::default()
    };
    let root = bollard::body_full(root.into());
    let mut progress = std::pin::pin!(docker.create_image(Some(options), Some(root), None));
    let importing = async {
        while let Some(step) = progress.next().await {
            step.map_err(|error| RuntimeError::from(client.explain(error)))?;
        }
        Ok(())
    };
    tokio::time::timeout(IMPORT, importing)
        .await
        .unwrap_or(Err(RuntimeError::Timeout { what: "importing an image", after: IMPORT }))
}

async fn look_up(client: &Client, image: &str) -> Result<Option<Resolved>, RuntimeError> {
    let name = image.to_owned();
    let inspect = |docker: bollard::Docker| async move { docker.inspect_image(&name).await };
    match client.call("looking for an image", ANSWER, inspect).await {
        Ok(found) => Ok(found.id.map(|id| {
            let digest = digest_of(image, &found.repo_digests.unwrap_or_default());
            Resolved { id, digest }
        })),
        Err(Trouble::Refused { status: 404, .. }) => Ok(None),
        Err(Trouble::Refused { status: 400, message }) => Err(RuntimeError::NotFound(format!(
            "{image:?} is not an image reference: {}",
            message.trim()
        ))),
        Err(trouble) => Err(trouble.into()),
    }
}

/// The digest under which the repository of a reference has an image. The engine writes the names of
/// Docker Hub short (`nginx`), as people do, or in full.
pub(super) fn digest_of(image: &str, digests: &[String]) -> Option<String> {
    let name = image.split('@').next().unwrap_or(image);
    let (repository, _) = split(name);
    let short = |name: &str| -> String {
        let name = name.strip_prefix("docker.io/").unwrap_or(name);
        name.strip_prefix("library/").unwrap_or(name).to_owned()
    };
    digests.iter().find_map(|found| {
        let (name, digest) = found.split_once('@')?;
        (short(name) == short(repository)).then(|| digest.to_owned())
    })
}

async fn pull(client: &Client, image: &str, told: &Listener) -> Result<(), String> {
    let docker = client.engine().await.map_err(|error| error.to_string())?;
    let (name, tag) = split(image);
    let options = CreateImageOptions {
        from_image: Some(name.to_owned()),
        tag: tag.map(ToOwned::to_owned),
        ..CreateImageOptions::default()
    };
    let what = format!("pulling {image}");
    told.begin(&what);
    let mut progress = std::pin::pin!(docker.create_image(Some(options), None, None));
    let deadline = Instant::now() + PULL;
    let mut layers: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let mut said = Instant::now();
    loop {
        let patience = (Instant::now() + PULL_PROGRESS).min(deadline);
        match timeout_at(patience, progress.next()).await {
            Err(_) if patience == deadline => {
                return Err(format!("it took longer than {} minutes", PULL.as_secs() / 60));
            }
            Err(_) => return Err(format!("no progress for {PULL_PROGRESS:?}")),
            Ok(None) => {
                let all = layers.values().map(|(_, of)| of).sum();
                told.count(&what, all, Some(all));
                return Ok(());
            }
            Ok(Some(Ok(step))) => {
                if let Some(error) = step.error_detail.and_then(|detail| detail.message) {
                    return Err(error);
                }
                let downloads = step.status.as_deref() == Some("Downloading");
                if let (Some(id), Some(detail), true) = (step.id, step.progress_detail, downloads) {
                    let bytes = |count: Option<i64>| u64::try_from(count.unwrap_or(0)).unwrap_or(0);
                    layers.insert(id, (bytes(detail.current), bytes(detail.total)));
                }
                if said.elapsed() >= TOLD_EVERY && !layers.is_empty() {
                    said = Instant::now();
                    let done = layers.values().map(|(done, _)| done).sum();
                    let of = layers.values().map(|(_, of)| of).sum();
                    told.count(&what, done, Some(of));
                }
            }
            Ok(Some(Err(error))) => {
                return Err(match client.explain(error) {
                    Trouble::Refused { message, .. } => message,
                    Trouble::Other(error) => error.to_string(),
                });
            }
        }
    }
}

/// Name and tag. Without a tag the engine would pull every tag there is.
pub(super) fn split(image: &str) -> (&str, Option<&str>) {
    if image.contains('@') {
        return (image, None);
    }
    match image.rsplit_once(':') {
        // A colon before the last slash is that of a port.
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (image, Some("latest")),
    }
}

#[cfg(test)]
mod tests {
    use super::{digest_of, split};

    #[test]
    fn the_digest_is_that_of_the_repository_that_was_named() {
        let all = ["mirror.example.com/web@sha256:1".to_owned(), "web@sha256:2".to_owned()];
        for (image, digest) in [
            ("web:v2", Some("sha256:2")),
            ("docker.io/library/web:v2", Some("sha256:2")),
            ("mirror.example.com/web", Some("sha256:1")),
            ("other:v2", None),
        ] {
            assert_eq!(digest_of(image, &all).as_deref(), digest, "{image}");
        }
    }

    #[test]
    fn references_split_at_the_tag() {
        assert_eq!(split("nginx"), ("nginx", Some("latest")));
        assert_eq!(split("ghcr.io/acme/web:1.10"), ("ghcr.io/acme/web", Some("1.10")));
        assert_eq!(split("localhost:5000/web"), ("localhost:5000/web", Some("latest")));
        assert_eq!(split("web@sha256:abc"), ("web@sha256:abc", None));
    }
}
