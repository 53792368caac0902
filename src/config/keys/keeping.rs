//! Keys of what is kept and of where images come from: `[state]`, `[service.NAME.backup]`,
//! `[service.NAME.build]`.

use super::Shape::{Duration, Integer, List, Map, Text, TextOrList};
use super::{Key, key};

/// `[state]`.
pub const STATE: &[Key] = &[
    key(
        "dir",
        Text,
        r#""/var/lib/switchback""#,
        "Directory for rollouts, revisions and their history.",
    ),
    key(
        "checkpoints",
        Text,
        "",
        "Directory for the archives of checkpoints; `checkpoints` below `dir` when not written.",
    ),
    key(
        "secrets",
        Text,
        "",
        "Directory for the secrets of instances while these run; `secrets` below `dir` when not written. On tmpfs, as /run/switchback/secrets, they are on no disk; it must stay while the daemon restarts.",
    ),
    key(
        "audit_keep",
        Duration,
        r#""365d""#,
        "How long the audit log (`audit` below `dir`) goes back, in whole months; `switchback audit` reads it.",
    ),
];

/// `[service.NAME.backup]`.
pub const BACKUP: &[Key] = &[
    key(
        "volumes",
        TextOrList,
        "[]",
        "Volumes that go into a checkpoint, each by its source or by its path in the container.",
    ),
    key(
        "command",
        List,
        "[]",
        "Command run in an instance; what it prints goes into the checkpoint: a database's dump.",
    ),
    key(
        "restore_command",
        List,
        "[]",
        "Command run in an instance that has the restored volumes and no visitors, before a restored revision is deployed and in a restore test; what `command` printed is its standard input.",
    ),
    key("timeout", Duration, r#""30m""#, "How long either command may take."),
    key("keep", Integer(1, 10_000), "10", "Automatic checkpoints that stay; the oldest go first."),
    key(
        "max_age",
        Duration,
        r#""90d""#,
        "How long an automatic checkpoint stays; the newest stays in any case.",
    ),
];

/// `[service.NAME.build]`.
pub const BUILD: &[Key] = &[
    key("context", Text, r#"".""#, "Directory that is sent to the builder, below the source."),
    key("dockerfile", Text, r#""Dockerfile""#, "The Dockerfile, below the context."),
    key("args", Map, "", "Build arguments (ARG in the Dockerfile)."),
];
