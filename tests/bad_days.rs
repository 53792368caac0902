//! Bad days: revisions that cannot start, and surroundings that fail. Each is told in one sentence
//! that says what to change, with the right exit code, and whatever serves goes on serving.

use std::process::Command;

use crate::support::daemon::{Daemon, LONG, Runs, SHORT};
use crate::support::load::Load;

/// The exit code of a configuration that is not valid.
const INVALID: i32 = 7;
/// The exit code of a rollout that never became healthy.
const UNHEALTHY: i32 = 5;
/// The exit code of one that was taken back.
const ROLLED_BACK: i32 = 3;
/// Probes that give up soon.
const IMPATIENT: &str = "probe = { path = \"/up\", interval = \"200ms\", timeout = \"1s\", rise = 1, fall = 2, deadline = \"10s\" }\n";

/// Deploys something that cannot start. Says what was told, and that stable never noticed.
fn never_starts(runs: Runs, fault: &str, parts: &[&str]) -> Option<()> {
    let daemon = Daemon::begin(runs, &format!("{LONG}{IMPATIENT}"))?;
    let running = daemon.running();
    let load = Load::begin(daemon.http, 50);
    let said = daemon.deploy(fault, &[]);
    assert_eq!(said.code, UNHEALTHY, "{said:?}");
    let last = said.last();
    assert_eq!(last["outcome"], "never_healthy", "{said:?}");
    let cause = last["cause"].as_str().unwrap();
    eprintln!("{fault}: {cause}");
    for part in parts {
        assert!(cause.contains(part), "{part:?} is not in {cause:?}");
    }
    assert!(!cause.contains('\n'), "one sentence: {cause:?}");
    if fault == "start" {
        assert!(said.stdout.contains("cannot reach the database"), "its last words: {said:?}");
    }
    assert_eq!(daemon.service()["stable"]["revision"], 1);
    daemon.until("only stable runs", || daemon.running() == running);
    load.end_well();
    Some(())
}

#[test]
fn a_process_that_never_listens() {
    never_starts(Runs::Processes, "mute", &["not healthy within", "listens on no TCP port yet"]);
}

#[test]
fn a_container_that_never_listens() {
    never_starts(
        Runs::Containers,
        "mute",
        &["not healthy within", "listens on no TCP port yet", "port 3000"],
    );
}

#[test]
fn a_container_that_listens_on_its_own_loopback_only() {
    never_starts(Runs::Containers, "loopback", &["not healthy within", "127.0.0.1", "0.0.0.0"]);
}

#[test]
fn a_process_that_redirects_its_health_check() {
    never_starts(Runs::Processes, "redirect", &["not healthy within", "302", "/login"]);
}

#[test]
fn a_container_that_redirects_its_health_check() {
    never_starts(Runs::Containers, "redirect", &["not healthy within", "302", "/login"]);
}

#[test]
fn a_process_that_ends_at_once() {
    // On a busy machine it may end only when it is asked for its health already.
    never_starts(Runs::Processes, "start", &["exited with code 1"]);
}

#[test]
fn a_container_that_ends_at_once() {
    never_starts(Runs::Containers, "start", &["exited with code 1"]);
}

#[test]
fn a_container_that_takes_too_much_memory() {
    let plan = format!("{LONG}memory = \"64MiB\"\n");
    let Some(daemon) = Daemon::begin(Runs::Containers, &plan) else { return };
    let running = daemon.running();
    let load = Load::begin(daemon.http, 50);
    let said = daemon.deploy("memory", &["--steps", "50% 100%"]);
    assert_eq!(said.code, ROLLED_BACK, "{said:?}");
    let cause = said.last()["cause"].as_str().unwrap().to_owned();
    eprintln!("memory: {cause}");
    assert!(said.stdout.contains("memory"), "{said:?}");
    daemon.until("only what ran before runs", || daemon.running() == running);
    drop(load);
    assert_eq!(daemon.get("/").unwrap().status, 200);
}

#[test]
fn an_image_that_does_not_exist() {
    let Some(daemon) = Daemon::begin(Runs::Containers, LONG) else { return };
    let running = daemon.running();
    let load = Load::begin(daemon.http, 50);
    let said = daemon.cli(&["deploy", "web", "--image", "localhost:1/none:v2"]);
    eprintln!("{}", said.stderr);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("localhost:1/none:v2"), "{said:?}");
    assert_eq!(daemon.service()["rollout"], 1, "no rollout was begun");
    daemon.until("only what ran before runs", || daemon.running() == running);
    load.end_well();
}

#[test]
fn a_program_that_does_not_exist() {
    let daemon = Daemon::begin(Runs::Processes, LONG).unwrap();
    let load = Load::begin(daemon.http, 50);
    let said = daemon.cli(&["deploy", "web", "--command", "/no/such/program", "{port}"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("there is no program \"/no/such/program\""), "{said:?}");
    load.end_well();
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused() {
    let mut daemon = Daemon::begin(Runs::Processes, LONG).unwrap();
    let running = daemon.running();
    let load = Load::begin(daemon.http, 50);
    let output = crate::support::daemon::program()
        .args(["run", "--set", "listen.http=127.0.0.1:0", "-c"])
        .arg(daemon.config())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("in use by another daemon: stop that one, or give"), "{said}");
    daemon.until("only what ran before runs", || daemon.running() == running);
    assert!(daemon.service()["service"] == "web", "the first one still answers");
    load.end_well();
    daemon.terminate();
}

#[test]
fn a_port_that_is_in_use_is_named() {
    let mut daemon = Daemon::configured(Runs::Processes, LONG).unwrap();
    let _taken = std::net::TcpListener::bind(daemon.http).unwrap();
    let (code, said) = daemon.refuses_to_start();
    assert_eq!(code, 1, "{said}");
    let port = format!("port {} is in use by another program", daemon.http.port());
    assert!(said.contains(&port), "{said}");
    assert!(daemon.running().is_empty(), "nothing was launched");
}

#[test]
fn a_state_that_is_no_directory_is_named() {
    let mut daemon = Daemon::configured(Runs::Processes, LONG).unwrap();
    std::fs::write(daemon.state(), "").unwrap();
    let (code, said) = daemon.refuses_to_start();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("[state] dir must be a directory that this user may write to"), "{said}");
}

/// A file that is refused before anything starts: where, and why.
fn is_invalid(change: impl Fn(String) -> String, parts: &[&str]) {
    let mut daemon = Daemon::configured(Runs::Processes, LONG).unwrap();
    daemon.configure(&change(daemon.file(LONG)));
    let (code, said) = daemon.refuses_to_start();
    assert_eq!(code, INVALID, "{said}");
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    let checked = daemon.cli(&["check"]);
    assert_eq!(checked.code, INVALID, "{checked:?}");
}

#[test]
fn an_unknown_key_is_named_with_the_nearest() {
    is_invalid(|file| file.replace("drain =", "drian ="), &["drian", "did you mean `drain`"]);
}

#[test]
fn routes_that_overlap_are_named() {
    let other = "\n[service.other]\nhost = \"*\"\ncommand = [\"true\"]\n";
    is_invalid(|file| file + other, &["web", "other", "*"]);
}

#[test]
fn steps_that_do_not_rise_are_named() {
    is_invalid(|file| file + "steps = \"50% 25% 100%\"\n", &["steps must rise"]);
}

#[test]
fn a_certificate_that_is_none_is_named() {
    let mut daemon = Daemon::configured(Runs::Processes, LONG).unwrap();
    let (cert, key) = (daemon.home().join("app.pem"), daemon.home().join("app.key"));
    std::fs::write(&cert, "not a certificate").unwrap();
    std::fs::write(&key, "not a key").unwrap();
    let https = crate::support::daemon::free_address();
    let file = daemon.file(LONG).replace(
        "[admin]",
        &format!("https = \"{https}\"\n[tls]\ncert = {cert:?}\nkey = {key:?}\n[admin]"),
    );
    daemon.configure(&file);
    let (code, said) = daemon.refuses_to_start();
    eprintln!("{said}");
    assert_eq!(code, INVALID, "{said}");
    assert!(said.contains("app.pem"), "{said}");
}

#[test]
fn a_verb_without_a_daemon_says_so() {
    let daemon = Daemon::configured(Runs::Processes, LONG).unwrap();
    let said = daemon.cli(&["status"]);
    assert_eq!(said.code, 6, "{said:?}");
    assert!(said.stderr.contains("admin.sock"), "{said:?}");
}

/// A file system of its own for the state; gone when dropped.
struct Disk(std::path::PathBuf);

impl Disk {
    /// None where that takes more rights than we have, which is said aloud.
    fn new(daemon: &Daemon, size: &str) -> Option<Self> {
        let at = daemon.state();
        std::fs::create_dir_all(&at).unwrap();
        let mounted = rustix::process::geteuid().is_root()
            && mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], &at);
        if !mounted {
            crate::support::skipped("mounting a small file system takes root");
            return None;
        }
        Some(Self(at))
    }

    fn again(&self, options: &str) {
        assert!(mount(&["-o", &format!("remount,{options}")], &self.0));
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("ballast")).unwrap();
        for size in [64 * 1024, 4096, 512, 1] {
            while std::io::Write::write_all(&mut file, &vec![1; size]).is_ok() {}
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(words: &[&str], at: &std::path::Path) -> bool {
    Command::new("mount").args(words).arg(at).status().is_ok_and(|status| status.success())
}

#[test]
fn a_state_that_may_not_be_written_is_named() {
    let mut daemon = Daemon::configured(Runs::Processes, LONG).unwrap();
    let Some(disk) = Disk::new(&daemon, "16m") else { return };
    disk.again("ro");
    let (code, said) = daemon.refuses_to_start();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("[state] dir must be a directory that this user may write to"), "{said}");
}

#[test]
fn a_disk_that_is_full_holds_releases_up_and_visitors_not() {
    let mut daemon = Daemon::configured(Runs::Containers, LONG)
        .or_else(|| Daemon::configured(Runs::Processes, LONG))
        .unwrap();
    let Some(disk) = Disk::new(&daemon, "8m") else { return };
    daemon.expect_error("state not saved");
    daemon.expect_error("the audit log");
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    let running = daemon.running();
    let load = Load::begin(daemon.http, 50);

    // Nothing goes ahead that could not be remembered.
    disk.fill();
    let mut refused = None;
    for _ in 0..5 {
        let said = daemon.cli(&["deploy", "web", "--detach"]);
        if said.code == 0 {
            // There was room for this much within the file; it waits at its first step.
            daemon.wait("it waits", |web| {
                web["phase"] == "paused" && web["notes"].to_string().contains("could not be saved")
            });
            assert_eq!(daemon.service()["weights"]["canary"], 0.0);
            assert_eq!(daemon.cli(&["abort", "web"]).code, 0);
            daemon.wait("it is over", |web| web["canary"].is_null());
        } else {
            refused = Some(said);
        }
    }
    let refused = refused.expect("some were refused");
    eprintln!("{}", refused.stderr);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("the state could not be saved"), "{refused:?}");
    assert!(daemon.status()["notes"].to_string().contains("could not be saved"));
    assert_eq!(daemon.service()["stable"]["revision"], 1);
    daemon.until("only stable runs", || daemon.running() == running);

    // With room again, everything goes on.
    disk.empty();
    let web = daemon.deploy_until("none", &["--steps", "50% 100%"], "baking");
    assert_eq!(web["weights"]["canary"], 50.0);

    // In the middle: no step forward, and back at any time.
    disk.fill();
    let said = daemon.cli(&["promote", "web", "--full"]);
    eprintln!("{said:?}");
    let said = daemon.cli(&["abort", "web"]);
    if said.code == 0 {
        daemon.wait("all on stable", |web| web["weights"]["stable"] == 100.0);
    }
    disk.empty();
    daemon.wait("the end", |web| web["phase"] == "rolled_back" || web["phase"] == "promoted");
    daemon.until("the disk is written again", || {
        daemon.status()["notes"].as_array().is_some_and(Vec::is_empty)
    });
    load.end_well();
    let errors = daemon.log().matches("state not saved").count();
    assert!(errors < 20, "{errors} times the same error in the log");
    daemon.terminate();
    drop(disk);
}

#[test]
fn a_full_disk_does_not_hold_up_the_way_back() {
    let mut daemon = Daemon::configured(Runs::Processes, SHORT).unwrap();
    let Some(disk) = Disk::new(&daemon, "8m") else { return };
    daemon.expect_error("state not saved");
    daemon.expect_error("the audit log");
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    let said = daemon.deploy("none", &["--env", "SAMPLE_NAME=two", "--steps", "100%"]);
    assert_eq!(said.code, 0, "{said:?}");
    let running = daemon.running();
    let load = Load::begin(daemon.http, 50);
    let name = |daemon: &Daemon| {
        daemon.get("/").unwrap().field("x-sample-name").unwrap_or_default().to_owned()
    };
    assert_eq!(name(&daemon), "two");

    // Back and forth until the disk has no room for the record of it.
    disk.fill();
    let (mut expected, mut unwritten) = ("two", false);
    for _ in 0..20 {
        expected = if expected == "two" { "" } else { "two" };
        let said = daemon.cli(&["rollback", "web"]);
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(name(&daemon), expected, "the traffic moves, whatever the disk says");
        daemon.until("only what ran before runs", || daemon.running() == running);
        unwritten = daemon.status()["notes"].to_string().contains("could not be saved");
        if unwritten && expected.is_empty() {
            break;
        }
    }
    assert!(unwritten, "the disk was never full");
    let notes = daemon.log();
    assert!(notes.contains("has the traffic, but a restart would not know it"), "{notes}");

    // A death now comes back to what the disk has, and all of that still runs.
    load.end_well();
    daemon.kill();
    disk.empty();
    daemon.start();
    daemon.until("an answer", || daemon.get("/").is_ok_and(|a| a.status == 200));
    assert_eq!(daemon.running(), running, "neither was stopped");
    let web = daemon.service();
    assert!(web["warm"].is_object(), "{web}");

    // With room, what was done is written, and stays.
    let before = web["stable"]["revision"].clone();
    disk.fill();
    let said = daemon.cli(&["rollback", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
    disk.empty();
    daemon
        .until("it is written", || daemon.status()["notes"].as_array().is_some_and(Vec::is_empty));
    daemon.kill();
    daemon.start();
    let web = daemon.service();
    assert_eq!(web["warm"]["revision"], before, "{web}");
    daemon.until("only what ran before runs", || daemon.running() == running);
    daemon.terminate();
    drop(disk);
}

#[test]
fn a_step_that_shows_nothing_in_its_time_ends_with_the_code_of_a_timeout() {
    let plan = "bake = \"200ms\"\nbake_max = \"600ms\"\non_inconclusive = \"rollback\"\n";
    let daemon = Daemon::begin(Runs::Processes, plan).unwrap();
    let running = daemon.running();
    // Nobody visits, and no traffic is no verdict.
    let said = daemon.deploy("none", &[]);
    assert_eq!(said.code, UNHEALTHY, "{said:?}");
    let last = said.last();
    assert_eq!(last["outcome"], "timed_out", "{said:?}");
    let cause = last["cause"].as_str().unwrap();
    assert!(cause.contains("nothing was shown in the time allowed"), "{cause}");
    let told = daemon.cli(&["deploy", "web"]);
    assert_eq!(told.code, UNHEALTHY, "{told:?}");
    assert!(told.stderr.contains("revision 3 was taken back at 5%"), "{told:?}");
    assert!(told.stderr.contains("nothing was shown in the time allowed"), "{told:?}");
    assert_eq!(daemon.service()["stable"]["revision"], 1);
    daemon.until("only what ran before runs", || daemon.running() == running);
}
