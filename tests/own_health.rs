//! An image that brings its own HEALTHCHECK is asked by it, and by nothing else.

use crate::support::daemon::{Daemon, LONG, Runs};
use crate::support::engine::import;
use crate::support::load::Load;

/// The exit code of a rollout that never became healthy.
const UNHEALTHY: i32 = 5;

/// Serves on port 3000 whatever it is told besides, after the given words.
fn serving(first: &str) -> String {
    format!("ENTRYPOINT [\"sh\", \"-c\", \"{first} exec httpd -f -p 3000 -h /www\"]")
}

/// A daemon whose service says nothing of probes, so that the image's own check is asked.
fn unasked(plan: &str, deadline: &str) -> Option<Daemon> {
    let mut daemon = Daemon::configured(Runs::Containers, plan)?;
    let file = daemon.file(plan);
    let probe = format!("probe = {{ interval = \"200ms\", rise = 1, deadline = \"{deadline}\" }}");
    let lines =
        file.lines().map(|line| if line.starts_with("probe =") { probe.as_str() } else { line });
    let file: Vec<&str> = lines.collect();
    daemon.configure(&(file.join("\n") + "\n"));
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    Some(daemon)
}

#[test]
fn a_container_is_healthy_when_its_image_says_so() {
    let Some(daemon) = unasked(LONG, "30s") else { return };
    let host = daemon.engine().unwrap();
    // What it answers would never do for a probe over HTTP: nothing is there.
    let image = import(
        host,
        &[
            &serving("sleep 2; touch /tmp/well;").replace("/www", "/tmp"),
            "HEALTHCHECK --interval=1s --retries=1 CMD test -e /tmp/well",
        ],
    );
    let said = daemon.cli(&["deploy", "web", "-o", "json", "--detach", "--image", &image]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.wait("the canary serves", |web| {
        web["phase"] == "baking" && web["canary"]["instances"][0]["healthy"] == true
    });
    let told = daemon.rollout(2)["events"].to_string();
    assert!(told.contains("the image's HEALTHCHECK passes"), "{told}");
    assert_eq!(daemon.post("abort", "{}").0, 200);
    daemon.wait("its end", |web| web["canary"].is_null());
    assert_eq!(daemon.service()["stable"]["revision"], 1);
}

#[test]
fn a_container_that_its_image_finds_sick_is_never_healthy() {
    let Some(daemon) = unasked(LONG, "10s") else { return };
    let host = daemon.engine().unwrap();
    let running = daemon.running();
    let load = Load::begin(daemon.http, 50);
    for (retries, says) in [
        ("--retries=1", "the image's HEALTHCHECK fails: it exited with code 1 (no database)"),
        // The engine has not concluded when the time is up, and has seen enough.
        ("--retries=99", "HEALTHCHECK has not passed yet: it exited with code 1 (no database)"),
    ] {
        let check = format!("HEALTHCHECK --interval=1s {retries} CMD echo no database; exit 1");
        let image = import(host, &[&serving(""), &check]);
        let deployed = || {
            let said = daemon.cli(&["deploy", "web", "-o", "json", "--image", &image]);
            assert_eq!(said.code, UNHEALTHY, "{said:?}");
            let cause = said.last()["cause"].as_str().unwrap().to_owned();
            eprintln!("{cause}");
            cause
        };
        // An engine with much to do does not always get to ask, which is said as well.
        let mut causes = (0..5).map(|_| deployed());
        let cause = causes.find(|cause| !cause.contains("it has not run so far")).unwrap();
        assert!(cause.contains(says) && cause.contains("not healthy within 10s"), "{cause}");
        assert_eq!(daemon.service()["stable"]["revision"], 1);
        daemon.until("only stable runs", || daemon.running() == running);
    }
    load.end_well();
}
