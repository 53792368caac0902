//! While two revisions serve, a page comes from one and its assets are asked of the other: no visitor
//! misses any that either has.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::support::daemon::{Daemon, LONG, Runs};
use crate::support::http::get;

/// What the names of the revisions' assets have in them.
const HASHES: [&str; 2] = ["4f2a9c1b", "7d3e8b2c"];
/// So many draws at 50 % fall on one side alone once in 500,000,000,000 times.
const DRAWS: usize = 40;

fn asset(hash: &str) -> String {
    format!("/assets/app-{hash}.js")
}

/// A daemon whose first revision has the first asset.
fn begin(runs: Runs, plan: &str) -> Option<Daemon> {
    let plan = format!("{plan}{LONG}steps = \"50% 100%\"\nkeep_warm = \"1h\"\n");
    let mut daemon = Daemon::configured(runs, &plan)?;
    let text = daemon.file(&plan);
    let variable = format!("SAMPLE_ASSET = {:?}", HASHES[0]);
    daemon.configure(&match runs {
        Runs::Processes => text.replacen("env = { ", &format!("env = {{ {variable}, "), 1),
        Runs::Containers => format!("{text}env = {{ {variable} }}\n"),
    });
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    daemon.until("its asset", || status(&daemon, &asset(HASHES[0])) == 200);
    Some(daemon)
}

fn status(daemon: &Daemon, path: &str) -> u16 {
    daemon.get(path).map_or(0, |answer| answer.status)
}

/// Deploys the revision that has the second asset, up to its first step.
fn next(daemon: &Daemon) {
    let asset = format!("SAMPLE_ASSET={}", HASHES[1]);
    daemon.deploy_until("", &["--env", &asset], "baking");
}

/// Both assets are there, whoever is asked, and what neither has is there for nobody.
fn both_are_there(daemon: &Daemon) {
    for hash in HASHES {
        for _ in 0..DRAWS {
            let answer = daemon.get(&asset(hash)).unwrap();
            assert_eq!((answer.status, answer.body), (200, format!("// {}\n", asset(hash))));
        }
    }
    for path in ["/assets/app-0123abcd.js", "/assets/logo.png"] {
        let answer = daemon.get(path).unwrap();
        let said = (answer.status, answer.body.as_str());
        assert_eq!(said, (404, "there is no such asset\n"), "{path}");
    }
}

/// Visitors who ask for a page and then for what it names.
struct Visitors {
    stop: Arc<AtomicBool>,
    all: Vec<JoinHandle<BTreeSet<String>>>,
}

impl Visitors {
    fn begin(to: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let all = (0..4).map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut seen = BTreeSet::new();
                while !stop.load(Ordering::Relaxed) {
                    seen.insert(visit(to));
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                seen
            })
        });
        let all = all.collect();
        Self { stop, all }
    }

    /// Which assets their pages named.
    fn end(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.all.into_iter().flat_map(|one| one.join().unwrap()).collect()
    }
}

/// The asset that a page named, which was there.
fn visit(to: SocketAddr) -> String {
    let page = get(to, "/", &[]).unwrap();
    assert_eq!(page.status, 200);
    let (_, rest) = page.body.split_once("src=\"").unwrap();
    let (asset, _) = rest.split_once('"').unwrap();
    let answer = get(to, asset, &[]).unwrap();
    assert_eq!((answer.status, answer.body), (200, format!("// {asset}\n")));
    asset.to_owned()
}

fn found(daemon: &Daemon) -> u64 {
    let metrics = daemon.metrics();
    let line = metrics.lines().find(|line| line.starts_with("switchback_assets_found_total"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

fn no_visitor_misses_an_asset(runs: Runs) {
    let Some(daemon) = begin(runs, "") else { return };
    // One revision: what it has not is nowhere.
    assert_eq!(status(&daemon, &asset(HASHES[1])), 404);
    let visitors = Visitors::begin(daemon.http);
    next(&daemon);
    both_are_there(&daemon);
    let at_the_step = found(&daemon);
    assert!(at_the_step > 0, "{}", daemon.metrics());
    // With all traffic on the canary, and when it is stable and the former one warm.
    assert_eq!(daemon.cli(&["promote", "web"]).code, 0);
    daemon.wait("all of it", |web| web["weights"]["canary"] == 100.0);
    both_are_there(&daemon);
    assert_eq!(daemon.cli(&["promote", "web", "--full"]).code, 0);
    let web = daemon.wait("the end", |web| web["phase"] == "promoted" && !web["warm"].is_null());
    assert_eq!((&web["stable"]["revision"], &web["warm"]["revision"]), (&2.into(), &1.into()));
    both_are_there(&daemon);
    assert!(found(&daemon) >= at_the_step + 2 * DRAWS as u64);
    let named = visitors.end();
    assert_eq!(named, HASHES.map(asset).into(), "pages of both were seen");
    // The other revision's answers are no verdict on this one.
    let errors = daemon.service()["stable"]["traffic"]["errors"].clone();
    assert_eq!(errors, 0, "{:#}", daemon.service());
}

#[test]
fn no_visitor_of_processes_misses_an_asset() {
    no_visitor_misses_an_asset(Runs::Processes);
}

#[test]
fn no_visitor_of_containers_misses_an_asset() {
    no_visitor_misses_an_asset(Runs::Containers);
}

#[test]
fn where_it_is_off_a_404_is_a_404() {
    let daemon = begin(Runs::Processes, "assets = \"off\"\n").unwrap();
    next(&daemon);
    for hash in HASHES {
        let all: BTreeSet<u16> = (0..DRAWS).map(|_| status(&daemon, &asset(hash))).collect();
        assert_eq!(all, [200, 404].into(), "as the sides have it");
    }
    assert_eq!(found(&daemon), 0);
    // Where prefixes are written, they decide and not the name.
    let text = std::fs::read_to_string(daemon.config()).unwrap();
    daemon.configure(&text.replace("assets = \"off\"", "assets = [\"/assets/\"]"));
    assert_eq!(daemon.cli(&["reload"]).code, 0);
    for hash in HASHES {
        assert!((0..DRAWS).all(|_| status(&daemon, &asset(hash)) == 200), "{hash}");
    }
    assert_eq!(daemon.cli(&["abort", "web"]).code, 0);
    daemon.wait("it is back", |web| web["phase"] == "rolled_back");
}
