//! One request to an address of somebody else's: a chat, a webhook, a gate.
//!
//! Over a connection of its own, with TLS where the URL says https, within a time limit. Sentences
//! name the host alone: paths of such URLs are often secrets.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Bytes of an answer that are read: what went wrong stands at its beginning.
const MOST_BODY: usize = 16 * 1024;

/// Whom to believe about certificates. Cheap to clone.
#[derive(Clone)]
pub struct Trust(Arc<ClientConfig>);

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Trust")
    }
}

impl Trust {
    /// The authorities of this machine.
    pub fn system() -> Result<Self, String> {
        // Some hundred files: read once.
        static SYSTEM: OnceLock<Result<Trust, String>> = OnceLock::new();
        let read = || {
            let mut roots = RootCertStore::empty();
            let found = rustls_native_certs::load_native_certs();
            let (added, _) = roots.add_parsable_certificates(found.certs);
            if added == 0 {
                return Err(
                    "this machine has no certificate authorities (install ca-certificates)"
                        .to_owned(),
                );
            }
            Self::of(roots)
        };
        SYSTEM.get_or_init(read).clone()
    }

    /// These authorities alone, PEM.
    pub fn only(pem: &str) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|error| error.to_string())?;
            roots.add(certificate).map_err(|error| error.to_string())?;
        }
        if roots.is_empty() {
            return Err("there is no certificate in it".to_owned());
        }
        Self::of(roots)
    }

    fn of(roots: RootCertStore) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }
}

/// A request.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// Where to, http or https.
    pub url: &'a str,
    /// The JSON that is posted; a GET without one.
    pub json: Option<Vec<u8>>,
    /// Header fields beside the usual ones.
    pub headers: &'a [(&'static str, String)],
    /// How long all of it may take.
    pub timeout: Duration,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// Its status.
    pub status: u16,
    /// How long to wait before asking again, as it says.
    pub retry_after: Option<Duration>,
    /// The beginning of its body.
    pub body: String,
}

impl Answered {
    /// Whether it says yes: 2xx.
    #[must_use]
    pub fn is_well(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// The host and port of a URL, for sentences.
#[must_use]
pub fn place(url: &str) -> String {
    let authority = url.parse::<Uri>().ok().and_then(|uri| uri.authority().cloned());
    authority.map_or_else(
        || "that address".to_owned(),
        |authority| match authority.port() {
            Some(port) => format!("{}:{port}", authority.host()),
            None => authority.host().to_owned(),
        },
    )
}

/// Sends a request once. An error is one sentence.
///
/// Cancel safety: dropping it closes the connection.
pub async fn call(trust: Result<Trust, String>, call: Call<'_>) -> Result<Answered, String> {
    let (place, limit) = (place(call.url), call.timeout);
    match tokio::time::timeout(limit, exchange(trust, call)).await {
        Err(_) => Err(format!("{place} did not answer within {limit:?}")),
        Ok(Err(error)) => Err(format!("{place}: {}", whole(error.as_ref()))),
        Ok(Ok(answered)) => Ok(answered),
    }
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// An error with its causes: hyper and rustls say what matters last.
fn whole(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

async fn exchange(trust: Result<Trust, String>, call: Call<'_>) -> Result<Answered, Failed> {
    let uri: Uri = call.url.parse()?;
    let authority = uri.authority().ok_or("it has no host")?.clone();
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    let secure = uri.scheme_str() == Some("https");
    let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let target = uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
    let mut request = Request::builder()
        .method(if call.json.is_some() { Method::POST } else { Method::GET })
        .uri(target)
        .header(HOST, authority.as_str().rsplit('@').next().unwrap_or_default())
        .header(USER_AGENT, concat!("switchback/", env!("CARGO_PKG_VERSION")));
    if call.json.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    for (name, value) in call.headers {
        request = request.header(*name, value.as_str());
    }
    let request = request.body(Full::new(Bytes::from(call.json.unwrap_or_default())))?;
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    if !secure {
        return converse(stream, request).await;
    }
    let name = ServerName::try_from(host)?;
    let stream = TlsConnector::from(trust?.0).connect(name, stream).await?;
    converse(stream, request).await
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Answered, Failed> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the sender, if the other side does not end it before.
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await;
    let read = async {
        let answer = answer?;
        let status = answer.status().as_u16();
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|value| value.trim().parse().ok());
        // An answer that is longer, or ends early, still has its status.
        let body = Limited::new(answer.into_body(), MOST_BODY).collect().await;
        let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Ok::<_, Failed>(Answered {
            status,
            retry_after: retry_after.map(Duration::from_secs),
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    };
    let answered = read.await;
    connection.abort();
    answered
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn once(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/secret?x=1", listener.local_addr().unwrap());
        let heard = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = Vec::new();
            while !heard.ends_with(b"{\"a\":1}") {
                let mut some = [0; 1024];
                let count = stream.read(&mut some).await.unwrap();
                assert!(count > 0, "{heard:?}");
                heard.extend_from_slice(&some[..count]);
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(heard).unwrap()
        });
        (url, heard)
    }

    #[tokio::test]
    async fn what_is_posted_arrives_and_the_answer_comes_back() {
        let (url, heard) = once(
            "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nslow",
        )
        .await;
        let headers = [("x-one", "1".to_owned())];
        let json = Some(b"{\"a\":1}".to_vec());
        let limit = Duration::from_secs(20);
        let asked = Call { url: &url, json, headers: &headers, timeout: limit };
        let answered = call(Trust::system(), asked).await.unwrap();
        assert_eq!((answered.status, answered.body.as_str()), (429, "slow"));
        assert_eq!(answered.retry_after, Some(Duration::from_secs(7)));
        let heard = heard.await.unwrap();
        assert!(heard.starts_with("POST /secret?x=1 HTTP/1.1\r\n"), "{heard}");
        assert!(heard.contains("x-one: 1\r\n") && heard.contains("application/json"), "{heard}");
    }

    #[tokio::test]
    async fn what_fails_is_said_without_the_path() {
        let url = "http://127.0.0.1:1/bot123:secret/sendMessage";
        let limit = Duration::from_secs(20);
        let asked = Call { url, json: None, headers: &[], timeout: limit };
        let said = call(Trust::system(), asked).await.unwrap_err();
        assert!(said.starts_with("127.0.0.1:1: ") && !said.contains("secret"), "{said}");
        assert!(Trust::only("nothing").is_err());
    }
}
