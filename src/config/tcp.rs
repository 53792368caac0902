//! Reads what is particular to `[tcp.NAME]`.

use std::net::SocketAddr;

use super::problem::Problem;
use super::reader::Section;
use crate::analysis::criteria::{Criteria, Metric};
use crate::routing::settings::{Affinity, ServiceSettings};

/// Where its clients connect.
pub(super) fn read_listen(section: &Section<'_>) -> Vec<SocketAddr> {
    let found = section.addresses("listen");
    if found.is_empty() && section.lacks("listen") {
        section.report.add(
            Problem::error(
                section.place.clone(),
                format!("`listen` is missing in [{}]", section.path),
            )
            .label("expected the address on which its clients connect: listen = \"0.0.0.0:5432\""),
        );
    } else if found.is_empty()
        && let Some(place) = section.place_of("listen")
        && section
            .written("listen")
            .is_some_and(|node| node.value == super::raw::Value::Text("off".to_owned()))
    {
        let title = "a plain TCP service is reached by its own address alone";
        section.wrong("listen", &place, title, "expected an address such as \"0.0.0.0:5432\"");
    }
    found.into_iter().map(|found| found.value).collect()
}

/// How its connections are treated.
pub(super) fn read_settings(section: &Section<'_>) -> ServiceSettings {
    let affinity = match section.choice("affinity") {
        "client-address" => Affinity::ClientAddress,
        _ => Affinity::None,
    };
    ServiceSettings {
        connect_timeout: section.time_limit("connect_timeout"),
        idle_timeout: section.time_limit("idle_timeout"),
        retries: section.integer("retries").map_or(0, |found| found.value as u32),
        affinity,
        ..ServiceSettings::default()
    }
}

/// Refuses limits on what is not measured.
pub(super) fn check_criteria(section: &Section<'_>, criteria: &Criteria) {
    let place = section.place_of("abort");
    if let Some(place) = place
        && criteria.limits.iter().any(|limit| !matches!(limit.metric, Metric::Errors))
    {
        let title = "of plain TCP only errors are judged";
        let expected = "latencies are not known, because nobody knows whose turn it is: expected for example \"errors > 1%\"";
        section.wrong("abort", &place, title, expected);
    }
}
