//! What is known about a request when its service's policy is asked.

use std::net::IpAddr;

use http::{HeaderValue, Method, Uri};

/// What a policy knows about a request.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Who asks: the client, as far as proxies before us are trusted.
    pub client: IpAddr,
    /// The host that was asked for, as the client wrote it; may have a port.
    pub host: &'a str,
    /// The method.
    pub method: &'a Method,
    /// The target; only its path and query are looked at.
    pub uri: &'a Uri,
    /// Whether the client's connection is encrypted, here or at a trusted proxy.
    pub secure: bool,
    /// Whether the client has shown a certificate that is good.
    pub certificate: bool,
    /// The request's id.
    pub request_id: &'a HeaderValue,
    /// Who the client has shown to be.
    pub user: Option<&'a str>,
}

/// The same for rules that still ask when the request has gone on.
#[derive(Debug, Clone)]
pub struct Kept {
    client: IpAddr,
    host: Box<str>,
    method: Method,
    uri: Uri,
    secure: bool,
    certificate: bool,
    request_id: HeaderValue,
    /// Who the client has shown to be.
    pub user: Option<String>,
}

impl Kept {
    /// What is known.
    #[must_use]
    pub fn facts(&self) -> Facts<'_> {
        Facts {
            client: self.client,
            host: &self.host,
            method: &self.method,
            uri: &self.uri,
            secure: self.secure,
            certificate: self.certificate,
            request_id: &self.request_id,
            user: self.user.as_deref(),
        }
    }
}

impl<'a> Facts<'a> {
    /// Keeps them beyond the request's head.
    #[must_use]
    pub fn keep(&self) -> Kept {
        Kept {
            client: self.client,
            host: self.host.into(),
            method: self.method.clone(),
            uri: self.uri.clone(),
            secure: self.secure,
            certificate: self.certificate,
            request_id: self.request_id.clone(),
            user: self.user.map(str::to_owned),
        }
    }

    /// The host without its port.
    #[must_use]
    pub fn name(&self) -> &'a str {
        bare_host(self.host)
    }

    /// `https` or `http`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// Path and query, as the client wrote them.
    #[must_use]
    pub fn path_and_query(&self) -> &'a str {
        self.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
    }
}

/// A host without its port; an IPv6 literal keeps its brackets.
#[must_use]
pub fn bare_host(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.find(']').map_or(host, |end| &host[..end + 2]),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    }
}

#[cfg(test)]
pub(super) fn facts(text: &str) -> Facts<'static> {
    let (host, target) = text.split_once('/').expect("host/path");
    let kept = Kept {
        client: IpAddr::from([203, 0, 113, 7]),
        host: host.into(),
        method: Method::GET,
        uri: format!("/{target}").parse().expect("a target"),
        secure: false,
        certificate: false,
        request_id: HeaderValue::from_static("id-1"),
        user: None,
    };
    // For as long as a test lasts.
    Box::leak(Box::new(kept)).facts()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_loses_its_port() {
        for (host, bare) in
            [("a.example:80", "a.example"), ("a", "a"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]")]
        {
            assert_eq!(bare_host(host), bare);
        }
        let facts = facts("a.example:8080/x?y=z");
        assert_eq!(
            (facts.name(), facts.path_and_query(), facts.scheme()),
            ("a.example", "/x?y=z", "http")
        );
        let mut kept = Facts { secure: true, ..facts }.keep();
        kept.user = Some("ann".to_owned());
        let again = kept.facts();
        assert_eq!((again.host, again.uri, again.scheme()), (facts.host, facts.uri, "https"));
        assert_eq!((again.client, again.request_id), (facts.client, facts.request_id));
        assert_eq!((again.method, again.user), (&Method::GET, Some("ann")));
    }
}
