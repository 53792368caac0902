//! HTTP/3 as visitors meet it, by a client that somebody else wrote. Only where it is built in:
//! `cargo test --features http3 http3`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::daemon::{Daemon, Runs};
use crate::support::python::python;

/// A step that a person ends.
const STAYS: &str = "bake = \"10m\"\nbake_max = \"20m\"\nhttps_redirect = false\n";

/// A visitor who asks until it is ended.
struct Visitor(Child);

impl Visitor {
    fn begin(python: &Path, https: SocketAddr) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/http3/ask.py");
        let mut run = Command::new(python);
        run.arg(script).arg(https.port().to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(run.spawn().unwrap())
    }

    /// What it met.
    fn end(mut self) -> Value {
        drop(self.0.stdin.take());
        let output = self.0.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", output.status);
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn begin() -> (Daemon, SocketAddr) {
    let mut daemon = Daemon::configured(Runs::Processes, STAYS).unwrap();
    let https = daemon.secure(STAYS);
    let text = std::fs::read_to_string(daemon.config()).unwrap();
    daemon.configure(&text.replacen("[listen]", "[listen]\nhttp3 = true", 1));
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    daemon.until("the first answer", || daemon.get("/").is_ok_and(|a| a.status == 200));
    (daemon, https)
}

#[test]
fn http3_visitors_notice_no_release_and_no_upgrade() {
    let Some(python) = python("http3") else { return };
    let (mut daemon, https) = begin();
    let visitors: Vec<Visitor> = (0..3).map(|_| Visitor::begin(&python, https)).collect();
    let handshakes = |daemon: &Daemon| {
        let metrics = daemon.metrics();
        let is_it = |line: &&str| {
            line.starts_with("switchback_tls_handshakes_total{") && line.contains("\"ok\"")
        };
        let line = metrics.lines().find(is_it);
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0)
    };
    daemon.until("three visitors", || handshakes(&daemon) >= 3.0);
    daemon.deploy_until("none", &["--steps", "50% 100%"], "baking");
    daemon.wait("requests on both", |web| {
        web["verdict"]["checks"][0]["requests"].as_u64().is_some_and(|count| count > 50)
    });
    daemon.hand_over();
    daemon.until("three visitors again", || handshakes(&daemon) >= 3.0);
    assert_eq!(daemon.cli(&["promote", "web", "--full"]).code, 0);
    daemon.wait("its end", |w| w["phase"] == "promoted" && w["stable"]["revision"] == 2);
    for visitor in visitors {
        let met = visitor.end();
        assert_eq!(met["failed"], serde_json::json!([]), "{met}");
        let statuses = met["statuses"].as_object().unwrap();
        assert_eq!(statuses.keys().collect::<Vec<_>>(), ["200"], "{met}");
        assert!(
            met["uploaded"].as_u64() > Some(0) && met["connections"].as_u64() >= Some(2),
            "{met}"
        );
    }
    daemon.terminate();
}
