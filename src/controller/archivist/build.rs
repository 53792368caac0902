//! Makes a service's image from source that was sent.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ArchiveTrouble, Archivist};
use crate::config::image::Image;
use crate::controller::handle::{Handle, Held};
use crate::model::id::ServiceName;
use crate::model::progress::Listener;
use crate::model::revision::{Origin, Source};
use crate::runtime::docker::build::Recipe;
use crate::runtime::docker::data::Flow;

/// The label that says from which commit an image is (OCI image specification, annotations).
const COMMIT: &str = "org.opencontainers.image.revision";

/// What it takes to make a service's image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BuildPlan {
    /// The name of the image, without a tag.
    pub image: String,
    /// The directory below the source that is sent.
    pub context: String,
    /// The Dockerfile, below the context.
    pub dockerfile: String,
    /// The files that it is built from, as patterns; all when there is none.
    pub paths: Vec<String>,
    /// Whence the stable revision is.
    #[schema(value_type = Option<Object>)]
    pub origin: Option<Origin>,
}

/// An image that was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BuiltImage {
    /// Its name.
    pub image: String,
    /// Its id.
    pub id: String,
    /// Steps that were taken from the layer cache.
    pub cached: u32,
}

impl Archivist {
    /// What it takes to make a service's image.
    pub async fn build_plan(
        &self,
        handle: &Handle,
        service: &ServiceName,
    ) -> Result<BuildPlan, ArchiveTrouble> {
        plan_of(&handle.held_of(service).await?)
    }

    /// Builds a service's image under a tag.
    pub async fn build(
        &self,
        handle: &Handle,
        service: &ServiceName,
        (tag, commit): (String, Option<String>),
        context: Flow,
        told: &Listener,
    ) -> Result<BuiltImage, ArchiveTrouble> {
        let held = handle.held_of(service).await?;
        let plan = plan_of(&held)?;
        let name = Image::parse(&plan.image).and_then(|image| image.with_tag(&tag));
        let image = name.map_err(ArchiveTrouble::Invalid)?.to_string();
        let recipe = Recipe {
            image: image.clone(),
            dockerfile: plan.dockerfile,
            args: held.config.build.args.clone().into_iter().collect(),
            labels: commit
                .map(|commit| (COMMIT.to_owned(), commit))
                .into_iter()
                .collect::<HashMap<_, _>>(),
        };
        let built = self.docker.build(recipe, context, told).await?;
        Ok(BuiltImage { image, id: built.id, cached: built.cached })
    }
}

fn plan_of(held: &Held) -> Result<BuildPlan, ArchiveTrouble> {
    let config = &held.config;
    let Source::Image(image) = &config.template.source else {
        return Err(ArchiveTrouble::Invalid(format!(
            "{} runs no image that could be built: it has `command` or `endpoints`",
            config.name
        )));
    };
    let image = Image::parse(image).map_err(ArchiveTrouble::Invalid)?;
    Ok(BuildPlan {
        image: image.name,
        context: config.build.context.clone(),
        dockerfile: config.build.dockerfile.clone(),
        paths: config.build.paths.clone(),
        origin: held.stable_revision().and_then(|revision| revision.origin.clone()),
    })
}
