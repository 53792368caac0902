//! A container that was made by hand, or by compose, and is taken over.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, EndpointSettings, HostConfig,
    HostConfigLogConfig, NetworkCreateRequest, NetworkingConfig, PortBinding,
};
use bollard::query_parameters::{CreateContainerOptions, RemoveContainerOptions};

use crate::kept_images::of_image;
use crate::support::engine::{DockerHost, import, on_a_runtime};

const MEMORY: i64 = 64 << 20;

/// A container as compose makes one, on a network of its own; both go with it.
struct Made {
    host: DockerHost,
    name: String,
    network: String,
    shared: tempfile::TempDir,
}

impl Made {
    fn new(host: &DockerHost, image: &str) -> Self {
        let name = format!("story-shop-{}-web-1", std::process::id());
        let network = format!("{name}-net");
        let shared = tempfile::tempdir().unwrap();
        std::fs::write(shared.path().join("index.html"), "shared").unwrap();
        let request =
            NetworkCreateRequest { name: network.clone(), ..NetworkCreateRequest::default() };
        let words = ["httpd", "-f", "-p", "3000", "-h", "/shared"];
        let endpoint = EndpointSettings {
            aliases: Some(vec!["shop".to_owned()]),
            ..EndpointSettings::default()
        };
        let log = HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some([("max-size".to_owned(), "1m".to_owned())].into()),
        };
        let port = PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: None };
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            cmd: Some(words.map(str::to_owned).to_vec()),
            env: Some(vec!["DATABASE_URL=postgres://db/shop".to_owned()]),
            labels: Some([("com.docker.compose.service".to_owned(), "web".to_owned())].into()),
            working_dir: Some("/tmp".to_owned()),
            host_config: Some(HostConfig {
                binds: Some(vec![format!("{}:/shared:ro", shared.path().display())]),
                memory: Some(MEMORY),
                network_mode: Some(network.clone()),
                log_config: Some(log),
                cap_drop: Some(vec!["ALL".to_owned()]),
                port_bindings: Some([("3000/tcp".to_owned(), Some(vec![port]))].into()),
                ..HostConfig::default()
            }),
            networking_config: Some(NetworkingConfig {
                endpoints_config: Some(HashMap::from([(network.clone(), endpoint)])),
            }),
            ..ContainerCreateBody::default()
        };
        let client = host.client();
        let options = CreateContainerOptions {
            name: Some(name.clone()),
            ..CreateContainerOptions::default()
        };
        let called = name.clone();
        on_a_runtime(async move {
            client.create_network(request).await.unwrap();
            client.create_container(Some(options), body).await.unwrap();
            client.start_container(&called, None).await.unwrap();
        });
        Self { host: host.clone(), name, network, shared }
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let (client, name, network) = (self.host.client(), self.name.clone(), self.network.clone());
        on_a_runtime(async move {
            let options = RemoveContainerOptions { force: true, v: true, link: false };
            let _gone = client.remove_container(&name, Some(options)).await;
            // After the daemon's containers, if they are gone by now.
            let _gone = client.remove_network(&network).await;
        });
    }
}

fn look(host: &DockerHost, id: &str) -> ContainerInspectResponse {
    let (client, id) = (host.client(), id.to_owned());
    on_a_runtime(async move { client.inspect_container(&id, None).await.unwrap() })
}

/// What must be as it was.
fn is_like(found: &ContainerInspectResponse, made: &Made) {
    let (config, host) = (found.config.clone().unwrap(), found.host_config.clone().unwrap());
    let env = config.env.unwrap();
    assert!(env.contains(&"DATABASE_URL=postgres://db/shop".to_owned()), "{env:?}");
    let labels = config.labels.unwrap();
    assert_eq!(labels.get("com.docker.compose.service").map(String::as_str), Some("web"));
    assert!(labels.contains_key("io.switchback.daemon"), "{labels:?}");
    assert_eq!(config.working_dir.as_deref(), Some("/tmp"));
    assert_eq!(host.memory, Some(MEMORY));
    assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
    let log = host.log_config.unwrap();
    assert_eq!(log.typ.as_deref(), Some("json-file"));
    assert_eq!(log.config.unwrap().get("max-size").map(String::as_str), Some("1m"));
    let ports = host.port_bindings.unwrap_or_default();
    assert!(ports.is_empty(), "published ports belong to the first: {ports:?}");
    let [mount] = &found.mounts.clone().unwrap()[..] else { panic!("{:?}", found.mounts) };
    assert_eq!(mount.source.as_deref(), made.shared.path().to_str());
    assert_eq!((mount.destination.as_deref(), mount.rw), (Some("/shared"), Some(false)));
    let networks = found.network_settings.clone().unwrap().networks.unwrap();
    let aliases = networks[&made.network].aliases.clone().unwrap_or_default();
    assert!(aliases.contains(&"shop".to_owned()), "{aliases:?}");
}

#[test]
fn a_container_made_by_hand_becomes_stable_and_the_next_deploy_is_like_it() {
    let Some(host) = crate::support::engine::engine() else { return };
    let image = import(&host, &[]);
    let made = Made::new(&host, &image);
    let name = image.split(':').next().unwrap();
    let Some(mut daemon) = of_image(name, "") else { return };
    // What the container was told is not said again.
    let text = std::fs::read_to_string(daemon.config()).unwrap();
    let text: Vec<&str> = text.lines().filter(|line| !line.starts_with("args =")).collect();
    let migrated = daemon.home().join("migrated");
    let hook = format!("[\"sh\", \"-c\", \"echo $SWITCHBACK_HOOK >> {}\"]", migrated.display());
    let hooks = ["before_deploy", "after_promote", "on_rollback"]
        .map(|moment| format!("[service.web.{moment}]\ncommand = {hook}\n"));
    daemon.configure(&format!("{}\n{}", text.join("\n"), hooks.concat()));
    let ran = || std::fs::read_to_string(&migrated).unwrap_or_default();
    daemon.start();

    let said = daemon.cli(&["adopt", "nobody"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("there is no container nobody"), "{said:?}");
    let said = daemon.cli(&["adopt", &made.name]);
    assert_eq!(said.code, 0, "{said:?}");
    let leave = format!("{} still runs; when nobody asks it any more: docker stop", made.name);
    assert!(said.stderr.contains(&leave), "{said:?}");
    daemon.until("its page", || daemon.get("/").is_ok_and(|answer| answer.body == "shared"));
    let stable = |daemon: &crate::support::daemon::Daemon| {
        daemon.service()["stable"]["instances"][0]["id"].as_str().unwrap().to_owned()
    };
    let first = stable(&daemon);
    is_like(&look(&host, &first), &made);
    let original = look(&host, &made.name);
    assert_eq!(original.state.unwrap().running, Some(true), "it is left alone");
    assert_ne!(original.id.unwrap(), first);
    let said = daemon.cli(&["adopt", &made.name]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("serves already"), "{said:?}");

    // To take over what runs is no release: nothing is migrated by it.
    assert_eq!(ran(), "");

    let next = import(&host, &["ENV EDITION=next"]);
    let said = daemon.cli(&["deploy", "web", "--image", &next, "--env", "MORE=1"]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.until("its hooks", || ran() == "before_deploy\nafter_promote\n");
    let second = stable(&daemon);
    assert_ne!(first, second);
    let found = look(&host, &second);
    is_like(&found, &made);
    let env = found.config.unwrap().env.unwrap();
    for pair in ["EDITION=next", "MORE=1"] {
        assert!(env.contains(&pair.to_owned()), "{pair}: {env:?}");
    }
    daemon.until("its page", || daemon.get("/").is_ok_and(|answer| answer.body == "shared"));
    drop(daemon);
}
