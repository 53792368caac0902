//! Every key of the file, once: its name, what it takes, its default, and what it is for.
//!
//! All that needs a list of keys reads this table; defaults are read as what people write is.

pub mod edge;

mod engine;
mod exchange;
mod find;
mod hardening;
mod notify;
mod tcp;
mod tls;

pub use engine::{ADMIN, LOG, RUNTIME};
pub use find::{find, nearest};
pub use notify::{NOTIFY, WEBHOOK};
pub use tcp::TCP;
pub use tls::{ACME, CERTIFICATE, TLS};

use self::exchange::EXCHANGE;
use self::hardening::HARDENING;
use super::listen_keys::LISTEN;
use super::rollout_keys::{HOOK, MIRROR, PROBE, SMOKE};
use Shape::{
    Choice, Duration, Integer, List, Map, Named, Optional, Secret, Secrets, Short, Size, Statuses,
    Switch, Table, Tables, Text, TextOrList,
};

/// A key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub shape: Shape,
    /// Its default as TOML; empty when it has none.
    pub default: &'static str,
    /// What it is for, in one or two sentences.
    pub doc: &'static str,
}

/// What a key takes.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// Text.
    Text,
    /// Text that is never shown.
    Secret,
    /// A whole number from the first to the second.
    Integer(i64, i64),
    /// A number from 0 to this.
    Number(f64),
    /// `"30s"`, `"1h30m"`.
    Duration,
    /// `"512MiB"`, or bytes as a number.
    Size,
    /// `"127.0.0.1:9900"`, a list of such, or `"off"`.
    Address,
    /// `true` or `false`.
    Switch,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of texts.
    List,
    /// One text or a list of texts.
    TextOrList,
    /// `true`, `false`, one text or a list of texts.
    SwitchOrList,
    /// `"5xx"`, `429`, or a list of such.
    Statuses,
    /// Names and texts.
    Map,
    /// Names and texts; the texts are never shown.
    Secrets,
    /// Names, each with one text or a list of texts.
    Patterns,
    /// A table with these keys.
    Table(&'static [Key]),
    /// A table with these keys that means nothing when it is not written.
    Optional(&'static [Key]),
    /// The same, or text, which stands for a table with this one key.
    Short(&'static [Key], &'static str),
    /// Tables with these keys under names of the user's choice.
    Named(&'static [Key]),
    /// A list of tables with these keys.
    Tables(&'static [Key]),
}

impl Shape {
    /// The keys of the table or tables, if it is one.
    #[must_use]
    pub fn keys(self) -> Option<&'static [Key]> {
        match self {
            Table(keys) | Optional(keys) | Named(keys) | Tables(keys) | Short(keys, _) => {
                Some(keys)
            }
            _ => None,
        }
    }

    /// Whether its value must not be shown.
    #[must_use]
    pub fn is_secret(self) -> bool {
        matches!(self, Secret | Secrets)
    }

    /// Whether a variable can hold it: everything but tables.
    #[must_use]
    pub fn fits_a_variable(self) -> bool {
        self.keys().is_none() && !matches!(self, Map | Secrets | Shape::Patterns)
    }
}

mod keeping;

pub(super) const fn key(
    name: &'static str,
    shape: Shape,
    default: &'static str,
    doc: &'static str,
) -> Key {
    Key { name, shape, default, doc }
}

/// The keys at the top of the file.
pub const TOP: &[Key] = &[
    key("listen", Table(LISTEN), "", "Where visitors connect, and what one of them may ask of us."),
    key("tls", Table(TLS), "", "Certificates. With them, `listen.https` is opened."),
    key(
        "acme",
        Table(ACME),
        "",
        "Certificates by themselves, from Let's Encrypt or another authority; `email` is enough.",
    ),
    key("admin", Table(ADMIN), "", "The operator's window: API, metrics, dashboard."),
    key("notify", Named(NOTIFY), "", "Who is told what happens, each under a name."),
    key("state", Table(keeping::STATE), "", "What must survive a restart."),
    key("runtime", Table(RUNTIME), "", "What launches instances."),
    key("log", Table(LOG), "", "What is logged, and how."),
    key(
        "access_log",
        Table(edge::ACCESS_LOG),
        "",
        "A line for each request; USR1 opens the file anew. What falls behind is dropped and counted.",
    ),
    key(
        "service",
        Named(SERVICE),
        "",
        "The services, each under a name of 1 to 63 of a-z, 0-9 and '-'.",
    ),
    key(
        "tcp",
        Named(TCP),
        "",
        "Services that speak no HTTP: plain TCP, with the same split, drain and rollouts by connection.",
    ),
];

/// `[service.NAME]`.
pub const SERVICE: &[Key] = &edge::joined::<{ SERVICE_MORE.len() + edge::OF_SERVICE.len() }>(
    SERVICE_MORE,
    edge::OF_SERVICE,
);

const SERVICE_MORE: &[Key] =
    &edge::joined::<{ SERVICE_RUNS.len() + EXCHANGE.len() }>(SERVICE_RUNS, EXCHANGE);

const SERVICE_RUNS: &[Key] =
    &edge::joined::<{ SERVICE_OWN.len() + HARDENING.len() }>(SERVICE_OWN, HARDENING);

/// Keys that only a service has.
const SERVICE_OWN: &[Key] = &[
    key(
        "host",
        TextOrList,
        "",
        "Names that lead to this service: one, a list, \"*.example.com\", or \"*\".",
    ),
    key("path", TextOrList, r#""/""#, "Path prefix, or a list of them."),
    key(
        "image",
        Text,
        "",
        "Container image to run (runtime docker). `deploy NAME:TAG` replaces the tag.",
    ),
    key(
        "command",
        List,
        "",
        "Program and arguments to run (runtime process); {port} is replaced by a free port.",
    ),
    key("endpoints", TextOrList, "", "Addresses that somebody else runs (runtime static)."),
    key("port", Integer(1, 65_535), "", "Port on which an instance listens. Needed with `image`."),
    key("replicas", Integer(1, 1_000), "1", "Instances of each revision."),
    key("protocol", Choice(&["http1", "h2c"]), r#""http1""#, "What is spoken to instances."),
    key("env", Secrets, "", "Environment variables of an instance."),
    key(
        "env_file",
        TextOrList,
        "",
        "Files of NAME=value lines, relative to this file; `env` wins.",
    ),
    key(
        "pull",
        Choice(&["missing", "always"]),
        r#""missing""#,
        "When the registry is asked for the image: when it is \"missing\" here, or \"always\".",
    ),
    key("args", List, "[]", "Replaces the image's CMD."),
    key("volumes", List, "[]", "Volumes and bind mounts, \"source:/target[:ro]\"."),
    key(
        "networks",
        TextOrList,
        "[]",
        "Docker networks to join; instances are reached on the first. None is the default bridge.",
    ),
    key("labels", Map, "", "Labels of the containers."),
    key("probe", Table(PROBE), "", "How the health of an instance is asked."),
    key(
        "webhook",
        Tables(WEBHOOK),
        "",
        "Programs elsewhere that have a say in its rollouts: 2xx is yes.",
    ),
    key(
        "smoke",
        Tables(SMOKE),
        "",
        "What must go well on the canary before any visitor meets it, in this order.",
    ),
    key(
        "mirror",
        Short(MIRROR, "share"),
        "",
        "Copies requests to a canary before it has visitors, and compares its answers with stable's: a table, or its `share` alone, \"10%\".",
    ),
    key(
        "before_deploy",
        Optional(HOOK),
        "",
        "Runs before instances are launched; its failure ends the rollout. It must bear to be run twice.",
    ),
    key("after_promote", Optional(HOOK), "", "Runs when the new revision is stable."),
    key("on_rollback", Optional(HOOK), "", "Runs when all traffic is back."),
    key(
        "gates",
        TextOrList,
        "[]",
        "Steps that the canary does not leave before a person says so (`switchback promote`).",
    ),
    key("gate_timeout", Duration, r#""1d""#, "How long a gate waits."),
    key(
        "on_gate_timeout",
        Choice(&["hold", "advance", "rollback"]),
        r#""rollback""#,
        "What happens when nobody came to a gate.",
    ),
    key(
        "confirm_within",
        Duration,
        r#""0s""#,
        "After a promotion `switchback confirm` must be said within this, or it is taken back; 0s needs none.",
    ),
    key("steps", Text, r#""5% 25% 50% 100%""#, "The canary's weights, rising to 100%."),
    key(
        "bake",
        Duration,
        r#""30s""#,
        "The least time at a step; it ends when the evidence suffices.",
    ),
    key(
        "bake_max",
        Duration,
        r#""15m""#,
        "The most time at a step; then `on_inconclusive` decides.",
    ),
    key(
        "on_inconclusive",
        Choice(&["hold", "advance", "rollback"]),
        r#""hold""#,
        "What happens when `bake_max` is over and nothing is shown.",
    ),
    key(
        "abort",
        Text,
        r#""errors > 1% or p95 > 1.5x""#,
        "Limits beyond which the canary is taken back; x is times stable, over the same time.",
    ),
    key(
        "warm_up",
        Duration,
        r#""2s""#,
        "How long the latencies of new instances are left out; errors always count. 1m for a JVM.",
    ),
    key(
        "hold_back",
        Text,
        r#""0%""#,
        "What stable keeps at the 100% step, \"5%\" for example, so that there is something to compare with.",
    ),
    key(
        "fresh_baseline",
        Switch,
        "false",
        "Starts one more instance of stable with the canary and compares with that one alone.",
    ),
    key(
        "compare_instances",
        Switch,
        "false",
        "Takes a canary back for its latency only if stable's instances differ less among themselves.",
    ),
    key(
        "record",
        Switch,
        "false",
        "Records what each rollout is judged by, for `switchback analyze`, in the state directory.",
    ),
    key(
        "keep_warm",
        Duration,
        r#""10m""#,
        "How long the former revision stays up after promotion, for a rollback in an instant.",
    ),
    key(
        "drain",
        Duration,
        r#""30s""#,
        "How long requests in flight may finish before they are cut.",
    ),
    key(
        "launch_deadline",
        Duration,
        r#""2m""#,
        "How long launching all instances may take, pulling the image included.",
    ),
    key(
        "keep_revisions",
        Integer(2, 1_000),
        "10",
        "Revisions that can be returned to; their images stay on the engine.",
    ),
    key(
        "checkpoint",
        Choice(&["manual", "auto"]),
        r#""manual""#,
        "\"auto\" archives a checkpoint before each deploy and rollback.",
    ),
    key(
        "backup",
        Table(keeping::BACKUP),
        "",
        "What goes into a checkpoint, and how long it stays.",
    ),
    key(
        "paths",
        TextOrList,
        "[]",
        "Files that it is built from, such as \"backend/**\"; others change nothing for it.",
    ),
    key(
        "build",
        Table(keeping::BUILD),
        "",
        "How `deploy --build` and `deploy --git` make the image.",
    ),
    key("stop_grace", Duration, r#""10s""#, "From asking an instance to stop to killing it."),
    key("connect_timeout", Duration, r#""2s""#, "For a connection to an instance."),
    key(
        "response_timeout",
        Duration,
        r#""60s""#,
        "From the end of a request to the header of its response.",
    ),
    key(
        "idle_timeout",
        Duration,
        r#""5m""#,
        "Without a byte in either direction, on bodies and tunnels.",
    ),
    key(
        "max_body",
        Size,
        "0",
        "Bytes of a request's body; more are answered 413. 0 is any number.",
    ),
    key(
        "buffer_requests",
        Size,
        "0",
        "So many bytes of a request's body are read before an instance is asked for, so that slow uploads hold up none; more goes on as it comes. 0 is off.",
    ),
    key(
        "retries",
        Integer(0, 10),
        "1",
        "Further endpoints that a request may be tried on, when that is safe.",
    ),
    key(
        "retry_budget",
        Text,
        r#""20%""#,
        "The most requests that are sent again, as a part of all that come, beside 10 a second and as many as are on their way.",
    ),
    key(
        "affinity",
        Text,
        r#""none""#,
        "What keeps a user on one side: \"none\", \"cookie\", \"cookie:NAME\", \"header:NAME\" or \"client-address\".",
    ),
    key(
        "errors",
        Statuses,
        r#""5xx""#,
        "Statuses that count as errors: \"5xx\", 429, \"500-504\", or a list. gRPC's count as HTTP's.",
    ),
    key(
        "route_errors",
        Map,
        "",
        "Another rule for paths: { \"/search\" = \"5xx 429\" }; the longest prefix holds.",
    ),
    key(
        "ignore_routes",
        TextOrList,
        "[]",
        "Path prefixes whose requests say nothing about a revision; they are not counted.",
    ),
    key(
        "shield",
        Choice(&["off", "safe", "idempotent"]),
        r#""idempotent""#,
        "Which requests that the canary fails are answered by stable, unseen by the visitor: none, GET and HEAD, or PUT and DELETE too. They count against the canary all the same.",
    ),
    key(
        "shield_budget",
        Text,
        r#""20%""#,
        "The most that the shield adds to stable's own requests, beside 10 a second.",
    ),
    key(
        "shield_body",
        Size,
        r#""64KiB""#,
        "Bytes of a request's body that are kept so that it can be sent again.",
    ),
    key(
        "assets",
        TextOrList,
        r#""auto""#,
        "Files that the other revision is asked for when one says 404: \"auto\" is what has a hash in its name; or path prefixes, or \"off\".",
    ),
    key(
        "client_certificate",
        Choice(&["any", "required"]),
        r#""any""#,
        "\"required\" refuses requests without a verified client certificate (403); needs `tls.client_auth`.",
    ),
    key(
        "tester_secret",
        Secret,
        "",
        "Lets who knows it choose a side (`switchback tester-cookie`); at least 16 characters.",
    ),
    key(
        "canonical_host",
        Text,
        "",
        "The host that visitors are sent to from the others of this service.",
    ),
    key(
        "route",
        Tables(edge::ROUTE),
        "",
        "Requests that are treated otherwise; the first route that fits decides, and says only what differs.",
    ),
];

#[cfg(test)]
mod tests;
