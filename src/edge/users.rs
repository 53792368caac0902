//! Who may come with which password: what an htpasswd file says.
//!
//! Whether a password is right is found out elsewhere: that takes time on purpose.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Users with the hashes of their passwords.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Users {
    /// What the dialog asks for.
    pub realm: String,
    hashes: BTreeMap<String, Arc<str>>,
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("realm", &self.realm).finish_non_exhaustive()
    }
}

/// How hashes begin that can be verified.
const KINDS: [&str; 7] = ["$2y$", "$2b$", "$2a$", "$5$", "$6$", "$argon2", "{SHA}"];

impl Users {
    /// Reads the text of an htpasswd file. The error names a line, counted from 0, and says what was
    /// expected; it never has a hash in it.
    pub fn parse(text: &str, realm: &str) -> Result<Self, (usize, String)> {
        let mut hashes = BTreeMap::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((name, hash)) = line.split_once(':') else {
                return Err((at, "expected a name and a hash: NAME:HASH".to_owned()));
            };
            if name.is_empty() || name.chars().any(char::is_control) {
                return Err((at, "a name is missing before the colon".to_owned()));
            }
            if !KINDS.iter().any(|kind| hash.starts_with(kind)) {
                let what = if hash.starts_with("$apr1$") {
                    "MD5 is guessed too easily"
                } else {
                    "this is no hash that is known"
                };
                return Err((at, format!("{what}: make it anew with `htpasswd -B`")));
            }
            hashes.insert(name.to_owned(), hash.into());
        }
        if hashes.is_empty() {
            return Err((0, "there is nobody in it: nobody could come".to_owned()));
        }
        Ok(Self { realm: realm.to_owned(), hashes })
    }

    /// The hash of a user's password; for who is not there, somebody's, so that it takes as long to
    /// refuse them.
    #[must_use]
    pub fn hash(&self, name: &str) -> (Option<&Arc<str>>, bool) {
        match self.hashes.get(name) {
            Some(hash) => (Some(hash), true),
            None => (self.hashes.values().next(), false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_read_and_never_shown() {
        let text = "# people\nann:$2y$05$abc\n\nbob:{SHA}xyz=\n";
        let users = Users::parse(text, "staff").expect("users");
        assert_eq!(users.hash("ann"), (Some(&"$2y$05$abc".into()), true));
        assert!(!users.hash("eve").1 && users.hash("eve").0.is_some());
        assert_eq!(format!("{users:?}"), "Users { realm: \"staff\", .. }");
        for (text, line, words) in [
            ("ann", 0, "NAME:HASH"),
            ("\n:x", 1, "a name is missing"),
            ("ann:$apr1$x$y", 0, "htpasswd -B"),
            ("ann:hunter2", 0, "no hash that is known"),
            ("# nobody\n", 0, "nobody could come"),
        ] {
            let (at, said) = Users::parse(text, "").expect_err(text);
            assert!(at == line && said.contains(words) && !said.contains("hunter2"), "{said}");
        }
    }
}
