//! Paths: how they are compared, and how they are rewritten.
//!
//! What is compared is what an application will make of a path: percent-encoding resolved once,
//! backslashes as slashes, empty and `.` segments gone, `..` carried out. A rule for `/admin` is
//! thereby also one for `//admin`, `/x/../admin` and `/%61dmin`. What is forwarded is what came.

use std::borrow::Cow;

/// A path as it is compared.
#[must_use]
pub fn normal(path: &str) -> Cow<'_, str> {
    let mut before = 0;
    let is_special = |byte: u8| {
        let after_slash = std::mem::replace(&mut before, byte) == b'/';
        matches!(byte, b'%' | b'\\') || after_slash && matches!(byte, b'/' | b'.')
    };
    if !path.bytes().any(is_special) {
        return Cow::Borrowed(path);
    }
    let decoded = decode(path);
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split(['/', '\\']) {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let mut normal = format!("/{}", segments.join("/"));
    let is_directory =
        decoded.ends_with(['/', '\\']) || decoded.ends_with("/.") || decoded.ends_with("/..");
    if is_directory && normal.len() > 1 {
        normal.push('/');
    }
    Cow::Owned(normal)
}

/// Percent-encoding resolved once. What is no encoding stays; what is no UTF-8 becomes U+FFFD.
fn decode(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let hex = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                // Two hexadecimal digits fit a byte.
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Whether a path lies below a prefix, which ends at a segment's border.
#[must_use]
pub fn is_below(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// How a path is changed on its way to the application.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rewrite {
    /// Taken off, where a path begins with it.
    pub strip: Option<String>,
    /// Put before what is left.
    pub add: Option<String>,
}

impl Rewrite {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.strip.is_none() && self.add.is_none()
    }

    /// The new path and query; `None` when they stay as they are.
    #[must_use]
    pub fn apply(&self, target: &str) -> Option<String> {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let strip = self.strip.as_deref().map(|prefix| prefix.trim_end_matches('/'));
        let rest = match strip.filter(|prefix| is_below(path, prefix)) {
            Some(prefix) => &path[prefix.len()..],
            None if self.add.is_none() => return None,
            None => path,
        };
        let rest = if rest.is_empty() { "/" } else { rest };
        let add = self.add.as_deref().unwrap_or("").trim_end_matches('/');
        let mut changed = format!("{add}{rest}");
        if let Some(query) = query {
            changed.push('?');
            changed.push_str(query);
        }
        (changed != target).then_some(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_compared_as_applications_read_them() {
        for (path, expected) in [
            ("/admin", "/admin"),
            ("//admin", "/admin"),
            ("/./admin/", "/admin/"),
            ("/x/../admin", "/admin"),
            ("/%61dmin", "/admin"),
            ("/public/..%2fadmin", "/admin"),
            ("/public/%2e%2e/admin", "/admin"),
            ("/public\\..\\admin", "/admin"),
            ("/../../admin", "/admin"),
            ("/a/.", "/a/"),
            ("/a%2", "/a%2"),
            ("/%ff", "/\u{fffd}"),
            ("/.well-known/x", "/.well-known/x"),
            ("/", "/"),
            ("//", "/"),
        ] {
            assert_eq!(normal(path), expected, "{path}");
        }
    }

    #[test]
    fn prefixes_end_at_segments() {
        assert!(is_below("/api", "/api") && is_below("/api/x", "/api/") && is_below("/x", "/"));
        assert!(!is_below("/apis", "/api") && !is_below("/", "/api"));
    }

    #[test]
    fn prefixes_come_off_and_on() {
        let rewrite = |strip: Option<&str>, add: Option<&str>, target: &str| {
            let own = |text: Option<&str>| text.map(str::to_owned);
            Rewrite { strip: own(strip), add: own(add) }.apply(target)
        };
        for (strip, add, target, changed) in [
            (Some("/api"), None, "/api/users?x=/api", Some("/users?x=/api")),
            (Some("/api"), None, "/api", Some("/")),
            (Some("/api"), None, "/api?x", Some("/?x")),
            (Some("/api"), None, "/apis", None),
            (Some("/api"), Some("/v2"), "/api/users", Some("/v2/users")),
            (None, Some("/v2/"), "/users", Some("/v2/users")),
            (None, Some("/v2"), "/", Some("/v2/")),
            (Some("/a"), Some("/a"), "/a/b", None),
        ] {
            assert_eq!(rewrite(strip, add, target).as_deref(), changed, "{target}");
        }
    }
}
