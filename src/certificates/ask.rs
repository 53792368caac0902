//! Asks the operator's app whether a name may have a certificate: `GET URL?domain=NAME`, 200 is yes.

use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A visitor waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether a name may have a certificate. The error is one sentence.
pub async fn ask(url: &str, name: &str) -> Result<bool, String> {
    let answer = tokio::time::timeout(PATIENCE, get(url, name)).await;
    let status = answer
        .map_err(|_| format!("{url} did not answer within {PATIENCE:?}"))?
        .map_err(|error| format!("{url} cannot be asked: {error}"))?;
    Ok(status == StatusCode::OK)
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

async fn get(url: &str, name: &str) -> Result<StatusCode, Failed> {
    let uri: Uri = url.parse()?;
    let authority = uri.authority().ok_or("it has no host")?.clone();
    let port = authority.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((authority.host(), port)).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(format!("{}?domain={name}", uri.path()))
        .header(HOST, authority.as_str())
        .header(USER_AGENT, concat!("switchback/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())?;
    // It ends with the sender, if the app does not end it before.
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?.status())
}
