//! What stands in front of an app: set by the file, changed by a reload, written to a log.

use rustix::process::Signal;

use crate::support::daemon::{Daemon, LONG, Runs};
use crate::support::http::get;

fn status_of(daemon: &Daemon, path: &str) -> u16 {
    get(daemon.http, path, &[]).unwrap().status
}

#[test]
fn a_policy_is_read_changed_and_taken_away_while_it_serves() {
    let daemon = Daemon::begin(Runs::Processes, LONG).unwrap();
    let plain = daemon.file(LONG);
    let running = daemon.running();
    let reload = |text: &str| {
        daemon.configure(&format!("{plain}{text}"));
        let said = daemon.cli(&["reload"]);
        assert_eq!(said.code, 0, "{said:?}");
    };
    assert_eq!(status_of(&daemon, "/admin"), 200);
    reload(
        "rate_limit = \"5/h\"\n\
         [service.web.headers]\nset = { X-Story = \"told\" }\n\
         [[service.web.route]]\npath = \"/admin\"\nallow = \"192.0.2.0/24\"\n\
         [[service.web.route]]\npath = \"/free\"\nrate_limit = \"off\"\nrespond = \"free\"\n",
    );
    let answer = get(daemon.http, "/", &[]).unwrap();
    assert_eq!((answer.status, answer.field("x-story")), (200, Some("told")));
    assert_eq!(status_of(&daemon, "/x/%2e%2e/admin"), 403);
    let passed = (0..10).filter(|_| status_of(&daemon, "/") == 200).count();
    assert_eq!(passed, 4, "one of five came before");
    // A deploy publishes many tables; the limit goes on.
    daemon.deploy_until("none", &["--env", "A=1"], "baking");
    assert_eq!(status_of(&daemon, "/"), 429);
    let free = get(daemon.http, "/free", &[]).unwrap();
    assert_eq!((free.status, free.body.as_str()), (200, "free"));
    assert_eq!(daemon.cli(&["abort", "web"]).code, 0);
    reload("");
    assert_eq!((status_of(&daemon, "/admin"), status_of(&daemon, "/")), (200, 200));
    assert!(!running.is_empty());
}

#[test]
fn the_access_log_is_written_moved_away_and_written_again() {
    let mut daemon = Daemon::configured(Runs::Processes, LONG).unwrap();
    let log = daemon.home().join("logs/access.log");
    daemon.configure(&format!("{}[access_log]\nto = {log:?}\n", daemon.file(LONG)));
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    daemon.until("the first answer", || daemon.get("/").is_ok_and(|a| a.status == 200));
    let written = |path: &std::path::Path, part: &str| {
        std::fs::read_to_string(path).is_ok_and(|text| text.contains(part))
    };
    assert_eq!(status_of(&daemon, "/before?secret"), 200);
    daemon.until("a line", || written(&log, "/before"));
    let text = std::fs::read_to_string(&log).unwrap();
    let line = text.lines().find(|line| line.contains("/before")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["service"], &line["revision"]), (&"web".into(), &1.into()));
    assert_eq!((&line["side"], &line["query"]), (&"stable".into(), &"secret".into()));
    let moved = log.with_extension("moved");
    std::fs::rename(&log, &moved).unwrap();
    daemon.signal(Signal::USR1);
    daemon.until("it is opened anew", || log.exists());
    assert_eq!(status_of(&daemon, "/after"), 200);
    daemon.until("a line", || written(&log, "/after"));
    assert!(!written(&moved, "/after"));
    // What was served just before the end is written too.
    assert_eq!(status_of(&daemon, "/last"), 200);
    daemon.terminate();
    assert!(written(&log, "/last"));
}

/// A service whose routes answer everything: nothing is launched for it, and nothing is missed.
#[test]
fn a_service_without_an_app_answers_by_its_routes() {
    let mut daemon = Daemon::begin(Runs::Processes, LONG).unwrap();
    let site = daemon.home().join("site");
    std::fs::create_dir(&site).unwrap();
    std::fs::write(site.join("index.html"), "hello").unwrap();
    let alone = format!(
        "[service.www]\nhost = \"www.example\"\n\
         [[service.www.route]]\npath = \"/site\"\nstrip_prefix = \"/site\"\nfiles = {site:?}\n\
         [[service.www.route]]\npath = \"/\"\nredirect = \"https://app.example{{uri}}\"\nstatus = 301\n"
    );
    daemon.configure(&format!("{}{alone}", daemon.file(LONG)));
    let said = daemon.cli(&["reload"]);
    assert_eq!(said.code, 0, "{said:?}");
    let answers = |daemon: &Daemon| {
        let host = [("host", "www.example")];
        let answer = get(daemon.http, "/x?y", &host).unwrap();
        assert_eq!(
            (answer.status, answer.field("location")),
            (301, Some("https://app.example/x?y"))
        );
        assert_eq!(get(daemon.http, "/site/", &host).unwrap().body, "hello");
    };
    answers(&daemon);
    let status = daemon.cli(&["status", "www"]);
    assert!(format!("{status:?}").contains("answered by its routes"), "{status:?}");
    let deploy = daemon.cli(&["deploy", "www"]);
    assert!(deploy.code != 0, "{deploy:?}");
    assert!(format!("{deploy:?}").contains("nothing to deploy"), "{deploy:?}");
    // It is there from the beginning, too.
    daemon.terminate();
    daemon.start();
    daemon.until("the app", || daemon.get("/").is_ok_and(|answer| answer.status == 200));
    answers(&daemon);
    assert!(!daemon.log().contains("www: nothing runs yet"));
}
