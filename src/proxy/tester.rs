//! Testers choose a side: by a header with the service's secret, or by a signed cookie.
//!
//! `X-Switchback-Force: canary` with `X-Switchback-Secret: …`, or a cookie
//! `switchback-force=<side>.<unix expiry>.<hex hmac-sha256>`. Secrets and signatures are compared in
//! constant time. Forced requests are never observations: testers are not a sample of users.

use aws_lc_rs::{constant_time, hmac};

use crate::model::weight::Side;

/// The cookie by which a tester stays on a side.
pub const COOKIE: &str = "switchback-force";

/// The value of a cookie that forces a side until an expiry, in seconds since the Unix epoch.
#[must_use]
pub fn sign(secret: &str, side: Side, expiry: u64) -> String {
    let claim = format!("{side}.{expiry}");
    let tag = hmac::sign(&key(secret), claim.as_bytes());
    let mut text = claim;
    text.push('.');
    for byte in tag.as_ref() {
        text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        text.push(char::from_digit(u32::from(byte & 0xf), 16).unwrap_or('0'));
    }
    text
}

/// The side that a cookie's value forces, if its signature is right and it has not expired by `now`,
/// in seconds since the Unix epoch.
#[must_use]
pub fn verify(secret: &str, value: &str, now: u64) -> Option<Side> {
    let (claim, signature) = value.rsplit_once('.')?;
    hmac::verify(&key(secret), claim.as_bytes(), &unhex(signature)?).ok()?;
    let (side, expiry) = claim.split_once('.')?;
    let expiry: u64 = expiry.parse().ok()?;
    if expiry < now { None } else { side_of(side) }
}

/// Whether a secret that came with a request is the service's.
#[must_use]
pub fn is_secret(secret: &str, given: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(secret.as_bytes(), given).is_ok()
}

/// `stable` or `canary`.
#[must_use]
pub fn side_of(text: &str) -> Option<Side> {
    Side::BOTH.into_iter().find(|side| side.as_str() == text)
}

fn key(secret: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits?;
    if digits.len() % 2 != 0 {
        return None;
    }
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signed_cookie_forces_its_side_until_it_expires() {
        for side in Side::BOTH {
            let cookie = sign("secret", side, 1_000);
            assert_eq!(verify("secret", &cookie, 999), Some(side));
            assert_eq!(verify("secret", &cookie, 1_000), Some(side));
            assert_eq!(verify("secret", &cookie, 1_001), None);
            assert_eq!(verify("other", &cookie, 999), None);
        }
    }

    #[test]
    fn a_changed_cookie_is_nothing() {
        let cookie = sign("secret", Side::Stable, 1_000);
        for changed in [
            cookie.replace("stable", "canary"),
            cookie.replace("1000", "9999"),
            cookie[..cookie.len() - 2].to_owned(),
            format!("{cookie}0"),
            String::new(),
            "canary.9.".to_owned(),
            "canary.9.zz".to_owned(),
            "..".to_owned(),
        ] {
            assert_eq!(verify("secret", &changed, 1), None, "{changed}");
        }
    }

    #[test]
    fn secrets_are_equal_or_not() {
        assert!(is_secret("abc", b"abc"));
        assert!(!is_secret("abc", b"abd") && !is_secret("abc", b"ab") && !is_secret("abc", b""));
    }
}
