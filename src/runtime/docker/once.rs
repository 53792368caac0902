//! A container of an image that lives for one command.
//!
//! Its name says what it is for, so that one which a former daemon left is ended before the next
//! begins, and it is no instance: no label says so, and no list shows it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::CreateContainerOptions;
use tokio::time::{Instant, sleep};

use super::client::Trouble;
use super::{DockerRuntime, START, container, image};
use crate::model::instance::Ownership;
use crate::model::revision::RevisionSpec;
use crate::runtime::hook::{LINES, Ran};
use crate::runtime::{RuntimeError, State};

/// The label of such containers.
const HOOK: &str = "io.switchback.hook";
/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(200);

/// Removes the container when dropped, whether or not it has ended.
struct Removed {
    runtime: DockerRuntime,
    id: String,
}

impl Drop for Removed {
    fn drop(&mut self) {
        let (runtime, id) = (self.runtime.again(), std::mem::take(&mut self.id));
        self.runtime.tasks.spawn(async move { runtime.discard(&id).await });
    }
}

impl DockerRuntime {
    fn again(&self) -> Self {
        Self {
            client: Arc::clone(&self.client),
            daemon: self.daemon.clone(),
            secrets: self.secrets.clone(),
            tasks: self.tasks.clone(),
        }
    }

    /// Runs a command in a container of the revision's image, with the revision's own settings and
    /// these variables, and waits for its end.
    ///
    /// Cancel safety: dropped midway, the container is removed.
    pub(super) async fn once(
        &self,
        spec: &RevisionSpec,
        ownership: &Ownership,
        what: &str,
        command: &[String],
        env: &BTreeMap<String, String>,
        limit: Duration,
    ) -> Result<Ran, RuntimeError> {
        let until = Instant::now() + limit;
        let mut spec = self.on_own_network(spec, &ownership.service).await?;
        spec.env.extend(env.clone());
        spec.container.args = command.to_vec();
        let typed = image(&spec)?.to_owned();
        let image = spec.container.image_id.clone().unwrap_or(typed);
        let mut body = container::body(&spec, &image, ownership, &self.daemon);
        body.labels = Some(spec.container.labels.clone().into_iter().collect());
        body.labels.get_or_insert_default().insert(HOOK.to_owned(), self.daemon.clone());
        let name = format!(
            "switchback-{}-r{}-{}",
            ownership.service,
            ownership.revision,
            what.replace('_', "-")
        );
        if let Some(left) = self.look(&name).await? {
            let hooks = container::labels(&left);
            if hooks.get(HOOK) != Some(&self.daemon) {
                return Err(RuntimeError::Failed(format!(
                    "a container named {name} exists and is not ours: remove or rename it"
                )));
            }
            self.remove(&left.id.unwrap_or_default()).await?;
        }
        self.give_secrets(&spec, &name, &mut body).await?;
        let options =
            CreateContainerOptions { name: Some(name), ..CreateContainerOptions::default() };
        let create =
            |docker: Docker| async move { docker.create_container(Some(options), body).await };
        let created = match self.client.call("creating a container", START, create).await {
            Ok(created) => created,
            Err(Trouble::Refused { status: 404, .. }) => {
                return Err(RuntimeError::NotFound(format!("image {image} is not on this engine")));
            }
            Err(trouble) => return Err(trouble.into()),
        };
        let held = Removed { runtime: self.again(), id: created.id };
        self.run(&spec, &held.id, true).await?;
        loop {
            let Some(found) = self.look(&held.id).await? else {
                return Err(RuntimeError::Failed("somebody removed its container".to_owned()));
            };
            let runs = found.state.as_ref().and_then(|state| state.running) == Some(true);
            if !runs {
                let lines = self.tail(&held.id, LINES).await.unwrap_or_default();
                let State::Ended(exit) = container::state(&found) else {
                    return Err(RuntimeError::Failed("its end is not known".to_owned()));
                };
                return Ok(Ran::ended(&exit, lines));
            }
            if Instant::now() >= until {
                let lines = self.tail(&held.id, LINES).await.unwrap_or_default();
                return Ok(Ran::late(limit, lines));
            }
            sleep(LOOK).await;
        }
    }
}
