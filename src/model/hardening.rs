//! What a container may not do.

use serde::{Deserialize, Serialize};

/// What a container may not do. As it stands in a record without it: nothing is forbidden, because a
/// revision is never changed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hardening {
    /// Whether an image that would run as root is run as [`NOBODY`], if it writes no volumes.
    pub unprivileged: bool,
    /// Whether nothing in it can gain more than it began with.
    pub no_new_privileges: bool,
    /// What of root's powers it keeps; none is what the engine leaves it.
    pub capabilities: Option<Vec<String>>,
    /// Whether its root file system cannot be written.
    pub read_only: bool,
    /// Where it can write all the same, in memory: a path, and options after a colon.
    pub tmpfs: Vec<String>,
    /// How its output is kept; none is as the engine does.
    pub log: Option<LogFiles>,
}

/// How output is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFiles {
    /// Bytes of one file.
    pub bytes: u64,
    /// How many there are.
    pub files: u32,
}

/// The user and group that own nothing, on every distribution and without a name in the image.
pub const NOBODY: &str = "65534:65534";

/// capabilities(7) of Linux 6.
pub const CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];
