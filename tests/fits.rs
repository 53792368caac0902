//! Whether the machine has room for two revisions, looked at before the second one starts.

use crate::kept_images::{configure, of_image};
use crate::support::daemon::{Daemon, Runs, SHORT};
use crate::support::engine::{engine, import};

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
    assert!(
        said.stderr.contains("rolling would fit: deploy it with --strategy rolling"),
        "{said:?}"
    );

    reconfigured(&daemon, &format!("memory = {each}\nfit = \"auto\"\n{three}"));
    let said = daemon.cli(&["deploy", "web", "-o", "json"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.lines()[0]["strategy"], "rolling", "{said:?}");
    assert!(said.stdout.contains("rolling instead of canary, which fits"), "{said:?}");
    let said = daemon.cli(&["deploy", "web", "--dry-run"]);
    assert!(said.stderr.contains("rolling instead of canary, which fits"), "{said:?}");
    daemon.until("three again", || daemon.running().len() == 3);
}

/// What stable holds in memory, in MiB, in the story of its measured use.
const BALLAST: u64 = 300;

#[test]
fn another_image_is_measured_by_what_stable_uses_now() {
    let Some(host) = engine() else { return };
    let (image, next) = (import(&host, &[]), import(&host, &["ENV EDITION=next"]));
    let Some(mut daemon) = of_image(&image, "") else { return };
    let script = format!(
        "dd if=/dev/zero of=/tmp/ballast bs=1048576 count={BALLAST}; exec httpd -f -p 3000 -h /www"
    );
    let write = |daemon: &Daemon, plan: &str| {
        configure(daemon, &image, plan);
        let text = std::fs::read_to_string(daemon.config()).unwrap();
        let args = text.lines().find(|line| line.starts_with("args =")).unwrap().to_owned();
        daemon.configure(&text.replace(&args, &format!("args = [\"sh\", \"-c\", {script:?}]")));
    };
    write(&daemon, "");
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    // So many as surely do not fit, each as large as the one that serves.
    let many = available() / (BALLAST << 20) * 2 + 2;
    write(&daemon, &format!("replicas = {many}\n"));
    assert_eq!(daemon.cli(&["reload"]).code, 0);
    let before = daemon.running();
    let refused = format!("there is no room for {many} instances beside what serves: they need ");
    let said = daemon.cli(&["deploy", "web", "--image", &next, "--dry-run"]);
    assert!(said.stderr.contains(&format!("it would be refused: {refused}")), "{said:?}");
    let said = daemon.cli(&["deploy", "web", "--image", &next]);
    assert_eq!(said.code, 1, "{said:?}");
    for part in [
        refused.as_str(),
        "MiB each, as stable's do now",
        "can be had",
        "rolling would fit: deploy it with --strategy rolling, or write fit = \"auto\"",
    ] {
        assert!(said.stderr.contains(part), "{part:?}: {said:?}");
    }
    let (_, rest) = said.stderr.split_once(" of memory (").unwrap();
    let each: u64 = rest.split_once("MiB each").unwrap().0.parse().unwrap();
    assert!((BALLAST..2 * BALLAST).contains(&each), "{said:?}");
    assert_eq!(daemon.running(), before, "nothing was started or stopped");
    assert_eq!(daemon.service()["stable"]["revision"], 1);

    // An image that is not here: what pulling it takes is not known, and that is said.
    write(&daemon, "");
    assert_eq!(daemon.cli(&["reload"]).code, 0);
    let said = daemon.cli(&["deploy", "web", "--image", "nowhere.test/web:v9", "--dry-run"]);
    assert!(said.stderr.contains("nowhere.test/web:v9 is not here yet"), "{said:?}");
}

#[test]
fn another_image_goes_by_the_strategy_that_fits() {
    let Some(host) = engine() else { return };
    let (image, next) = (import(&host, &[]), import(&host, &["ENV EDITION=next"]));
    let Some(mut daemon) = of_image(&image, "replicas = 3\n") else { return };
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    // One of them fits, and three do not.
    let each = available() / 2;
    configure(&daemon, &image, &format!("replicas = 3\nmemory = {each}\nfit = \"auto\"\n"));
    assert_eq!(daemon.cli(&["reload"]).code, 0);
    let said = daemon.cli(&["deploy", "web", "--image", &next, "--dry-run"]);
    assert!(said.stderr.contains("rolling instead of canary, which fits"), "{said:?}");
    let said = daemon.cli(&["deploy", "web", "--image", &next]);
    assert_eq!(said.code, 0, "{said:?}");
    let all = format!("{}{}", said.stdout, said.stderr);
    for part in ["which is their limit", "rolling instead of canary, which fits"] {
        assert!(all.contains(part), "{part:?}: {said:?}");
    }
    let web = daemon.service();
    assert_eq!((&web["stable"]["image"], &web["stable"]["revision"]), (&next.into(), &2.into()));
    daemon.until("three again", || daemon.running().len() == 3);
}
