//! Images made from source, by the engine's own builder, with its layer cache.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bollard::query_parameters::BuildImageOptions;
use futures_util::StreamExt;
use tokio::time::timeout;

use super::DockerRuntime;
use super::client::Trouble;
use super::data::Flow;
use crate::model::progress::Listener;
use crate::runtime::RuntimeError;

/// What a step of a build may be silent: a compiler that links says nothing for long.
const SILENT_FOR: Duration = Duration::from_secs(30 * 60);

/// Lines of a failing build that are told again with its failure.
const LAST_LINES: usize = 10;

/// What is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// The name that the image gets.
    pub image: String,
    /// The Dockerfile, below the context.
    pub dockerfile: String,
    /// Build arguments.
    pub args: HashMap<String, String>,
    /// Labels of the image.
    pub labels: HashMap<String, String>,
}

/// What was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The image's id.
    pub id: String,
    /// Steps that were taken from the cache.
    pub cached: u32,
}

impl DockerRuntime {
    /// Builds an image of a context, a tar. Every line that the builder says is told.
    ///
    /// Cancel safety: dropped midway, the engine stops building.
    pub async fn build(
        &self,
        recipe: Recipe,
        context: Flow,
        told: &Listener,
    ) -> Result<Built, RuntimeError> {
        let docker = self.client.engine().await?;
        let what = format!("building {}", recipe.image);
        told.begin(&what);
        let options = BuildImageOptions {
            dockerfile: recipe.dockerfile,
            t: Some(recipe.image.clone()),
            buildargs: Some(recipe.args),
            labels: Some(recipe.labels),
            rm: true,
            forcerm: true,
            ..BuildImageOptions::default()
        };
        let body = bollard::body_try_stream(context);
        let mut steps = std::pin::pin!(docker.build_image(options, None, Some(body)));
        let mut last: VecDeque<String> = VecDeque::new();
        let mut cached = 0;
        let failed = |last: &VecDeque<String>, why: &str| {
            let lines: Vec<&str> = last.iter().map(String::as_str).collect();
            let (why, lines) = (why.trim(), lines.join("\n  "));
            RuntimeError::NotFound(format!("the build failed: {why}\n  {lines}"))
        };
        loop {
            let step = match timeout(SILENT_FOR, steps.next()).await {
                Ok(None) => break,
                Ok(Some(Ok(step))) => step,
                Ok(Some(Err(error))) => {
                    let why = match self.client.explain(error) {
                        Trouble::Refused { message, .. } => message,
                        Trouble::Other(error) => error.to_string(),
                    };
                    return Err(failed(&last, &why));
                }
                Err(_) => {
                    return Err(failed(&last, &format!("it said nothing for {SILENT_FOR:?}")));
                }
            };
            if let Some(error) = step.error_detail.and_then(|detail| detail.message) {
                return Err(failed(&last, &error));
            }
            let text = step.stream.or(step.status).unwrap_or_default();
            for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
                cached += u32::from(line.contains("Using cache"));
                told.line(&what, line);
                if last.len() == LAST_LINES {
                    last.pop_front();
                }
                last.push_back(line.to_owned());
            }
        }
        let built = super::image::resolve(&self.client, &recipe.image, false, told).await?;
        Ok(Built { id: built.id, cached })
    }
}
