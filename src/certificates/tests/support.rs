//! A keeper with a proxy and a store; a client that says what it was shown; pebble; a DNS server.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

use crate::certificates::account::Desk;
use crate::certificates::keeper::{Handle, Keeper, Parts, Times};
use crate::certificates::local;
use crate::config::Config;
use crate::model::certificate::CertificateStatus;
use crate::proxy::tests::anyone::Anyone;
use crate::proxy::{self, Proxy};
use crate::routing::live::Live;
use crate::store::redb::RedbStore;
use crate::store::writer::Writer;
use crate::store::{Everything, Store as _};
use crate::telemetry::traffic::Traffic;

/// Longer than anything here takes, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn config(text: &str) -> Config {
    let variables = BTreeMap::new();
    let input = crate::config::Input {
        name: Path::new("/switchback.toml"),
        text,
        variables: &variables,
        flags: &[],
        read: &|_| Err("no files".to_owned()),
    };
    crate::config::parse(&input).unwrap_or_else(|problems| panic!("{problems}\n{text}")).config
}

/// A service on these hosts.
pub fn service(hosts: &[&str]) -> String {
    format!("[service.web]\nhost = {hosts:?}\nendpoints = [\"127.0.0.1:1\"]\n")
}

/// A keeper that runs, with a proxy that shows what it has.
pub struct Rig {
    pub handle: Handle,
    pub proxy: Proxy,
    shutdown: CancellationToken,
    running: tokio::task::JoinHandle<()>,
    store: std::thread::JoinHandle<()>,
}

impl Rig {
    pub fn new(dir: &Path, config: Config) -> Self {
        Self::with(dir, config, |record| Desk::new(record.account.clone()))
    }

    /// With a desk made of what the store has.
    pub fn with(dir: &Path, config: Config, desk: impl FnOnce(&Everything) -> Desk) -> Self {
        let mut store = RedbStore::open(dir).expect("a store");
        let everything = store.load().expect("loaded");
        let (writer, store) = Writer::start(Box::new(store), || ()).expect("a thread");
        let shutdown = CancellationToken::new();
        let desk = desk(&everything);
        let parts = Parts {
            config,
            listens: (true, true),
            writer,
            certificates: everything.certificates,
            account: everything.account,
            authority: everything.authority,
            dir: dir.to_owned(),
            tls: None,
            times: Times { tick: Duration::from_millis(50), first_pause: Duration::from_secs(1) },
            shutdown: shutdown.clone(),
        };
        let (keeper, handle) = Keeper::new(parts, desk).expect("a keeper");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let settings = proxy::Settings {
            http: vec![any],
            https: vec![any],
            workers: 2,
            tls: Some(Arc::clone(handle.tls())),
            limits: proxy::limits::Limits {
                handshake: PATIENCE,
                ..proxy::limits::Limits::default()
            },
            ..proxy::Settings::default()
        };
        let proxy = proxy::bind(settings, Live::default(), Arc::new(Traffic::new(2)));
        let proxy = proxy.expect("free ports");
        let running = tokio::spawn(keeper.run());
        Self { handle, proxy, shutdown, running, store }
    }

    /// Ends it, so that the store can be opened again.
    pub async fn end(self) {
        self.shutdown.cancel();
        self.running.await.expect("no panic");
        drop((self.handle, self.proxy));
        let store = self.store;
        tokio::task::spawn_blocking(move || store.join()).await.expect("joined").expect("no panic");
    }

    pub fn http(&self) -> u16 {
        self.proxy.addresses().http[0].port()
    }

    pub fn https(&self) -> SocketAddr {
        self.proxy.addresses().https[0]
    }

    pub fn status(&self, name: &str) -> CertificateStatus {
        let all = self.handle.status().borrow().clone();
        let found = all.iter().find(|one| one.names.iter().any(|known| known == name));
        found.unwrap_or_else(|| panic!("{name} is not in {all:?}")).clone()
    }

    /// Waits until a name is in this state.
    pub async fn until(&self, name: &str, state: &str) -> CertificateStatus {
        self.until_it(name, |status| status.state == state).await
    }

    /// Waits until this is said about a name.
    pub async fn until_it(
        &self,
        name: &str,
        is: impl Fn(&CertificateStatus) -> bool,
    ) -> CertificateStatus {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let all = self.handle.status().borrow().clone();
            let found = all.iter().find(|one| one.names.iter().any(|known| known == name));
            if let Some(status) = found.filter(|status| is(status)) {
                return status.clone();
            }
            assert!(tokio::time::Instant::now() < deadline, "never: {all:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The certificate that a client is shown who asks for this name; none when it is refused.
    pub async fn shown(&self, name: &str) -> Option<Vec<u8>> {
        let stream = TcpStream::connect(self.https()).await.expect("a connection");
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client(Arc::new(Anyone::all()))));
        let stream = tokio::time::timeout(PATIENCE, connector.connect(name, stream)).await;
        let stream = stream.expect("in time").ok()?;
        Some(stream.get_ref().1.peer_certificates().expect("a chain")[0].to_vec())
    }

    /// Whether a client that trusts this CA alone is content.
    pub async fn is_trusted(&self, name: &str, authority: &str) -> bool {
        let mut roots = rustls::RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(authority.as_bytes()).expect("a certificate");
        roots.add(root).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.https()).await.expect("a connection");
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        connector.connect(name, stream).await.is_ok()
    }
}

fn client(verifier: Arc<dyn ServerCertVerifier>) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth()
}

/// Makes a pair of files that are valid from and until so many days from now.
pub fn write_pair(dir: &Path, name: &str, days: (i64, i64)) -> (PathBuf, PathBuf) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("a name");
    let now = std::time::SystemTime::now();
    let at = |days: i64| {
        let away = Duration::from_secs(days.unsigned_abs() * 86_400);
        if days < 0 { now - away } else { now + away }
    };
    (params.not_before, params.not_after) = (at(days.0).into(), at(days.1).into());
    let made = params.self_signed(&key).expect("a certificate");
    let (certificate, file) = (dir.join("cert.pem"), dir.join("key.pem"));
    // As tools do: a new file, renamed into place.
    let write = |path: &Path, text: String| {
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, text).expect("written");
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600)).expect("mode");
        std::fs::rename(&fresh, path).expect("renamed");
    };
    write(&certificate, made.pem());
    write(&file, key.serialize_pem());
    (certificate, file)
}

/// Let's Encrypt's small test authority.
pub struct Pebble {
    child: Child,
}

impl Drop for Pebble {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("an address").port()
}

/// Whether pebble is here; said aloud when it is not.
pub fn pebble_is_here() -> bool {
    let is_here = Command::new("pebble").arg("-help").output().is_ok();
    if !is_here {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "there is no pebble for this test");
        eprintln!("SKIPPED: no pebble on the path (apt-get install pebble)");
    }
    is_here
}

impl Pebble {
    /// Where it will be, for the configuration; [`Self::start`] starts it there.
    pub fn place(dir: &Path) -> (u16, PathBuf) {
        let authority = local::make(std::time::SystemTime::now()).expect("a CA");
        let (chain, key) =
            local::sign(&authority, "localhost", std::time::SystemTime::now()).expect("signed");
        let root = dir.join("pebble-root.pem");
        std::fs::write(&root, &authority.certificate).expect("written");
        std::fs::write(dir.join("pebble.pem"), chain).expect("written");
        std::fs::write(dir.join("pebble.key"), key).expect("written");
        (free_port(), root)
    }

    /// Starts it: it looks for names at this DNS server and for proofs on these ports.
    pub fn start(
        dir: &Path,
        port: u16,
        rig: &Rig,
        dns: SocketAddr,
        external: Option<&str>,
    ) -> Self {
        let mut config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{}", free_port()),
            "certificate": dir.join("pebble.pem"),
            "privateKey": dir.join("pebble.key"),
            "httpPort": rig.http(),
            "tlsPort": rig.https().port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": external.is_some(),
        }});
        if let Some(key) = external {
            config["pebble"]["externalAccountMACKeys"] = serde_json::json!({ "kid-1": key });
        }
        let file = dir.join("pebble.json");
        std::fs::write(&file, config.to_string()).expect("written");
        let log = std::fs::File::create(dir.join("pebble.log")).expect("a log");
        let child = Command::new("pebble")
            .arg("-config")
            .arg(&file)
            .args(["-dnsserver", &dns.to_string()])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_AUTHZREUSE", "0")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a handle"))
            .stderr(log)
            .spawn()
            .expect("pebble");
        Self { child }
    }
}

/// A DNS server: every name is here, but those below `nowhere.example`; TXT records are what the
/// hook's file says.
pub async fn dns(hook_file: PathBuf) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut packet = [0; 1500];
        while let Ok((length, peer)) = socket.recv_from(&mut packet).await {
            if let Some(answer) = answer(&packet[..length], &hook_file) {
                let _ = socket.send_to(&answer, peer).await;
            }
        }
    });
    address
}

fn answer(question: &[u8], hook_file: &Path) -> Option<Vec<u8>> {
    let mut name = String::new();
    let mut at = 12;
    while *question.get(at)? > 0 {
        let end = at + 1 + usize::from(question[at]);
        name.push_str(&String::from_utf8_lossy(question.get(at + 1..end)?).to_ascii_lowercase());
        name.push('.');
        at = end;
    }
    let end = at + 5;
    let kind = u16::from_be_bytes([*question.get(at + 1)?, *question.get(at + 2)?]);
    let mut records: Vec<Vec<u8>> = Vec::new();
    let is_nowhere = name.ends_with("nowhere.example.");
    match kind {
        1 if !is_nowhere => records.push(vec![127, 0, 0, 1]),
        16 => {
            let text = std::fs::read_to_string(hook_file).unwrap_or_default();
            for line in text.lines() {
                let words: Vec<&str> = line.split(' ').collect();
                if words[0] == "present" && words[1] == name {
                    let value = words[2].as_bytes();
                    records.push([&[value.len() as u8], value].concat());
                }
            }
        }
        _ => {}
    }
    let mut out = question[..2].to_vec();
    // A response, recursion available; the name does not exist where it is nowhere.
    out.extend([0x81, if is_nowhere { 0x83 } else { 0x80 }, 0, 1]);
    out.extend((records.len() as u16).to_be_bytes());
    out.extend([0, 0, 0, 0]);
    out.extend(question.get(12..end)?);
    for record in records {
        out.extend([0xc0, 12]);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1, 0, 0, 0, 1]);
        out.extend((record.len() as u16).to_be_bytes());
        out.extend(record);
    }
    Some(out)
}
