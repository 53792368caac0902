//! The keys of how the health of an instance is asked.

use super::Shape::{Choice, Duration, Integer, Text};
use super::{Key, key};

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
