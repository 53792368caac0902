//! TLS: names, protocols, reload, and files that are wrong.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::anyone::Anyone;
use super::protocols::{fetch, http2_over, post};
use super::support::*;
use crate::edge::matcher::{Matcher, PathMatch};
use crate::edge::policy::Policy;
use crate::edge::rules::{Access, RouteSpec, Rules, Spec};
use crate::proxy::tls::{
    CertificateFiles, Certificates, ClientAuth, Pair, Settings as TlsSettings,
};
use crate::routing::settings::ServiceSettings;
use crate::telemetry::traffic::Count;

pub struct Pki {
    _directory: tempfile::TempDir,
    pub files: Vec<CertificateFiles>,
}

pub fn pki(names: &[&str]) -> Pki {
    let directory = tempfile::tempdir().expect("a directory");
    let files = names
        .iter()
        .map(|name| {
            let made =
                rcgen::generate_simple_self_signed(vec![(*name).to_owned()]).expect("a pair");
            let certificate = directory.path().join(format!("{name}.pem"));
            let key = directory.path().join(format!("{name}.key"));
            std::fs::write(&certificate, made.cert.pem()).expect("written");
            std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
            CertificateFiles { certificate, key }
        })
        .collect();
    Pki { _directory: directory, files }
}

/// Connects without judging the certificate, and says which one was shown.
pub async fn tls(
    address: std::net::SocketAddr,
    name: &'static str,
    alpn: &[&[u8]],
) -> tokio_rustls::client::TlsStream<TcpStream> {
    tls_over(TcpStream::connect(address).await.expect("a connection"), name, alpn).await
}

/// The same over a stream that is there already.
pub async fn tls_over<S>(
    stream: S,
    name: &'static str,
    alpn: &[&[u8]],
) -> tokio_rustls::client::TlsStream<S>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone::all()))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let name = rustls::pki_types::ServerName::try_from(name).expect("a name");
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS")
}

fn shown(stream: &tokio_rustls::client::TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().expect("a chain")[0].to_vec()
}

#[tokio::test]
async fn tls_with_both_protocols_names_and_reload() {
    let seen = Arc::new(Mutex::new(String::new()));
    let log = Arc::clone(&seen);
    let address = answering(move |head, _| {
        *log.lock().expect("no panic") = head.to_owned();
        ok("hello")
    })
    .await;
    let pki = pki(&["one.example", "two.example"]);
    let certificates = Certificates::load(&pki.files).expect("certificates");
    let settings = crate::proxy::Settings {
        https: vec![any()],
        tls: Some(Arc::clone(&certificates)),
        ..settings()
    };
    let rig =
        Rig::with(side(1, &[endpoint(address)]), None, 0.0, ServiceSettings::default(), settings);
    let https = rig.proxy.addresses().https[0];
    let stream = tls(https, "two.example", &[b"h2", b"http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let two = shown(&stream);
    let mut client = http2_over(stream).await;
    assert_eq!(fetch(&mut client, post("/", "")).await.1, "hello");
    assert_eq!(field(&seen.lock().expect("no panic"), "x-forwarded-proto"), Some("https"));
    let mut stream = tls(https, "one.example", &[b"http/1.1"]).await;
    let one = shown(&stream);
    assert_ne!(one, two);
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("to send");
    let (head, body) = read_message(&mut stream, &mut Vec::new()).await.expect("an answer");
    assert_eq!((status(&head), &body[..]), (200, &b"hello"[..]));
    // A name that nobody has gets the first certificate; no ALPN is HTTP/1.1.
    assert_eq!(shown(&tls(https, "three.example", &[]).await), one);
    // New files are shown after a reload, broken ones are not.
    let fresh = self::pki(&["one.example"]);
    std::fs::copy(&fresh.files[0].certificate, &pki.files[0].certificate).expect("copied");
    let error = Pair::read_all(&pki.files).expect_err("a mismatch");
    assert!(error.to_string().contains("does not belong"), "{error}");
    assert_eq!(shown(&tls(https, "one.example", &[]).await), one);
    std::fs::copy(&fresh.files[0].key, &pki.files[0].key).expect("copied");
    certificates.replace(&Pair::read_all(&pki.files).expect("a pair"));
    assert_ne!(shown(&tls(https, "one.example", &[]).await), one);
    until(|| rig.total(Count::TlsHandshakes) == 5).await;
}

#[tokio::test]
async fn bad_certificates_are_named() {
    let pki = pki(&["one.example", "two.example"]);
    let load = |certificate: &std::path::Path, key: &std::path::Path| {
        let files = CertificateFiles { certificate: certificate.into(), key: key.into() };
        Certificates::load(&[files]).expect_err("no").to_string()
    };
    let (one, two) = (&pki.files[0], &pki.files[1]);
    let missing = one.key.with_extension("nope");
    assert!(load(&missing, &one.key).contains("one.example.nope"), "named");
    assert!(load(&one.certificate, &missing).starts_with("cannot read"), "unreadable");
    assert!(load(&one.key, &one.key).contains("holds no certificate"), "no certificate");
    assert!(load(&one.certificate, &one.certificate).contains("holds no private key"), "no key");
    assert!(load(&one.certificate, &two.key).contains("does not belong"), "mismatch");
    let settings = crate::proxy::Settings { https: vec![any()], ..settings() };
    let bound = crate::proxy::bind(
        settings,
        Default::default(),
        Arc::new(crate::telemetry::traffic::Traffic::new(1)),
    );
    assert!(bound.expect_err("no certificate").to_string().contains("no certificate is given"));
}

/// A client's settings: what it can check, how old its TLS is, what it shows of itself.
fn client_config(
    verifier: Anyone,
    versions: &[&'static rustls::SupportedProtocolVersion],
    shows: Option<&(rcgen::Certificate, rcgen::KeyPair)>,
) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    match shows {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
            let chain = vec![certificate.der().clone()];
            builder.with_client_auth_cert(chain, key.into()).expect("a pair")
        }
    }
}

type Stream = tokio_rustls::client::TlsStream<TcpStream>;

async fn connect(
    address: std::net::SocketAddr,
    config: &Arc<rustls::ClientConfig>,
    name: &'static str,
) -> std::io::Result<Stream> {
    let stream = TcpStream::connect(address).await?;
    let name = rustls::pki_types::ServerName::try_from(name).expect("a name");
    tokio_rustls::TlsConnector::from(Arc::clone(config)).connect(name, stream).await
}

/// Asks for something, and reads the answer: then the tickets are here too.
async fn asked(stream: &mut Stream, fields: &str) -> Option<u16> {
    let request = format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let (head, _) = read_message(stream, &mut Vec::new()).await?;
    Some(status(&head))
}

fn rig(
    certificates: &Arc<Certificates>,
    origin: std::net::SocketAddr,
    workers: usize,
    service: ServiceSettings,
) -> Rig {
    let settings = crate::proxy::Settings {
        https: vec![any()],
        workers,
        tls: Some(Arc::clone(certificates)),
        ..settings()
    };
    Rig::with(side(1, &[endpoint(origin)]), None, 0.0, service, settings)
}

#[tokio::test]
async fn tickets_of_one_worker_are_good_on_all() {
    let origin = answering(|_, _| ok("hello")).await;
    let pki = pki(&["one.example"]);
    let certificates = Certificates::load(&pki.files).expect("certificates");
    let rig = rig(&certificates, origin, 4, ServiceSettings::default());
    let https = rig.proxy.addresses().https[0];
    let mut resumed = 0;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = Arc::new(client_config(Anyone::all(), &[version], None));
        for round in 0..12 {
            let mut stream = connect(https, &config, "one.example").await.expect("TLS");
            let kind = stream.get_ref().1.handshake_kind().expect("a handshake");
            // With four workers, eleven connections to the first one's socket are one in a million.
            assert_eq!(kind == rustls::HandshakeKind::Resumed, round > 0, "{version:?} {round}");
            assert_eq!(asked(&mut stream, "").await, Some(200));
        }
        resumed += 11;
        until(|| rig.total(Count::TlsResumed) == resumed).await;
    }
    // New settings have new keys: what the old ones allowed is not resumed.
    let config = Arc::new(client_config(Anyone::all(), &[&rustls::version::TLS13], None));
    let mut stream = connect(https, &config, "one.example").await.expect("TLS");
    assert_eq!(asked(&mut stream, "").await, Some(200));
    certificates.configure(&TlsSettings::default()).expect("settings");
    let stream = connect(https, &config, "one.example").await.expect("TLS");
    assert_ne!(stream.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
}

#[tokio::test]
async fn each_client_gets_the_kind_and_the_name_that_it_can_use() {
    let origin = answering(|_, _| ok("hello")).await;
    let pair = |names: &[&str], key: &rcgen::KeyPair| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::CertificateParams::new(names).expect("names").self_signed(key);
        let made = made.expect("a certificate");
        let pair = Pair::parse(&made.pem(), &key.serialize_pem(), "made").expect("a pair");
        (Arc::new(pair), made.der().to_vec())
    };
    let key = || rcgen::KeyPair::generate().expect("a key");
    let rsa = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048);
    let (rsa, with_rsa) = pair(&["app.example"], &rsa.expect("a key"));
    let (ecdsa, with_ecdsa) = pair(&["app.example"], &key());
    let (wild, with_wild) = pair(&["*.example", "Upper.Other"], &key());
    let certificates = Certificates::new(&TlsSettings::default()).expect("TLS");
    // Whatever the order in the file.
    certificates.replace(&[wild, rsa, ecdsa]);
    let rig = rig(&certificates, origin, 1, ServiceSettings::default());
    let https = rig.proxy.addresses().https[0];
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let any = Arc::new(client_config(Anyone::all(), &[version], None));
        let old = Arc::new(client_config(Anyone::rsa(), &[version], None));
        for (config, name, expected) in [
            (&any, "app.example", Some(&with_ecdsa)),
            (&old, "app.example", Some(&with_rsa)),
            (&any, "other.example", Some(&with_wild)),
            (&any, "upper.other", Some(&with_wild)),
            // None is from a file: a stranger's name has none.
            (&any, "two.other.example", None),
            (&any, "example", None),
        ] {
            let stream = connect(https, config, name).await;
            let got = stream.ok().map(|stream| shown(&stream));
            assert_eq!(got.as_ref(), expected, "{version:?} {name}");
        }
    }
    // Only 1.3, from now on.
    let settings = TlsSettings { only_13: true, client: None };
    certificates.configure(&settings).expect("settings");
    let old = Arc::new(client_config(Anyone::all(), &[&rustls::version::TLS12], None));
    let new = Arc::new(client_config(Anyone::all(), &[&rustls::version::TLS13], None));
    assert!(connect(https, &old, "app.example").await.is_err());
    connect(https, &new, "app.example").await.expect("TLS 1.3");
}

/// A CA for clients, one of its certificates, and its list of revoked ones.
struct Clients {
    directory: tempfile::TempDir,
    authority: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Clients {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages =
            vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        let key = rcgen::KeyPair::generate().expect("a key");
        let authority = rcgen::CertifiedIssuer::self_signed(params, key).expect("a CA");
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("ca.pem"), authority.pem()).expect("written");
        Self { directory, authority }
    }

    fn sign(&self, name: &str, serial: u8) -> (rcgen::Certificate, rcgen::KeyPair) {
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Müller & Söhne");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(vec![serial].into());
        let key = rcgen::KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.authority).expect("a certificate"), key)
    }

    /// Writes the list of revoked certificates.
    fn revoke(&self, serial: u8) -> std::path::PathBuf {
        let now = std::time::SystemTime::now();
        let later = now + std::time::Duration::from_secs(86_400);
        let list = rcgen::CertificateRevocationListParams {
            this_update: now.into(),
            next_update: later.into(),
            crl_number: vec![1].into(),
            issuing_distribution_point: None,
            revoked_certs: vec![rcgen::RevokedCertParams {
                serial_number: vec![serial].into(),
                revocation_time: now.into(),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.authority).expect("a list").pem().expect("PEM");
        let path = self.directory.path().join("revoked.pem");
        std::fs::write(&path, list).expect("written");
        path
    }

    fn settings(&self, is_required: bool, revoked: Option<std::path::PathBuf>) -> TlsSettings {
        let authority = self.directory.path().join("ca.pem");
        TlsSettings { only_13: false, client: Some(ClientAuth { authority, revoked, is_required }) }
    }
}

#[tokio::test]
async fn clients_show_certificates_and_instances_are_told() {
    let seen = Arc::new(Mutex::new(String::new()));
    let log = Arc::clone(&seen);
    let origin = answering(move |head, _| {
        *log.lock().expect("no panic") = head.to_owned();
        ok("hello")
    })
    .await;
    let (pki, clients) = (pki(&["one.example"]), Clients::new());
    let certificates = Certificates::load(&pki.files).expect("certificates");
    certificates.configure(&clients.settings(true, None)).expect("an authority");
    let rig = rig(&certificates, origin, 2, ServiceSettings::default());
    let https = rig.proxy.addresses().https[0];
    let (till, stranger) = (clients.sign("till-7", 7), Clients::new().sign("till-7", 7));
    let with = |shows| Arc::new(client_config(Anyone::all(), rustls::ALL_VERSIONS, shows));
    // Required: in TLS 1.3 a client hears of the refusal with its first read.
    let forged = "x-client-cert-subject: CN=root\r\nX-Client-Cert-Fingerprint: 00\r\n";
    for shows in [None, Some(&stranger)] {
        let refused = match connect(https, &with(shows), "one.example").await {
            Err(_) => true,
            Ok(mut stream) => asked(&mut stream, "").await.is_none(),
        };
        assert!(refused);
    }
    let config = with(Some(&till));
    for round in 0..3 {
        // The later ones are resumed, and know it still.
        let mut stream = connect(https, &config, "one.example").await.expect("TLS");
        assert_eq!(asked(&mut stream, forged).await, Some(200), "{round}");
        let head = seen.lock().expect("no panic").clone();
        let subject = "CN=till-7, O=M%C3%BCller & S%C3%B6hne";
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, till.0.der());
        let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(
            field(&head, "x-client-cert-subject").is_some_and(|s| s.ends_with(subject)),
            "{head}"
        );
        assert_eq!(field(&head, "x-client-cert-fingerprint"), Some(digest.as_str()));
        assert_eq!(head.to_ascii_lowercase().matches("x-client-cert").count(), 2, "{head}");
    }
    // Optional: who shows nothing is served, and can pretend nothing, also in cleartext.
    certificates.configure(&clients.settings(false, None)).expect("an authority");
    let mut stream = connect(https, &with(None), "one.example").await.expect("TLS");
    assert_eq!(asked(&mut stream, forged).await, Some(200));
    assert!(!seen.lock().expect("no panic").to_ascii_lowercase().contains("x-client-cert"));
    let mut plain = TcpStream::connect(rig.http()).await.expect("a connection");
    let request = format!("GET / HTTP/1.1\r\nhost: a\r\n{forged}\r\n");
    plain.write_all(request.as_bytes()).await.expect("to send");
    read_message(&mut plain, &mut Vec::new()).await.expect("an answer");
    assert!(!seen.lock().expect("no panic").to_ascii_lowercase().contains("x-client-cert"));
    // A service that requires one: by the request's own host, whatever the handshake named.
    rig.publish(|entry| {
        entry.settings =
            Arc::new(ServiceSettings { client_certificate: true, ..ServiceSettings::default() });
    });
    let mut stream = connect(https, &with(None), "other.example").await.expect("TLS");
    assert_eq!(asked(&mut stream, forged).await, Some(403));
    let mut stream = connect(https, &with(Some(&till)), "one.example").await.expect("TLS");
    assert_eq!(asked(&mut stream, "").await, Some(200));
    // Only a route does.
    let access = Access { certificate: true, ..Access::default() };
    let of = |path: &str| Matcher {
        paths: vec![PathMatch::Prefix(path.to_owned())],
        ..Matcher::default()
    };
    let rules = Rules { access, ..Rules::default() };
    for (path, expected) in [("/admin", 200), ("/", 403)] {
        let route = RouteSpec { matcher: of(path), rules: rules.clone(), ..RouteSpec::default() };
        let spec = Spec { routes: vec![route], ..Spec::default() };
        rig.publish(|entry| {
            entry.settings = Arc::default();
            let policy = Policy::new(spec, None, &Default::default(), Instant::now());
            entry.policy = Some(Arc::new(policy));
        });
        let mut stream = connect(https, &with(None), "one.example").await.expect("TLS");
        assert_eq!(asked(&mut stream, forged).await, Some(expected), "{path}");
        let mut stream = connect(https, &with(Some(&till)), "one.example").await.expect("TLS");
        assert_eq!(asked(&mut stream, "").await, Some(200), "{path}");
    }
    // Revoked: refused, and its ticket is worth nothing.
    let revoked = clients.revoke(7);
    certificates.configure(&clients.settings(false, Some(revoked))).expect("a list");
    let refused = match connect(https, &config, "one.example").await {
        Err(_) => true,
        Ok(mut stream) => asked(&mut stream, "").await.is_none(),
    };
    assert!(refused);
    let other = clients.sign("till-8", 8);
    let mut stream = connect(https, &with(Some(&other)), "one.example").await.expect("TLS");
    assert_eq!(asked(&mut stream, "").await, Some(200));
    // What is no authority and no list is named.
    let no_list = clients.settings(true, Some(pki.files[0].key.clone()));
    let error = certificates.configure(&no_list).expect_err("no list").to_string();
    assert!(error.contains("BEGIN X509 CRL"), "{error}");
}
