//! A Python of a story's own, with what PyPI has for it in pinned versions.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::client;

/// A Python with the requirements of `tests/NAME`; none when PyPI does not answer, which is said aloud
/// and is a failure under `CI=true`.
pub fn python(name: &str) -> Option<PathBuf> {
    let ours = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let python = ours.join("bin/python");
    let wanted = Path::new(env!("CARGO_MANIFEST_DIR"));
    let wanted = wanted.join("tests").join(name).join("requirements.txt");
    let text = std::fs::read_to_string(&wanted).unwrap();
    let done = ours.join("requirements.txt");
    if std::fs::read_to_string(&done).is_ok_and(|installed| installed == text) {
        return Some(python);
    }
    let made = Command::new(client("python3")?).args(["-m", "venv", "--clear"]).arg(&ours).output();
    let made = made.unwrap();
    let installed = made.status.success().then(|| {
        let pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"];
        Command::new(&python).args(pip).arg("-r").arg(&wanted).output().unwrap()
    });
    let said = installed.unwrap_or(made);
    if said.status.success() {
        std::fs::write(done, text).unwrap();
        return Some(python);
    }
    let why = String::from_utf8_lossy(&said.stderr);
    assert!(std::env::var("CI").as_deref() != Ok("true"), "PyPI does not answer: {why}");
    eprintln!("SKIPPED: PyPI does not answer: {why}");
    None
}
