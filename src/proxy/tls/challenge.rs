//! What proves to a certificate authority that a name is ours: tokens under a well-known path
//! (RFC 8555, 8.3), and certificates with a mark that are shown to those who ask for them
//! (RFC 8737).

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::ClientHello;
use rustls::sign::CertifiedKey;

use super::TlsError;

/// Where tokens are asked for.
pub const ACME_PATH: &str = "/.well-known/acme-challenge/";
/// The protocol by which marked certificates are asked for.
pub const ACME_ALPN: &[u8] = b"acme-tls/1";

/// Whether a client asks for a marked certificate: it offers that protocol alone.
pub(super) fn is_challenge(hello: &ClientHello<'_>) -> bool {
    hello
        .alpn()
        .is_some_and(|mut offered| offered.next() == Some(ACME_ALPN) && offered.next().is_none())
}

#[derive(Debug, Clone, Default)]
struct Proofs {
    /// Answers by token.
    tokens: HashMap<String, String>,
    /// Marked certificates by name.
    certificates: HashMap<String, Arc<CertifiedKey>>,
}

/// Proofs that are shown now. Empty but for the seconds in which one is checked.
#[derive(Debug, Default)]
pub struct Challenges {
    proofs: ArcSwap<Proofs>,
}

impl Challenges {
    /// Answers a token from now on.
    pub fn add_token(&self, token: &str, answer: &str) {
        self.proofs.rcu(|proofs| {
            let mut proofs = Proofs::clone(proofs);
            proofs.tokens.insert(token.to_owned(), answer.to_owned());
            proofs
        });
    }

    /// Shows a marked certificate for a name from now on.
    ///
    /// Both are DER, the key PKCS #8. The mark is critical and unknown to rustls, which therefore does
    /// not look into the certificate.
    pub fn add_certificate(&self, name: &str, marked: &[u8], key: &[u8]) -> Result<(), TlsError> {
        let key = PrivatePkcs8KeyDer::from(key.to_vec()).into();
        let key = super::provider().key_provider.load_private_key(key).map_err(TlsError::Setup)?;
        let chain = vec![CertificateDer::from(marked.to_vec())];
        let certificate = Arc::new(CertifiedKey::new(chain, key));
        self.proofs.rcu(|proofs| {
            let mut proofs = Proofs::clone(proofs);
            proofs.certificates.insert(name.to_ascii_lowercase(), Arc::clone(&certificate));
            proofs
        });
        Ok(())
    }

    /// Forgets a token, or the certificate of a name.
    pub fn remove(&self, token_or_name: &str) {
        self.proofs.rcu(|proofs| {
            let mut proofs = Proofs::clone(proofs);
            proofs.tokens.remove(token_or_name);
            proofs.certificates.remove(&token_or_name.to_ascii_lowercase());
            proofs
        });
    }

    /// The answer to the token that a path asks for.
    #[must_use]
    pub fn answer(&self, path: &str) -> Option<String> {
        self.proofs.load().tokens.get(path.strip_prefix(ACME_PATH)?).cloned()
    }

    pub(super) fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.proofs.load().certificates.get(&name.to_ascii_lowercase()).cloned()
    }
}
