//! Reads what is kept of a service, and how its image is made.

use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::time::Duration;

use super::reader::Section;
use super::scalar;

/// What is kept of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keeping {
    /// Revisions that can be returned to, with their images.
    pub revisions: usize,
    /// Whether a checkpoint is archived before each deploy and rollback.
    pub auto: bool,
    /// Volumes that go into a checkpoint, by source or by path in the container.
    pub volumes: Vec<String>,
    /// Command whose output goes into a checkpoint; empty when there is none.
    pub command: Vec<String>,
    /// Command that takes that output in again; empty when there is none.
    pub restore_command: Vec<String>,
    /// How long either may take.
    pub timeout: Duration,
    /// Automatic checkpoints that stay.
    pub archives: usize,
    /// How long they stay.
    pub max_age: Duration,
}

/// How an image is made from source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// Directory below the source that the builder gets.
    pub context: String,
    /// The Dockerfile, below the context.
    pub dockerfile: String,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// Globs of the files that it is built from; empty is all.
    pub paths: Vec<String>,
}

/// Reads `keep_revisions`, `checkpoint` and `[backup]`. `mounts` are the service's volumes.
pub(super) fn read_keeping(section: &Section<'_>, mounts: &[String]) -> Keeping {
    let backup = section.inner("backup");
    let mut volumes = Vec::new();
    for found in backup.texts("volumes") {
        let is_mounted = mounts.iter().any(|mount| names(mount, &found.value));
        if let (false, Some(place)) = (is_mounted, &found.place) {
            let there_are = match mounts {
                [] => format!("there are no `volumes` in [{}]", section.path),
                _ => format!("expected one of {}", mounts.join(", ")),
            };
            let title = format!("{:?} is not a volume of this service", found.value);
            backup.wrong("volumes", place, title, &there_are);
        }
        volumes.push(found.value);
    }
    let restore = backup.texts("restore_command");
    if let Some(place) = backup.place_of("restore_command").filter(|_| !restore.is_empty()) {
        let expected = if backup.texts("command").is_empty() {
            Some("it takes in what `command` printed: write that too")
        } else if volumes.is_empty() {
            Some("it loads into restored `volumes`, which are new: name those that hold the data")
        } else {
            None
        };
        if let Some(expected) = expected {
            let title = "`restore_command` has nothing to restore into or from";
            backup.wrong("restore_command", &place, title, expected);
        }
    }
    let count = |section: &Section<'_>, name: &str| {
        section.integer(name).map_or(1, |found| usize::try_from(found.value).unwrap_or(usize::MAX))
    };
    Keeping {
        revisions: count(section, "keep_revisions"),
        auto: section.choice("checkpoint") == "auto",
        volumes,
        command: backup.texts("command").into_iter().map(|found| found.value).collect(),
        restore_command: restore.into_iter().map(|found| found.value).collect(),
        timeout: backup.time_limit("timeout"),
        archives: count(&backup, "keep"),
        max_age: backup.time_limit("max_age"),
    }
}

/// Whether a volume of `volumes` (`source:/path[:ro]`) is meant by this name.
#[must_use]
pub fn names(mount: &str, name: &str) -> bool {
    let mut parts = mount.split(':');
    parts.next() == Some(name) || parts.next() == Some(name)
}

/// Reads `paths` and `[build]`.
pub(super) fn read_build(section: &Section<'_>) -> Build {
    let paths = section.each("paths", "a pattern", |value| match value {
        super::raw::Value::Text(text) => scalar::glob(text),
        _ => scalar::glob(""),
    });
    let build = section.inner("build");
    let below = |name: &str| {
        build.parsed(name, "a path", |text| {
            let stays =
                |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
            match !text.is_empty() && Path::new(text).components().all(stays) {
                true => Ok(text.to_owned()),
                false => Err("expected a path below the source, without \"..\"".to_owned()),
            }
        })
    };
    Build {
        context: below("context").map_or_else(|| ".".to_owned(), |found| found.value),
        dockerfile: below("dockerfile")
            .map_or_else(|| "Dockerfile".to_owned(), |found| found.value),
        args: build.map("args"),
        paths: paths.into_iter().map(|found| found.value).collect(),
    }
}
