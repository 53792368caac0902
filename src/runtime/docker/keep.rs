//! Images that stay on the engine because a revision can be returned to: they carry a tag of ours.
//!
//! A tag keeps an image from those who remove what has no name. It does not keep it from those who
//! remove every image without a container (`docker image prune -a`).

use std::collections::HashMap;

use bollard::Docker;
use bollard::query_parameters::{ListImagesOptions, RemoveImageOptions, TagImageOptions};

use super::client::{ANSWER, Trouble};
use super::{DockerRuntime, REMOVE};
use crate::model::id::{RevisionId, ServiceName};
use crate::runtime::RuntimeError;

/// What our names of images begin with.
const OURS: &str = "switchback";

/// An image with a tag of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptImage {
    /// The service.
    pub service: ServiceName,
    /// The revision.
    pub revision: RevisionId,
    /// The tag of ours.
    pub name: String,
    /// The image's id.
    pub id: String,
    /// Bytes on the disk, shared with other images as far as layers are.
    pub size: u64,
    /// Whether it has other names too, so that taking ours frees nothing.
    pub has_other_names: bool,
}

impl DockerRuntime {
    fn tag_of(&self, revision: RevisionId) -> String {
        format!("r{revision}-{}", self.daemon)
    }

    /// Gives an image the tag of a revision.
    pub async fn keep_image(
        &self,
        service: &ServiceName,
        revision: RevisionId,
        id: &str,
    ) -> Result<(), RuntimeError> {
        let options = TagImageOptions {
            repo: Some(format!("{OURS}/{service}")),
            tag: Some(self.tag_of(revision)),
        };
        let id = id.to_owned();
        let tag = |docker: Docker| async move { docker.tag_image(&id, Some(options)).await };
        Ok(self.client.call("tagging an image", ANSWER, tag).await?)
    }

    /// Takes the tag of a revision; what has no name then is removed, unless a container uses it.
    pub async fn release_image(
        &self,
        service: &ServiceName,
        revision: RevisionId,
    ) -> Result<(), RuntimeError> {
        self.remove_image(&format!("{OURS}/{service}:{}", self.tag_of(revision))).await
    }

    /// Removes a name of an image, or by its id an image without any; one that a container uses stays.
    pub async fn remove_image(&self, name: &str) -> Result<(), RuntimeError> {
        let options = RemoveImageOptions { force: false, noprune: false, platforms: None };
        let name = name.to_owned();
        let remove =
            |docker: Docker| async move { docker.remove_image(&name, Some(options), None).await };
        match self.client.call("removing an image", REMOVE, remove).await {
            // 409: a container uses it; its name goes with the next look.
            Ok(_) | Err(Trouble::Refused { status: 404 | 409, .. }) => Ok(()),
            Err(trouble) => Err(trouble.into()),
        }
    }

    /// The images that carry a tag of ours.
    pub async fn kept_images(&self) -> Result<Vec<KeptImage>, RuntimeError> {
        let filters = HashMap::from([("reference".to_owned(), vec![format!("{OURS}/*")])]);
        let options = ListImagesOptions { filters: Some(filters), ..ListImagesOptions::default() };
        let list = |docker: Docker| async move { docker.list_images(Some(options)).await };
        let mut kept = Vec::new();
        for image in self.client.call("listing images", ANSWER, list).await? {
            // The filter also narrows the names that are told; all of them tell whether it is freed.
            let id = image.id.clone();
            let look = |docker: Docker| async move { docker.inspect_image(&id).await };
            let Ok(whole) = self.client.call("looking at an image", ANSWER, look).await else {
                continue;
            };
            let names = whole.repo_tags.unwrap_or_default();
            for name in &names {
                if let Some((service, revision)) = self.parse_name(name) {
                    kept.push(KeptImage {
                        service,
                        revision,
                        name: name.clone(),
                        id: image.id.clone(),
                        size: u64::try_from(image.size).unwrap_or(0),
                        has_other_names: names.len() > 1,
                    });
                }
            }
        }
        Ok(kept)
    }

    fn parse_name(&self, name: &str) -> Option<(ServiceName, RevisionId)> {
        let (service, tag) = name.strip_prefix(OURS)?.strip_prefix('/')?.split_once(':')?;
        let revision = tag.strip_prefix('r')?.strip_suffix(&self.daemon)?.strip_suffix('-')?;
        Some((ServiceName::new(service).ok()?, RevisionId(revision.parse().ok()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_daemon_are_ours() {
        let docker = DockerRuntime::new("unix:///nowhere", "home").unwrap();
        let web = ServiceName::new("web").unwrap();
        assert_eq!(docker.parse_name("switchback/web:r12-home"), Some((web, RevisionId(12))));
        for other in [
            "switchback/web:r12-other",
            "switchback/web:v12-home",
            "web:r12-home",
            "switchback/web:rx-home",
        ] {
            assert_eq!(docker.parse_name(other), None, "{other}");
        }
    }
}
