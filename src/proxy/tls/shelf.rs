//! The certificates in order, found by name: one look-up, however many there are.
//!
//! Of several for one name, the client's abilities choose: ECDSA and Ed25519 come before RSA, because
//! their signatures cost a tenth, and RSA is for those who know nothing else.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};

use super::Pair;

type Keys = Vec<Arc<CertifiedKey>>;

/// Certificates by name.
#[derive(Debug, Default)]
pub struct Shelf {
    exact: HashMap<String, Keys>,
    /// By the name without `*.`.
    wildcard: HashMap<String, Keys>,
    /// For names that nobody has; only certificates from files.
    unknown: Keys,
    /// For clients without a name, where `unknown` is empty.
    nameless: Keys,
}

impl Shelf {
    /// Certificates in the order in which they are preferred.
    #[must_use]
    pub fn new(pairs: &[Arc<Pair>]) -> Self {
        let mut sorted: Vec<&Arc<Pair>> = pairs.iter().collect();
        sorted.sort_by_key(|pair| pair.key.key.algorithm() == SignatureAlgorithm::RSA);
        let mut shelf = Self::default();
        for pair in &sorted {
            for name in &pair.facts.names {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(below) => (&mut shelf.wildcard, below),
                    None => (&mut shelf.exact, name.as_str()),
                };
                map.entry(name.to_owned()).or_default().push(Arc::clone(&pair.key));
            }
        }
        // The first and its siblings of other kinds.
        let like = |first: &Arc<Pair>| {
            let same = |pair: &&&Arc<Pair>| pair.facts.names == first.facts.names;
            sorted.iter().filter(same).map(|pair| Arc::clone(&pair.key)).collect()
        };
        shelf.unknown = pairs.iter().find(|pair| pair.is_default).map(like).unwrap_or_default();
        shelf.nameless = pairs.first().map(like).unwrap_or_default();
        shelf
    }

    /// Whether there is a certificate for a name, in lower case.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        self.exact.contains_key(name) || self.below(name).is_some()
    }

    fn below(&self, name: &str) -> Option<&Keys> {
        self.wildcard.get(name.split_once('.')?.1)
    }

    /// The certificate for a client: by its name, and by what it can check.
    #[must_use]
    pub fn choose(
        &self,
        name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        let Some(name) = name else {
            let keys = if self.unknown.is_empty() { &self.nameless } else { &self.unknown };
            return keys.iter().find(fits).or(keys.first()).cloned();
        };
        // rustls hands names over in lower case or as sent; most clients send lower case.
        let lower;
        let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lower = name.to_ascii_lowercase();
            &lower
        } else {
            name
        };
        let found = [self.exact.get(name), self.below(name), Some(&self.unknown)];
        let mut found = found.into_iter().flatten().filter(|keys| !keys.is_empty());
        let first = found.next()?;
        // None fits: the handshake says so in TLS's own words.
        let fitting = first.iter().find(fits).or_else(|| found.flatten().find(fits));
        fitting.or(first.first()).cloned()
    }
}
