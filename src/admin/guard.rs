//! Who may come in over TCP.
//!
//! Does not encrypt and knows one secret only. With a token, a request must show it; a token is sent
//! by no browser on its own, so that is enough. Without one (loopback only) the danger is a web page
//! in a browser on this machine: a name that was rebound to 127.0.0.1 shows in `Host`, and a page of
//! another site shows in `Origin` or `Sec-Fetch-Site`.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::{Kind, Problem};

/// What is asked of a request before anything else.
#[derive(Debug, Clone)]
pub(super) enum Guard {
    /// Nothing: the rights of the socket decide.
    Open,
    /// That it comes from this machine by intent.
    Loopback,
    /// That it shows this token.
    Token(Arc<str>),
}

/// Paths that say nothing worth a secret: a balancer asks them.
const PUBLIC: [&str; 2] = ["/healthz", "/readyz"];

impl Guard {
    /// The guard of a TCP address.
    pub(super) fn tcp(token: Option<&str>) -> Self {
        token.map_or(Self::Loopback, |token| Self::Token(token.trim().into()))
    }

    /// Whether a request may come in.
    fn admit(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        // What proves the right to use a link is the link.
        let is_link = uri.path().starts_with(super::links::PREFIX);
        if matches!(self, Self::Open) || PUBLIC.contains(&uri.path()) || is_link {
            return Ok(());
        }
        match self {
            Self::Open => Ok(()),
            Self::Token(token) => bearer(token, headers),
            Self::Loopback => {
                let host = text(headers, &header::HOST)
                    .or_else(|| uri.authority().map(axum::http::uri::Authority::as_str));
                let host = host.unwrap_or_default();
                if !is_local(host) {
                    return Err(Problem::new(
                        Kind::Forbidden,
                        format!(
                            "the Host header says {host:?}, and without a token the admin API answers only to \
                             localhost or a loopback address: use http://127.0.0.1, or set [admin] token"
                        ),
                    ));
                }
                if method == Method::GET || method == Method::HEAD {
                    Ok(())
                } else {
                    same_origin(host, headers)
                }
            }
        }
    }
}

/// The layer that asks the guard.
pub(super) async fn layer(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match guard.admit(request.method(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn bearer(token: &str, headers: &HeaderMap) -> Result<(), Problem> {
    let shown = text(headers, &header::AUTHORIZATION).and_then(|value| {
        let (scheme, shown) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| shown.trim())
    });
    let Some(shown) = shown else {
        return Err(Problem::new(
            Kind::Unauthorized,
            "the admin API needs a token here: send `Authorization: Bearer …`, or set SWITCHBACK_TOKEN",
        ));
    };
    // In constant time, so that the answer's delay says nothing of how much was right.
    aws_lc_rs::constant_time::verify_slices_are_equal(token.as_bytes(), shown.as_bytes())
        .map_err(|_| Problem::new(Kind::Unauthorized, "this is not the admin token"))
}

/// Whether a `Host` names this machine: `localhost`, `*.localhost` (RFC 6761) or a loopback address.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn same_origin(host: &str, headers: &HeaderMap) -> Result<(), Problem> {
    let foreign = |whence: &str| {
        Problem::new(
            Kind::Forbidden,
            format!("a change was asked for by {whence}, which is another site than this one"),
        )
    };
    if let Some(site) = text(headers, &header::HeaderName::from_static("sec-fetch-site"))
        && !matches!(site, "same-origin" | "none")
    {
        return Err(foreign(&format!("a {site} page")));
    }
    match headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or("null")) {
        None => Ok(()),
        Some(origin) => {
            let authority =
                origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            if authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host)) {
                Ok(())
            } else {
                Err(foreign(origin))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_names_are_local() {
        for host in [
            "localhost",
            "localhost:9900",
            "127.0.0.1:9900",
            "[::1]:9900",
            "127.1.2.3",
            "ui.LOCALHOST.",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:9900",
            "10.0.0.1",
            "[::2]",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }
}
