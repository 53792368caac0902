//! Reads `[tls]` and `[acme]`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};

use super::problem::Problem;
use super::raw::{Node, Value};
use super::reader::{Found, Section};
use super::scalar;
use crate::routing::table::HostPattern;

/// `[tls]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// From files; the first is for visitors who ask for no name or an unknown one.
    pub certificates: Vec<Certificate>,
    /// Whether TLS 1.2 is refused.
    pub only_13: bool,
    /// Whether visitors are asked for certificates.
    pub client: Option<ClientAuth>,
    /// Which names get certificates from a CA of this machine.
    pub local: Local,
}

/// A certificate and its key. The paths are resolved against the directory of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// PEM file with the chain.
    pub cert: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// How visitors are asked for certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuth {
    /// PEM file with the authorities that count.
    pub authority: PathBuf,
    /// PEM file with lists of revoked certificates.
    pub revoked: Option<PathBuf>,
    /// Whether a connection without one is refused.
    pub is_required: bool,
}

/// Which names get certificates from a CA of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Local {
    /// None.
    Off,
    /// `localhost` and what lies below it.
    Localhost,
    /// Every one that has no other.
    All,
}

/// `[acme]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// Whom the authority may write to.
    pub email: String,
    /// Its directory, by URL.
    pub directory: String,
    /// What the directory's own certificate is checked by; the system's CAs otherwise.
    pub directory_ca: Option<PathBuf>,
    /// More names, in lower case, also `*.example.com`.
    pub hosts: Vec<String>,
    /// How it is shown that names are ours.
    pub challenge: Challenge,
    /// Program and arguments that publish a DNS record; empty when there is none.
    pub dns_hook: Vec<String>,
    /// From publishing until the record is asked for.
    pub dns_wait: Duration,
    /// An external account.
    pub external: Option<ExternalAccount>,
    /// The profile to ask for.
    pub profile: Option<String>,
    /// Who is asked whether a name's certificate may be made on demand.
    pub ask: Option<String>,
}

/// How it is shown that names are ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// What can work, and another after a failure.
    Auto,
    /// A file under a well-known path on port 80.
    Http,
    /// A marked certificate on port 443.
    TlsAlpn,
    /// A DNS record.
    Dns,
}

/// An account that exists elsewhere, to which ours is bound.
#[derive(Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    /// Its identifier.
    pub kid: String,
    /// Its key. Secret.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExternalAccount").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// Reads both tables. There is no `Tls` without anything that could give a certificate.
pub(super) fn read(top: &Section<'_>, base: &Path) -> (Option<Tls>, Option<Acme>) {
    let section = top.inner("tls");
    let certificates = read_certificates(&section, base);
    let acme = top.written("acme").is_some().then(|| read_acme(&top.inner("acme"), base)).flatten();
    let local = match section.choice("local") {
        "all" => Local::All,
        "auto" if top.written("acme").is_some() => Local::Localhost,
        _ => Local::Off,
    };
    let client = read_client(&section, base);
    let only_13 = section.choice("min_version") == "1.3";
    let is_served = !certificates.is_empty() || acme.is_some() || local == Local::All;
    if let (false, Some(node)) = (is_served, section.written("client_auth"))
        && node.value != Value::Text("off".to_owned())
    {
        let title = "visitors are asked for certificates, but there is none of ours";
        section.wrong(
            "client_auth",
            &node.place,
            title,
            "add `cert` and `key`, or an [acme] table",
        );
    }
    (is_served.then_some(Tls { certificates, only_13, client, local }), acme)
}

fn read_certificates(section: &Section<'_>, base: &Path) -> Vec<Certificate> {
    let mut certificates: Vec<Certificate> = Vec::new();
    certificates.extend(read_certificate(section, base));
    let Some(Node { value, place }) = section.written("certificate") else { return certificates };
    let nodes = match value {
        Value::List(nodes) => nodes.as_slice(),
        _ => &[],
    };
    if nodes.is_empty() {
        let title = "`certificate` is a list of tables";
        let expected = "write [[tls.certificate]] with double brackets";
        section.wrong("certificate", place, title, expected);
    }
    for entry in section.tables("certificate") {
        match read_certificate(&entry, base) {
            Some(certificate) => certificates.push(certificate),
            None if entry.written("cert").is_none() && entry.written("key").is_none() => {
                section.report.add(
                    Problem::error(entry.place.clone(), "this certificate has no files")
                        .label("expected `cert` and `key`"),
                );
            }
            None => {}
        }
    }
    certificates
}

fn read_certificate(section: &Section<'_>, base: &Path) -> Option<Certificate> {
    match (section.text("cert"), section.text("key")) {
        (Some(cert), Some(key)) => Some(Certificate { cert: cert.path(base), key: key.path(base) }),
        (Some(one), None) if section.written("key").is_none() => missing(section, one, "key"),
        (None, Some(one)) if section.written("cert").is_none() => missing(section, one, "cert"),
        _ => None,
    }
}

fn missing(section: &Section<'_>, one: Found<String>, other: &str) -> Option<Certificate> {
    let place = one.place.unwrap_or_else(|| section.place.clone());
    section.report.add(
        Problem::error(place, format!("`{other}` is missing"))
            .label(format!("a certificate takes both files: add {other} = \"….pem\"")),
    );
    None
}

fn read_client(section: &Section<'_>, base: &Path) -> Option<ClientAuth> {
    let mode = section.choice("client_auth");
    let authority = section.text("client_ca");
    let revoked = section.text("client_crl").map(|found| found.path(base));
    match (mode, authority) {
        ("optional" | "required", Some(authority)) => Some(ClientAuth {
            authority: authority.path(base),
            revoked,
            is_required: mode == "required",
        }),
        ("optional" | "required", None) if section.lacks("client_ca") => {
            let place = section.place_of("client_auth").unwrap_or_else(|| section.place.clone());
            let title = "`client_auth` needs to know whose certificates count";
            let expected = "add client_ca = \"….pem\" with the certificate of that authority";
            section.wrong("client_auth", &place, title, expected);
            None
        }
        (_, Some(authority)) if section.written("client_auth").is_none() => {
            let place = authority.place.unwrap_or_else(|| section.place.clone());
            let title = "`client_ca` has no effect while visitors are not asked for certificates";
            let expected = "add client_auth = \"required\" or \"optional\", or leave this out";
            section.wrong("client_ca", &place, title, expected);
            None
        }
        _ => None,
    }
}

fn read_acme(section: &Section<'_>, base: &Path) -> Option<Acme> {
    let email = section.parsed("email", "an e-mail address", |text| match text.split_once('@') {
        Some((user, host)) if !user.is_empty() && host.contains('.') && text.is_ascii() => {
            Ok(text.trim().to_owned())
        }
        _ => Err("expected an address such as \"ops@example.com\"".to_owned()),
    });
    if section.lacks("email") {
        section.report.add(
            Problem::error(section.place.clone(), "`email` is missing in [acme]")
                .label("expected the address that the authority may write to")
                .help("with it you agree to the authority's terms of service"),
        );
    }
    let directory = section.parsed("directory", "an authority", directory);
    let hosts = section.each("host", "a host", |value| match value {
        Value::Text(text) => name(text),
        _ => name(""),
    });
    let dns_hook: Vec<String> =
        section.texts("dns_hook").into_iter().map(|found| found.value).collect();
    let challenge = match section.choice("challenge") {
        "http-01" => Challenge::Http,
        "tls-alpn-01" => Challenge::TlsAlpn,
        "dns-01" => Challenge::Dns,
        _ => Challenge::Auto,
    };
    if let (Challenge::Dns, true, Some(place)) =
        (challenge, dns_hook.is_empty(), section.place_of("challenge"))
    {
        let title = "dns-01 needs a program that publishes the record";
        let expected = "add dns_hook = [\"/path/of/program\"]";
        section.wrong("challenge", &place, title, expected);
    }
    let ask = section.parsed("ask", "a URL", |text| {
        let host = text.strip_prefix("http://").map(|rest| rest.split('/').next().unwrap_or(""));
        match host {
            Some(host) if !host.is_empty() && !text.contains(['?', '#', ' ']) => {
                Ok(text.to_owned())
            }
            _ => {
                Err("expected for example \"http://127.0.0.1:3000/domains\"; ?domain=NAME is added"
                    .to_owned())
            }
        }
    });
    let external = read_external(section);
    Some(Acme {
        email: email?.value,
        directory: directory?.value,
        directory_ca: section.text("directory_ca").map(|found| found.path(base)),
        hosts: hosts.into_iter().map(|found| found.value).collect(),
        challenge,
        dns_hook,
        dns_wait: section.duration("dns_wait").value,
        external,
        profile: section.text("profile").map(|found| found.value),
        ask: ask.map(|found| found.value),
    })
}

fn directory(text: &str) -> Result<String, String> {
    Ok(match text {
        "letsencrypt" => "https://acme-v02.api.letsencrypt.org/directory".to_owned(),
        "letsencrypt-staging" => {
            "https://acme-staging-v02.api.letsencrypt.org/directory".to_owned()
        }
        "zerossl" => "https://acme.zerossl.com/v2/DV90".to_owned(),
        url if url.strip_prefix("https://").is_some_and(|rest| !rest.is_empty()) => url.to_owned(),
        _ => {
            return Err("expected \"letsencrypt\", \"letsencrypt-staging\", \"zerossl\", or the \
                        https:// URL of an ACME directory"
                .to_owned());
        }
    })
}

fn name(text: &str) -> Result<String, String> {
    match scalar::host(text)? {
        HostPattern::Any => Err("a certificate is for names: write them out".to_owned()),
        HostPattern::Below(name) => Ok(format!("*.{name}")),
        HostPattern::Exact(name) if name.parse::<std::net::IpAddr>().is_ok() => {
            Err("a certificate is for names, not for addresses".to_owned())
        }
        HostPattern::Exact(name) => Ok(name),
    }
}

fn read_external(section: &Section<'_>) -> Option<ExternalAccount> {
    let kid = section.text("eab_kid");
    let key = section.parsed("eab_key", "base64", |text| {
        let bare = text.trim().trim_end_matches('=');
        BASE64_URL_SAFE_NO_PAD
            .decode(bare)
            .or_else(|_| BASE64_STANDARD_NO_PAD.decode(bare))
            .ok()
            .filter(|key| !key.is_empty())
            .ok_or_else(|| "expected the key as the authority shows it, in base64url".to_owned())
    });
    match (kid, key) {
        (Some(kid), Some(key)) => Some(ExternalAccount { kid: kid.value, key: key.value }),
        (Some(found), None) if section.lacks("eab_key") => {
            let place = found.place.unwrap_or_else(|| section.place.clone());
            section.wrong(
                "eab_kid",
                &place,
                "`eab_key` is missing",
                "an external account has both",
            );
            None
        }
        (None, Some(found)) if section.lacks("eab_kid") => {
            let place = found.place.unwrap_or_else(|| section.place.clone());
            section.wrong(
                "eab_key",
                &place,
                "`eab_kid` is missing",
                "an external account has both",
            );
            None
        }
        _ => None,
    }
}
