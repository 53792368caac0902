//! `switchback deploy web:v2 api:v2` and `rollback web api`: several services of one group, through each
//! step together, and back together.

use std::collections::BTreeMap;

use serde_json::json;

use super::args::daemon::Target;
use super::client::Client;
use super::console::{Console, Line, Look};
use super::deploy::{self, Options};
use super::exit::Exit;
use super::figures;
use super::trouble::{self, Trouble};
use super::watch::{self, Followed};
use crate::admin::together::{ReturnRequest, TogetherAccepted, TogetherRequest};
use crate::controller::status::ServiceStatus;

/// Returns services of one group to what each had before, and follows them there.
pub async fn back(client: &Client, console: &mut Console, request: &ReturnRequest) -> Exit {
    let returned = go_back(client, console, request).await;
    trouble::ended(console, returned)
}

async fn go_back(
    client: &Client,
    console: &mut Console,
    request: &ReturnRequest,
) -> Result<Exit, Trouble> {
    let accepted: TogetherAccepted = client.post("/api/v1/rollback", request).await?;
    for (name, one) in &accepted.services {
        console
            .talk(format!("{name}: back to revision {}   rollout {}", one.revision, one.rollout));
    }
    for name in request.services.iter().filter(|name| !accepted.services.contains_key(*name)) {
        console.talk(format!("{name}: has returned before, and stays"));
    }
    to_the_end(client, console, accepted, &request.services, false).await
}

/// Deploys them.
pub async fn run(
    client: &Client,
    console: &mut Console,
    options: Options,
    targets: Vec<Target>,
) -> Exit {
    let deployed = deploy(client, console, options, targets).await;
    trouble::ended(console, deployed)
}

async fn deploy(
    client: &Client,
    console: &mut Console,
    options: Options,
    targets: Vec<Target>,
) -> Result<Exit, Trouble> {
    let usage = |sentence: String| Err(Trouble::new(Exit::Usage, sentence));
    if options.image.is_some() || options.command.is_some() || options.endpoints.is_some() {
        return usage(
            "several services at a time run what is configured, each with its tag".into(),
        );
    }
    if options.dry_run {
        return usage("--dry-run takes one service at a time".into());
    }
    let (detach, json) = (options.detach, options.json);
    let mut services = BTreeMap::new();
    for Target { service, tag } in targets {
        let name = service.to_string();
        let options = Options { service: Some(name.clone()), tag, ..options.clone() };
        if services.insert(name.clone(), deploy::request(options)?).is_some() {
            return usage(format!("{name} stands there twice"));
        }
    }
    let request = TogetherRequest { services };
    let accepted: TogetherAccepted = client.post("/api/v1/deploy", &request).await?;
    for (name, one) in &accepted.services {
        if json {
            console.json(&json!({
                "kind": "accepted", "service": name, "rollout": one.rollout,
                "revision": one.revision, "strategy": one.strategy,
            }));
        } else if detach {
            console.data(one.rollout.to_string());
        } else {
            let line = Line::new().and(Look::Strong, name);
            let line = line.plain(&format!("  revision {}, with its group", one.revision));
            console.talk(line.and(Look::Faint, &format!("   rollout {}", one.rollout)));
        }
    }
    if detach {
        return Ok(Exit::Done);
    }
    let names: Vec<String> = accepted.services.keys().cloned().collect();
    to_the_end(client, console, accepted, &names, json).await
}

/// Follows one after the other: they end together, and all that are named go back together. The exit
/// code is that of the one that fared worst.
async fn to_the_end(
    client: &Client,
    console: &mut Console,
    accepted: TogetherAccepted,
    names: &[String],
    json: bool,
) -> Result<Exit, Trouble> {
    let mut worst = Exit::Done;
    for (service, one) in accepted.services {
        let followed = Followed { service, rollout: one.rollout, joined: names.len() > 1 };
        let exit = watch::to_the_end(client, console, &followed, json).await?;
        if exit as u8 > worst as u8 {
            worst = exit;
        }
    }
    if worst == Exit::Done
        && !json
        && names.len() > 1
        // All went well, and stays so if this cannot be said.
        && let Ok(services) = client.services().await
        && let Some(seconds) = warm_for(&services, names)
    {
        let (names, left) = (names.join(" "), figures::duration(seconds));
        console.talk(format!(
            "  what served before stays warm for {left}: `switchback rollback {names}` returns to all of it \
             at once"
        ));
    }
    Ok(worst)
}

/// For how long all of these can return at once, in seconds; nothing where one cannot.
fn warm_for(services: &[ServiceStatus], names: &[String]) -> Option<f64> {
    let warm = |name: &String| {
        let service = services.iter().find(|one| one.service == *name)?;
        service.warm.as_ref().map(|warm| warm.seconds_left)
    };
    names.iter().map(warm).try_fold(f64::INFINITY, |least, left| Some(least.min(left?)))
}
