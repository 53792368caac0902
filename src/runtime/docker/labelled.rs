//! Containers that we did not launch and that say by labels what they serve: all of them, again after
//! every change that the engine tells of, and after every reconnect.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::models::ContainerSummary;
use bollard::query_parameters::{EventsOptions, ListContainersOptions};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::client::{ANSWER, Client};
use super::container;
use crate::model::labelled::Labelled;
use crate::runtime::RuntimeError;

/// The label without which a container is none of our business.
const HOST: &str = "switchback.host";
/// Changes come in bursts, as when a project goes up: they are looked at together.
const BURST: Duration = Duration::from_millis(200);
/// Pauses after the engine was lost.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Looked at even when nothing is told: an engine that forgets an event is rare, a route that leads
/// nowhere for ever is bad.
const ANYWAY: Duration = Duration::from_secs(60);
/// What changes which containers there are, and where.
const ACTIONS: [&str; 6] = ["start", "die", "destroy", "rename", "connect", "disconnect"];

/// All labelled containers that run, oldest first.
pub async fn list(client: &Client) -> Result<Vec<Labelled>, RuntimeError> {
    let filters = HashMap::from([
        ("label".to_owned(), vec![HOST.to_owned()]),
        ("status".to_owned(), vec!["running".to_owned()]),
    ]);
    let options = ListContainersOptions { filters: Some(filters), ..Default::default() };
    let list = |docker: Docker| async move { docker.list_containers(Some(options)).await };
    let found = client.call("listing containers with labels", ANSWER, list).await?;
    let mut all: Vec<Labelled> = found.into_iter().filter_map(read).collect();
    all.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
    Ok(all)
}

fn read(found: ContainerSummary) -> Option<Labelled> {
    let labels: BTreeMap<String, String> = found.labels.unwrap_or_default().into_iter().collect();
    // What we launched has routes of its own.
    if labels.contains_key(container::DAEMON) {
        return None;
    }
    let name = found.names.and_then(|names| names.into_iter().next()).unwrap_or_default();
    let mode = found.host_config.and_then(|host| host.network_mode);
    let networks = found.network_settings.and_then(|settings| settings.networks);
    // By name, so that it is the same one every time.
    let networks: BTreeMap<_, _> = networks.unwrap_or_default().into_iter().collect();
    let parse = |text: Option<&String>| text?.parse::<IpAddr>().ok();
    let joined = networks.values().find_map(|network| {
        parse(network.ip_address.as_ref()).or_else(|| parse(network.global_ipv6_address.as_ref()))
    });
    let address = match mode.as_deref() {
        Some("host") => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        _ => joined,
    };
    Some(Labelled {
        id: found.id?,
        name: name.trim_start_matches('/').to_owned(),
        image: found.image.unwrap_or_default(),
        image_id: found.image_id.unwrap_or_default(),
        created: found.created.unwrap_or_default(),
        labels,
        address,
    })
}

/// Tells of all labelled containers, now and whenever they may have changed, until nobody listens.
///
/// Cancel safety: may be dropped at any time.
pub async fn follow(client: Arc<Client>, changes: mpsc::Sender<Vec<Labelled>>) {
    let mut pause = FIRST_PAUSE;
    let mut told = None;
    loop {
        let ended = tokio::select! {
            ended = session(&client, &changes, &mut pause) => ended,
            () = changes.closed() => return,
        };
        let reason = match ended {
            Ok(()) => return,
            Err(error) => error.to_string(),
        };
        if told.as_ref() != Some(&reason) {
            tracing::warn!(%reason, "containers with labels are not followed; what was known stays");
            told = Some(reason);
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn session(
    client: &Client,
    changes: &mpsc::Sender<Vec<Labelled>>,
    pause: &mut Duration,
) -> Result<(), RuntimeError> {
    let docker = client.engine().await?;
    let types = vec!["container".to_owned(), "network".to_owned()];
    let filters = HashMap::from([
        ("type".to_owned(), types),
        ("event".to_owned(), ACTIONS.map(str::to_owned).to_vec()),
    ]);
    // Subscribed first, listed then: what happens in between is seen twice, and never missed.
    let options = EventsOptions { since: None, until: None, filters: Some(filters) };
    let mut stream = std::pin::pin!(docker.events(Some(options)));
    let mut before = None;
    loop {
        let found = list(client).await?;
        *pause = FIRST_PAUSE;
        if before.as_ref() != Some(&found) {
            if changes.send(found.clone()).await.is_err() {
                return Ok(());
            }
            before = Some(found);
        }
        tokio::select! {
            () = sleep(ANYWAY) => {}
            event = stream.next() => match event {
                Some(Ok(_)) => {
                    let burst = sleep(BURST);
                    let mut burst = std::pin::pin!(burst);
                    loop {
                        tokio::select! {
                            () = &mut burst => break,
                            event = stream.next() => if !matches!(event, Some(Ok(_))) { break },
                        }
                    }
                }
                Some(Err(error)) => return Err(client.explain(error).into()),
                None => {
                    let host = client.host();
                    let reason = format!("the Docker Engine at {host} closed the connection");
                    return Err(RuntimeError::Failed(reason));
                }
            },
        }
    }
}
