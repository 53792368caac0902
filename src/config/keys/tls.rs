//! The keys of `[tls]` and `[acme]`.

use super::Shape::{Choice, Duration, List, Secret, Tables, Text, TextOrList};
use super::{Key, key};

/// `[tls]`.
pub const TLS: &[Key] = &[
    key("cert", Text, "", "PEM file with the certificate and its chain, relative to this file."),
    key("key", Text, "", "PEM file with the private key, relative to this file."),
    key(
        "certificate",
        Tables(CERTIFICATE),
        "",
        "More certificates, chosen by the name that the visitor asks for.",
    ),
    key("min_version", Choice(&["1.2", "1.3"]), r#""1.2""#, "The oldest TLS that is spoken."),
    key(
        "client_auth",
        Choice(&["off", "optional", "required"]),
        r#""off""#,
        "Whether visitors are asked for a certificate; its subject and SHA-256 go on in X-Client-Cert-Subject and -Fingerprint.",
    ),
    key("client_ca", Text, "", "PEM file with the authorities whose client certificates count."),
    key("client_crl", Text, "", "PEM file with lists of revoked client certificates."),
    key(
        "local",
        Choice(&["auto", "all", "off"]),
        r#""auto""#,
        "Certificates from a CA made on this machine: \"auto\" for localhost names when there is an [acme], \"all\" for every host that has no other.",
    ),
];

/// `[[tls.certificate]]`.
pub const CERTIFICATE: &[Key] = &[
    key("cert", Text, "", "PEM file with the certificate and its chain, relative to this file."),
    key("key", Text, "", "PEM file with the private key, relative to this file."),
];

/// `[acme]`.
pub const ACME: &[Key] = &[
    key("email", Text, "", "Whom the authority may write to. Needed; agrees to its terms."),
    key(
        "directory",
        Text,
        r#""letsencrypt""#,
        "\"letsencrypt\", \"letsencrypt-staging\", \"zerossl\", or an authority's https:// directory.",
    ),
    key(
        "directory_ca",
        Text,
        "",
        "PEM file with the CA that the directory's own certificate is checked by; the system's otherwise.",
    ),
    key(
        "host",
        TextOrList,
        "[]",
        "More names to have certificates for, beside the `host` of every service.",
    ),
    key(
        "challenge",
        Choice(&["auto", "http-01", "tls-alpn-01", "dns-01"]),
        r#""auto""#,
        "How it is shown that names are ours; \"auto\" takes what can work, and another after a failure.",
    ),
    key(
        "dns_hook",
        List,
        "",
        "Program for dns-01, called with \"present\" or \"cleanup\", the record's name and its value; needed for \"*.example.com\".",
    ),
    key(
        "dns_wait",
        Duration,
        r#""30s""#,
        "From the hook's \"present\" until the record is asked for.",
    ),
    key(
        "eab_kid",
        Text,
        "",
        "Key identifier of an external account, where the authority needs one.",
    ),
    key("eab_key", Secret, "", "Its key, base64url as the authority gives it."),
    key("profile", Text, "", "Certificate profile to ask for, such as \"shortlived\"."),
    key(
        "ask",
        Text,
        "",
        "http:// URL asked with ?domain=NAME about names of no service; 200 has their certificate made on demand.",
    ),
];
