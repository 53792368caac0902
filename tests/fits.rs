//! Whether the machine has room for two revisions, looked at before the second one starts.

use crate::support::daemon::{Daemon, Runs, SHORT};

/// Bytes of memory that this machine can give now.
fn available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}

fn reconfigured(daemon: &Daemon, plan: &str) {
    daemon.configure(&daemon.file(plan));
    let said = daemon.cli(&["reload"]);
    assert_eq!(said.code, 0, "{said:?}");
}

#[test]
fn a_limit_larger_than_the_machine_is_refused_with_the_figures() {
    let Some(daemon) = Daemon::begin(Runs::Containers, SHORT) else { return };
    reconfigured(&daemon, &format!("memory = \"4000GiB\"\n{SHORT}"));
    let before = daemon.running();
    let said = daemon.cli(&["deploy", "web", "--dry-run"]);
    assert_eq!(said.code, 0, "{said:?}");
    let refused = "it would be refused: there is no room for 1 instance beside what serves";
    assert!(said.stderr.contains(refused), "{said:?}");
    let plan = daemon.cli(&["deploy", "web", "--dry-run", "-o", "json"]).last();
    assert_eq!((&plan["possible_now"], &plan["fit"]["fits"]), (&false.into(), &false.into()));
    let said = daemon.cli(&["deploy", "web"]);
    assert_eq!(said.code, 1, "{said:?}");
    for part in [
        "there is no room for 1 instance beside what serves",
        "4000GiB of memory (4000GiB each, which is their limit)",
        "no strategy fits",
        "fit = \"off\"",
    ] {
        assert!(said.stderr.contains(part), "{part:?}: {said:?}");
    }
    assert_eq!(daemon.running(), before, "nothing was started or stopped");
    assert_eq!(daemon.service()["stable"]["revision"], 1);
    // Whoever knows better is believed.
    reconfigured(&daemon, &format!("memory = \"4000GiB\"\nfit = \"off\"\n{SHORT}"));
    let said = daemon.cli(&["deploy", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
}

#[test]
fn a_strategy_that_fits_is_named_or_chosen() {
    let three = format!("replicas = 3\n{SHORT}");
    let Some(daemon) = Daemon::begin(Runs::Containers, &three) else { return };
    // One of them fits, and three do not, whatever else this machine does meanwhile.
    let each = available() / 2;
    reconfigured(&daemon, &format!("memory = {each}\n{three}"));
    let said = daemon.cli(&["deploy", "web"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("3 instances beside what serves"), "{said:?}");
    assert!(said.stderr.contains("`switchback deploy web --strategy rolling`"), "{said:?}");

    reconfigured(&daemon, &format!("memory = {each}\nfit = \"auto\"\n{three}"));
    let said = daemon.cli(&["deploy", "web", "-o", "json"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.lines()[0]["strategy"], "rolling", "{said:?}");
    assert!(said.stdout.contains("rolling instead of canary, which fits"), "{said:?}");
    let said = daemon.cli(&["deploy", "web", "--dry-run"]);
    assert!(said.stderr.contains("rolling instead of canary, which fits"), "{said:?}");
    daemon.until("three again", || daemon.running().len() == 3);
}
