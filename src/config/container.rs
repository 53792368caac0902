//! Reads what only a container can be told.

use super::hardening::read_hardening;
use super::raw::Value;
use super::reader::Section;
use crate::model::revision::ContainerSpec;

/// Reads the keys of a service that the `docker` runtime understands.
pub(super) fn read_container(section: &Section<'_>) -> ContainerSpec {
    let texts = |name: &str| section.texts(name).into_iter().map(|found| found.value).collect();
    let volumes = section.each("volumes", "a volume", |value| match value {
        Value::Text(text) => volume(text),
        _ => volume(""),
    });
    let memory = section.size("memory");
    // The Engine refuses less than 6 MiB, in these words: "Minimum memory limit allowed is 6MB".
    if let (1..6_291_456, Some(place)) = (memory.value, &memory.place) {
        section.wrong(
            "memory",
            place,
            "`memory` is too small",
            "the Docker Engine takes 6MiB and more",
        );
    }
    let labels = section.map("labels");
    if let Some(ours) = labels.keys().find(|name| name.starts_with("io.switchback.")) {
        let place = section.place_of("labels").unwrap_or_else(|| section.place.clone());
        let expected = "labels below \"io.switchback.\" say what is ours; choose another name";
        section.wrong("labels", &place, format!("the label {ours:?} is taken"), expected);
    }
    ContainerSpec {
        pull_always: section.choice("pull") == "always",
        args: texts("args"),
        volumes: volumes.into_iter().map(|found| found.value).collect(),
        networks: texts("networks"),
        own_network: section.switch("own_network"),
        labels,
        memory: memory.value,
        cpu_millis: section
            .number("cpus")
            .map_or(0, |found| (found.value * 1_000.0).round() as u64),
        pids: section.integer("pids").map_or(0, |found| found.value),
        user: section.text("user").map(|found| found.value),
        hardening: read_hardening(section),
        ..ContainerSpec::default()
    }
}

fn volume(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [source, target] | [source, target, _] if !source.is_empty() && target.starts_with('/') => {
            if source.starts_with('.') {
                return Err(
                    "a directory of the host is written from the root: \"/srv/data:/data\""
                        .to_owned(),
                );
            }
            Ok(text.to_owned())
        }
        _ => Err("expected \"source:/target\" or \"source:/target:ro\"".to_owned()),
    }
}
