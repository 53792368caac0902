//! Who is on the canary at 5 % is there at 25 %, and at every further step: known by a header, or by
//! where they come from.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::support::client;
use crate::support::daemon::{Daemon, LONG, Runs};
use crate::support::http::get;

/// Enough that 5 % of them are some: fewer than 3 of 300 are to be expected once in 10,000 runs.
const USERS: u8 = 250;

/// Which users an app named `two` answers; each is asked twice, and gets the same both times.
fn on_the_canary(ask: impl Fn(u8) -> String) -> BTreeSet<u8> {
    let is_there = |user: &u8| {
        let first = ask(*user);
        assert_eq!(ask(*user), first, "user {user} drifts");
        first == "two"
    };
    (1..=USERS).filter(is_there).collect()
}

fn they_stay(affinity: &str, ask: impl Fn(&Daemon, u8) -> String) {
    // So many requests at once on a busy machine are no measure of who is slower.
    let plan = format!("{LONG}affinity = \"{affinity}\"\nabort = \"errors > 50%\"\n");
    let daemon = Daemon::begin(Runs::Processes, &plan).unwrap();
    assert_eq!(on_the_canary(|user| ask(&daemon, user)), BTreeSet::new());
    let more = ["--detach", "--env", "SAMPLE_NAME=two"];
    let said = daemon.deploy("none", &more);
    assert_eq!(said.code, 0, "{said:?}");
    let mut before = BTreeSet::new();
    for weight in [5.0, 25.0, 50.0] {
        daemon.wait("the step", |web| web["weights"]["canary"] == weight);
        let now = on_the_canary(|user| ask(&daemon, user));
        eprintln!("{affinity}: {} of {USERS} at {weight} %", now.len());
        // Five standard deviations of a coin either way.
        let expected = f64::from(USERS) * weight / 100.0;
        let spread = 5.0 * (expected * (1.0 - weight / 100.0)).sqrt();
        assert!((now.len() as f64 - expected).abs() < spread, "{} at {weight} %", now.len());
        assert!(now.is_superset(&before), "{:?} left", before.difference(&now));
        before = now;
        // A restart of the daemon changes nobody's side; that is a story of its own. A person goes on.
        assert_eq!(daemon.cli(&["promote", "web"]).code, 0);
    }
    daemon.wait("all", |web| web["weights"]["canary"] == 100.0);
    assert_eq!(on_the_canary(|user| ask(&daemon, user)).len(), usize::from(USERS));
    assert_eq!(daemon.cli(&["abort", "web"]).code, 0);
    daemon.wait("all back", |web| web["weights"]["stable"] == 100.0);
    assert_eq!(on_the_canary(|user| ask(&daemon, user)), BTreeSet::new());
}

#[test]
fn users_known_by_a_header_stay() {
    they_stay("header:x-user", |daemon, user| {
        let user = format!("user-{user}");
        let answer = get(daemon.http, "/", &[("x-user", &user)]).unwrap();
        assert_eq!(answer.status, 200);
        answer.field("x-sample-name").unwrap_or_default().to_owned()
    });
}

#[test]
fn users_known_by_their_address_stay() {
    they_stay("client-address", |daemon, user| {
        let text = ask_from(Ipv4Addr::new(127, 0, 1, user), daemon.http);
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        let name = text.lines().find_map(|line| line.strip_prefix("x-sample-name: "));
        name.unwrap_or_default().to_owned()
    });
}

/// By a browser's rules, which curl has: what one host gives out for the domain goes to the other too.
#[test]
fn users_known_by_a_cookie_of_a_domain_are_on_one_side_of_all_its_hosts() {
    let Some(curl) = client("curl") else { return };
    let domain = "affinity = \"cookie\"\naffinity_domain = \"shop.test\"\n";
    let plan = format!("{LONG}{domain}group = \"shop\"\nsteps = \"50% 100%\"\n");
    let plan = format!("host = \"web.shop.test\"\n{plan}");
    let mut daemon = Daemon::configured(Runs::Processes, &plan).unwrap();
    let text = daemon.file(&plan);
    let (_, web) = text.split_once("[service.web]\n").unwrap();
    let api = web.replace("web.shop.test", "api.shop.test");
    daemon.configure(&format!("{text}\n[service.api]\n{api}"));
    let said = daemon.cli(&["check"]);
    assert!(said.code == 0 && !said.stderr.contains("in common"), "{said:?}");
    daemon.start();
    let is = |name: &str, phase: &str, canary: f64| {
        let read = daemon.read(&format!("/api/v1/services/{name}")).unwrap_or_default();
        serde_json::from_str::<serde_json::Value>(&read).is_ok_and(|service| {
            service["phase"] == phase && service["weights"]["canary"] == canary
        })
    };
    for name in ["web", "api"] {
        daemon.until("the first revisions", || is(name, "promoted", 0.0));
    }
    let env = serde_json::json!({ "env": { "SAMPLE_NAME": "two" } });
    let body = serde_json::json!({ "services": { "web": env, "api": env } }).to_string();
    assert_eq!(daemon.admin("POST", "/api/v1/deploy", &body).unwrap().status, 202);
    for name in ["web", "api"] {
        daemon.until("both at the step", || is(name, "baking", 50.0));
    }
    let ask = |jar: &std::path::Path, host: &str| {
        let port = daemon.http.port();
        let mut run = std::process::Command::new(&curl);
        run.args(["-sS", "-o", "/dev/null", "-D", "-", "-b"]).arg(jar).arg("-c").arg(jar);
        run.args(["--noproxy", "*", "--resolve", &format!("{host}:{port}:127.0.0.1")]);
        let said = run.arg(format!("http://{host}:{port}/")).output().unwrap();
        let text = String::from_utf8(said.stdout).unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}{:?}", String::from_utf8(said.stderr));
        text.to_ascii_lowercase()
    };
    let mut on_the_canary = 0;
    for user in 0..40 {
        let jar = daemon.home().join(format!("jar-{user}"));
        // Half of them come by the one host, half by the other.
        let hosts = match user % 2 {
            0 => ["web.shop.test", "api.shop.test"],
            _ => ["api.shop.test", "web.shop.test"],
        };
        let [first, second] = hosts.map(|host| ask(&jar, host));
        assert!(first.contains("; domain=shop.test; path=/;"), "{first}");
        assert!(!second.contains("set-cookie"), "who is known gets no other: {second}");
        let is_new = |said: &str| said.contains("x-sample-name: two");
        assert_eq!(is_new(&first), is_new(&second), "user {user}: {first}\n{second}");
        on_the_canary += usize::from(is_new(&first));
    }
    // All or none of 40 by a coin: once in 500,000,000,000.
    assert!((1..40).contains(&on_the_canary), "{on_the_canary}");
    let said = daemon.cli(&["abort", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
    for name in ["web", "api"] {
        daemon.until("both are back", || is(name, "rolled_back", 0.0));
    }
}

/// One answer to somebody at this address of loopback.
fn ask_from(address: Ipv4Addr, to: SocketAddr) -> String {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let mut stream = std::net::TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: story\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}
