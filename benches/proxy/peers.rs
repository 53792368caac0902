//! The proxies, and configurations by which they do the same work: keep-alive to two upstreams at
//! weights 95 and 5, `X-Forwarded-For`, `-Proto` and `-Host`, no access log, one worker.
//!
//! Switchback also adds `X-Request-ID` and `traceparent`, and keeps scorecards of both sides. The
//! peers do none of this, except where a request id is asked for: nginx takes its bits from OpenSSL,
//! which costs it a third more instructions, and nobody should win by that unsaid.

use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;
use crate::process::{Cores, Process, pinned};
use crate::tools::Tools;

/// How long a proxy may take to listen; under callgrind it starts fifty times slower.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// nginx.
    Nginx,
    /// HAProxy.
    Haproxy,
    /// Us.
    Switchback,
}

impl Kind {
    /// All, in the order in which they take their turns.
    pub const ALL: [Self; 3] = [Self::Nginx, Self::Haproxy, Self::Switchback];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Switchback => "Switchback",
        })
    }
}

/// A proxy that runs.
#[derive(Debug)]
pub struct Running {
    /// Which.
    pub kind: Kind,
    /// Its process.
    pub process: Process,
    /// Its port in cleartext.
    pub http: u16,
    /// Its port with TLS.
    pub https: u16,
}

/// The origin, with the ports of its two sides.
#[derive(Debug)]
struct Origin(Child);

impl Drop for Origin {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The folder in which a benchmark lives, with what its parts share.
#[derive(Debug)]
pub struct Site {
    folder: tempfile::TempDir,
    nginx: PathBuf,
    haproxy: PathBuf,
    _origin: Origin,
    origins: (u16, u16),
}

impl Site {
    /// Makes a folder with a certificate, and starts the origin.
    pub fn prepare(tools: &Tools) -> Result<Self> {
        let folder = tempfile::tempdir().map_err(|error| format!("no folder: {error}"))?;
        certificate(folder.path())?;
        let us = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = pinned(Cores::Load, &us);
        command.arg("--origin").stdin(Stdio::null()).stdout(Stdio::piped());
        let fail = |error: std::io::Error| format!("the origin cannot be started: {error}");
        let mut origin = Origin(command.spawn().map_err(fail)?);
        let mut line = String::new();
        if let Some(said) = origin.0.stdout.take() {
            BufReader::new(said).read_line(&mut line).map_err(fail)?;
        }
        let ports = line.trim().split_once(' ');
        let ports = ports.and_then(|(one, two)| Some((one.parse().ok()?, two.parse().ok()?)));
        let origins = ports.ok_or("the origin did not say its ports")?;
        Ok(Self {
            folder,
            nginx: tools.nginx.clone(),
            haproxy: tools.haproxy.clone(),
            _origin: origin,
            origins,
        })
    }

    /// A file in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a proxy.
    pub fn start(&self, kind: Kind) -> Result<Running> {
        self.start_under(kind, false, &[])
    }

    /// Starts a proxy, nginx with a request id if `ids`, as the last argument of another program.
    pub fn start_under(&self, kind: Kind, ids: bool, wrapper: &[String]) -> Result<Running> {
        let (http, https) = (free_port()?, free_port()?);
        let folder = self.file(&format!("{kind}-{http}"));
        std::fs::create_dir(&folder).map_err(|error| error.to_string())?;
        let (program, arguments) = match kind {
            Kind::Nginx => (self.nginx.clone(), self.nginx(&folder, http, https, ids)?),
            Kind::Haproxy => (self.haproxy.clone(), self.haproxy(&folder, http, https)?),
            Kind::Switchback => (switchback(), self.switchback(&folder, http, https)?),
        };
        let mut command = match wrapper.split_first() {
            Some((first, rest)) => {
                let mut command = pinned(Cores::Proxy, Path::new(first));
                command.args(rest).arg(program);
                command
            }
            None => pinned(Cores::Proxy, &program),
        };
        command.args(arguments);
        let log = folder.join("log");
        let mut process = Process::start(command, &kind.to_string(), &log)?;
        process.await_port(http, PATIENCE, &log)?;
        process.await_port(https, PATIENCE, &log)?;
        if kind == Kind::Switchback {
            self.split(&folder)?;
        }
        Ok(Running { kind, process, http, https })
    }

    fn nginx(&self, folder: &Path, http: u16, https: u16, ids: bool) -> Result<Vec<String>> {
        let (stable, canary) = self.origins;
        let id = match ids {
            true => {
                "proxy_set_header X-Request-ID $request_id;\nadd_header X-Request-ID $request_id;\n"
            }
            false => "",
        };
        let (here, root) = (folder.display(), self.folder.path().display());
        let text = format!(
            "daemon off;\nmaster_process off;\npid {here}/pid;\nerror_log {here}/error.log crit;\n\
             events {{ worker_connections 5000; }}\n\
             http {{\n\
             access_log off;\n\
             client_body_temp_path {here}/body;\nproxy_temp_path {here}/proxy;\n\
             fastcgi_temp_path {here}/fastcgi;\nuwsgi_temp_path {here}/uwsgi;\n\
             scgi_temp_path {here}/scgi;\n\
             keepalive_requests 1000000;\n\
             ssl_certificate {root}/cert.pem;\nssl_certificate_key {root}/key.pem;\n\
             ssl_protocols TLSv1.2 TLSv1.3;\nssl_session_cache shared:tls:10m;\n\
             upstream app {{\n\
             server 127.0.0.1:{stable} weight=95;\nserver 127.0.0.1:{canary} weight=5;\n\
             keepalive 128;\nkeepalive_requests 1000000;\n}}\n\
             server {{\n\
             listen 127.0.0.1:{http} backlog=1024;\n\
             listen 127.0.0.1:{https} ssl http2 backlog=1024;\n\
             location / {{\n\
             proxy_pass http://app;\nproxy_http_version 1.1;\nproxy_set_header Connection \"\";\n\
             proxy_set_header Host $http_host;\n\
             proxy_set_header X-Forwarded-For $remote_addr;\n\
             proxy_set_header X-Forwarded-Proto $scheme;\n\
             proxy_set_header X-Forwarded-Host $http_host;\n\
             {id}\
             proxy_max_temp_file_size 0;\nproxy_request_buffering off;\n\
             client_max_body_size 0;\n}}\n}}\n}}\n"
        );
        let file = write(folder, "nginx.conf", &text)?;
        let errors = folder.join("error.log").display().to_string();
        Ok(["-p", &here.to_string(), "-c", &file, "-e", &errors].map(str::to_owned).to_vec())
    }

    fn haproxy(&self, folder: &Path, http: u16, https: u16) -> Result<Vec<String>> {
        let (stable, canary) = self.origins;
        let root = self.folder.path().display();
        let text = format!(
            "global\n nbthread 1\n maxconn 5000\n\
             defaults\n mode http\n timeout client 75s\n timeout server 60s\n timeout connect 2s\n\
             \x20option http-keep-alive\n http-reuse always\n\
             frontend web\n\
             \x20bind 127.0.0.1:{http} backlog 1024\n\
             \x20bind 127.0.0.1:{https} backlog 1024 ssl crt {root}/both.pem alpn h2,http/1.1\n\
             \x20http-request set-header X-Forwarded-For %[src]\n\
             \x20http-request set-header X-Forwarded-Proto http if !{{ ssl_fc }}\n\
             \x20http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}\n\
             \x20http-request set-header X-Forwarded-Host %[req.hdr(host)]\n\
             \x20default_backend app\n\
             backend app\n balance roundrobin\n\
             \x20server stable 127.0.0.1:{stable} weight 95\n\
             \x20server canary 127.0.0.1:{canary} weight 5\n"
        );
        let file = write(folder, "haproxy.cfg", &text)?;
        Ok(["-db", "-f", &file].map(str::to_owned).to_vec())
    }

    fn switchback(&self, folder: &Path, http: u16, https: u16) -> Result<Vec<String>> {
        let (stable, _) = self.origins;
        let (here, root) = (folder.display(), self.folder.path().display());
        // The canary stays at 5 %: the rollout's own clock and verdicts are no part of this.
        let text = format!(
            "[listen]\nhttp = \"127.0.0.1:{http}\"\nhttps = \"127.0.0.1:{https}\"\nworkers = 1\n\
             keep_alive_requests = 1000000\n\
             [tls]\ncert = \"{root}/cert.pem\"\nkey = \"{root}/key.pem\"\n\
             [admin]\nsocket = \"{here}/admin.sock\"\nlisten = \"off\"\n\
             [state]\ndir = \"{here}/state\"\n\
             [service.web]\nhost = \"*\"\nendpoints = [\"127.0.0.1:{stable}\"]\n\
             steps = \"5% 100%\"\nbake = \"1h\"\nbake_max = \"2h\"\nabort = \"errors > 80%\"\n"
        );
        let file = write(folder, "switchback.toml", &text)?;
        Ok(["run", "--config", &file].map(str::to_owned).to_vec())
    }

    /// Deploys the second endpoint as a canary, and waits until it has its 5 %.
    fn split(&self, folder: &Path) -> Result<()> {
        let (_, canary) = self.origins;
        let config = folder.join("switchback.toml");
        let ask = |words: &[&str]| {
            let mut command = Command::new(switchback());
            command.args(words).arg("--config").arg(&config);
            command.output().map_err(|error| format!("switchback {words:?}: {error}"))
        };
        let endpoint = format!("127.0.0.1:{canary}");
        let began = Instant::now();
        let mut deployed = false;
        loop {
            if !deployed {
                // Refused for as long as there is no stable revision.
                let said = ask(&["deploy", "web", "--endpoints", &endpoint, "--detach"])?;
                deployed = said.status.success();
            }
            let status = ask(&["status", "web", "-o", "json"])?;
            let status: serde_json::Value =
                serde_json::from_slice(&status.stdout).unwrap_or_default();
            if status["weights"]["canary"] == 5.0 {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("the canary did not get its weight: {status}"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Us, in the profile of benchmarks, or another build of us.
fn switchback() -> PathBuf {
    std::env::var_os("SWITCHBACK")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_switchback")), PathBuf::from)
}

fn write(folder: &Path, name: &str, text: &str) -> Result<String> {
    let file = folder.join(name);
    std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(file.display().to_string())
}

/// A port that nobody has at this moment.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(|error| error.to_string())?;
    listener.local_addr().map(|address| address.port()).map_err(|error| error.to_string())
}

/// An ECDSA P-256 certificate, as most sites have.
fn certificate(folder: &Path) -> Result<()> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])
        .map_err(|error| error.to_string())?;
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    write(folder, "cert.pem", &certificate)?;
    write(folder, "key.pem", &key)?;
    write(folder, "both.pem", &format!("{certificate}{key}"))?;
    Ok(())
}
