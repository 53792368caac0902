//! HTTP/3 from the outside: a client of our own over quinn and h3, real sockets, real instances.

#![allow(clippy::large_futures, reason = "a story is told once")]

mod attackers;
mod handshakes;
mod life;
mod requests;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use h3::client::{RequestStream, SendRequest};
use h3::error::StreamError;
use http::{HeaderMap, Request};
use quinn::Endpoint;
use quinn::crypto::rustls::QuicClientConfig;
use tokio::time::timeout;

use super::streams::{Both, Link, Opener};
use crate::proxy::Settings;
use crate::proxy::limits::Limits;
use crate::proxy::tests::anyone::Anyone;
use crate::proxy::tests::secure::{Pki, pki};
use crate::proxy::tests::support::*;
use crate::proxy::tls::Certificates;
use crate::routing::settings::ServiceSettings;
use crate::routing::table::SideEntry;

/// Tells a story whose client lives on one thread.
async fn local<T>(story: impl Future<Output = T>) -> T {
    tokio::task::LocalSet::new().run_until(story).await
}

fn limits() -> Limits {
    Limits::default()
}

/// A proxy that speaks HTTP/3, on so many workers.
fn rig_with(stable: SideEntry, workers: usize, limits: Limits, service: ServiceSettings) -> Rig {
    let pki = pki(&["app.example"]);
    rig_of(&pki, stable, Settings { workers, limits, ..settings() }, service)
}

fn rig_of(pki: &Pki, stable: SideEntry, settings: Settings, service: ServiceSettings) -> Rig {
    let tls = Some(Certificates::load(&pki.files).expect("certificates"));
    let settings = Settings { https: vec![any()], http3: true, tls, ..settings };
    Rig::with(stable, None, 0.0, service, settings)
}

fn rig(stable: SideEntry) -> Rig {
    rig_with(stable, 1, limits(), ServiceSettings::default())
}

fn https(rig: &Rig) -> SocketAddr {
    rig.proxy.addresses().https[0]
}

fn client_config() -> quinn::ClientConfig {
    client_config_of(None)
}

/// A client, with what it shows of itself.
fn client_config_of(shows: Option<&(rcgen::Certificate, rcgen::KeyPair)>) -> quinn::ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("a version")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone::all()));
    let mut config = match shows {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der());
            let chain = vec![certificate.der().clone()];
            config.with_client_auth_cert(chain, key.expect("a key")).expect("a pair")
        }
    };
    config.alpn_protocols = vec![b"h3".to_vec()];
    let crypto = QuicClientConfig::try_from(config).expect("a cipher");
    quinn::ClientConfig::new(Arc::new(crypto))
}

fn endpoint_of_client() -> Endpoint {
    Endpoint::client(any()).expect("a port")
}

/// A client with one connection.
struct Visitor {
    endpoint: Endpoint,
    quic: quinn::Connection,
    requests: SendRequest<Opener, Bytes>,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
    trailers: Option<HeaderMap>,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }
}

impl Visitor {
    async fn new(address: SocketAddr) -> Self {
        Self::try_new(address).await.expect("a connection")
    }

    async fn try_new(address: SocketAddr) -> Result<Self, quinn::ConnectionError> {
        Self::named(address, client_config(), "app.example").await
    }

    async fn named(
        address: SocketAddr,
        config: quinn::ClientConfig,
        name: &str,
    ) -> Result<Self, quinn::ConnectionError> {
        let endpoint = endpoint_of_client();
        let connecting = endpoint.connect_with(config, address, name);
        let quic = timeout(LONG, connecting.expect("begun")).await.expect("in time")?;
        let link = Link::new(quic.clone(), usize::MAX);
        let (mut driver, requests) =
            h3::client::builder().send_grease(true).build(link).await.expect("HTTP/3");
        tokio::task::spawn_local(async move {
            std::future::poll_fn(|context| driver.poll_close(context)).await
        });
        Ok(Self { endpoint, quic, requests })
    }

    async fn begin(&mut self, request: Request<()>) -> RequestStream<Both, Bytes> {
        self.requests.send_request(request).await.expect("a stream")
    }

    async fn fetch(&mut self, request: Request<()>, body: &str) -> Result<Answer, StreamError> {
        let mut stream = self.requests.send_request(request).await?;
        if !body.is_empty() {
            stream.send_data(Bytes::copy_from_slice(body.as_bytes())).await?;
        }
        stream.finish().await?;
        read(&mut stream).await
    }

    async fn get(&mut self, path: &str) -> Answer {
        self.fetch(get_of(path), "").await.expect("an answer")
    }

    /// The code with which the proxy closes the connection.
    async fn closed(&self) -> u64 {
        match timeout(LONG, self.quic.closed()).await.expect("an end in time") {
            quinn::ConnectionError::ApplicationClosed(closed) => closed.error_code.into_inner(),
            other => panic!("closed otherwise: {other}"),
        }
    }
}

async fn read(stream: &mut RequestStream<Both, Bytes>) -> Result<Answer, StreamError> {
    let reading = async {
        let (head, ()) = stream.recv_response().await?.into_parts();
        let mut body = Vec::new();
        while let Some(mut data) = stream.recv_data().await? {
            body.extend_from_slice(&data.copy_to_bytes(data.remaining()));
        }
        let trailers = stream.recv_trailers().await?;
        let body = String::from_utf8(body).expect("text");
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body, trailers })
    };
    timeout(LONG, reading).await.expect("an answer in time")
}

fn get_of(path: &str) -> Request<()> {
    Request::get(format!("https://app.example{path}")).body(()).expect("sound")
}

fn post_of(path: &str) -> Request<()> {
    Request::post(format!("https://app.example{path}")).body(()).expect("sound")
}

/// The code of a stream that was reset.
fn code_of(error: &StreamError) -> u64 {
    match error {
        StreamError::RemoteTerminate { code, .. } => code.value(),
        other => panic!("failed otherwise: {other}"),
    }
}
