//! The same raw bytes through Switchback, nginx and HAProxy to origins that others wrote: whatever is
//! forwarded has one reading, and the access log says it. What each proxy does with each vector is
//! pinned in `tests/differential/vectors`.
//!
//! The whole, with every origin and many more mutants:
//! `SWITCHBACK_DIFFERENTIAL=whole cargo test --test stories differential -- --nocapture`
//! Another seed, also of a failure: `SWITCHBACK_SEED=7`.

use std::path::Path;
use std::process::Command;

use crate::support::client;
use crate::support::daemon::PROGRAM;
use crate::support::python::python;

#[test]
fn whatever_is_forwarded_is_read_in_one_way() {
    let Some(python) = python("differential") else { return };
    let whole = std::env::var("SWITCHBACK_DIFFERENTIAL").is_ok_and(|how| how == "whole");
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential");
    let mut run = Command::new(python);
    run.arg(here.join("run.py")).args(["--switchback", PROGRAM]);
    if let Ok(seed) = std::env::var("SWITCHBACK_SEED") {
        run.args(["--seed", &seed]);
    }
    if whole {
        run.args(["--mutants", "20000"]);
    } else {
        run.args(["--mutants", "400", "--origins", "wire,http.server,h11,uvicorn,node"]);
    }
    // An origin that is left out is told of by this, which fails where nothing may be left out.
    client("node");
    // Asked only where both are there: what they do is pinned by version.
    if client("nginx").is_some() && client("haproxy").is_some() {
        run.arg("--peers");
    }
    let output = run.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains(" 0 wrong"), "{said}");
}
