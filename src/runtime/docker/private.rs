//! What a service's containers have for themselves: their secrets, and a network of their own.
//!
//! Secrets lie in a directory for each container, below one that only we may enter, and are mounted
//! read-only. It goes when the container is removed.

use std::collections::HashMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bollard::Docker;
use bollard::models::{ContainerCreateBody, ContainerInspectResponse, NetworkCreateRequest};
use bollard::query_parameters::ListNetworksOptions;

use super::client::{ANSWER, Host, Trouble};
use super::{DockerRuntime, REMOVE, START, container};
use crate::model::id::ServiceName;
use crate::model::revision::RevisionSpec;
use crate::runtime::{RuntimeError, secrets};

/// Where containers find them, as Swarm's do.
const WITHIN: &str = "/run/secrets";
/// Whoever runs in the container may read them: its number is another one than ours.
const MODE: u32 = 0o444;
/// A directory without a container is left alone for so long: its container may be about to come.
const YOUNG: Duration = Duration::from_secs(600);
/// The label that names the service of a network.
const OF: &str = "io.switchback.service";

impl DockerRuntime {
    /// Keeps secrets of containers below `dir`.
    #[must_use]
    pub fn with_secrets(mut self, dir: &Path) -> Self {
        // The engine does not know where we were started.
        self.secrets = Some(std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()));
        self
    }

    /// Whether all secrets of a revision can be had.
    pub(super) fn check_secrets(&self, spec: &RevisionSpec) -> Result<(), RuntimeError> {
        if spec.secrets.is_empty() {
            return Ok(());
        }
        if !matches!(self.client.host(), Host::Unix(_)) || self.secrets.is_none() {
            let sentence = "secrets are mounted from this machine, and the engine is on another one: leave \
                            out `secrets`";
            return Err(RuntimeError::Failed(sentence.to_owned()));
        }
        secrets::check(&spec.secrets)
    }

    /// Writes the secrets of a container and mounts them in it.
    pub(super) async fn give_secrets(
        &self,
        spec: &RevisionSpec,
        name: &str,
        body: &mut ContainerCreateBody,
    ) -> Result<(), RuntimeError> {
        let Some(base) = self.secrets.clone().filter(|_| !spec.secrets.is_empty()) else {
            return Ok(());
        };
        let (dir, wanted) = (base.join(name), spec.secrets.clone());
        let binds = body.host_config.get_or_insert_default().binds.get_or_insert_default();
        binds.push(format!("{}:{WITHIN}:ro", dir.display()));
        let write = move || {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&base);
            made.map_err(|error| {
                RuntimeError::Failed(format!("{} cannot be made: {error}", base.display()))
            })?;
            secrets::write(&dir, &wanted, MODE)
        };
        let written = tokio::task::spawn_blocking(write).await;
        written.map_err(|error| RuntimeError::Failed(error.to_string()))?
    }

    /// Where the secrets of a container are, if it has any.
    pub(super) fn secrets_of(&self, found: &ContainerInspectResponse) -> Option<PathBuf> {
        let base = self.secrets.as_ref()?;
        let mounts = found.mounts.iter().flatten();
        let mut sources = mounts
            .filter(|mount| mount.destination.as_deref() == Some(WITHIN))
            .filter_map(|mount| mount.source.as_ref().map(PathBuf::from));
        sources.find(|source| source.parent() == Some(base))
    }

    /// Whether any secrets are kept.
    pub(super) fn keeps_secrets(&self) -> bool {
        self.secrets.as_ref().is_some_and(|base| base.exists())
    }

    /// Removes the secrets of containers that somebody else removed.
    pub(super) async fn forget_secrets(&self) -> Result<(), RuntimeError> {
        let Some(base) = self.secrets.clone() else { return Ok(()) };
        for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
            let made = entry.metadata().and_then(|metadata| metadata.modified()).ok();
            let age = made.and_then(|made| SystemTime::now().duration_since(made).ok());
            let name = entry.file_name().to_string_lossy().into_owned();
            if age.is_some_and(|age| age > YOUNG) && self.look(&name).await?.is_none() {
                let _tried_again = std::fs::remove_dir_all(entry.path());
            }
        }
        Ok(())
    }

    /// The revision with its own network as the first, which is made where it is not there.
    pub(super) async fn on_own_network(
        &self,
        spec: &RevisionSpec,
        service: &ServiceName,
    ) -> Result<RevisionSpec, RuntimeError> {
        let mut spec = spec.clone();
        if !spec.container.own_network || container::network(&spec) == "host" {
            return Ok(spec);
        }
        let name = format!("switchback-{service}-{}", self.daemon);
        let look = {
            let name = name.clone();
            |docker: Docker| async move { docker.inspect_network(&name, None).await }
        };
        match self.client.call("looking for a network", ANSWER, look).await {
            Ok(_) => {}
            Err(Trouble::Refused { status: 404, .. }) => self.make_network(&name, service).await?,
            Err(trouble) => return Err(trouble.into()),
        }
        spec.container.networks.insert(0, name);
        Ok(spec)
    }

    async fn make_network(&self, name: &str, service: &ServiceName) -> Result<(), RuntimeError> {
        let labels = HashMap::from([
            (container::DAEMON.to_owned(), self.daemon.clone()),
            (OF.to_owned(), service.to_string()),
        ]);
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            labels: Some(labels),
            ..NetworkCreateRequest::default()
        };
        let make = |docker: Docker| async move { docker.create_network(request).await };
        match self.client.call("making a network", START, make).await {
            // 409: another replica was a moment faster.
            Ok(_) | Err(Trouble::Refused { status: 409, .. }) => Ok(()),
            Err(trouble) => Err(trouble.into()),
        }
    }

    /// Networks of ours on which nobody is, with their services.
    pub async fn idle_networks(&self) -> Result<Vec<(String, String)>, RuntimeError> {
        let filters = HashMap::from([
            ("label".to_owned(), vec![format!("{}={}", container::DAEMON, self.daemon)]),
            ("dangling".to_owned(), vec!["true".to_owned()]),
        ]);
        let options = ListNetworksOptions { filters: Some(filters) };
        let list = |docker: Docker| async move { docker.list_networks(Some(options)).await };
        let found = self.client.call("listing networks", ANSWER, list).await?;
        let named = found.into_iter().filter_map(|network| {
            let service = network.labels.and_then(|labels| labels.get(OF).cloned());
            Some((network.name?, service.unwrap_or_default()))
        });
        Ok(named.collect())
    }

    /// Removes a network of ours.
    pub async fn remove_network(&self, name: &str) -> Result<(), RuntimeError> {
        let name = name.to_owned();
        let remove = |docker: Docker| async move { docker.remove_network(&name).await };
        match self.client.call("removing a network", REMOVE, remove).await {
            Ok(()) | Err(Trouble::Refused { status: 404, .. }) => Ok(()),
            Err(trouble) => Err(trouble.into()),
        }
    }
}
