//! `switchback deploy`: begins a rollout and follows it to its end.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use super::client::Client;
use super::console::{Console, Line, Look, columns};
use super::exit::Exit;
use super::figures;
use super::progress::Bar;
use super::trouble::{self, Trouble};
use super::watch::{self, Followed};
use crate::config::scalar::show_duration;
use crate::controller::status::{DeployRequest, FitStatus, ServiceStatus, StepForecast};
use crate::model::revision::Origin;
use crate::model::weight::Weight;
use crate::rollout::plan::Steps;
use crate::rollout::strategy::Strategy;

/// What to deploy, and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The service; may be left out where there is one.
    pub service: Option<String>,
    /// A tag of the configured image.
    pub tag: Option<String>,
    /// A whole image reference.
    pub image: Option<String>,
    /// A command line.
    pub command: Option<Vec<String>>,
    /// Addresses that somebody else runs.
    pub endpoints: Option<Vec<SocketAddr>>,
    /// Environment variables beside the configured ones.
    pub env: std::collections::BTreeMap<String, String>,
    /// How the new revision takes the place of the old one, instead of what is configured.
    pub strategy: Option<Strategy>,
    /// Steps instead of the configured ones.
    pub steps: Option<Steps>,
    /// The least time at a step instead of the configured one.
    pub bake: Option<Duration>,
    /// Who deploys and from where, for the record.
    pub by: Option<String>,
    /// Go past a freeze.
    pub override_freeze: bool,
    /// The source that the image was built from.
    pub origin: Option<Origin>,
    /// Archive no checkpoint first.
    pub no_checkpoint: bool,
    /// Begin it and do not follow it.
    pub detach: bool,
    /// Say what would be done.
    pub dry_run: bool,
    /// As JSON, one object per line.
    pub json: bool,
}

/// Deploys.
pub async fn run(client: &Client, console: &mut Console, options: Options) -> Exit {
    let deployed = deploy(client, console, options).await;
    trouble::ended(console, deployed)
}

pub(super) async fn deploy(
    client: &Client,
    console: &mut Console,
    options: Options,
) -> Result<Exit, Trouble> {
    let (detach, dry_run, json) = (options.detach, options.dry_run, options.json);
    let name = options.service.clone();
    let steps = options.steps.clone();
    let request = request(options)?;
    let service = client.service(name.as_deref()).await?;
    let steps = steps.map_or_else(
        || service.steps.clone(),
        |steps| steps.weights().iter().copied().map(Weight::percent).collect(),
    );
    if dry_run {
        let forecast = match service.stable {
            // All traffic at once: there are no steps.
            None => Vec::new(),
            Some(_) => client.forecast(&service.service, &request).await?,
        };
        let steps = match forecast.is_empty() {
            true => steps,
            false => forecast.iter().map(|step| step.weight).collect(),
        };
        let fits = client.fits(&service.service, &request).await?;
        return Ok(plan(console, &service, &request, (&steps, &forecast), &fits, json));
    }

    let from = service.stable.as_ref().map(|stable| stable.revision);
    let accepted = {
        let mut bar = Bar::new(console, json);
        client.deploy_telling(&service.service, &request, &mut |now| bar.show(&now)).await?
    };
    let name = &service.service;
    if json {
        console.json(&json!({
            "kind": "accepted", "service": name, "rollout": accepted.rollout, "revision": accepted.revision,
            "same_image_as": accepted.same_image_as, "strategy": accepted.strategy,
        }));
    }
    if detach {
        if !json {
            console.data(accepted.rollout.to_string());
            console.talk(format!("`switchback status {name} -w` shows how it goes"));
        }
        return Ok(Exit::Done);
    }
    if !json {
        let what = what(&service, &request);
        let steps = way(accepted.strategy, &steps, console);
        let line = headline(name, from, accepted.revision, &what, &steps, console);
        console.talk(line.and(Look::Faint, &format!("   rollout {}", accepted.rollout)));
        if let Some(same) = accepted.same_image_as {
            console.talk(format!(
                "{} the very image of revision {same}, deployed again",
                console.signs().note
            ));
        }
    }
    let followed = Followed { service: service.service, rollout: accepted.rollout, joined: false };
    watch::to_the_end(client, console, &followed, json).await
}

pub(super) fn request(options: Options) -> Result<DeployRequest, Trouble> {
    let given = [
        ("SERVICE:TAG", options.tag.is_some()),
        ("--image", options.image.is_some()),
        ("--command", options.command.is_some()),
        ("--endpoints", options.endpoints.is_some()),
    ];
    let given: Vec<&str> = given.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
    if given.len() > 1 {
        let sentence =
            format!("{} cannot all say what runs: give one of them", given.join(" and "));
        return Err(Trouble::new(Exit::Usage, sentence));
    }
    Ok(DeployRequest {
        image: options.image,
        tag: options.tag,
        command: options.command,
        endpoints: options.endpoints.map(|all| all.iter().map(ToString::to_string).collect()),
        env: options.env,
        origin: options.origin,
        no_checkpoint: options.no_checkpoint,
        strategy: options.strategy.map(|strategy| strategy.to_string()),
        steps: options.steps.map(String::from),
        bake: options.bake.map(show_duration),
        by: options.by,
        override_freeze: options.override_freeze,
        joined: None,
    })
}

/// What will run, as far as it can be told here.
fn what(service: &ServiceStatus, request: &DeployRequest) -> String {
    if let Some(image) = &request.image {
        return image.clone();
    }
    if let Some(command) = &request.command {
        return command.join(" ");
    }
    if let Some(endpoints) = &request.endpoints {
        return endpoints.join(", ");
    }
    match &request.tag {
        Some(tag) => format!("{}:{tag}", service.service),
        None => "as configured".to_owned(),
    }
}

/// `web  revision 3 → 4 (ghcr.io/acme/web:v4)  canary 5% → 25% → 50% → 100%`.
fn headline(
    name: &str,
    from: Option<u32>,
    to: u32,
    what: &str,
    way: &str,
    console: &Console,
) -> Line {
    let arrow = console.signs().arrow;
    let line = Line::new().and(Look::Strong, name);
    let Some(from) = from else {
        return line.plain(&format!("  first revision {to} ({what}): all traffic at once"));
    };
    line.plain(&format!("  revision {from} {arrow} {to} ({what})  {way}"))
}

/// How a revision takes the place of another: `canary 5% → 25% → 50% → 100%`.
fn way(strategy: Strategy, steps: &[f64], console: &Console) -> String {
    let arrow = console.signs().arrow;
    let percents: Vec<String> = steps.iter().map(|step| figures::percent(*step)).collect();
    let steps = percents.join(&format!(" {arrow} "));
    match strategy {
        Strategy::Canary => format!("canary {steps}"),
        Strategy::BlueGreen => "blue-green: all at once when it is healthy".to_owned(),
        Strategy::Rolling => "rolling: instance by instance".to_owned(),
        Strategy::Recreate => {
            "recreate: what serves stops, then it starts; visitors wait".to_owned()
        }
    }
}

/// What each step would take, as a table.
fn foretold(forecast: &[StepForecast], console: &Console) -> Vec<Line> {
    let none = || console.signs().none.to_owned();
    if forecast.iter().all(|step| step.requests.is_none()) {
        let unknown = forecast.iter().any(|step| step.weight < 100.0);
        let line = "how long that takes cannot be told: stable has had too little traffic yet";
        return if unknown { vec![Line::from(line)] } else { Vec::new() };
    }
    let head = ["step", "canary requests", "time", "catches errors from", "catches slower from"];
    let mut rows = vec![head.map(|text| (Look::Faint, text.to_owned())).to_vec()];
    for step in forecast {
        let texts = [
            figures::percent(step.weight),
            step.requests
                .map_or_else(none, |requests| format!("about {}", figures::count(requests))),
            step.seconds.map_or_else(none, figures::duration),
            step.catches_error_rate.map_or_else(none, |rate| figures::percent(rate * 100.0)),
            step.catches_slower.map_or_else(none, |factor| format!("{factor:.2}x")),
        ];
        rows.push(texts.map(|text| (Look::Plain, text)).to_vec());
    }
    let mut lines = columns(&rows, &[true, true, true, true, true], 2);
    if forecast.iter().any(|step| step.weight >= 100.0) {
        let alone =
            "at 100% there is no stable to compare with: it passes within the limits of `abort`";
        lines.push(Line::new().and(Look::Faint, alone));
    }
    lines
}

fn plan(
    console: &mut Console,
    service: &ServiceStatus,
    request: &DeployRequest,
    (steps, forecast): (&[f64], &[StepForecast]),
    fits: &FitStatus,
    json: bool,
) -> Exit {
    let from = service.stable.as_ref().map(|stable| stable.revision);
    let what = what(service, request);
    let under_way = service.canary.is_some();
    let configured = || service.strategy.parse().unwrap_or_default();
    let strategy: Strategy =
        request.strategy.as_ref().and_then(|text| text.parse().ok()).unwrap_or_else(configured);
    if json {
        console.json(&json!({
            "kind": "plan", "service": service.service, "from": from, "runs": what,
            "strategy": strategy, "steps": steps, "bake": request.bake, "possible_now": !under_way && fits.fits,
            "forecast": forecast, "fit": fits,
        }));
        return Exit::Done;
    }
    let arrow = console.signs().arrow;
    let name = &service.service;
    match from {
        Some(from) => {
            console.data(format!("{name}: revision {from} {arrow} a new one ({what})"));
            console.data(way(strategy, steps, console));
        }
        None => console
            .data(format!("{name}: the first revision ({what}), all traffic at once when healthy")),
    }
    if let Some(bake) = &request.bake {
        console.data(format!("at least {bake} at each step"));
    }
    for line in foretold(forecast, console) {
        console.data(line);
    }
    match &fits.sentence {
        Some(sentence) if fits.fits => console.talk(sentence.as_str()),
        Some(sentence) => console.talk(format!("it would be refused: {sentence}")),
        None => {}
    }
    if under_way {
        console.talk(format!(
            "not now: a rollout of {name} is under way ({}); `switchback abort {name}` ends it",
            service.phase
        ));
    }
    console.talk("nothing was done");
    Exit::Done
}
