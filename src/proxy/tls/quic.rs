//! How hands are shaken by QUIC: by the same certificates and tickets as over TCP. Its library tells
//! little of a handshake, so what is to be known of one is noted on the way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use quinn::crypto::rustls::QuicServerConfig;
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{Shared, TlsError};

/// For handshakes: 1.3, which QUIC needs, HTTP/3 alone, and no early data, which anybody who saw it could
/// send again.
pub(super) fn config(config: &rustls::ServerConfig) -> Result<Arc<QuicServerConfig>, TlsError> {
    let mut config = config.clone();
    config.alpn_protocols = vec![b"h3".to_vec()];
    config.max_early_data_size = 0;
    let none = |_| TlsError::Setup(rustls::Error::General("no cipher for QUIC".to_owned()));
    QuicServerConfig::try_from(config).map(Arc::new).map_err(none)
}

/// What is known of a handshake when it is over.
#[derive(Debug, Default)]
pub struct Noted {
    resumed: AtomicBool,
    unknown: Mutex<Option<String>>,
}

impl Noted {
    /// Whether an earlier session was resumed.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.resumed.load(Ordering::Relaxed)
    }

    /// The name without a certificate that was asked for, if there was one; once.
    #[must_use]
    pub fn take_unknown(&self) -> Option<String> {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Stands between the library and the certificates and tickets of one handshake.
#[derive(Debug)]
struct Noting {
    noted: Arc<Noted>,
    shared: Arc<Shared>,
    resolver: Arc<dyn ResolvesServerCert>,
    tickets: Arc<dyn ProducesTickets>,
}

/// The same settings for one handshake, of which something is noted.
pub(super) fn noting(
    shared: &Arc<Shared>,
    settings: &rustls::ServerConfig,
) -> Result<(Arc<QuicServerConfig>, Arc<Noted>), TlsError> {
    let noted = Arc::<Noted>::default();
    let noting = Arc::new(Noting {
        noted: Arc::clone(&noted),
        shared: Arc::clone(shared),
        resolver: Arc::clone(&settings.cert_resolver),
        tickets: Arc::clone(&settings.ticketer),
    });
    let mut settings = settings.clone();
    settings.ticketer = Arc::clone(&noting) as _;
    settings.cert_resolver = noting;
    Ok((config(&settings)?, noted))
}

impl ResolvesServerCert for Noting {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(name) = hello.server_name() {
            let name = name.to_ascii_lowercase();
            if !self.shared.shelf.load().knows(&name) {
                let mut unknown = self.noted.unknown.lock().unwrap_or_else(PoisonError::into_inner);
                *unknown = Some(name);
            }
        }
        self.resolver.resolve(hello)
    }
}

impl ProducesTickets for Noting {
    fn enabled(&self) -> bool {
        self.tickets.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.tickets.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.tickets.encrypt(plain)
    }

    /// A ticket of ours that is still good: with it a session is resumed.
    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let plain = self.tickets.decrypt(cipher);
        self.noted.resumed.store(plain.is_some(), Ordering::Relaxed);
        plain
    }
}
