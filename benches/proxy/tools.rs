//! The programs that a benchmark needs, and their versions.

use std::path::PathBuf;
use std::process::Command;

use crate::Result;

/// The programs, found.
#[derive(Debug)]
pub struct Tools {
    /// The peer, `NGINX` or the one on the path.
    pub nginx: PathBuf,
    /// The peer, `HAPROXY` or the one on the path.
    pub haproxy: PathBuf,
    /// What each says of itself.
    pub versions: Vec<String>,
}

/// A program, how it is asked for its version, and Debian's package.
const NEEDED: [(&str, &str, &str); 6] = [
    ("nginx", "-v", "nginx-light"),
    ("haproxy", "-v", "haproxy"),
    ("wrk", "-v", "wrk"),
    ("h2load", "--version", "nghttp2-client"),
    ("valgrind", "--version", "valgrind"),
    ("taskset", "--version", "util-linux"),
];

/// Finds all programs, or says which packages are missing.
pub fn check() -> Result<Tools> {
    let mut found = Vec::new();
    let mut missing = Vec::new();
    let mut versions = Vec::new();
    for (name, flag, package) in NEEDED {
        let path = chosen(name).or_else(|| on_path(name));
        match path {
            Some(path) => {
                versions.push(version(&path, flag));
                found.push((name, path));
            }
            None => missing.push((name, package)),
        }
    }
    if !missing.is_empty() {
        let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
        let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
        return Err(format!(
            "missing: {}\ninstall with: sudo apt-get install --no-install-recommends {}",
            names.join(", "),
            packages.join(" ")
        ));
    }
    let path =
        |wanted: &str| found.iter().find(|(name, _)| *name == wanted).map(|(_, path)| path.clone());
    Ok(Tools {
        nginx: path("nginx").unwrap_or_default(),
        haproxy: path("haproxy").unwrap_or_default(),
        versions,
    })
}

/// A binary named by `NGINX=` or `HAPROXY=`.
fn chosen(name: &str) -> Option<PathBuf> {
    let variable = match name {
        "nginx" => "NGINX",
        "haproxy" => "HAPROXY",
        _ => return None,
    };
    std::env::var_os(variable).map(PathBuf::from)
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps daemons where users do not look.
    let more = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(more)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

fn version(path: &std::path::Path, flag: &str) -> String {
    let Ok(output) = Command::new(path).arg(flag).output() else {
        return format!("{}: cannot be run", path.display());
    };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().next().unwrap_or_default();
    // What follows are dates and addresses.
    line.split(" - ").next().unwrap_or(line).split(" [").next().unwrap_or(line).to_owned()
}
