//! Tables of good and bad files.

use super::*;
use crate::model::revision::{ProbeKind, Source};
use crate::rollout::plan::Plan;
use crate::routing::settings::{Affinity, ServiceSettings};
use crate::routing::table::HostPattern;

fn no_files(_: &Path) -> Result<String, String> {
    Err("there is no such file".to_owned())
}

fn read_with(text: &str, variables: &[(&str, &str)], flags: &[&str]) -> Result<Parsed, Problems> {
    let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    parse(&Input {
        name: Path::new("conf/switchback.toml"),
        text,
        variables: &variables,
        flags: &flags,
        read: &no_files,
    })
}

fn read(text: &str) -> Config {
    read_with(text, &[], &[]).unwrap_or_else(|problems| panic!("{problems}")).config
}

/// The smallest service, for tests about something else.
const WEB: &str = "[service.web]\nhost = \"*\"\nimage = \"web\"\nport = 3000\n";

#[test]
#[ignore]
fn print_all() {
    for text in [
        "bake = 30s",
        "[service.web]\nhost = app.example.com\nimage = \"web\nport = 3000",
        "[service.web]\nhosst = \"a\"\nimage = \"web\"\nport = \"3000\"\nbake = \"30\"\nreplicas = 0\nenv = { A = 1 }\nerors = []",
        "[service.web]\nhost = \"*\"\nimage = \"web\"\nport = 3000\n[service.api]\nhost = [\"x\", \"*\"]\npath = \"/\"\nimage = \"web\"\ncommand = [\"x\"]\nport = 3000\n",
        "[service.web]\nhost = \"*\"\nimage = \"web\"\nport = 3000\n[service.api]\nhost = [\"x\", \"*\"]\nimage = \"web\"\nport = 3000\n",
        "[service.web]\nhost = \"*\"\ncommand = \"./web --port {port}\"\n",
        "[service.web]\nhost = \"*\"\ncommand = [\"./web\"]\nmemory=\"1GiB\"",
        "[service.web]\nhost = \"*\"\nendpoints = [\"a:1\", \"10.0.0.1:1\"]\nmemory=\"1GiB\"\nsteps=\"5 50\"\nabort=\"errors < 3\"",
        "[listen]\nhttp=\"0.0.0.0:80\"\nhttps=\"0.0.0.0:80\"\nworkerz=1\n[tls]\ncert=\"x\"\n[admin]\nlisten=\"0.0.0.0:80\"\ntoken=\"short\"\n[service]\nhost=\"x\"\n[services.web]\nport=1\n",
        "[service.Web]\nhost=\"x\"\n[service.web]\nbake=\"1h\"\non_inconclusive=\"stop\"\naffinity=\"sticky\"",
        "a = 1\na = 2\n",
        "[service.web\nhost = \"*\"",
    ] {
        match read_with(text, &[], &[]) {
            Err(p) => eprintln!("{p}\n=========="),
            Ok(p) => eprintln!("OK {}\n=======", p.warnings),
        }
    }
}
