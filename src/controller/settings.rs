//! Questions that the controller asks of a service's configuration.

use std::sync::Arc;
use std::time::Duration;

use super::handle::Refused;
use super::status::DeployRequest;
use crate::config::Service;
use crate::config::change::Change;
use crate::config::image::Image;
use crate::model::revision::{RevisionSpec, Source};
use crate::rollout::plan::{Plan, Steps};
use crate::rollout::strategy::Strategy;
use crate::routing::table::{HostPattern, Route};

/// Whether what is configured can be launched without being told a version: a command, addresses,
/// or an image with a tag or digest.
#[must_use]
pub fn names_a_version(config: &Service) -> bool {
    match &config.template.source {
        Source::Command(_) => true,
        Source::Endpoints(addresses) => !addresses.is_empty(),
        Source::Image(image) => {
            Image::parse(image).is_ok_and(|image| image.tag.is_some() || image.digest.is_some())
        }
    }
}

/// A service's routes for people: `app.example.com/api`.
#[must_use]
pub fn route_texts(config: &Service) -> Arc<[String]> {
    let text = |route: &Route| {
        let host = match &route.host {
            HostPattern::Any => "*".to_owned(),
            HostPattern::Exact(host) => host.clone(),
            HostPattern::Below(host) => format!("*.{host}"),
        };
        let path = route.path.trim_end_matches('/');
        format!("{host}{path}")
    };
    let listen = config.listen.iter().map(|address| format!("tcp://{address}"));
    config.routes.iter().map(text).chain(listen).collect()
}

/// What a deploy would run.
pub(super) fn spec_of(config: &Service, request: &DeployRequest) -> Result<RevisionSpec, Refused> {
    let mut changes = Vec::new();
    changes.extend(request.image.clone().map(Change::Image));
    changes.extend(request.tag.clone().map(Change::Tag));
    changes.extend(request.command.clone().map(Change::Command));
    if let Some(texts) = &request.endpoints {
        let parse = |text: &String| {
            let wrong = |_| format!("{text:?} is not an address such as 10.0.0.7:3000");
            text.parse().map_err(wrong)
        };
        let addresses: Result<Vec<_>, String> = texts.iter().map(parse).collect();
        changes.push(Change::Endpoints(addresses.map_err(Refused::Invalid)?));
    }
    let change = changes.pop().unwrap_or(Change::None);
    if !changes.is_empty() {
        let sentence = "give only one of image, tag, command and endpoints".to_owned();
        return Err(Refused::Invalid(sentence));
    }
    if change == Change::None && !names_a_version(config) {
        let (name, image) = (&config.name, &config.template.source);
        if config.answers_alone() {
            return Err(Refused::Invalid(format!(
                "the routes of {name} answer everything: there is nothing to deploy"
            )));
        }
        return Err(Refused::Invalid(format!(
            "which version of {image}? Say `switchback deploy {name}:TAG`"
        )));
    }
    let mut spec = config.revision(change).map_err(Refused::Invalid)?;
    spec.env.extend(request.env.clone());
    Ok(spec)
}

/// The limit where nobody has said one: it does not take the place of what a container had.
const MANY_PIDS: u64 = 4_096;

/// A revision like the one that was adopted: the configuration comes before what the container had, as
/// far as it says something.
fn clone_adopted(spec: &mut RevisionSpec, stable: &RevisionSpec) {
    let (new, old) = (&mut spec.container, &stable.container);
    new.adopted.clone_from(&old.adopted);
    let mut env = stable.env.clone();
    env.append(&mut spec.env);
    spec.env = env;
    let mut labels = old.labels.clone();
    labels.append(&mut new.labels);
    new.labels = labels;
    for (new, old) in [
        (&mut new.args, &old.args),
        (&mut new.volumes, &old.volumes),
        (&mut new.networks, &old.networks),
    ] {
        if new.is_empty() {
            new.clone_from(old);
        }
    }
    if new.pids == MANY_PIDS {
        new.pids = old.pids;
    }
    for (new, old) in [
        (&mut new.memory, old.memory),
        (&mut new.cpu_millis, old.cpu_millis),
        (&mut new.pids, old.pids),
    ] {
        if *new == 0 {
            *new = old;
        }
    }
    // What it may and may not do was somebody else's decision, and holds until somebody says more.
    new.hardening.clone_from(&old.hardening);
    if new.user.is_none() {
        new.user.clone_from(&old.user);
    }
}

/// Hands on what stable has and no configuration says: the volumes that were restored into stand in the
/// place of those that are configured.
pub(super) fn inherit(spec: &mut RevisionSpec, stable: &RevisionSpec) {
    if stable.container.adopted.is_some() && matches!(spec.source, Source::Image(_)) {
        clone_adopted(spec, stable);
    }
    for volume in &mut spec.container.volumes {
        let Some((source, rest)) = volume.split_once(':') else { continue };
        if let Some(restored) = stable.container.restored.get(source) {
            spec.container.restored.insert(source.to_owned(), restored.clone());
            *volume = format!("{restored}:{rest}");
        }
    }
}

/// Whether a strategy can be carried out with what a service runs.
fn admit_strategy(
    config: &Service,
    request: &DeployRequest,
    strategy: Strategy,
) -> Result<(), String> {
    let by_others = request.endpoints.is_some()
        || matches!(config.template.source, Source::Endpoints(_))
            && request.image.is_none()
            && request.command.is_none();
    match strategy {
        Strategy::Recreate if by_others => Err(
            "recreate stops what serves, and these addresses are somebody else's to stop: choose \
             another strategy"
                .to_owned(),
        ),
        Strategy::Recreate if !config.listen.is_empty() => {
            Err("recreate has visitors wait, and plain TCP cannot: choose another strategy"
                .to_owned())
        }
        _ => Ok(()),
    }
}

/// How a deploy would go.
pub(super) fn plan_of(config: &Service, request: &DeployRequest) -> Result<Plan, Refused> {
    let mut plan = config.plan.clone();
    if let Some(strategy) = &request.strategy {
        plan.strategy = strategy.parse().map_err(Refused::Invalid)?;
        admit_strategy(config, request, plan.strategy).map_err(Refused::Invalid)?;
    }
    if request.steps.is_some() && !plan.strategy.has_steps() {
        return Err(Refused::Invalid(format!(
            "steps belong to the strategy canary; {} has none to choose",
            plan.strategy
        )));
    }
    if let Some(steps) = &request.steps {
        plan.steps = steps
            .parse::<Steps>()
            .map_err(|error| Refused::Invalid(format!("steps {steps:?}: {error}")))?;
    }
    if let Some(bake) = &request.bake {
        let parsed: Result<jiff::SignedDuration, _> = bake.parse();
        let duration = parsed.ok().and_then(|duration| Duration::try_from(duration).ok());
        plan.bake = duration.ok_or_else(|| {
            Refused::Invalid(format!("bake {bake:?} is not a duration such as 30s or 5m"))
        })?;
        plan.bake_max = plan.bake_max.max(plan.bake);
    }
    Ok(plan)
}
