//! The demo keeps what the README promises.

use std::process::Stdio;

use bollard::query_parameters::ListImagesOptions;
use serde_json::Value;

use crate::support::daemon::program;
use crate::support::engine::{engine, on_a_runtime};

const STORIES: [(&str, &str); 4] = [
    ("good", "promoted"),
    ("errors", "rolled_back"),
    ("slow", "rolled_back"),
    ("crash", "rolled_back"),
];

/// The demo's process id.
fn tells_four_stories(words: &[&str], engine: Option<&str>) -> u32 {
    let mut demo = program();
    demo.args(["demo", "--json"]).args(words);
    if let Some(engine) = engine {
        demo.env("DOCKER_HOST", engine);
    }
    let demo = demo.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = demo.id();
    let output = demo.wait_with_output().unwrap();
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
    pid
}

#[test]
fn with_processes() {
    tells_four_stories(&[], None);
}

#[test]
fn with_containers() {
    let Some(host) = engine() else { return };
    let demo = tells_four_stories(&["--runtime", "docker"], Some(&host.url));
    let left = on_a_runtime(async move {
        let images = host.client().list_images(None::<ListImagesOptions>).await.unwrap();
        images.into_iter().flat_map(|image| image.repo_tags).collect::<Vec<_>>()
    });
    let own = format!("switchback-demo:{demo}");
    assert!(!left.contains(&own), "{left:?}");
    assert!(!left.iter().any(|name| name.starts_with("switchback/demo:")), "{left:?}");
}
