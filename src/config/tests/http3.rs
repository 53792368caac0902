//! `listen.http3`: where it can be had, and what is said where not.

use super::*;

const TLS: &str = "[tls]\ncert = \"a.pem\"\nkey = \"a.key\"\n";

/// With this below `[listen]`, and with or without a certificate.
fn http3(listen: &str, tables: &str) -> Result<bool, String> {
    let text = format!("[listen]\n{listen}\n{tables}{WEB}");
    let parsed = read_with(&text, &[], &[]);
    parsed.map(|parsed| parsed.config.listen.http3).map_err(|problems| problems.to_string())
}

#[test]
fn http3_is_off_unless_it_is_wanted() {
    assert_eq!(http3("", TLS), Ok(false));
    assert_eq!(http3("http3 = false", ""), Ok(false));
    let quoted = http3("http3 = \"true\"", TLS).expect_err("text");
    assert!(quoted.contains("without quotes"), "{quoted}");
}

#[cfg(not(feature = "http3"))]
#[test]
fn http3_is_refused_with_the_command_that_builds_it() {
    let refused = http3("http3 = true", TLS).expect_err("not built in");
    assert!(refused.contains("this binary was built without HTTP/3"), "{refused}");
    assert!(refused.contains("cargo build --release --features http3"), "{refused}");
    assert!(refused.contains("switchback.toml:2"), "{refused}");
}

#[cfg(feature = "http3")]
#[test]
fn http3_needs_a_port_of_https() {
    assert_eq!(http3("http3 = true", TLS), Ok(true));
    let off = http3("http3 = true", "").expect_err("no certificate");
    assert!(off.contains("`https`, which is off"), "{off}");
    let announced = "http3 = true\ntrusted_proxies = [\"10.0.0.0/8\"]\nproxy_protocol = \"all\"";
    let refused = http3(announced, TLS).expect_err("no preamble by UDP");
    assert!(refused.contains("nobody could speak it"), "{refused}");
}
