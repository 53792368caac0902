//! What is shipped for Prometheus and Grafana fits what is served.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::client;
use crate::support::daemon::{Daemon, Runs, SHORT};

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

/// Names of ours in an expression, without what histograms add.
fn names(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for part in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        if part.starts_with("switchback_") {
            names.insert(part.trim_end_matches("_bucket").to_owned());
        }
    }
    names
}

/// All texts under a key, wherever it stands.
fn under<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(text) if name == key => found.push(text),
                    value => under(value, key, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| under(value, key, found)),
        _ => {}
    }
}

fn dashboard() -> Value {
    serde_json::from_str(&std::fs::read_to_string(shipped("grafana.json")).unwrap()).unwrap()
}

/// Every expression of the dashboard, with Grafana's variables filled in.
fn expressions() -> Vec<String> {
    let board = dashboard();
    let mut found = Vec::new();
    under(&board, "expr", &mut found);
    let filled = |text: &&str| text.replace("$__rate_interval", "5m").replace("$service", ".*");
    let all: Vec<String> = found.iter().map(filled).collect();
    assert!(all.len() > 30, "{all:?}");
    all
}

fn promtool(tool: &Path, words: &[&str], file: &Path) -> String {
    let output = Command::new(tool).args(words).arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    said.into_owned()
}

#[test]
fn promtool_takes_the_alerts_and_finds_that_they_fire() {
    let Some(tool) = client("promtool") else { return };
    let said = promtool(&tool, &["check", "rules"], &shipped("alerts.yml"));
    assert!(said.contains("17 rules found"), "{said}");
    let said = promtool(&tool, &["test", "rules"], &shipped("alerts.test.yml"));
    assert!(said.contains("SUCCESS"), "{said}");
}

#[test]
fn promtool_takes_every_expression_of_the_dashboard() {
    let Some(tool) = client("promtool") else { return };
    // As recording rules, which are what it checks.
    let mut rules = String::from("groups:\n  - name: dashboard\n    rules:\n");
    for (n, expression) in expressions().iter().enumerate() {
        let quoted = serde_json::to_string(expression).unwrap();
        rules += &format!("      - {{ record: \"a:b{n}\", expr: {quoted} }}\n");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rules.yml");
    std::fs::write(&file, rules).unwrap();
    promtool(&tool, &["check", "rules"], &file);
}

#[test]
fn every_metric_that_is_asked_for_is_served() {
    let daemon = Daemon::begin(Runs::Processes, SHORT).unwrap();
    assert_eq!(daemon.deploy("none", &[]).code, 0);
    // What has no samples yet is known all the same, by the table of all metrics.
    let known: BTreeSet<String> =
        switchback::telemetry::metrics::ALL.iter().map(|metric| metric.name.to_owned()).collect();
    let alerts = std::fs::read_to_string(shipped("alerts.yml")).unwrap();
    let asked: BTreeSet<String> =
        expressions().iter().flat_map(|text| names(text)).chain(names(&alerts)).collect();
    assert!(asked.len() > 25, "{asked:?}");
    let unknown: Vec<&String> = asked.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    // These are on every page.
    let page = daemon.metrics();
    for name in [
        "switchback_frozen",
        "switchback_gate_waiting",
        "switchback_confirm_waiting",
        "switchback_state_disk_free_bytes",
        "switchback_audit_entries_total",
        "switchback_rollouts_total",
    ] {
        assert!(asked.contains(name), "{name} is asked for by nobody");
        assert!(page.lines().any(|line| line.starts_with(name)), "{name} in\n{page}");
    }
    // Labels that expressions select by are those that are served.
    for label in ["side=\"canary\"", "phase=\"paused\"", "outcome=\"failure\"", "outcome=\"fault\""]
    {
        assert!(page.contains(label), "{label} in\n{page}");
    }
}

#[test]
fn the_doctor_says_what_would_stop_a_deploy_with_a_daemon_and_without() {
    let mut daemon = Daemon::begin(Runs::Processes, SHORT).unwrap();
    let said = daemon.cli(&["doctor"]);
    assert_eq!(said.code, 0, "{said:?}");
    for part in
        ["a daemon answers at unix://", "web can be deployed", "are free where the state lies"]
    {
        assert!(said.stdout.contains(part), "{part:?} in {said:?}");
    }
    assert_eq!(daemon.cli(&["freeze", "web", "--reason", "the fair"]).code, 0);
    let said = daemon.cli(&["doctor"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stdout.contains("web is frozen: the fair"), "{said:?}");
    assert!(said.stdout.contains("mend it: `switchback unfreeze web`"), "{said:?}");
    assert!(said.stderr.contains("1 thing would stop a deploy"), "{said:?}");
    let found = daemon.cli(&["doctor", "-o", "json"]).last();
    let bad = found.as_array().unwrap().iter().filter(|one| one["level"] == "bad").count();
    assert_eq!(bad, 1, "{found:#}");

    // The sheet: the daemon, its disk, and what was done last.
    let sheet = daemon.cli(&["status"]).stdout;
    for part in ["\ndaemon    ", " of disk free", "\nlast done\n", "freeze   web  done"] {
        assert!(sheet.contains(part), "{part:?} in {sheet}");
    }
    assert!(daemon.cli(&["top"]).stdout.contains("\ndaemon    "), "on a pipe it is that");

    daemon.terminate();
    let taken = std::net::TcpListener::bind(daemon.http).unwrap();
    let said = daemon.cli(&["doctor"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stdout.contains("no daemon at unix://"), "{said:?}");
    assert!(said.stdout.contains(&format!("{} is taken", daemon.http)), "{said:?}");
    drop(taken);
    let said = daemon.cli(&["doctor"]);
    assert!(said.stdout.contains(&format!("{} can be listened on", daemon.http)), "{said:?}");
    daemon.configure("[service.web]\nhost = \"*\"\ncommand = [\"nothing-of-this-name\"]\n");
    let said = daemon.cli(&["doctor"]);
    assert!(said.stdout.contains("the configuration has 1 problem"), "{said:?}");
    let file = daemon.file(SHORT);
    let program = file.split("command = [\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    daemon.configure(&file.replacen(&program, "/nowhere/app", 1));
    let said = daemon.cli(&["doctor"]);
    assert!(said.stdout.contains("web: there is no program /nowhere/app"), "{said:?}");
}
