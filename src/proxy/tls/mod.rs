//! TLS towards visitors: certificates chosen by the name that the client asks for, replaced while
//! running; client certificates; tickets.
//!
//! The set of certificates and the settings are the things besides the routing table that are
//! swapped; a connection keeps what its handshake saw. Session tickets are encrypted with keys that
//! all workers share and that change every few hours; new settings have new keys, so that nobody
//! resumes a session which the old ones allowed. Where certificates come from, and when they are
//! renewed, is not known here.

mod challenge;
mod client;
mod pair;
#[cfg(feature = "http3")]
mod quic;
mod shelf;
mod wanted;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
#[cfg(feature = "http3")]
use quinn::crypto::rustls::QuicServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{Acceptor, ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

pub use challenge::{ACME_ALPN, ACME_PATH, Challenges};
#[cfg(feature = "http3")]
pub use client::certificate_of;
pub use client::{ClientAuth, ClientCertificate, client_of};
pub use pair::{Facts, Pair};
#[cfg(feature = "http3")]
pub use quic::Noted;
use shelf::Shelf;
pub use wanted::Wanted;

/// Where a certificate and its key are: PEM files, the chain leaf first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// How TLS is spoken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Whether TLS 1.2 is refused.
    pub only_13: bool,
    /// Whether clients are asked for certificates.
    pub client: Option<ClientAuth>,
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
    /// A file has no list of revoked certificates.
    #[error("{} holds no list of revoked certificates: it must be PEM, with -----BEGIN X509 CRL-----", .0.display())]
    NoList(PathBuf),
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
    /// The authority for clients' certificates cannot be used.
    #[error("clients cannot be asked for certificates of {}: {reason}", path.display())]
    Authority {
        /// Its file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// There is nothing to serve with.
    #[error("no certificate is given for https")]
    Empty,
    /// The TLS library refused its settings.
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// What all workers share.
#[derive(Debug, Default)]
struct Shared {
    shelf: ArcSwap<Shelf>,
    challenges: Challenges,
}

/// The certificates that are served and how; both may be replaced at any time.
pub struct Certificates {
    shared: Arc<Shared>,
    config: ArcSwap<rustls::ServerConfig>,
    #[cfg(feature = "http3")]
    quic: ArcSwap<QuicServerConfig>,
    wanted: ArcSwapOption<Wanted>,
    asks_clients: AtomicBool,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl Certificates {
    /// TLS without a certificate yet.
    pub fn new(settings: &Settings) -> Result<Arc<Self>, TlsError> {
        let shared = Arc::<Shared>::default();
        let config = server_config(&shared, settings)?;
        let asks_clients = AtomicBool::new(settings.client.is_some());
        Ok(Arc::new(Self {
            shared,
            #[cfg(feature = "http3")]
            quic: ArcSwap::from(quic::config(&config)?),
            config: ArcSwap::from(config),
            wanted: ArcSwapOption::empty(),
            asks_clients,
        }))
    }

    /// TLS with these files' certificates, and the default settings.
    pub fn load(files: &[CertificateFiles]) -> Result<Arc<Self>, TlsError> {
        let pairs = Pair::read_all(files)?;
        let certificates = Self::new(&Settings::default())?;
        certificates.replace(&pairs);
        Ok(certificates)
    }

    /// Serves with these from now on. The first that is a file's is for clients that name no host, or
    /// one that nobody has.
    pub fn replace(&self, pairs: &[Arc<Pair>]) {
        self.shared.shelf.store(Arc::new(Shelf::new(pairs)));
    }

    /// Speaks TLS like this from now on, with new ticket keys. On an error nothing changes.
    pub fn configure(&self, settings: &Settings) -> Result<(), TlsError> {
        let config = server_config(&self.shared, settings)?;
        #[cfg(feature = "http3")]
        self.quic.store(quic::config(&config)?);
        self.config.store(config);
        self.asks_clients.store(settings.client.is_some(), Ordering::Relaxed);
        Ok(())
    }

    /// Whether clients are asked for certificates: then what they say of such in headers is ours.
    #[must_use]
    pub fn asks_clients(&self) -> bool {
        self.asks_clients.load(Ordering::Relaxed)
    }

    /// What proves to a certificate authority that names are ours.
    #[must_use]
    pub fn challenges(&self) -> &Challenges {
        &self.shared.challenges
    }

    /// From now on this is told of names without a certificate, and the handshake waits for it; with
    /// `None` such a handshake fails at once.
    pub fn on_demand(&self, wanted: Option<Wanted>) {
        self.wanted.store(wanted.map(Arc::new));
    }

    /// How hands are shaken by QUIC at this moment: certificates are chosen as over TCP.
    #[cfg(feature = "http3")]
    #[must_use]
    pub fn quic(&self) -> Arc<QuicServerConfig> {
        self.quic.load_full()
    }

    /// The same for one handshake, with what will be known of it.
    ///
    /// # Errors
    /// None that [`Self::configure`] would not have had.
    #[cfg(feature = "http3")]
    pub fn quic_once(&self) -> Result<(Arc<QuicServerConfig>, Arc<Noted>), TlsError> {
        quic::noting(&self.shared, &self.config.load())
    }

    /// Whether somebody is told of names without a certificate.
    #[cfg(feature = "http3")]
    #[must_use]
    pub fn is_on_demand(&self) -> bool {
        self.wanted.load().is_some()
    }

    /// Tells of a name without a certificate, and waits until it was decided about it. A handshake by QUIC
    /// cannot wait for that: it fails, and the next one of that visitor finds what came of it.
    ///
    /// Cancel safety: may be dropped at any time.
    #[cfg(feature = "http3")]
    pub async fn want(&self, name: String) {
        if let Some(wanted) = self.wanted.load_full() {
            wanted.get(name).await;
        }
    }

    /// Shakes hands with a client.
    ///
    /// Cancel safety: dropped, the connection is.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = self.config.load_full();
        let Some(wanted) = self.wanted.load_full() else {
            return TlsAcceptor::from(config).accept(stream).await;
        };
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let name = {
            let hello = start.client_hello();
            let name = hello.server_name().filter(|_| !challenge::is_challenge(&hello));
            name.map(str::to_ascii_lowercase)
        };
        if let Some(name) = name
            && !self.shared.shelf.load().knows(&name)
        {
            wanted.get(name).await;
        }
        start.into_stream(config).await
    }
}

/// Settings for TLS: 1.2 and 1.3, HTTP/2 before HTTP/1.1, tickets.
fn server_config(
    shared: &Arc<Shared>,
    settings: &Settings,
) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let versions: &[&rustls::SupportedProtocolVersion] =
        if settings.only_13 { &[&rustls::version::TLS13] } else { rustls::ALL_VERSIONS };
    let builder = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(TlsError::Setup)?;
    let builder = match &settings.client {
        Some(auth) => builder.with_client_cert_verifier(auth.verifier()?),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Resolver(Arc::clone(shared))));
    // The last is spoken by certificate authorities only, and fails unless one is expected.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), ACME_ALPN.to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::Setup)?;
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

#[derive(Debug)]
struct Resolver(Arc<Shared>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if challenge::is_challenge(&hello) {
            return self.0.challenges.certificate(hello.server_name()?);
        }
        self.0.shelf.load().choose(hello.server_name(), hello.signature_schemes())
    }
}
