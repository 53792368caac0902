//! Other people's suites, by the command that `tests/suites/README.md` tells: those that come from PyPI and
//! Debian and need nothing built.
//!
//! Other stories run beside them: how long somebody waits during an attack is not judged by milliseconds. And
//! cases of the WebSocket suite that move megabytes or compress them would take minutes. Both are left to that
//! command by itself.

use std::path::Path;
use std::process::Command;

use crate::support::client;
use crate::support::python::python;

const SUITES: [&str; 8] =
    ["attacks", "kosoku", "grpc", "grpcweb", "httplint", "sslyze", "testssl", "slowhttptest"];
/// What they call, beside Python.
const PROGRAMS: [&str; 3] = ["openssl", "testssl", "slowhttptest"];

/// What the browser's suite calls.
const BROWSER: [&str; 4] = ["openssl", "chromium", "unshare", "busybox"];
/// A network of its own: Chromium gives up what is on its way when the machine's changes, as it does with
/// each container that starts.
const ALONE: &str = "busybox ip link set lo up && exec sh \"$@\"";

#[test]
fn what_others_wrote_to_find_mistakes_finds_none() {
    let has = |programs: &[&str]| programs.iter().all(|program| client(program).is_some());
    let (suites, browser) = (has(&PROGRAMS), has(&BROWSER));
    if !suites && !browser {
        return;
    }
    let Some(python) = python("suites") else { return };
    if browser {
        let mut alone = Command::new("unshare");
        alone.args(["--net", "sh", "-c", ALONE, "sh"]);
        run(alone, &["browser"], &python);
    }
    if suites {
        run(Command::new("sh"), &SUITES, &python);
    }
}

fn run(mut shell: Command, suites: &[&str], python: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suites/run.sh");
    // Eight in a row, below those that other stories are given.
    let port = 10_000 + std::process::id() % 100 * 8;
    let output = shell
        .arg(script)
        .args(suites)
        .env("SWITCHBACK", env!("CARGO_BIN_EXE_switchback"))
        .env("PYTHON", python)
        .env("PORT", port.to_string())
        .env("PATIENCE", "5")
        .env("SECONDS_EACH", "5")
        .env("CASES", "1.* 2.* 3.* 4.* 5.* 6.* 7.* 10.*")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for suite in suites {
        assert!(said.contains(&format!("== {suite}\n")), "{suite} did not run:\n{said}");
    }
}
