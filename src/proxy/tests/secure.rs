//! TLS: names, protocols, reload, and files that are wrong.

use std::sync::{Arc, Mutex};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::protocols::{fetch, http2_over, post};
use super::support::*;
use crate::proxy::tls::{CertificateFiles, Certificates};
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
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    #[derive(Debug)]
    struct Anyone;
    impl ServerCertVerifier for Anyone {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            rustls::crypto::aws_lc_rs::default_provider()
                .signature_verification_algorithms
                .supported_schemes()
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let stream = TcpStream::connect(address).await.expect("a connection");
    let name = ServerName::try_from(name).expect("a name");
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
    let certificates = Certificates::load(pki.files.clone()).expect("certificates");
    let settings =
        crate::proxy::Settings { https: vec![any()], tls: Some(certificates), ..settings() };
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
    let error = rig.proxy.reload_tls().expect_err("a mismatch");
    assert!(error.to_string().contains("does not belong"), "{error}");
    assert_eq!(shown(&tls(https, "one.example", &[]).await), one);
    std::fs::copy(&fresh.files[0].key, &pki.files[0].key).expect("copied");
    rig.proxy.reload_tls().expect("a pair");
    assert_ne!(shown(&tls(https, "one.example", &[]).await), one);
    until(|| rig.total(Count::TlsHandshakes) == 5).await;
}

#[tokio::test]
async fn bad_certificates_are_named() {
    let pki = pki(&["one.example", "two.example"]);
    let load = |certificate: &std::path::Path, key: &std::path::Path| {
        let files = CertificateFiles { certificate: certificate.into(), key: key.into() };
        Certificates::load(vec![files]).expect_err("no").to_string()
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
