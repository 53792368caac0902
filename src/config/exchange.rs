//! Reads how a new revision takes the place of the old one.

use super::reader::Section;
use super::scalar;
use crate::model::revision::{RevisionSpec, Source};
use crate::rollout::plan::{Fit, Plan};
use crate::rollout::strategy::Strategy;

/// The longest that visitors are held: browsers and proxies before us give up by then.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(300);

/// The strategy that a service names.
pub(super) fn read_strategy(section: &Section<'_>) -> Strategy {
    section.choice("strategy").parse().unwrap_or_default()
}

/// What belongs to the strategy.
pub(super) fn read_exchange(section: &Section<'_>, plan: &mut Plan) {
    plan.strategy = read_strategy(section);
    let wrong = |name: &str, title: &str, expected: &str| {
        let place = section.place_of(name).unwrap_or_else(|| section.place.clone());
        section.wrong(name, &place, title, expected);
    };
    if !plan.strategy.has_steps() {
        let strategy = plan.strategy;
        for name in ["steps", "hold_back"] {
            if section.written(name).is_some() {
                let title = format!("`{name}` has no effect with strategy = \"{strategy}\"");
                wrong(name, &title, "leave it out, or write strategy = \"canary\"");
            }
        }
        if plan.fresh_baseline && strategy != Strategy::BlueGreen {
            let title = format!("`fresh_baseline` has no effect with strategy = \"{strategy}\"");
            wrong("fresh_baseline", &title, "it starts an instance more, which this avoids");
        }
    }
    let held = section.duration("queue");
    if held.value > LONGEST {
        let longest = scalar::show_duration(LONGEST);
        let expected = format!("visitors wait for {longest} at most");
        wrong("queue", "`queue` is too long", &expected);
    }
    plan.queue = held.value;
    plan.queue_limit = section
        .integer("queue_limit")
        .and_then(|found| u32::try_from(found.value).ok())
        .unwrap_or(0);
    plan.fit = match section.choice("fit") {
        "auto" => Fit::Auto,
        "off" => Fit::Off,
        _ => Fit::Refuse,
    };
}

/// A strategy must be possible with what runs.
pub(super) fn check_exchange(
    section: &Section<'_>,
    template: &RevisionSpec,
    plan: &Plan,
    is_http: bool,
) {
    if plan.strategy != Strategy::Recreate {
        return;
    }
    let place = section.place_of("strategy").unwrap_or_else(|| section.place.clone());
    let title = "strategy = \"recreate\" is not possible here";
    if !is_http {
        let expected = "visitors wait meanwhile, and plain TCP cannot: choose another";
        section.wrong("strategy", &place, title, expected);
    } else if matches!(template.source, Source::Endpoints(_)) {
        let expected = "it stops what serves, and `endpoints` are somebody else's to stop";
        section.wrong("strategy", &place, title, expected);
    }
}
