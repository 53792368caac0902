//! Reads which services belong together, and checks that they can go together.

use super::problem::{Place, Problem};
use super::reader::Section;
use super::service::Read;
use crate::model::id::ServiceName;
use crate::model::weight::Weight;
use crate::routing::settings::Affinity;

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
        if first.settings.affinity != service.settings.affinity {
            let title =
                format!("{} and {name} of group {group} keep visitors otherwise", first.name);
            wrong(place, title, "write the same `affinity` in both");
        }
        if (first.plan.strategy, &first.plan.steps) != (service.plan.strategy, &service.plan.steps)
        {
            let title = format!("{} and {name} of group {group} have other steps", first.name);
            wrong(place, title, "write the same `strategy` and `steps` in both");
        }
    }
}
