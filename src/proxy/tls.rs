//! Certificates: read from files, chosen by the name that the client asks for, replaced while running.
//!
//! The set of certificates is the one thing besides the routing table that is swapped; a connection
//! keeps what its handshake saw. Session tickets are encrypted with keys that all workers share and
//! that change every few hours. What comes first in the list is what a client without a name gets.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Where a certificate and its key are: PEM files, the chain leaf first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}; check that the file exists and that switchback may read it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file has no certificate.
    #[error("{} holds no certificate: it must be PEM, with -----BEGIN CERTIFICATE-----, the server's own first", .0.display())]
    NoCertificate(PathBuf),
    /// A file has no key.
    #[error("{} holds no private key: it must be PEM, with -----BEGIN PRIVATE KEY----- or the RSA or EC form, and not encrypted", .0.display())]
    NoKey(PathBuf),
    /// A key or certificate is broken, or of a kind that is not supported.
    #[error("{} cannot be used: {source}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The key is not the certificate's.
    #[error("the key in {} does not belong to the certificate in {}: they must be made together", key.display(), certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// There is nothing to serve with.
    #[error("no certificate is given for https")]
    Empty,
    /// The TLS library refused its settings.
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// The certificates that are served; may be replaced at any time.
pub struct Certificates {
    files: Vec<CertificateFiles>,
    keys: ArcSwap<Vec<Arc<CertifiedKey>>>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Reads certificates from files.
    pub fn load(files: Vec<CertificateFiles>) -> Result<Arc<Self>, TlsError> {
        let keys = read_all(&files)?;
        Ok(Arc::new(Self { files, keys: ArcSwap::from_pointee(keys) }))
    }

    /// Reads the same files again. On an error the old certificates stay.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.keys.store(Arc::new(read_all(&self.files)?));
        Ok(())
    }

    /// Serves with these files from now on. On an error the old certificates stay.
    pub fn replace(&self, files: &[CertificateFiles]) -> Result<(), TlsError> {
        self.keys.store(Arc::new(read_all(files)?));
        Ok(())
    }

    /// Settings for TLS with these certificates: 1.2 and 1.3, HTTP/2 before HTTP/1.1, tickets.
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<rustls::ServerConfig>, TlsError> {
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Resolver(Arc::clone(self))));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::Setup)?;
        Ok(Arc::new(config))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn read_all(files: &[CertificateFiles]) -> Result<Vec<Arc<CertifiedKey>>, TlsError> {
    if files.is_empty() {
        return Err(TlsError::Empty);
    }
    files.iter().map(|files| read(files).map(Arc::new)).collect()
}

fn read(files: &CertificateFiles) -> Result<CertifiedKey, TlsError> {
    let text = contents(&files.certificate)?;
    let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&text).collect();
    let none = || TlsError::NoCertificate(files.certificate.clone());
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(none)?;
    // What cannot be parsed here could never be matched to a name.
    ParsedCertificate::try_from(&chain[0])
        .map_err(|source| TlsError::Unusable { path: files.certificate.clone(), source })?;
    let text = contents(&files.key)?;
    let key =
        PrivateKeyDer::from_pem_slice(&text).map_err(|_| TlsError::NoKey(files.key.clone()))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|source| match source {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::Mismatch { certificate: files.certificate.clone(), key: files.key.clone() }
        }
        source => TlsError::Unusable { path: files.key.clone(), source },
    })
}

fn contents(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

/// Chooses the first certificate that is valid for the name; the first of all when none is.
#[derive(Debug)]
struct Resolver(Arc<Certificates>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let keys = self.0.keys.load();
        if keys.len() > 1
            && let Some(name) = hello.server_name()
            && let Ok(name) = ServerName::try_from(name)
            && let Some(key) = keys.iter().find(|key| is_for(key, &name))
        {
            return Some(Arc::clone(key));
        }
        keys.first().map(Arc::clone)
    }
}

fn is_for(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    key.end_entity_cert()
        .and_then(ParsedCertificate::try_from)
        .and_then(|certificate| verify_server_name(&certificate, name))
        .is_ok()
}
