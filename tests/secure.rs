//! HTTPS and plain TCP as operators and their visitors meet them: files that change, the CA of this
//! machine, what the status and the metrics say, and rollouts of what speaks no HTTP.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crate::support::client;
use crate::support::daemon::{Daemon, LONG, Runs, SHORT, free_address};
use crate::support::http::get;
use crate::support::load::Load;

/// The configuration with HTTPS on this address, and these tables.
fn with_https(daemon: &Daemon, https: SocketAddr, tables: &str, plan: &str) -> String {
    let with = format!("https = \"{https}\"\n{tables}\n[admin]");
    daemon.file(plan).replacen("[admin]", &with, 1)
}

/// What curl says to a page of this host: the body, or none when it does not trust it.
fn curl(curl: &Path, https: SocketAddr, host: &str, authority: &Path) -> Option<String> {
    let port = https.port();
    let output = Command::new(curl)
        .args(["-sS", "--max-time", "20", "--resolve", &format!("{host}:{port}:127.0.0.1")])
        .arg("--cacert")
        .arg(authority)
        .arg(format!("https://{host}:{port}/"))
        .output()
        .unwrap();
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn write_pair(dir: &Path, host: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let made = rcgen::generate_simple_self_signed(vec![host.to_owned()]).unwrap();
    let key = dir.join("app.key");
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(dir.join("app.pem"), made.cert.pem()).unwrap();
}

#[test]
fn files_that_change_are_served_without_being_told() {
    let Some(tool) = client("curl") else { return };
    let mut daemon = Daemon::configured(Runs::Processes, LONG).unwrap();
    let (home, https) = (daemon.home().to_owned(), free_address());
    write_pair(&home, "story.test");
    let (cert, key) = (home.join("app.pem"), home.join("app.key"));
    let tables = format!("[tls]\ncert = {cert:?}\nkey = {key:?}");
    let plan = format!("{LONG}https_redirect = false\n");
    daemon.configure(&with_https(&daemon, https, &tables, &plan));
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    let load = Load::begin(daemon.http, 30);
    daemon.until("HTTPS", || curl(&tool, https, "story.test", &cert).is_some());
    let before = home.join("before.pem");
    std::fs::copy(&cert, &before).unwrap();
    write_pair(&home, "story.test");
    daemon.until("the new one", || {
        curl(&tool, https, "story.test", &cert).is_some()
            && curl(&tool, https, "story.test", &before).is_none()
    });
    // A signal reads them too, and says what it did.
    write_pair(&home, "story.test");
    let said = daemon.cli(&["reload"]);
    assert!(said.code == 0 && said.stdout.contains("certificates read again"), "{said:?}");
    daemon.until("the newer one", || curl(&tool, https, "story.test", &cert).is_some());
    let said = daemon.cli(&["status"]);
    assert!(said.stdout.contains("certificates  story.test "), "{said:?}");
    let page = daemon.read("/metrics").unwrap();
    let labels = format!("{{name=\"story.test\",source={cert:?}}}");
    for metric in ["tls_certificate_not_after_timestamp_seconds", "tls_certificate_ok"] {
        assert!(page.contains(&format!("switchback_{metric}{labels} ")), "{metric}: {page}");
    }
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    write_cert_again(&cert);
    daemon.until("the loose key", || daemon.status()["notes"].to_string().contains("chmod 600"));
    let said = daemon.cli(&["check"]);
    assert!(said.code == 0 && said.stderr.contains("chmod 600"), "{said:?}");
    load.end_well();
}

/// The same again: only its time is another.
fn write_cert_again(path: &Path) {
    let text = std::fs::read(path).unwrap();
    std::fs::write(path, text).unwrap();
}

#[test]
fn a_ca_of_this_machine_signs_local_names() {
    let Some(tool) = client("curl") else { return };
    let plan = format!("{LONG}https_redirect = false\nhost = [\"story.localhost\", \"*\"]\n");
    let mut daemon = Daemon::configured(Runs::Processes, &plan).unwrap();
    let https = free_address();
    daemon.configure(&with_https(&daemon, https, "[tls]\nlocal = \"all\"", &plan));
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    let authority = daemon.state().join("local-ca.pem");
    daemon.until("HTTPS", || curl(&tool, https, "story.localhost", &authority).is_some());
    let kept = std::fs::read(&authority).unwrap();
    daemon.terminate();
    daemon.start();
    daemon.until("HTTPS again", || curl(&tool, https, "story.localhost", &authority).is_some());
    daemon.until("the app again", || daemon.get("/").is_ok_and(|answer| answer.status == 200));
    assert_eq!(std::fs::read(&authority).unwrap(), kept);
    assert!(daemon.log().contains("update-ca-certificates"), "how to trust it is said");
}

#[test]
fn plain_tcp_is_released_like_anything_else() {
    let mut daemon = Daemon::configured(Runs::Processes, SHORT).unwrap();
    let listen = free_address();
    let file = daemon.file(SHORT);
    let file = file
        .replace("[service.web]\nhost = \"*\"\n", &format!("[tcp.web]\nlisten = \"{listen}\"\n"));
    daemon.configure(&file);
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    daemon.until("the first answer", || get(listen, "/", &[]).is_ok_and(|a| a.status == 200));
    let web = daemon.service();
    assert_eq!(web["routes"][0], format!("tcp://{listen}"));
    let load = Load::begin(listen, 100);
    let said = daemon.deploy("none", &[]);
    assert_eq!(said.code, 0, "{said:?}");
    load.end_well();
    // What instances say is nobody's business here: 5xx is an answer like any other.
    let said = daemon.deploy("errors:1.0", &[]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(get(listen, "/", &[]).unwrap().status, 500);
    assert_eq!(daemon.deploy("none", &[]).code, 0);
    // One that dies is another matter.
    let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&failed));
    // A connection for each: they are what is split.
    let visitor = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            if !get(listen, "/", &[]).is_ok_and(|answer| answer.status == 200) {
                counted.fetch_add(1, Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let said = daemon.deploy("crash:1", &["--bake", "5s"]);
    assert_eq!(said.code, 3, "{said:?}");
    stop.store(true, Ordering::Relaxed);
    visitor.join().unwrap();
    assert!(failed.load(Ordering::Relaxed) < 20, "{failed:?}");
    assert_eq!(get(listen, "/", &[]).unwrap().status, 200);
    // Another address takes a restart, and that is said.
    daemon.configure(&file.replace(&listen.to_string(), &free_address().to_string()));
    let said = daemon.cli(&["reload"]);
    assert!(said.stdout.contains("`listen` of [tcp] needs a restart"), "{said:?}");
}
