//! `switchback doctor`: what would stop a deploy today, and how to mend it.
//!
//! Asks the daemon when one answers. Whether or not, it reads the configuration and tries what a
//! deploy needs from this machine: programs, the engine, room on the disk; without a daemon also the
//! addresses and directories that it would open. It changes nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::client::Client;
use super::console::{Console, Line, Look};
use super::exit::Exit;
use super::figures;
use crate::config::load::{environment, load, locate};
use crate::config::{Config, State};
use crate::controller::status::{DaemonStatus, ServiceStatus};
use crate::model::revision::Source;

/// Below this a pull or an archive may fail midway.
const LITTLE: u64 = 1_000_000_000;
/// Days in which a certificate should have been renewed.
const SOON: i64 = 14;
/// How long an engine may take to say that it lives.
const ENGINE_WITHIN: Duration = Duration::from_secs(5);

/// What the kernel calls tmpfs and ramfs (linux/magic.h).
const MEMORY: [rustix::fs::FsWord; 2] = [0x0102_1994, 0x8584_58f6];

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Good,
    /// It stops no deploy, and should be looked at.
    Watch,
    /// It stops a deploy.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// How bad it is.
    pub level: Level,
    /// What was found, in one sentence.
    pub what: String,
    /// How to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Found {
    fn good(what: impl Into<String>) -> Self {
        Self { level: Level::Good, what: what.into(), fix: None }
    }

    fn watch(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { level: Level::Watch, what: what.into(), fix: Some(fix.into()) }
    }

    fn bad(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { level: Level::Bad, what: what.into(), fix: Some(fix.into()) }
    }
}

/// Looks at everything.
pub async fn run(client: &Client, console: &mut Console, file: Option<&Path>, json: bool) -> Exit {
    let variables = environment();
    let path = locate(file, &variables);
    let read = path.and_then(|path| load(&path, &variables, &[]).map(|read| (path, read)));
    let mut found = Vec::new();
    let config = match read {
        Ok((path, read)) => {
            found.push(Found::good(format!("{} can be read", path.display())));
            Some(read.config)
        }
        Err(problems) => {
            let fix = "`switchback check` names each problem with its line";
            let count = problems.errors().max(1);
            let what =
                format!("the configuration has {}", figures::plural(count as u64, "problem"));
            found.push(Found::bad(what, fix));
            None
        }
    };
    let asked = async { Ok((client.daemon().await?, client.services().await?)) };
    let asked: Result<_, super::trouble::Trouble> = asked.await;
    match &asked {
        Ok((daemon, services)) => {
            found.push(Found::good(format!("a daemon answers at {}", client.place())));
            of_daemon(daemon, &mut found);
            for service in services {
                of_service(service, &mut found);
            }
        }
        Err(trouble) => {
            let fix = "`systemctl start switchback`, or `switchback run`";
            found.push(Found::bad(trouble.sentence.clone(), fix));
        }
    }
    if let Some(config) = &config {
        of_machine(config, asked.is_ok(), &mut found);
    }
    told(console, &found, json)
}

fn told(console: &mut Console, found: &[Found], json: bool) -> Exit {
    let bad = found.iter().filter(|one| one.level == Level::Bad).count();
    if json {
        console.json(&found);
    } else {
        let signs = console.signs();
        for one in found {
            let (sign, look) = match one.level {
                Level::Good => (signs.good, Look::Good),
                Level::Watch => ("!", Look::Unsure),
                Level::Bad => (signs.bad, Look::Bad),
            };
            console.data(Line::new().and(look, sign).plain(" ").plain(&one.what));
            if let Some(fix) = &one.fix {
                console.data(Line::new().plain("    ").and(Look::Faint, "mend it: ").plain(fix));
            }
        }
        let watch = found.iter().filter(|one| one.level == Level::Watch).count();
        let line = match (bad, watch) {
            (0, 0) => "nothing would stop a deploy".to_owned(),
            (0, watch) => {
                let things = figures::plural(watch as u64, "thing");
                format!("nothing would stop a deploy; {things} should be looked at")
            }
            (1, _) => "1 thing would stop a deploy".to_owned(),
            (bad, _) => format!("{bad} things would stop a deploy"),
        };
        console.talk(line);
    }
    if bad == 0 { Exit::Done } else { Exit::Error }
}

fn of_daemon(daemon: &DaemonStatus, found: &mut Vec<Found>) {
    if daemon.stopping {
        found.push(Found::bad("the daemon is stopping", "start it again, then deploy"));
    }
    match daemon.docker {
        Some(true) => found.push(Found::good("the Docker engine answers the daemon")),
        Some(false) => {
            let fix = "`systemctl status docker`; `runtime.docker` says where it is looked for";
            found.push(Found::bad("the Docker engine does not answer the daemon", fix));
        }
        None => {}
    }
    if daemon.reload_refused {
        let fix = "`switchback check`, then `switchback reload`";
        found.push(Found::watch("what runs is not what the file says: it was refused", fix));
    }
    for one in &daemon.certificates {
        let name = one.names.first().map_or("a certificate", String::as_str);
        let soon = one.days_left.is_some_and(|days| days < SOON);
        if let Some(note) = one.note.as_ref().filter(|_| one.days_left.is_none_or(|d| d < SOON)) {
            let fix = "for ACME: port 80 open and the name pointing here; else new files, which are \
                       read by themselves";
            found.push(Found::watch(format!("{name}: {note}"), fix));
        } else if soon {
            let days = one.days_left.unwrap_or(0);
            let fix = "put new files in their place, they are read by themselves";
            found
                .push(Found::watch(format!("the certificate of {name} has {days} days left"), fix));
        }
    }
    for one in &daemon.notify {
        if let Some(trouble) = &one.trouble {
            let what = format!("[notify.{}] takes no messages: {trouble}", one.name);
            found.push(Found::watch(what, format!("`switchback notify test {}`", one.name)));
        }
    }
    if let Some(free) = daemon.disk_free {
        disk("where the state lies", free, found);
    }
}

fn disk(place: &str, free: u64, found: &mut Vec<Found>) {
    let amount = figures::bytes(free);
    if free < LITTLE {
        let fix = "`switchback clean` shows what could be freed, --yes frees it";
        found.push(Found::bad(format!("only {amount} are free {place}"), fix));
    } else {
        found.push(Found::good(format!("{amount} are free {place}")));
    }
}

fn of_service(service: &ServiceStatus, found: &mut Vec<Found>) {
    let name = &service.service;
    let before = found.len();
    if let Some(freeze) = &service.freeze {
        let until = freeze.until.as_ref().map(|until| format!(" until {until}"));
        let what = format!("{name} is frozen{}: {}", until.unwrap_or_default(), freeze.reason);
        let fix =
            format!("`switchback unfreeze {name}`, or `deploy --override`, which is recorded");
        found.push(Found::bad(what, fix));
    }
    if let Some(confirm) = &service.confirm {
        let what = format!("revision {} of {name} waits to be confirmed", confirm.revision);
        let fix = format!("`switchback confirm {name}`, or `switchback rollback {name}`");
        found.push(Found::bad(what, fix));
    }
    if !matches!(service.phase.as_str(), "idle" | "promoted" | "rolled_back") {
        let phase = service.phase.replace('_', " ");
        let what = format!("a rollout of {name} is under way ({phase})");
        let fix = format!("wait for its end, or `switchback abort {name}`");
        found.push(Found::bad(what, fix));
    }
    if let Some(reason) = service.unserved() {
        let fix = format!("`switchback logs {name}`; a deploy of what works mends it");
        found.push(Found::watch(reason, fix));
    }
    if service.maintenance.is_some() {
        let fix = format!("`switchback maintenance {name} off`");
        found.push(Found::watch(format!("{name} is in maintenance: a canary sees nobody"), fix));
    }
    if found.len() == before {
        found.push(Found::good(format!("{name} can be deployed")));
    }
}

fn of_machine(config: &Config, runs: bool, found: &mut Vec<Found>) {
    let images = config.services.iter().any(|one| matches!(one.template.source, Source::Image(_)));
    if images {
        engine(&config.runtime.docker, found);
    }
    for service in &config.services {
        if let Source::Command(words) = &service.template.source
            && let Some(program) = words.first()
            && !is_program(program)
        {
            let what = format!("{}: there is no program {program}", service.name);
            found.push(Found::bad(what, "install it, or correct `command`"));
        }
    }
    if config.services.iter().any(|one| !one.template.secrets.is_empty()) {
        found.push(Found::good(secrets(&config.state)));
    }
    let free = |path: &Path| {
        let there = path.ancestors().find(|path| path.exists())?;
        let found = rustix::fs::statvfs(there).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    };
    let mut places = vec![(&config.state.checkpoints, "where checkpoints lie")];
    if !runs {
        places.push((&config.state.dir, "where the state lies"));
    }
    for (path, place) in places {
        if let Some(free) = free(path) {
            disk(place, free, found);
        }
    }
    if runs {
        return;
    }
    let listen = &config.listen;
    for address in listen.http.iter().chain(&listen.https).chain(&config.admin.listen) {
        port(*address, found);
    }
    for dir in
        [Some(config.state.dir.as_path()), config.admin.socket.parent()].into_iter().flatten()
    {
        directory(dir, found);
    }
}

/// Where secrets of instances lie while these run.
fn secrets(state: &State) -> String {
    let dir = state.secrets.clone().unwrap_or_else(|| state.dir.join("secrets"));
    let there = dir.ancestors().find(|path| path.exists());
    let kind = there.and_then(|path| rustix::fs::statfs(path).ok()).map(|found| found.f_type);
    let shown = dir.display();
    if kind.is_some_and(|kind| MEMORY.contains(&kind)) {
        return format!("secrets of instances lie in memory, below {shown}, where only we enter");
    }
    format!(
        "secrets of instances lie on a disk, below {shown}, where only we enter; [state] secrets on tmpfs \
         keeps them off it"
    )
}

fn port(address: SocketAddr, found: &mut Vec<Found>) {
    match TcpListener::bind(address) {
        Ok(_) => found.push(Found::good(format!("{address} can be listened on"))),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let port = address.port();
            let fix = format!("`ss -ltnp 'sport = :{port}'` says whose it is; or another port");
            found.push(Found::bad(format!("{address} is taken"), fix));
        }
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            let fix = "run it by config/switchback.service, which may, or with sudo";
            found.push(Found::bad(format!("this user may not listen on {address}"), fix));
        }
        Err(error) => {
            let fix = "`ip addr` lists the addresses of this machine";
            found.push(Found::bad(format!("{address} cannot be listened on: {error}"), fix));
        }
    }
}

fn directory(dir: &Path, found: &mut Vec<Found>) {
    let Some(there) = dir.ancestors().find(|path| path.exists()) else { return };
    let shown = dir.display();
    if rustix::fs::access(there, rustix::fs::Access::WRITE_OK).is_err() {
        let fix = format!("sudo install -d -o \"$USER\" {shown}, or run it by its unit");
        found.push(Found::bad(format!("this user may not write to {shown}"), fix));
    }
}

/// Whether a program is there, by its path or on `PATH`.
fn is_program(name: &str) -> bool {
    let runs = |path: &Path| {
        path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
    };
    if name.contains('/') {
        return runs(Path::new(name));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| runs(&dir.join(name)))
}

/// Asks the engine whether it lives, as this user.
fn engine(url: &str, found: &mut Vec<Found>) {
    let Some(path) = url.strip_prefix("unix://") else {
        // Somebody else's machine: the daemon says how it is.
        return;
    };
    let asked = UnixStream::connect(path).and_then(|mut stream| {
        stream.set_read_timeout(Some(ENGINE_WITHIN))?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(answer.ends_with(b"200"))
    });
    match asked {
        Ok(true) => found.push(Found::good(format!("the Docker engine answers at {url}"))),
        Ok(false) => {
            let fix = "`docker info` says more";
            found.push(Found::bad(format!("what answers at {url} is no healthy engine"), fix));
        }
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            let fix =
                "the daemon may all the same; else sudo, or the group `docker`, which is root";
            found.push(Found::watch(format!("this user may not ask the engine at {url}"), fix));
        }
        Err(error) => {
            let fix = "`systemctl start docker`, or correct `runtime.docker`";
            found.push(Found::bad(format!("no Docker engine at {url}: {error}"), fix));
        }
    }
}
