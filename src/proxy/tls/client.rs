//! Clients' certificates: how they are checked, and what an instance is told of them.
//!
//! Whether a certificate is needed belongs to the service that a request goes to, not to the name in
//! the handshake: a client may name one host there and another in its request. So one authority is
//! asked of all connections, and each request is held against its own service.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderValue;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{TlsError, pair, provider};

/// How clients are asked for certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuth {
    /// PEM file with the authorities whose certificates count.
    pub authority: PathBuf,
    /// PEM file with lists of revoked certificates.
    pub revoked: Option<PathBuf>,
    /// Whether a connection without one is refused in the handshake.
    pub is_required: bool,
}

impl ClientAuth {
    pub(super) fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let fail = |reason: String| TlsError::Authority { path: self.authority.clone(), reason };
        let text = pair::contents(&self.authority)?;
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&text) {
            let certificate =
                certificate.map_err(|_| TlsError::NoCertificate(self.authority.clone()))?;
            roots.add(certificate).map_err(|error| fail(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(TlsError::NoCertificate(self.authority.clone()));
        }
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        if let Some(path) = &self.revoked {
            let text = pair::contents(path)?;
            let lists: Result<Vec<_>, _> =
                CertificateRevocationListDer::pem_slice_iter(&text).collect();
            let none = || TlsError::NoList(path.clone());
            let lists = lists.ok().filter(|lists| !lists.is_empty()).ok_or_else(none)?;
            // A list speaks for its own authority; those of others have none.
            builder = builder.with_crls(lists).allow_unknown_revocation_status();
        }
        if !self.is_required {
            builder = builder.allow_unauthenticated();
        }
        builder.build().map_err(|error| fail(error.to_string()))
    }
}

/// What an instance is told of a client's certificate, as header values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The subject's distinguished name: `C=DE, O=Acme, CN=till-7`. Bytes beyond visible ASCII are
    /// percent-encoded.
    pub subject: HeaderValue,
    /// SHA-256 of the certificate, in lower-case hexadecimal.
    pub fingerprint: HeaderValue,
}

/// The certificate that a client has shown, and that was verified.
#[must_use]
pub fn client_of(connection: &rustls::ServerConnection) -> Option<Rc<ClientCertificate>> {
    known(connection.peer_certificates()?.first()?)
}

/// The same of a connection by QUIC, from the chain as its library gives it.
#[cfg(feature = "http3")]
#[must_use]
pub fn certificate_of(chain: &dyn std::any::Any) -> Option<Rc<ClientCertificate>> {
    known(chain.downcast_ref::<Vec<CertificateDer<'static>>>()?.first()?)
}

fn known(certificate: &CertificateDer<'_>) -> Option<Rc<ClientCertificate>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
    let fingerprint: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Some(Rc::new(ClientCertificate {
        subject: HeaderValue::from_str(&visible(&parsed.subject().to_string())).ok()?,
        fingerprint: HeaderValue::from_str(&fingerprint).ok()?,
    }))
}

fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (byte.is_ascii_graphic() || byte == b' ') && byte != b'%' {
            shown.push(char::from(byte));
        } else {
            shown.push_str(&format!("%{byte:02X}"));
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_cannot_leave_its_header() {
        assert_eq!(visible("O=Müller & 50%, CN=a\r\nb"), "O=M%C3%BCller & 50%25, CN=a%0D%0Ab");
    }
}
