//! Smoke tests and hooks on real instances: what they stop, what they are told, and what they leave.

use crate::support::daemon::{Daemon, Runs, SHORT};

/// The messages of a rollout's record.
fn messages(daemon: &Daemon, rollout: u64) -> Vec<String> {
    let record = daemon.rollout(rollout);
    let events = record["events"].as_array().cloned().unwrap_or_default();
    events.iter().filter_map(|event| event["message"].as_str().map(str::to_owned)).collect()
}

fn tells(daemon: &Daemon, rollout: u64, part: &str) {
    daemon.until(part, || messages(daemon, rollout).iter().any(|message| message.contains(part)));
}

fn smoke_is_before_the_first_visitor(runs: Runs) {
    let plan = format!(
        "{SHORT}smoke = [\n  {{ path = \"/up\", retries = 0 }},\n  \
         {{ path = \"/\", headers = {{ X-Smoke = \"1\" }}, status = 200, retries = 1 }},\n]\n"
    );
    let Some(daemon) = Daemon::begin(runs, &plan) else { return };
    // A good one passes through the phase and is promoted.
    let said = daemon.deploy("none", &[]);
    assert_eq!(said.code, 0, "{said:?}");
    let phases: Vec<String> =
        said.lines().iter().filter_map(|line| line["phase"].as_str().map(str::to_owned)).collect();
    let smoke = phases.iter().position(|phase| phase == "smoke").expect("the phase smoke");
    let baking = phases.iter().position(|phase| phase == "baking").expect("the phase baking");
    assert!(smoke < baking, "{phases:?}");

    // A bad one is healthy, and no visitor meets it.
    let said = daemon.deploy("errors:1", &[]);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(!said.lines().iter().any(|line| line["phase"] == "baking"), "{said:?}");
    let last = said.last();
    let cause = last["cause"].as_str().unwrap();
    assert!(cause.starts_with("smoke test failed: "), "{cause}");
    for part in ["GET /", "expected status 200", "the answer was 500", "(2 times)"] {
        assert!(cause.contains(part), "{part:?} in {cause}");
    }
    assert_eq!(daemon.service()["stable"]["revision"], 2);
    assert_eq!(daemon.service()["weights"]["canary"], 0.0);
}

#[test]
fn smoke_tests_a_process_before_the_first_visitor() {
    smoke_is_before_the_first_visitor(Runs::Processes);
}

#[test]
fn smoke_tests_a_container_before_the_first_visitor() {
    smoke_is_before_the_first_visitor(Runs::Containers);
}

#[test]
fn a_smoke_command_is_told_the_instance() {
    let script = "case \"$SWITCHBACK_URL\" in http://*:*) ;; *) exit 9;; esac; \
                  echo tested $SWITCHBACK_ADDRESS; test $SWITCHBACK_REVISION -lt 3";
    let plan = format!(
        "{SHORT}[[service.web.smoke]]\ncommand = [\"/bin/sh\", \"-c\", {script:?}]\nretries = 0\n"
    );
    let daemon = Daemon::begin(Runs::Processes, &plan).unwrap();
    assert_eq!(daemon.deploy("none", &[]).code, 0);
    let said = daemon.deploy("none", &[]);
    assert_eq!(said.code, 3, "{said:?}");
    let last = said.last();
    let cause = last["cause"].as_str().unwrap();
    assert!(cause.contains("exited with code 1") && cause.contains("tested 127.0.0.1:"), "{cause}");
}

/// Hooks that write into `file` what they were told.
fn hooks(file: &std::path::Path, before: &str) -> String {
    let note = |what: &str| {
        let script = format!(
            "echo {what} $SWITCHBACK_HOOK $SWITCHBACK_SERVICE r$SWITCHBACK_REVISION \
             n$SWITCHBACK_ROLLOUT $SWITCHBACK_CAUSE >> {}; echo {what} was here",
            file.display()
        );
        format!("command = [\"/bin/sh\", \"-c\", {script:?}]\n")
    };
    format!(
        "{SHORT}[service.web.before_deploy]\n{before}timeout = \"1m\"\n\
         [service.web.after_promote]\n{}[service.web.on_rollback]\n{}",
        note("after"),
        note("back")
    )
}

fn read(file: &std::path::Path) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

#[test]
fn hooks_run_in_their_moments_and_their_output_is_kept() {
    let home = tempfile::tempdir().unwrap();
    let (file, switch) = (home.path().join("told"), home.path().join("fail"));
    let script = format!(
        "echo before r$SWITCHBACK_REVISION >> {}; echo migrating; test ! -e {}",
        file.display(),
        switch.display()
    );
    let before = format!("command = [\"/bin/sh\", \"-c\", {script:?}]\n");
    let daemon = Daemon::begin(Runs::Processes, &hooks(&file, &before)).unwrap();
    daemon.until("the first revision's hook", || read(&file).contains("after after_promote"));
    assert_eq!(read(&file), "before r1\nafter after_promote web r1 n1\n");

    assert_eq!(daemon.deploy("none", &[]).code, 0);
    tells(&daemon, 2, "before_deploy: done\n  migrating");
    tells(&daemon, 2, "after_promote: done\n  after was here");

    // A migration that fails: nothing is launched, and the reason is shown.
    std::fs::write(&switch, "").unwrap();
    let running = daemon.running();
    let said = daemon.deploy("none", &[]);
    assert_eq!(said.code, 5, "{said:?}");
    let last = said.last();
    let cause = last["cause"].as_str().unwrap();
    assert!(cause.contains("before_deploy failed: it exited with code 1: migrating"), "{cause}");
    let nothing_new = daemon.running().iter().all(|instance| running.contains(instance));
    assert!(nothing_new, "{:?} after {running:?}", daemon.running());
    tells(&daemon, 3, "on_rollback: done");
    assert!(read(&file).contains("back on_rollback web r3 n3 could not start: before_deploy"));

    // A return by hand runs the hook for the revision that is left.
    std::fs::remove_file(&switch).unwrap();
    assert_eq!(daemon.cli(&["rollback", "web"]).code, 0);
    tells(&daemon, 4, "on_rollback: done");
    assert!(read(&file).contains("back on_rollback web r2 n4"), "{}", read(&file));
}

#[test]
fn a_hook_that_hangs_is_ended_and_may_be_aborted() {
    let before = "command = [\"/bin/sh\", \"-c\", \"echo waiting for a lock; sleep 1000\"]\n";
    let home = tempfile::tempdir().unwrap();
    let hung = hooks(&home.path().join("told"), before).replace("1m", "1s");
    let mut daemon = Daemon::configured(Runs::Processes, &hung).unwrap();
    daemon.start();
    let web = daemon.wait("the hook's limit", |web| web["phase"] == "rolled_back");
    let note = web["notes"][0].as_str().unwrap();
    assert!(note.contains("did not end within 1s and was ended; it last said: waiting"), "{note}");

    daemon.configure(&daemon.file(&hung.replace("1s", "1h")));
    assert_eq!(daemon.cli(&["reload"]).code, 0);
    let said = daemon.cli(&["deploy", "web", "--detach"]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.wait("the launch", |web| web["phase"] == "launching");
    assert_eq!(daemon.cli(&["abort", "web"]).code, 0);
    daemon.wait("the end of it", |web| web["phase"] == "rolled_back");
}

#[test]
fn a_hook_of_the_image_runs_in_a_container_of_its_own() {
    let plan = format!(
        "{SHORT}[service.web.before_deploy]\nrun = \"image\"\n\
         command = [\"sample-app\", \"--no-such-flag\"]\n"
    );
    let Some(mut daemon) = Daemon::configured(Runs::Containers, SHORT) else { return };
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    daemon.configure(&daemon.file(&plan));
    assert_eq!(daemon.cli(&["reload"]).code, 0);
    let running = daemon.running();
    let said = daemon.deploy("none", &[]);
    assert_eq!(said.code, 5, "{said:?}");
    let last = said.last();
    let cause = last["cause"].as_str().unwrap();
    assert!(cause.contains("before_deploy failed: it exited with code 2"), "{cause}");
    daemon.until("only what ran before runs", || daemon.running() == running);

    daemon.configure(&daemon.file(&plan.replace("--no-such-flag", "--help")));
    assert_eq!(daemon.cli(&["reload"]).code, 0);
    assert_eq!(daemon.deploy("none", &[]).code, 0);
    tells(&daemon, 3, "before_deploy: done\n");
}

#[test]
fn a_hook_at_an_end_survives_the_daemon() {
    let home = tempfile::tempdir().unwrap();
    let (file, go) = (home.path().join("told"), home.path().join("go"));
    let script = format!(
        "until test -e {}; do sleep 0.1; done; echo ran for n$SWITCHBACK_ROLLOUT >> {}",
        go.display(),
        file.display()
    );
    let plan = format!(
        "{SHORT}[service.web.after_promote]\ncommand = [\"/bin/sh\", \"-c\", {script:?}]\n"
    );
    let mut daemon = Daemon::begin(Runs::Processes, &plan).unwrap();
    daemon.kill();
    std::fs::write(&go, "").unwrap();
    daemon.start();
    tells(&daemon, 1, "after_promote: done");
    // The one that the dead daemon began may have come to its end too.
    let ran = read(&file);
    assert!(ran.starts_with("ran for n1\n"), "{ran}");
    daemon.terminate();
    daemon.start();
    daemon.until("it is back", || daemon.get("/").is_ok_and(|answer| answer.status == 200));
    let again = read(&file).len() - ran.len();
    assert!(again <= "ran for n1\n".len(), "it runs again only when nobody heard its end");
}
