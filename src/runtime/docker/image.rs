//! From what was typed to an image id: looked up on the engine, pulled when it is not there.
//!
//! Does not log in to registries, and does not look for a newer image under a tag that is already
//! on the engine.

use std::time::Duration;

use bollard::query_parameters::CreateImageOptions;
use futures_util::StreamExt;
use tokio::time::{Instant, timeout_at};

use super::client::{ANSWER, Client, Trouble};
use crate::runtime::RuntimeError;

/// What a whole pull may take: a gigabyte over 10 Mbit/s takes 14 minutes.
const PULL: Duration = Duration::from_secs(15 * 60);

/// What may pass between two lines of a pull's progress, which come several a second.
const PULL_PROGRESS: Duration = Duration::from_secs(60);

/// What importing an image may take: tens of megabytes to a disk.
const IMPORT: Duration = Duration::from_secs(60);

/// The id of an image, pulling it if need be.
///
/// Cancel safety: dropped midway, the engine may go on pulling.
pub async fn resolve(client: &Client, image: &str) -> Result<String, RuntimeError> {
    if let Some(id) = look_up(client, image).await? {
        return Ok(id);
    }
    let not_here = |reason: &str| {
        RuntimeError::NotFound(format!(
            "image {image} is not on this engine and could not be pulled: {}",
            reason.trim()
        ))
    };
    if image.starts_with("sha256:") {
        return Err(not_here("an image id alone does not say from where"));
    }
    pull(client, image).await.map_err(|reason| not_here(&reason))?;
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

async fn look_up(client: &Client, image: &str) -> Result<Option<String>, RuntimeError> {
    let name = image.to_owned();
    let inspect = |docker: bollard::Docker| async move { docker.inspect_image(&name).await };
    match client.call("looking for an image", ANSWER, inspect).await {
        Ok(found) => Ok(found.id),
        Err(Trouble::Refused { status: 404, .. }) => Ok(None),
        Err(Trouble::Refused { status: 400, message }) => Err(RuntimeError::NotFound(format!(
            "{image:?} is not an image reference: {}",
            message.trim()
        ))),
        Err(trouble) => Err(trouble.into()),
    }
}

async fn pull(client: &Client, image: &str) -> Result<(), String> {
    let docker = client.engine().await.map_err(|error| error.to_string())?;
    let (name, tag) = split(image);
    let options = CreateImageOptions {
        from_image: Some(name.to_owned()),
        tag: tag.map(ToOwned::to_owned),
        ..CreateImageOptions::default()
    };
    let mut progress = std::pin::pin!(docker.create_image(Some(options), None, None));
    let deadline = Instant::now() + PULL;
    loop {
        let patience = (Instant::now() + PULL_PROGRESS).min(deadline);
        match timeout_at(patience, progress.next()).await {
            Err(_) if patience == deadline => {
                return Err(format!("it took longer than {} minutes", PULL.as_secs() / 60));
            }
            Err(_) => return Err(format!("no progress for {PULL_PROGRESS:?}")),
            Ok(None) => return Ok(()),
            Ok(Some(Ok(step))) => {
                if let Some(error) = step.error_detail.and_then(|detail| detail.message) {
                    return Err(error);
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
fn split(image: &str) -> (&str, Option<&str>) {
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
    use super::split;

    #[test]
    fn references_split_at_the_tag() {
        assert_eq!(split("nginx"), ("nginx", Some("latest")));
        assert_eq!(split("ghcr.io/acme/web:1.10"), ("ghcr.io/acme/web", Some("1.10")));
        assert_eq!(split("localhost:5000/web"), ("localhost:5000/web", Some("latest")));
        assert_eq!(split("web@sha256:abc"), ("web@sha256:abc", None));
    }
}
