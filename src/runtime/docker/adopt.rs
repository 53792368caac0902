//! A container that somebody else made, as a revision: everything that it was told, so that another one
//! just like it can be made.
//!
//! Changes nothing of that container. What cannot be had twice is left out: published ports (visitors
//! come through the proxy), fixed addresses, the name.

use std::collections::{BTreeMap, HashMap};

use bollard::Docker;
use bollard::models::{
    ContainerConfig, ContainerCreateBody, ContainerInspectResponse, EndpointSettings, HostConfig,
    ImageConfig, MountPoint, NetworkingConfig,
};

use super::client::ANSWER;
use super::container::BRIDGE;
use super::{DockerRuntime, image};
use crate::model::progress::Listener;
use crate::model::revision::{RevisionSpec, Source};
use crate::runtime::RuntimeError;

/// Digits of a container's id by which engines call it on its own networks.
const SHORT: usize = 12;

impl DockerRuntime {
    /// What a container is, as a revision. `template` says what no container knows: the port, the probe.
    pub async fn adopt(
        &self,
        container: &str,
        template: &RevisionSpec,
    ) -> Result<RevisionSpec, RuntimeError> {
        let found = self.look(container).await?.ok_or_else(|| {
            RuntimeError::NotFound(format!(
                "there is no container {container}: `docker ps` lists those that run"
            ))
        })?;
        if super::container::labels(&found).contains_key(super::container::DAEMON) {
            return Err(RuntimeError::NotFound(format!(
                "{container} is an instance of a Switchback daemon already"
            )));
        }
        if found.state.as_ref().and_then(|state| state.running) != Some(true) {
            return Err(RuntimeError::NotFound(format!(
                "{container} does not run: only what serves is adopted"
            )));
        }
        let id = found.image.clone().unwrap_or_default();
        let name = id.clone();
        let look = |docker: Docker| async move { docker.inspect_image(&name).await };
        let made_of = self.client.call("looking at an image", ANSWER, look).await?;
        let typed = found.config.as_ref().and_then(|config| config.image.clone());
        let typed = typed.unwrap_or_else(|| id.clone());
        let mut spec = spec_of(&found, &made_of.config.unwrap_or_default(), template);
        let resolved = image::resolve(&self.client, &id, false, &Listener::default()).await?;
        spec.container.image_id = Some(resolved.id);
        spec.container.digest = image::digest_of(&typed, &made_of.repo_digests.unwrap_or_default());
        spec.source = Source::Image(typed);
        Ok(spec)
    }
}

fn spec_of(
    found: &ContainerInspectResponse,
    image: &ImageConfig,
    template: &RevisionSpec,
) -> RevisionSpec {
    let config = found.config.clone().unwrap_or_default();
    let host = found.host_config.clone().unwrap_or_default();
    let id = found.id.clone().unwrap_or_default();
    let short = id.get(..SHORT).unwrap_or(&id);
    let mut spec = template.clone();
    // What the image says by itself is left to the next image.
    let of_image = image.env.clone().unwrap_or_default();
    spec.env = config
        .env
        .iter()
        .flatten()
        .filter(|pair| !of_image.contains(pair))
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let image_labels = image.labels.clone().unwrap_or_default();
    let labels = config.labels.clone().unwrap_or_default().into_iter();
    let own = |(name, value): &(String, String)| image_labels.get(name) != Some(value);
    let amount = |value: Option<i64>| u64::try_from(value.unwrap_or(0)).unwrap_or(0);
    let container = &mut spec.container;
    container.labels = labels.filter(own).collect::<BTreeMap<_, _>>();
    container.args = differs(&config.cmd, &image.cmd).unwrap_or_default();
    container.user =
        config.user.clone().filter(|user| !user.is_empty() && image.user.as_ref() != Some(user));
    container.memory = amount(host.memory);
    container.cpu_millis = amount(host.nano_cpus) / 1_000_000;
    container.pids = amount(host.pids_limit);
    container.volumes = found.mounts.iter().flatten().filter_map(mount).collect();
    let mode = host.network_mode.clone().unwrap_or_default();
    let joined = found.network_settings.as_ref().and_then(|all| all.networks.clone());
    let joined = joined.unwrap_or_default();
    container.networks = networks(&mode, &joined);
    let kept = clone_of(config, host, &joined, image, short);
    // What the models write they read again.
    container.adopted = serde_json::to_value(kept).ok();
    spec
}

/// The networks, with the one first on which it is reached.
fn networks(mode: &str, joined: &HashMap<String, EndpointSettings>) -> Vec<String> {
    let mut names: Vec<String> = joined.keys().filter(|name| *name != BRIDGE).cloned().collect();
    names.sort_by_key(|name| (name != mode, name.clone()));
    if mode == "host" { vec!["host".to_owned()] } else { names }
}

fn mount(point: &MountPoint) -> Option<String> {
    let at = point.destination.as_ref()?;
    let source = match point.typ.as_deref()? {
        "volume" => point.name.as_ref()?,
        "bind" => point.source.as_ref()?,
        _ => return None,
    };
    let mode = if point.rw == Some(false) { ":ro" } else { "" };
    Some(format!("{source}:{at}{mode}"))
}

/// A list of words, when it is not what the image says anyhow.
fn differs(own: &Option<Vec<String>>, image: &Option<Vec<String>>) -> Option<Vec<String>> {
    own.clone().filter(|words| !words.is_empty() && image.as_ref() != Some(words))
}

/// What else it was told, without what the revision says in words of ours and what cannot be had twice.
fn clone_of(
    config: ContainerConfig,
    host: HostConfig,
    joined: &HashMap<String, EndpointSettings>,
    image: &ImageConfig,
    short: &str,
) -> ContainerCreateBody {
    let own_name = |name: &String| name.as_str() != short;
    let endpoint = |(name, settings): (&String, &EndpointSettings)| {
        let aliases: Vec<String> =
            settings.aliases.iter().flatten().filter(|alias| own_name(alias)).cloned().collect();
        let settings = EndpointSettings {
            aliases: (!aliases.is_empty()).then_some(aliases),
            driver_opts: settings.driver_opts.clone(),
            ..EndpointSettings::default()
        };
        (name.clone(), settings)
    };
    let endpoints = joined.iter().filter(|(name, _)| *name != BRIDGE).map(endpoint).collect();
    ContainerCreateBody {
        hostname: config.hostname.filter(own_name),
        domainname: config.domainname.filter(|name| !name.is_empty()),
        tty: config.tty,
        open_stdin: config.open_stdin,
        healthcheck: config.healthcheck.filter(|check| image.healthcheck.as_ref() != Some(check)),
        working_dir: config.working_dir.filter(|dir| image.working_dir.as_ref() != Some(dir)),
        entrypoint: differs(&config.entrypoint, &image.entrypoint),
        stop_signal: config.stop_signal.filter(|signal| image.stop_signal.as_ref() != Some(signal)),
        host_config: Some(HostConfig {
            binds: None,
            mounts: None,
            port_bindings: None,
            publish_all_ports: None,
            container_id_file: None,
            network_mode: None,
            restart_policy: None,
            auto_remove: None,
            links: None,
            ..host
        }),
        networking_config: Some(NetworkingConfig { endpoints_config: Some(endpoints) }),
        ..ContainerCreateBody::default()
    }
}
