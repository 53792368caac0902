//! Reads which services belong together, and checks that they can go together.

use super::Service;
use super::problem::{Place, Problem};
use super::reader::Section;
use super::service::Read;
use crate::model::id::ServiceName;
use crate::model::weight::Weight;
use crate::routing::settings::Affinity;
use crate::routing::table::{HostPattern, Route};

/// The group of a service, if it has one.
pub(super) fn read_group(section: &Section<'_>) -> Option<ServiceName> {
    let group = section.parsed("group", "a group", |text| {
        ServiceName::new(text).map_err(|_| {
            "expected 1 to 63 of a-z, 0-9 and '-', a letter or digit at both ends".to_owned()
        })
    });
    group.map(|found| found.value)
}

/// Services of one group are split alike: by the same steps, and by what keeps a visitor on a side.
pub(super) fn check(top: &Section<'_>, services: &[Read]) {
    let wrong = |place: &Place, title: String, label: &str| {
        top.report.add(Problem::error(place.clone(), title).label(label));
    };
    for (at, read) in services.iter().enumerate() {
        let (service, place) = (&read.service, &read.place);
        let Some(group) = &service.group else { continue };
        let name = &service.name;
        if service.settings.affinity == Affinity::None {
            let title = format!("{name} belongs to group {group}, and nothing keeps a visitor");
            wrong(
                place,
                title,
                "write affinity = \"cookie\", \"header:NAME\" or \"client-address\"",
            );
        }
        if !service.plan.strategy.goes_together() {
            let strategy = service.plan.strategy;
            let title = format!("{name} belongs to group {group} and has strategy {strategy}");
            wrong(place, title, "a group goes together with canary or blue-green alone");
        }
        if service.plan.hold_back > Weight::ZERO {
            let title = format!("{name} belongs to group {group} and has `hold_back`");
            wrong(
                place,
                title,
                "leave it out: at the last step all of the group have all visitors",
            );
        }
        let others = services.iter().take(at).map(|other| &other.service);
        let Some(first) = others.into_iter().find(|other| other.group == service.group) else {
            continue;
        };
        let domain = |one: &Service| one.settings.affinity_domain.clone();
        if domain(service) != domain(first) {
            let title = format!(
                "{} and {name} of group {group} have another `affinity_domain`",
                first.name
            );
            wrong(place, title, "write the same `affinity_domain` in both");
        } else if first.settings.affinity != service.settings.affinity {
            let title =
                format!("{} and {name} of group {group} keep visitors otherwise", first.name);
            wrong(place, title, "write the same `affinity` in both");
        }
        let by_cookie = matches!(service.settings.affinity, Affinity::Cookie(_))
            && first.settings.affinity == service.settings.affinity
            && domain(service).is_none();
        if by_cookie && !meet(&first.routes, &service.routes) {
            let title = format!(
                "{} and {name} of group {group} have no host in common, and a cookie belongs to one",
                first.name
            );
            let help = "a visitor may meet the canary of one and stable of the other: write \
                        affinity = \"client-address\" or \"header:NAME\" in both, or the domain that \
                        they share as `affinity_domain`, or serve them by `path` below one host";
            top.report.add(Problem::warning(Some(place.clone()), title).help(help));
        }
        if (first.plan.strategy, &first.plan.steps) != (service.plan.strategy, &service.plan.steps)
        {
            let title = format!("{} and {name} of group {group} have other steps", first.name);
            wrong(place, title, "write the same `strategy` and `steps` in both");
        }
    }
}

/// Whether some visitor may reach both by one host.
fn meet(one: &[Route], other: &[Route]) -> bool {
    use HostPattern::{Any, Below, Exact};
    let is_below = |name: &str, above: &str| {
        name.strip_suffix(above).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    one.iter().any(|a| {
        other.iter().any(|b| match (&a.host, &b.host) {
            (Any, _) | (_, Any) => true,
            (Exact(a), Exact(b)) => a == b,
            (Exact(name), Below(above)) | (Below(above), Exact(name)) => {
                name != above && is_below(name, above)
            }
            (Below(a), Below(b)) => is_below(a, b) || is_below(b, a),
        })
    })
}
