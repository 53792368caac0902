//! The demo keeps what the README promises.

use serde_json::Value;

use crate::support::daemon::program;
use crate::support::engine::engine;

const STORIES: [(&str, &str); 4] = [
    ("good", "promoted"),
    ("errors", "rolled_back"),
    ("slow", "rolled_back"),
    ("crash", "rolled_back"),
];

fn tells_four_stories(words: &[&str], engine: Option<&str>) {
    let mut demo = program();
    demo.args(["demo", "--json"]).args(words);
    if let Some(engine) = engine {
        demo.env("DOCKER_HOST", engine);
    }
    let output = demo.output().unwrap();
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    eprintln!("{stdout}{stderr}");
    assert!(output.status.success(), "{}", output.status);
    let told: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(told.len(), STORIES.len());
    for (object, (story, outcome)) in told.iter().zip(STORIES) {
        assert_eq!((&object["story"], &object["outcome"]), (&story.into(), &outcome.into()));
        assert!(object["requests"].as_u64() > Some(0), "{object}");
        assert_eq!(object["seconds_to_zero"].is_null(), story == "good", "{object}");
    }
    assert_eq!(told[0]["failed_for_users"], 0, "a good release is noticed by nobody");
}

#[test]
fn with_processes() {
    tells_four_stories(&[], None);
}

#[test]
fn with_containers() {
    let Some(host) = engine() else { return };
    tells_four_stories(&["--runtime", "docker"], Some(&host.url));
}
