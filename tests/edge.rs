//! The edge as it is run: limits by reload, files and compression by the file, and a system that has no
//! more files to give.

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

use crate::support::daemon::{Daemon, LONG, PATIENCE, Runs};
use crate::support::http::{Connection, get};

fn metric(daemon: &Daemon, name: &str) -> Option<u64> {
    let page = daemon.read("/metrics")?;
    let line = page.lines().find(|line| line.starts_with(&format!("switchback_{name} ")))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn limits_are_reloaded_or_say_that_they_wait_for_a_restart() {
    let daemon = Daemon::begin(Runs::Processes, LONG).unwrap();
    let reload = |text: &str| {
        daemon.configure(text);
        let said = daemon.cli(&["reload"]);
        assert_eq!(said.code, 0, "{said:?}");
        format!("{}{}", said.stdout, said.stderr)
    };
    let passed = || (0..8).filter(|_| get(daemon.http, "/", &[]).unwrap().status == 200).count();
    let plain = daemon.file(LONG);
    reload(&format!("{plain}rate_limit = \"3/h\"\n"));
    assert_eq!(passed(), 3);
    reload(&format!("{plain}rate_limit = \"5/h\"\n"));
    assert_eq!(passed(), 5, "another limit counts anew");
    reload(&format!("{plain}rate_limit = \"5/h\"\nlimits_exempt = \"loopback\"\n"));
    assert_eq!(passed(), 8);
    for line in [
        "max_connections_per_address = 3",
        "connections_exempt = \"loopback\"",
        "header_timeout = \"3s\"",
        "trusted_proxies = \"private\"\nproxy_protocol = \"all\"",
        "trusted_proxies = \"private\"\nclient_header = \"CF-Connecting-IP\"",
    ] {
        let said = reload(&plain.replace("[listen]\n", &format!("[listen]\n{line}\n")));
        assert!(said.contains("[listen] needs a restart"), "{line}: {said}");
        assert_eq!(get(daemon.http, "/", &[]).unwrap().status, 200, "the running one stays");
    }
    let said = reload(&plain);
    assert!(!said.contains("restart"), "{said}");
}

#[test]
fn files_and_compression_come_with_a_reload() {
    let daemon = Daemon::begin(Runs::Processes, LONG).unwrap();
    let public = daemon.home().join("public");
    std::fs::create_dir_all(public.join("assets")).unwrap();
    let style = "a { color: red }\n".repeat(500);
    std::fs::write(public.join("assets/a.css"), &style).unwrap();
    // Relative to the file, as all paths in it.
    daemon.configure(&format!(
        "{}compress = true\n[[service.web.route]]\npath = \"/assets\"\nfiles = \"public\"\n",
        daemon.file(LONG)
    ));
    assert_eq!(daemon.cli(&["reload"]).code, 0);
    let answer = get(daemon.http, "/assets/a.css", &[]).unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, style.as_str()));
    assert_eq!(answer.field("vary"), Some("accept-encoding"));
    let small = std::process::Command::new("curl")
        .args(["-sS", "--compressed", "-D", "-", "-o"])
        .arg(daemon.home().join("got.css"))
        .arg(format!("http://{}/assets/a.css", daemon.http))
        .output()
        .unwrap();
    let head = String::from_utf8_lossy(&small.stdout).to_ascii_lowercase();
    assert!(small.status.success() && head.contains("content-encoding: "), "{small:?}");
    assert_eq!(std::fs::read_to_string(daemon.home().join("got.css")).unwrap(), style);
    std::fs::remove_file(public.join("assets/a.css")).unwrap();
    assert_eq!(get(daemon.http, "/assets/a.css", &[]).unwrap().status, 404);
}

#[test]
fn when_files_run_out_who_only_waits_makes_room() {
    let daemon = Daemon::begin(Runs::Processes, LONG).unwrap();
    let pid = daemon.pid().unwrap();
    let open = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).unwrap().count();
    let limit = Rlimit { current: Some(open as u64 + 30), ..getrlimit(Resource::Nofile) };
    prlimit(Some(pid), Resource::Nofile, limit).unwrap();
    let mut clients = Vec::new();
    for number in 0..60 {
        let mut client = Connection::open(daemon.http, PATIENCE).unwrap();
        let (answer, _) = client.ask("GET", "/", &[("host", "story")], "").unwrap();
        assert_eq!(answer.status, 200, "client {number}");
        clients.push(client);
    }
    daemon.until("it is counted", || {
        metric(&daemon, "accept_failures_total").is_some_and(|count| count > 0)
    });
    assert!(metric(&daemon, "connections_open").unwrap() <= 30);
    assert_eq!(get(daemon.http, "/", &[]).unwrap().status, 200);
}
