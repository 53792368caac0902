//! The keys of `[runtime]` and `[log]`.

use super::Shape::{Choice, Text};
use super::{Key, key};

/// `[runtime]`.
pub const RUNTIME: &[Key] = &[
    key(
        "docker",
        Text,
        r#""unix:///var/run/docker.sock""#,
        "The Docker Engine, unix:// or tcp://. DOCKER_HOST is honoured when this is not written.",
    ),
    key(
        "labels",
        Choice(&["off", "on"]),
        r#""off""#,
        "Whether containers that somebody else runs make services by their labels: switchback.host, .port, .path, .health, .steps, .bake, .abort, .service.",
    ),
];

/// `[log]`.
pub const LOG: &[Key] = &[
    key(
        "format",
        Choice(&["auto", "text", "json"]),
        r#""auto""#,
        "\"auto\" is text on a terminal and JSON otherwise.",
    ),
    key(
        "filter",
        Text,
        r#""info""#,
        "Levels, also per module: \"info,switchback::proxy=debug\". Also set by SWITCHBACK_LOG.",
    ),
];
