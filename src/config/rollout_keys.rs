//! The keys of the tables below a service that are about its rollouts: probes, smoke tests, hooks.

use super::keys::Key;
use super::keys::Shape::{Choice, Duration, Integer, List, Map, Statuses, Switch, Text};
use super::keys::key;

/// `[[service.NAME.smoke]]`.
pub const SMOKE: &[Key] = &[
    key("path", Text, "", "Path and query of a request to every instance of the canary."),
    key("method", Text, r#""GET""#, "Its method."),
    key("headers", Map, "", "Its header fields; Host is the service's first name otherwise."),
    key("body", Text, "", "What is sent as its body."),
    key("status", Statuses, r#""200-299""#, "Statuses that are well."),
    key("contains", Text, "", "Text that the answer must hold."),
    key("json", Map, "", "Values that the answer's JSON must have, by JSON pointer."),
    key(
        "command",
        List,
        "",
        "Instead of a request: a command on the host, told the instance by SWITCHBACK_URL.",
    ),
    key("timeout", Duration, r#""5s""#, "For one try."),
    key("retries", Integer(0, 100), "3", "Further tries, a second apart."),
];

/// `[service.NAME.mirror]`.
pub const MIRROR: &[Key] = &[
    key("share", Text, r#""10%""#, "The part of the GET and HEAD requests that are copied."),
    key("for", Duration, r#""30s""#, "How long, before the first step."),
    key("max_rate", Text, r#""50/s""#, "The most copies over time, over all workers."),
    key("max_in_flight", Integer(1, 10_000), "10", "The most copies on their way at a time."),
    key(
        "compare_body",
        Switch,
        "false",
        "Whether bodies are compared too, up to 256 KiB and without a Content-Encoding.",
    ),
    key(
        "mask",
        List,
        "[]",
        "Regular expressions of what differs in bodies from one answer to the next: times, tokens.",
    ),
    key("max_different", Text, r#""1%""#, "The part of the bodies that may differ."),
];

/// `[service.NAME.before_deploy]` and the other hooks.
pub const HOOK: &[Key] = &[
    key("command", List, "", "Program and arguments."),
    key(
        "run",
        Choice(&["host", "image"]),
        r#""host""#,
        "On this host, or in a container of the new image that lives for this command.",
    ),
    key("timeout", Duration, r#""5m""#, "Then it is ended, and has failed."),
];

/// `[service.NAME.probe]`.
pub const PROBE: &[Key] = &[
    key(
        "kind",
        Choice(&["auto", "http", "tcp"]),
        r#""auto""#,
        "\"auto\" asks the image's HEALTHCHECK, else GET / for anything below 500; `path` makes it http.",
    ),
    key("path", Text, "", "Path and query of an http probe, which 200 to 299 answer."),
    key("host", Text, "", "Host header of an http probe; the instance's address otherwise."),
    key("interval", Duration, r#""1s""#, "From one probe to the next."),
    key("timeout", Duration, r#""1s""#, "For one probe."),
    key("rise", Integer(1, 100), "2", "Successes in a row that make an instance healthy."),
    key("fall", Integer(1, 100), "3", "Failures in a row that make it unhealthy."),
    key(
        "deadline",
        Duration,
        r#""1m""#,
        "How long the instances of a new revision have to become healthy.",
    ),
];
