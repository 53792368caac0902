//! Whether a client's name and password are right.
//!
//! Hashes of passwords take long to compute on purpose: that happens on a thread beside the worker,
//! few at a time, and what was right is remembered. A flood of wrong passwords delays logins, and
//! nobody else.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;

use argon2::Argon2;
use aws_lc_rs::{constant_time, digest, hmac};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha_crypt::{PasswordVerifier, ShaCrypt};
use tokio::sync::Semaphore;

use super::places::Places;
use crate::edge::users::Users;

/// Hashes that one worker has computed at a time.
const AT_ONCE: usize = 2;
/// Bytes of a password: some hashes take time by the square of its length (CVE-2016-20013), and tools that
/// make them take no more than half of this.
const LONGEST: usize = 512;
/// Requests that may wait for that; more are told to come again.
const WAITING: usize = 64;
/// Right passwords that one worker remembers.
const REMEMBERED: usize = 4_096;

/// What a worker knows of passwords.
#[derive(Debug)]
pub struct Credentials {
    key: hmac::Key,
    /// Tags of hashes with the passwords that fit them: nobody can read a password from a tag.
    right: RefCell<HashSet<[u8; 32]>>,
    turns: Arc<Semaphore>,
    waiting: Places,
}

/// Why a client is not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// Nobody, or with a wrong password.
    Wrong,
    /// It cannot be found out now.
    Busy,
}

impl Credentials {
    /// Nothing is known yet. `random` keys what is remembered.
    pub fn new(random: [u64; 4]) -> Self {
        let bytes: Vec<u8> = random.iter().flat_map(|word| word.to_ne_bytes()).collect();
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &bytes),
            right: RefCell::default(),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: Places::new(WAITING),
        }
    }

    /// The name of whom a request comes from.
    ///
    /// Cancel safety: may be dropped at any time.
    pub async fn check(&self, users: &Users, headers: &HeaderMap) -> Result<String, Unknown> {
        let (name, password) = said(headers).ok_or(Unknown::Wrong)?;
        if password.len() > LONGEST {
            return Err(Unknown::Wrong);
        }
        let (Some(hash), is_known) = users.hash(&name) else { return Err(Unknown::Wrong) };
        let tag = self.tag(hash, password.as_bytes());
        if is_known && self.right.borrow().contains(&tag) {
            return Ok(name);
        }
        let place = self.waiting.enter().ok_or(Unknown::Busy)?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| Unknown::Busy)?;
        drop(place);
        let hash = Arc::clone(hash);
        let fits = tokio::task::spawn_blocking(move || {
            let fits = verify(&hash, password.as_bytes());
            drop(turn);
            fits
        });
        if !fits.await.map_err(|_| Unknown::Busy)? || !is_known {
            return Err(Unknown::Wrong);
        }
        let mut right = self.right.borrow_mut();
        if right.len() >= REMEMBERED {
            right.clear();
        }
        right.insert(tag);
        Ok(name)
    }

    fn tag(&self, hash: &str, password: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(hash.as_bytes());
        context.update(&[0]);
        context.update(password);
        let mut tag = [0; 32];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }
}

/// The name and password of a request (RFC 7617).
fn said(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(rest.trim()).ok()?;
    let (name, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

fn verify(hash: &str, password: &[u8]) -> bool {
    if hash.starts_with("$2") {
        return bcrypt::verify(password, hash).unwrap_or(false);
    }
    if hash.starts_with("$argon2") {
        return Argon2::default().verify_password(password, hash).is_ok();
    }
    if let Some(sha) = hash.strip_prefix("{SHA}") {
        let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, password);
        let sha = BASE64_STANDARD.decode(sha).unwrap_or_default();
        return constant_time::verify_slices_are_equal(&sha, digest.as_ref()).is_ok();
    }
    ShaCrypt::default().verify_password(password, hash).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(pair: &str) -> HeaderMap {
        let value = format!("Basic {}", BASE64_STANDARD.encode(pair));
        [(AUTHORIZATION, value.parse().expect("a value"))].into_iter().collect()
    }

    /// Made by `htpasswd -nbB -C 4`, `openssl passwd -6`, `openssl passwd -5`, `argon2` and
    /// `htpasswd -nbs`.
    fn users() -> Users {
        Users::parse(include_str!("tests/users.htpasswd"), "staff").expect("users")
    }

    #[tokio::test]
    async fn passwords_fit_their_hashes_of_every_kind() {
        let (credentials, users) = (Credentials::new([1, 2, 3, 4]), users());
        for name in ["bcrypt", "sha512", "sha256", "argon2", "sha"] {
            let right = basic(&format!("{name}:open sesame"));
            // Twice: the second time it is remembered.
            for _ in 0..2 {
                assert_eq!(credentials.check(&users, &right).await, Ok(name.to_owned()));
            }
            let wrong = basic(&format!("{name}:open sesam"));
            assert_eq!(credentials.check(&users, &wrong).await, Err(Unknown::Wrong), "{name}");
        }
        assert_eq!(credentials.right.borrow().len(), 5, "each is remembered");
        for pair in ["nobody:open sesame", ":open sesame", "bcrypt", "bcrypt:"] {
            let checked = credentials.check(&users, &basic(pair)).await;
            assert_eq!(checked, Err(Unknown::Wrong), "{pair}");
        }
        // One that is too long is not even tried.
        let long = "x".repeat(LONGEST + 1);
        let hash = |text: &str| {
            let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
            format!("{{SHA}}{}", BASE64_STANDARD.encode(hash))
        };
        let text = format!("long:{}\nshort:{}\n", hash(&long), hash(&long[1..]));
        let both = Users::parse(&text, "staff").expect("users");
        let tried = credentials.check(&both, &basic(&format!("short:{}", &long[1..]))).await;
        assert_eq!(tried, Ok("short".to_owned()));
        let tried = credentials.check(&both, &basic(&format!("long:{long}"))).await;
        assert_eq!(tried, Err(Unknown::Wrong));
        let mut other = HeaderMap::new();
        assert_eq!(credentials.check(&users, &other).await, Err(Unknown::Wrong));
        other.insert(AUTHORIZATION, "Bearer x".parse().expect("a value"));
        assert_eq!(credentials.check(&users, &other).await, Err(Unknown::Wrong));
        assert_eq!(credentials.waiting.free(), WAITING);
    }
}
