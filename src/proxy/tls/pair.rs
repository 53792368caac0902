//! A certificate with its key: read, checked to belong together, and looked into.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{CertificateFiles, TlsError};

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The DNS names it is valid for, in lower case; `*.example.com` for all directly below.
    pub names: Vec<String>,
    /// From when it is valid, in seconds since the Unix epoch.
    pub not_before: i64,
    /// Until when.
    pub not_after: i64,
    /// The serial number, big endian, as it stands in the certificate.
    pub serial: Vec<u8>,
    /// The authority's key identifier; empty when there is none.
    pub authority: Vec<u8>,
}

/// A certificate with its key.
pub struct Pair {
    /// What rustls takes.
    pub(super) key: Arc<CertifiedKey>,
    /// What it says of itself.
    pub facts: Facts,
    /// Whether it may be shown to a client that names no host, or one that nobody has.
    pub(super) is_default: bool,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl Pair {
    /// Reads pairs of files; an error when there are none.
    pub fn read_all(files: &[CertificateFiles]) -> Result<Vec<Arc<Self>>, TlsError> {
        if files.is_empty() {
            return Err(TlsError::Empty);
        }
        files.iter().map(|files| Self::read(files).map(Arc::new)).collect()
    }

    /// Reads a pair of files.
    pub fn read(files: &CertificateFiles) -> Result<Self, TlsError> {
        let chain = contents(&files.certificate)?;
        // A certificate that is broken is named before a key that is missing.
        let parsed = parse_chain(&chain, files)?;
        let key = contents(&files.key)?;
        Self::build(parsed, &key, files, true)
    }

    /// A pair from PEM texts. `name` is what errors call it.
    pub fn parse(chain: &str, key: &str, name: &str) -> Result<Self, TlsError> {
        let files = CertificateFiles { certificate: name.into(), key: name.into() };
        let parsed = parse_chain(chain.as_bytes(), &files)?;
        Self::build(parsed, key.as_bytes(), &files, false)
    }

    fn build(
        (chain, facts): (Vec<CertificateDer<'static>>, Facts),
        key: &[u8],
        files: &CertificateFiles,
        is_default: bool,
    ) -> Result<Self, TlsError> {
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::NoKey(files.key.clone()))?;
        let key = CertifiedKey::from_der(chain, key, &super::provider());
        let key = key.map_err(|source| match source {
            rustls::Error::InconsistentKeys(_) => TlsError::Mismatch {
                certificate: files.certificate.clone(),
                key: files.key.clone(),
            },
            source => TlsError::Unusable { path: files.key.clone(), source },
        })?;
        Ok(Self { key: Arc::new(key), facts, is_default })
    }
}

fn parse_chain(
    text: &[u8],
    files: &CertificateFiles,
) -> Result<(Vec<CertificateDer<'static>>, Facts), TlsError> {
    let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(text).collect();
    let none = || TlsError::NoCertificate(files.certificate.clone());
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(none)?;
    // What cannot be parsed here could never be matched to a name.
    ParsedCertificate::try_from(&chain[0])
        .map_err(|source| TlsError::Unusable { path: files.certificate.clone(), source })?;
    let facts = facts(&chain[0]).ok_or_else(|| TlsError::Unusable {
        path: files.certificate.clone(),
        source: rustls::CertificateError::BadEncoding.into(),
    })?;
    Ok((chain, facts))
}

fn facts(certificate: &CertificateDer<'_>) -> Option<Facts> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let mut facts = Facts {
        not_before: parsed.validity().not_before.timestamp(),
        not_after: parsed.validity().not_after.timestamp(),
        serial: parsed.raw_serial().to_vec(),
        ..Facts::default()
    };
    for extension in parsed.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => {
                for name in &names.general_names {
                    if let GeneralName::DNSName(name) = name {
                        facts.names.push(name.to_ascii_lowercase());
                    }
                }
            }
            ParsedExtension::AuthorityKeyIdentifier(authority) => {
                if let Some(id) = &authority.key_identifier {
                    facts.authority = id.0.to_vec();
                }
            }
            _ => {}
        }
    }
    Some(facts)
}

pub(super) fn contents(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}
