//! Files as answers: which file a path means, and how much of it a client is to get.
//!
//! What is meant is decided here; that nothing outside of the directory is opened is seen to by the
//! kernel, when the file is opened.

use std::path::PathBuf;

use http::header::{
    HeaderMap, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, RANGE,
};
use http::{HeaderValue, Method};
use httpdate::HttpDate;

/// A directory whose files are answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The directory.
    pub root: PathBuf,
    /// The file that stands for a directory.
    pub index: String,
    /// What becomes of requests for what is not there.
    pub missing: Missing,
}

/// What becomes of requests for a file that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Missing {
    /// They are answered 404.
    #[default]
    NotFound,
    /// They go to the app.
    App,
    /// They get this file, a path from the directory on: a page that finds its way by itself.
    File(String),
}

/// The file that a request's path means, relative to the directory; `None` when it can mean none.
/// What begins with a dot is not shown, but for `.well-known` (RFC 8615).
#[must_use]
pub fn meant(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let part = decoded(part)?;
        let is_hidden = part.starts_with('.') && part != ".well-known";
        if is_hidden || part.contains(['/', '\0', '\\']) {
            return None;
        }
        parts.push(part);
    }
    Some(parts.join("/"))
}

/// Escapes undone; `None` when that is not text.
#[must_use]
pub fn decoded(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

/// A path as it is written in a `Location`, from the parts that it means: `//host` would lead away.
#[must_use]
pub fn as_directory(path: &str) -> String {
    let mut text = String::from("/");
    for part in path.split('/').filter(|part| !part.is_empty()) {
        text.push_str(part);
        text.push('/');
    }
    text
}

/// What is known of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its bytes.
    pub length: u64,
    /// `ETag`
    pub tag: HeaderValue,
    /// When it was last changed; `None` when that cannot be said.
    pub modified: Option<HttpDate>,
}

/// How much of a file a client is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Portion {
    /// All of it.
    Whole,
    /// From the first of these bytes to the second.
    Part(u64, u64),
    /// Nothing: it has it (304).
    Same,
    /// Nothing: it wants another version (412).
    Other,
    /// Nothing: there are no such bytes (416).
    Beyond,
}

/// How much of a file a request is to get (RFC 9110, 13.2.2 and 14.2).
#[must_use]
pub fn portion(method: &Method, headers: &HeaderMap, file: &Version) -> Portion {
    let date = |name: HeaderName| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.and_then(|value| value.parse::<HttpDate>().ok()).zip(file.modified)
    };
    if headers.contains_key(IF_MATCH) {
        if !lists(headers, &IF_MATCH, &file.tag, false) {
            return Portion::Other;
        }
    } else if date(IF_UNMODIFIED_SINCE).is_some_and(|(since, modified)| modified > since) {
        return Portion::Other;
    }
    if headers.contains_key(IF_NONE_MATCH) {
        if lists(headers, &IF_NONE_MATCH, &file.tag, true) {
            return Portion::Same;
        }
    } else if date(IF_MODIFIED_SINCE).is_some_and(|(since, modified)| modified <= since) {
        return Portion::Same;
    }
    if *method != Method::GET || !is_still_meant(headers, file) {
        return Portion::Whole;
    }
    let mut ranges = headers.get_all(RANGE).iter();
    match (ranges.next(), ranges.next()) {
        (Some(range), None) => range.to_str().map_or(Portion::Whole, |r| part(r, file.length)),
        _ => Portion::Whole,
    }
}

/// Whether the version that a part is asked of is this one (RFC 9110, 13.1.5).
fn is_still_meant(headers: &HeaderMap, file: &Version) -> bool {
    let Some(known) = headers.get(IF_RANGE) else { return true };
    if *known == file.tag {
        return true;
    }
    let date = known.to_str().ok().and_then(|known| known.parse::<HttpDate>().ok());
    date.is_some() && date == file.modified
}

/// Whether a list of tags has this one, or is a star.
fn lists(headers: &HeaderMap, name: &HeaderName, tag: &HeaderValue, weakly: bool) -> bool {
    let Ok(tag) = tag.to_str() else { return false };
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|one| one == "*" || one == tag || weakly && one.strip_prefix("W/") == Some(tag))
}

/// One part; several are answered with the whole, which is allowed, and costs no attacker less.
fn part(range: &str, length: u64) -> Portion {
    let Some(spec) = range.trim().strip_prefix("bytes=") else { return Portion::Whole };
    let Some((first, last)) = spec.trim().split_once('-') else { return Portion::Whole };
    let number = |text: &str| {
        let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if last < first => Portion::Whole,
        (Some(first), last) if last.is_some() || spec.trim().ends_with('-') => {
            if first >= length {
                return Portion::Beyond;
            }
            Portion::Part(first, last.unwrap_or(u64::MAX).min(length - 1))
        }
        (None, Some(suffix)) if first.is_empty() => {
            if suffix == 0 || length == 0 {
                return Portion::Beyond;
            }
            Portion::Part(length.saturating_sub(suffix), length - 1)
        }
        _ => Portion::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_mean_what_is_below() {
        for (path, file) in [
            ("/", Some("")),
            ("/a/b.css", Some("a/b.css")),
            ("//a///b", Some("a/b")),
            ("/a%20b/%c3%a9", Some("a b/é")),
            ("/.well-known/x", Some(".well-known/x")),
            ("/a/../b", None),
            ("/a/./b", None),
            ("/%2e%2e/etc/passwd", None),
            ("/a%2f..%2fb", None),
            ("/a%00b", None),
            ("/a%5c..%5cb", None),
            ("/.git/config", None),
            ("/a/.env", None),
            ("/%zz", None),
            ("/%+1", None),
            ("/%f", None),
            ("/%ff", None),
        ] {
            assert_eq!(meant(path).as_deref(), file, "{path}");
        }
        assert_eq!(as_directory("//evil.example/x"), "/evil.example/x/");
        assert_eq!(as_directory("/"), "/");
    }

    fn asked(fields: &[(&'static str, &'static str)]) -> Portion {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let file = Version {
            length: 100,
            tag: HeaderValue::from_static("\"v1\""),
            modified: "Sun, 06 Nov 1994 08:49:37 GMT".parse().ok(),
        };
        portion(&Method::GET, &headers, &file)
    }

    #[test]
    fn conditions_are_asked_in_order() {
        const AT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
        const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
        for (fields, expected) in [
            (&[][..], Portion::Whole),
            (&[("if-none-match", "\"v0\", \"v1\"")], Portion::Same),
            (&[("if-none-match", "W/\"v1\"")], Portion::Same),
            (&[("if-none-match", "*")], Portion::Same),
            (&[("if-none-match", "\"v0\"")], Portion::Whole),
            (&[("if-none-match", "\"v0\""), ("if-modified-since", AT)], Portion::Whole),
            (&[("if-modified-since", AT)], Portion::Same),
            (&[("if-modified-since", BEFORE)], Portion::Whole),
            (&[("if-modified-since", "yesterday")], Portion::Whole),
            (&[("if-match", "\"v1\"")], Portion::Whole),
            (&[("if-match", "W/\"v1\"")], Portion::Other),
            (&[("if-match", "\"v0\"")], Portion::Other),
            (&[("if-unmodified-since", BEFORE)], Portion::Other),
            (&[("if-unmodified-since", AT)], Portion::Whole),
            (&[("range", "bytes=0-9"), ("if-range", "\"v1\"")], Portion::Part(0, 9)),
            (&[("range", "bytes=0-9"), ("if-range", "W/\"v1\"")], Portion::Whole),
            (&[("range", "bytes=0-9"), ("if-range", "\"v0\"")], Portion::Whole),
            (&[("range", "bytes=0-9"), ("if-range", AT)], Portion::Part(0, 9)),
            (&[("range", "bytes=0-9"), ("if-range", BEFORE)], Portion::Whole),
        ] {
            assert_eq!(asked(fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn parts_are_within_the_file() {
        for (range, expected) in [
            ("bytes=0-0", Portion::Part(0, 0)),
            ("bytes=90-", Portion::Part(90, 99)),
            ("bytes=90-1000", Portion::Part(90, 99)),
            ("bytes=-10", Portion::Part(90, 99)),
            ("bytes=-1000", Portion::Part(0, 99)),
            ("bytes=0-99999999999999999999", Portion::Part(0, 99)),
            ("bytes=100-", Portion::Beyond),
            ("bytes=-0", Portion::Beyond),
            ("bytes=99999999999999999999-", Portion::Beyond),
            ("bytes=5-4", Portion::Whole),
            ("bytes=0-1,5-6", Portion::Whole),
            ("bytes=-", Portion::Whole),
            ("bytes=+1-2", Portion::Whole),
            ("lines=1-2", Portion::Whole),
            ("bytes", Portion::Whole),
        ] {
            assert_eq!(asked(&[("range", range)]), expected, "{range}");
        }
        assert_eq!(asked(&[("range", "bytes=0-1"), ("range", "bytes=2-3")]), Portion::Whole);
        assert_eq!(part("bytes=0-", 0), Portion::Beyond);
    }
}
