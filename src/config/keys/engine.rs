//! The keys of `[admin]`, `[runtime]` and `[log]`.

use super::Shape::{Address, Choice, Secret, Text};
use super::{Key, key};

/// `[admin]`.
pub const ADMIN: &[Key] = &[
    key(
        "socket",
        Text,
        r#""/run/switchback/admin.sock""#,
        "Unix socket of the admin API, with mode 0660.",
    ),
    key(
        "listen",
        Address,
        r#""127.0.0.1:9900""#,
        "TCP address of the admin API, or \"off\". Beyond loopback it needs a token.",
    ),
    key("token", Secret, "", "Bearer token that TCP clients must send; at least 16 characters."),
];

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
