//! The keys of `[tcp.NAME]`: those of a service that need no HTTP, and where it listens.

use super::Shape::{Address, Choice, Table};
use super::{Key, PROBE, SERVICE, key};

/// A key of a service, as it is there.
#[expect(clippy::panic, reason = "only a compiler ever meets it")]
const fn same(name: &str) -> Key {
    let mut at = 0;
    while at < SERVICE.len() {
        let one = &SERVICE[at];
        if is_equal(one.name, name) {
            return Key { name: one.name, shape: one.shape, default: one.default, doc: one.doc };
        }
        at += 1;
    }
    // Found out when this is compiled.
    panic!("a service has no such key")
}

const fn is_equal(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    a.len() == b.len() && at == a.len()
}

/// `[tcp.NAME]`.
pub const TCP: &[Key] = &[
    key("listen", Address, "", "Address on which its clients connect, or a list of them. Needed."),
    same("image"),
    same("command"),
    same("endpoints"),
    same("port"),
    same("replicas"),
    same("env"),
    same("env_file"),
    same("args"),
    same("volumes"),
    same("networks"),
    same("memory"),
    same("cpus"),
    same("pids"),
    same("user"),
    same("capabilities"),
    same("no_new_privileges"),
    same("read_only"),
    same("tmpfs"),
    same("log_size"),
    same("log_files"),
    same("labels"),
    key(
        "proxy_protocol",
        Choice(&["off", "v1", "v2"]),
        r#""off""#,
        "Tells instances who the client is by a PROXY protocol header before each connection.",
    ),
    key(
        "probe",
        Table(PROBE),
        "",
        "How the health of an instance is asked: by connecting, unless `kind` or `path` says otherwise.",
    ),
    same("strategy"),
    same("fit"),
    same("steps"),
    same("bake"),
    same("bake_max"),
    same("on_inconclusive"),
    key(
        "abort",
        super::Shape::Text,
        r#""errors > 1%""#,
        "Limits beyond which the canary is taken back. Errors are connections that were refused, reset, or ended by the instance without a word.",
    ),
    same("keep_warm"),
    same("drain"),
    same("launch_deadline"),
    same("stop_grace"),
    same("connect_timeout"),
    key("idle_timeout", super::Shape::Duration, r#""10m""#, "Without a byte in either direction."),
    same("retries"),
    key(
        "affinity",
        Choice(&["none", "client-address"]),
        r#""none""#,
        "What keeps a client on one side of the split.",
    ),
];
