//! `promote`, `abort`, `pause`, `resume`, `weight`, `maintenance` and `rollback`: a person says
//! something to a rollout or a service, and is told in one sentence what came of it.

use std::time::Duration;

use serde_json::json;

use super::client::Client;
use super::console::Console;
use super::exit::Exit;
use super::figures;
use super::progress::Bar;
use super::trouble::{self, Trouble};
use super::watch::{self, Followed};
use crate::config::scalar;
use crate::controller::status::ServiceStatus;
use crate::model::weight::Weight;

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Skip the step under way, or (`full`) all that is left.
    Promote {
        /// Skip all steps.
        full: bool,
    },
    /// Take the canary back.
    Abort,
    /// Stay at this weight.
    Pause,
    /// Go on.
    Resume,
    /// Give the canary this weight, and stay there.
    Weight(Weight),
    /// Keep visitors from the service, each for up to this time, or (`None`) let them in again.
    Maintenance(Option<Duration>),
}

/// To whom something is said, and how the answer is shown.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The service; may be left out where there is one.
    pub service: Option<String>,
    /// Answer with the service's status as JSON.
    pub json: bool,
}

/// Says something to the rollout under way.
pub async fn run(client: &Client, console: &mut Console, act: Act, options: Options) -> Exit {
    let said = say(client, console, act, &options).await;
    trouble::ended(console, said)
}

async fn say(
    client: &Client,
    console: &mut Console,
    act: Act,
    options: &Options,
) -> Result<Exit, Trouble> {
    let before = client.service(options.service.as_deref()).await?;
    let name = &before.service;
    let after = match act {
        Act::Promote { full } => client.command(name, "promote", &json!({ "full": full })).await?,
        Act::Abort => client.command(name, "abort", &json!({})).await?,
        Act::Pause => client.command(name, "pause", &json!({})).await?,
        Act::Resume => client.command(name, "resume", &json!({})).await?,
        Act::Weight(weight) => client.weight(name, weight).await?,
        Act::Maintenance(None) => {
            client.command(name, "maintenance", &json!({ "on": false })).await?
        }
        Act::Maintenance(Some(queue)) => {
            let body = json!({ "on": true, "queue": scalar::show_duration(queue) });
            client.command(name, "maintenance", &body).await?
        }
    };
    if options.json {
        console.json(&after);
    } else {
        console.data(sentence(act, &before, &after));
    }
    Ok(Exit::Done)
}

/// What came of it.
fn sentence(act: Act, before: &ServiceStatus, after: &ServiceStatus) -> String {
    let name = &after.service;
    let revision = |side: &Option<super::super::controller::status::SideStatus>| {
        side.as_ref().map(|side| side.revision)
    };
    // Whoever was the canary when this was said; it may be gone from the answer.
    let canary = revision(&before.canary).or(revision(&after.canary));
    let canary = canary.map_or_else(|| "the canary".to_owned(), |r| format!("revision {r}"));
    let stable = revision(&before.stable);
    let weight = figures::percent(after.weights.canary);
    let step =
        after.step.map_or_else(String::new, |n| format!("step {n} of {}, ", after.steps.len()));
    match act {
        Act::Promote { .. } if after.step.is_some() => {
            format!("{name}: {canary} goes on to {step}{weight} of traffic")
        }
        Act::Promote { .. } => format!("{name}: {canary} becomes stable now"),
        Act::Abort => match stable {
            Some(stable) => {
                format!("{name}: {canary} is taken back, all traffic goes to revision {stable}")
            }
            None => format!("{name}: {canary} is taken back, and there is no other revision"),
        },
        Act::Pause => format!(
            "{name}: paused at {weight}; `switchback resume {name}` goes on, \
             `switchback abort {name}` takes it back"
        ),
        Act::Resume => format!("{name}: goes on at {step}{weight} of traffic"),
        Act::Maintenance(None) => format!("{name}: visitors are served again"),
        Act::Maintenance(Some(queue)) => {
            let what = match queue {
                Duration::ZERO => "are answered 503".to_owned(),
                queue => format!("wait for up to {}", scalar::show_duration(queue)),
            };
            format!(
                "{name}: in maintenance, visitors {what}; `switchback maintenance {name} off` ends it"
            )
        }
        Act::Weight(_) => format!(
            "{name}: {canary} gets {weight} of traffic and stays there; `switchback resume {name}` goes on"
        ),
    }
}

/// Where to go back to, and how the way is shown.
#[derive(Debug, Clone, Default)]
pub struct Rollback {
    /// The service; may be left out where there is one.
    pub service: Option<String>,
    /// The revision; the former one where nothing is said.
    pub to: Option<u32>,
    /// Archive no checkpoint first.
    pub no_checkpoint: bool,
    /// Begin it and do not follow it.
    pub detach: bool,
    /// As JSON, one object per line.
    pub json: bool,
}

/// Goes back to a former revision, and follows it there.
pub async fn rollback(client: &Client, console: &mut Console, options: Rollback) -> Exit {
    let returned = go_back(client, console, &options).await;
    trouble::ended(console, returned)
}

async fn go_back(
    client: &Client,
    console: &mut Console,
    options: &Rollback,
) -> Result<Exit, Trouble> {
    let before = client.service(options.service.as_deref()).await?;
    let service = before.service;
    let alone = before.group.filter(|_| before.canary.is_none());
    let accepted = {
        let mut bar = Bar::new(console, options.json);
        let mut hears = |now| bar.show(&now);
        client.rollback(&service, options.to, options.no_checkpoint, &mut hears).await?
    };
    let (rollout, revision) = (accepted.rollout, accepted.revision);
    if options.json {
        console.json(&json!({
            "kind": "accepted", "service": service, "rollout": rollout, "revision": revision,
        }));
    }
    if options.detach {
        if !options.json {
            console.data(rollout.to_string());
        }
        return Ok(Exit::Done);
    }
    if !options.json {
        console.talk(format!("{service}: back to revision {revision}   rollout {rollout}"));
        let all = if alone.is_some() { client.services().await? } else { Vec::new() };
        let others: Vec<String> = all
            .into_iter()
            .filter(|other| other.group == alone && other.service != service)
            .map(|other| other.service)
            .collect();
        if let (Some(group), false) = (&alone, others.is_empty()) {
            let (sign, others) = (console.signs().note, others.join(" "));
            console.talk(format!(
                "{sign} {others} of group {group} stays as it is: `switchback rollback {service} {others}` \
                 would have returned them together"
            ));
        }
    }
    watch::to_the_end(client, console, &Followed { service, rollout, joined: false }, options.json)
        .await
}
