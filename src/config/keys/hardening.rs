//! Keys of what a container may not do.

use super::Shape::{Integer, List, Map, Size, Switch, Text, TextOrList};
use super::{Key, key};

/// Keys that a service has.
pub(super) const HARDENING: &[Key] = &[
    key("memory", Size, "0", "Memory limit of an instance; 0 is none."),
    key(
        "cpus",
        super::Shape::Number(1_024.0),
        "0",
        "CPU limit of an instance in cores; 0 is none.",
    ),
    key(
        "pids",
        Integer(0, 4_194_304),
        "4096",
        "Most processes and threads of an instance; 0 is any number.",
    ),
    key(
        "user",
        Text,
        "",
        "User that an instance runs as, \"name\" or \"uid:gid\". Otherwise the image's; where that is root, nobody (65534), unless volumes are written. \"0\" is root.",
    ),
    key(
        "capabilities",
        TextOrList,
        "[]",
        "What of root's powers a container keeps, such as \"NET_BIND_SERVICE\"; \"default\" is Docker's own set.",
    ),
    key(
        "no_new_privileges",
        Switch,
        "true",
        "Whether nothing in a container can gain more than it began with, by setuid programs for example. A `command` is not kept from it unless this is written.",
    ),
    key(
        "secrets",
        Map,
        "",
        "Secrets by name, each a file relative to this one or \"env:VARIABLE\" of the daemon's. An instance finds them in /run/secrets/NAME, a process in $CREDENTIALS_DIRECTORY/NAME; they are read when it starts, and shown nowhere.",
    ),
    key(
        "own_network",
        Switch,
        "false",
        "Whether the containers of the service have a Docker network of their own, which no other service is on. It comes before `networks`. Off, because an engine has addresses for some thirty networks, and an app on one of its own no longer reaches containers on Docker's bridge by address.",
    ),
    key(
        "read_only",
        Switch,
        "true",
        "Whether the root file system of a container cannot be written.",
    ),
    key(
        "tmpfs",
        List,
        r#"["/tmp", "/run"]"#,
        "Where a container can write nevertheless, in memory: \"/path\" or \"/path:options\" in Docker's words.",
    ),
    key(
        "log_size",
        Size,
        r#""10MiB""#,
        "Size at which a container's output goes into a new file; 0 leaves it to the engine.",
    ),
    key("log_files", Integer(1, 1_000), "5", "How many such files are kept."),
];
