//! The audit log: what was done, by whom, from where, and what came of it.

use crate::support::daemon::{Daemon, Runs, SHORT};

#[test]
fn every_operation_is_written_down_with_who_and_what_came_of_it() {
    let mut daemon = Daemon::begin(Runs::Processes, SHORT).unwrap();
    assert_eq!(daemon.deploy("none", &["--env", "PASSWORD=hunter2"]).code, 0);
    assert_eq!(daemon.cli(&["abort", "web"]).code, 1, "nothing is under way");
    assert_eq!(daemon.cli(&["freeze", "--all", "--reason", "the fair"]).code, 0);
    assert_eq!(daemon.deploy("none", &[]).code, 1, "frozen");
    assert_eq!(daemon.deploy("none", &["--override"]).code, 0);
    assert_eq!(daemon.cli(&["unfreeze", "--all"]).code, 0);
    assert_eq!(daemon.cli(&["unfreeze", "--all"]).code, 1, "once is enough");
    daemon.deploy_until("none", &["--bake", "20s"], "baking");
    assert_eq!(daemon.cli(&["pause", "web"]).code, 0);
    assert_eq!(daemon.cli(&["weight", "web", "12%"]).code, 0);
    assert_eq!(daemon.cli(&["abort", "web"]).code, 0);
    daemon.wait("the way back", |web| web["phase"] == "rolled_back");
    assert_eq!(daemon.cli(&["rollback", "web"]).code, 0);
    assert_eq!(daemon.cli(&["reload"]).code, 0);
    daemon.signal(rustix::process::Signal::HUP);
    let log = |words: &[&str]| {
        let mut all = vec!["audit", "-n", "1000", "-o", "json"];
        all.extend(words);
        let said = daemon.cli(&all);
        assert_eq!(said.code, 0, "{said:?}");
        said.lines()
    };
    daemon.until("the signal", || {
        log(&["--verb", "reload"]).iter().any(|entry| entry["from"] == "a signal (HUP)")
    });
    // The ends of rollouts are written when they are heard of.
    daemon.until("all entries", || log(&[]).len() >= 19);
    let deeds: Vec<String> = log(&[])
        .iter()
        .map(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap_or("-").to_owned();
            format!("{} {} {}", text("verb"), text("service"), text("outcome"))
        })
        .collect();
    let mut expected = vec![
        "rollout web promoted",
        "deploy web done",
        "rollout web promoted",
        "abort web refused",
        "freeze - done",
        "deploy web refused",
        "deploy web done",
        "rollout web promoted",
        "unfreeze - done",
        "unfreeze - refused",
        "deploy web done",
        "pause web done",
        "weight web done",
        "abort web done",
        "rollout web aborted",
        "rollback web done",
        "rollout web promoted",
        "reload - done",
        "reload - done",
    ];
    // Who asked and how it ended are written by two hands: each in its own order.
    let mut found = deeds.clone();
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected, "{deeds:#?}");

    let me =
        String::from_utf8(std::process::Command::new("id").arg("-un").output().unwrap().stdout);
    let me = me.unwrap().trim().to_owned();
    let override_ = log(&["--verb", "deploy", "--by", &me]).remove(2);
    assert_eq!(override_["asked"]["override_freeze"], true, "{override_:#}");
    assert_eq!(override_["who"], me.as_str());
    assert!(override_["from"].as_str().unwrap().starts_with("the admin socket, process "));
    assert_eq!((&override_["rollout"], &override_["revision"]), (&3.into(), &3.into()));
    let refused = log(&["--verb", "deploy"]).remove(1);
    assert!(refused["detail"].as_str().unwrap().contains("the fair"), "{refused:#}");
    let weight = log(&["--verb", "weight"]).remove(0);
    assert_eq!(weight["asked"]["canary"], 12.0);
    assert!(log(&["--since", "1970-01-01T00:00:00Z"]).len() == deeds.len());
    assert!(log(&["--service", "nobody"]).is_empty());
    let bad = daemon.cli(&["audit", "--since", "soon"]);
    assert!(bad.code == 1 && bad.stderr.contains("neither a moment"), "{bad:?}");
    let text = daemon.cli(&["audit"]).stdout;
    assert!(text.starts_with("WHEN ") && text.contains("override_freeze true"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");

    // It outlives the daemon, and the rollout's own record says who.
    let before = deeds.len();
    daemon.terminate();
    daemon.start();
    let after = daemon.cli(&["audit", "-n", "1000", "-o", "json"]).lines().len();
    assert!(after >= before, "{after} {before}");
    let by = daemon.rollout(2)["by"].as_str().unwrap().to_owned();
    assert!(by.contains(&me), "{by}");
    let record = daemon.rollout(4).to_string();
    assert!(record.contains("said: weight 12%") && !record.contains("a person said"), "{record}");
}
