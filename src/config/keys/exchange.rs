//! Keys of how a new revision takes the place of the old one, and whether the host has room for it.

use super::Shape::{Choice, Duration, Integer, Text};
use super::{Key, key};

/// Keys that a service has.
pub(super) const EXCHANGE: &[Key] = &[
    key(
        "strategy",
        Choice(&["canary", "blue-green", "rolling", "recreate"]),
        r#""canary""#,
        "How a new revision takes the place of the old one: by `steps`; all at once, watched for `bake`; instance by instance; or, on a small host, stopped before the new one starts.",
    ),
    key(
        "group",
        Text,
        "",
        "Services of one group, deployed at a time, take each step together and go back together; who is on the canary of one is on those of all.",
    ),
    key(
        "affinity_domain",
        Text,
        "",
        "With affinity = \"cookie\": the domain whose hosts have the cookie together, such as \"example.com\"; else each host has its own.",
    ),
    key(
        "queue",
        Duration,
        r#""30s""#,
        "With \"recreate\": how long each visitor waits while nothing runs, before being answered 503.",
    ),
    key(
        "queue_limit",
        Integer(0, 10_000),
        "1000",
        "With \"recreate\": how many of them wait on each worker; more are answered 503.",
    ),
    key(
        "fit",
        Choice(&["refuse", "auto", "off"]),
        r#""refuse""#,
        "What happens when the host has no room for two revisions at a time: the deploy is refused with the figures, \"auto\" chooses a strategy that fits, \"off\" does not look.",
    ),
];
