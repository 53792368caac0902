//! Small values: durations, sizes, addresses, networks, hosts, paths, statuses.
//!
//! Each parser takes text and gives the value or the words that go under the caret: what was
//! expected, with an example that is as near to what was written as can be.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::routing::table::HostPattern;

/// What a value should have been.
pub type Expected = String;

/// Units of time and their milliseconds, longest first.
const TIME_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Parses `500ms`, `30s`, `5m`, `1h30m`, `7d`, `0s`: whole numbers, each with its unit, the larger
/// units first and none twice.
pub fn duration(text: &str) -> Result<Duration, Expected> {
    let example =
        || "expected a duration such as \"500ms\", \"30s\", \"5m\" or \"1h30m\"".to_owned();
    let mut rest = text.trim();
    if !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("a duration needs a unit: \"{rest}s\" for seconds, or ms, m, h, d"));
    }
    if rest.is_empty() {
        return Err(example());
    }
    let mut units = TIME_UNITS.as_slice();
    let mut millis = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let number: u64 = number.parse().map_err(|_| example())?;
        let at = units.iter().position(|(name, _)| *name == unit).ok_or_else(example)?;
        let (_, scale) = units[at];
        units = &units[at + 1..];
        millis = number
            .checked_mul(scale)
            .and_then(|part| millis.checked_add(part))
            .filter(|total| *total <= MAX_MILLIS)
            .ok_or_else(|| {
                "longer than a year is not meant; expected for example \"1h\"".to_owned()
            })?;
        rest = after;
    }
    Ok(Duration::from_millis(millis))
}

/// A year: nothing that is configured here lasts longer, and sums of such times cannot overflow.
const MAX_MILLIS: u64 = 366 * 86_400_000;

/// Writes a duration as [`duration`] reads it.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, scale) in TIME_UNITS {
        if left >= scale {
            text.push_str(&format!("{}{unit}", left / scale));
            left %= scale;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Units of size and their bytes.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Parses `512MiB`, `1GB`, `64KiB`, `100B`.
pub fn size(text: &str) -> Result<u64, Expected> {
    let example = || "expected a size such as \"512MiB\", \"1GiB\" or \"64KiB\"".to_owned();
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| example())?;
    let unit = unit.trim_start();
    let known = SIZE_UNITS.iter().find(|(name, _)| *name == unit);
    let Some((_, scale)) = known else {
        return Err(match unit.to_ascii_lowercase().as_str() {
            "" => format!("a size needs a unit: \"{number}MiB\", or B, KiB, GiB, kB, MB, GB"),
            "k" | "kb" | "ki" | "kib" => format!("write \"{number}KiB\""),
            "m" | "mb" | "mi" | "mib" => format!("write \"{number}MiB\""),
            "g" | "gb" | "gi" | "gib" => format!("write \"{number}GiB\""),
            _ => example(),
        });
    };
    number.checked_mul(*scale).ok_or_else(example)
}

/// Parses an address and a port to listen on or to connect to. Names are not looked up.
pub fn address(text: &str) -> Result<SocketAddr, Expected> {
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        return Err(format!("a port needs an address: \"0.0.0.0:{text}\" or \"127.0.0.1:{text}\""));
    }
    if let Some(port) = text.strip_prefix("localhost:") {
        return Err(format!("names are not looked up here: write \"127.0.0.1:{port}\""));
    }
    if text.parse::<Ipv4Addr>().is_ok() {
        return Err(format!("the port is missing: \"{text}:80\""));
    }
    if text.trim_matches(['[', ']']).parse::<Ipv6Addr>().is_ok() {
        return Err(format!("the port is missing: \"[{}]:80\"", text.trim_matches(['[', ']'])));
    }
    if let Some(port) = text.strip_prefix(':').or_else(|| text.strip_prefix("*:")) {
        return Err(format!(
            "write \"0.0.0.0:{port}\" for every IPv4 address, \"[::]:{port}\" for IPv6"
        ));
    }
    if text.contains("://") {
        return Err(
            "expected an address and a port, without a scheme: \"10.0.0.5:3000\"".to_owned()
        );
    }
    if text.rsplit_once(':').is_some_and(|(name, _)| name.contains(|c: char| c.is_alphabetic())) {
        return Err("names are not looked up here: write an IP address and a port".to_owned());
    }
    Err("expected an IP address and a port such as \"127.0.0.1:8080\" or \"[::1]:8080\"".to_owned())
}

/// Parses the host of a route: a name, `*.name`, `*`, or an IP address (IPv6 with or without
/// brackets).
pub fn host(text: &str) -> Result<HostPattern, Expected> {
    let name = text.trim();
    if name == "*" {
        return Ok(HostPattern::Any);
    }
    if let Some((_, rest)) = name.split_once("://") {
        let bare = rest.split(['/', ':']).next().unwrap_or(rest);
        return Err(format!("a host is the name alone: \"{bare}\""));
    }
    if let Some((host, path)) = name.split_once('/') {
        return Err(format!("a host has no path: write host = \"{host}\" and path = \"/{path}\""));
    }
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    if let Ok(v6) = bare.parse::<Ipv6Addr>() {
        return Ok(HostPattern::Exact(format!("[{v6}]")));
    }
    if let Some((host, _)) = name.split_once(':') {
        return Err(format!("a host has no port; every port we listen on serves it: \"{host}\""));
    }
    if !name.is_ascii() {
        return Err(
            "write an international name in its ASCII form, which begins with \"xn--\"".to_owned()
        );
    }
    let lower = name.to_ascii_lowercase();
    let lower = lower.strip_suffix('.').unwrap_or(&lower);
    let (wild, base) = match lower.strip_prefix("*.") {
        Some(base) => (true, base),
        None => (false, lower),
    };
    if base.contains('*') {
        return Err(
            "a star stands for the whole first label only: \"*.example.com\", or \"*\"".to_owned()
        );
    }
    // RFC 1123 section 2.1 and RFC 1035 section 2.3.4; the underscore is common in private names.
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if base.len() > 253 || !base.split('.').all(label_ok) {
        return Err("expected a host name such as \"app.example.com\", \"*.example.com\" or \"*\""
            .to_owned());
    }
    Ok(if wild { HostPattern::Below(base.to_owned()) } else { HostPattern::Exact(base.to_owned()) })
}

/// Parses a path prefix; the slash at its end is dropped, except for `/` itself.
pub fn path_prefix(text: &str) -> Result<String, Expected> {
    if !text.starts_with('/') {
        return Err(format!("a path begins with a slash: \"/{text}\""));
    }
    if let Some(at) = text.find(['?', '#']) {
        return Err(format!("routes look at the path alone: \"{}\"", &text[..at]));
    }
    if text.contains('*') {
        return Err("a path is a prefix already, no star is needed".to_owned());
    }
    if text.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err(
            "a path has neither spaces nor letters beyond ASCII: percent-encode them".to_owned()
        );
    }
    let trimmed = text.trim_end_matches('/');
    if trimmed.split('/').skip(1).any(|segment| matches!(segment, "" | "." | ".."))
        && !trimmed.is_empty()
    {
        return Err("expected a path without empty parts, \".\" or \"..\"".to_owned());
    }
    Ok(if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() })
}

/// Parses what counts as an error: `5xx`, `404`, `500-504`; gives the first and last status.
pub fn statuses(text: &str) -> Result<(u16, u16), Expected> {
    let example = || {
        "expected a status such as 429, a class such as \"5xx\" or a range \"500-504\"".to_owned()
    };
    let text = text.trim();
    if let Some(class) = text.strip_suffix("xx").or_else(|| text.strip_suffix("XX")) {
        let class: u16 =
            class.parse().ok().filter(|class| (1..=5).contains(class)).ok_or_else(example)?;
        return Ok((class * 100, class * 100 + 99));
    }
    let status = |text: &str| {
        text.trim().parse().ok().filter(|n| (100..=599).contains(n)).ok_or_else(example)
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (status(first)?, status(last)?),
        None => (status(text)?, status(text)?),
    };
    if first <= last { Ok((first, last)) } else { Err(example()) }
}

/// A pattern of paths in a repository, as Git and `.dockerignore` write them: `backend/**`.
pub fn glob(text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with('/') || text.split('/').any(|part| part == "..") {
        return Err("expected paths from the root of the repository: \"backend/**\"".to_owned());
    }
    match globset::GlobBuilder::new(text).literal_separator(true).build() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("expected a pattern such as \"backend/**\": {}", error.kind())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("0s", 0),
            ("500ms", 500),
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            (" 1m ", 60_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
            let shown = show_duration(Duration::from_millis(millis));
            assert_eq!(duration(&shown), Ok(Duration::from_millis(millis)), "{text}");
        }
        for (text, words) in [
            ("30", "\"30s\" for seconds"),
            ("", "expected a duration"),
            ("5 m", "expected a duration"),
            ("30m1h", "expected a duration"),
            ("1.5s", "expected a duration"),
            ("-1s", "expected a duration"),
            ("5min", "expected a duration"),
            ("99999d", "longer than a year"),
            ("99999999999999999999s", "expected a duration"),
        ] {
            let said = duration(text).expect_err(text);
            assert!(said.contains(words), "{text}: {said}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("512MiB", 512 << 20), ("1GB", 1_000_000_000), ("64 KiB", 65_536)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for (text, words) in [
            ("512m", "write \"512MiB\""),
            ("1g", "write \"1GiB\""),
            ("512", "needs a unit"),
            ("lots", "expected a size"),
            ("1.5GiB", "expected a size"),
            ("99999999999TiB", "expected a size"),
        ] {
            let said = size(text).expect_err(text);
            assert!(said.contains(words), "{text}: {said}");
        }
    }

    #[test]
    fn addresses() {
        assert!(address("0.0.0.0:80").is_ok() && address("[::]:443").is_ok());
        for (text, words) in [
            ("80", "\"0.0.0.0:80\""),
            (":8080", "\"0.0.0.0:8080\""),
            ("*:8080", "\"0.0.0.0:8080\""),
            ("localhost:80", "\"127.0.0.1:80\""),
            ("10.0.0.5", "\"10.0.0.5:80\""),
            ("::1", "\"[::1]:80\""),
            ("http://10.0.0.5:3000", "without a scheme"),
            ("db.internal:80", "names are not looked up"),
            ("1.2.3.4:99999", "expected an IP address"),
            ("", "expected an IP address"),
        ] {
            let said = address(text).expect_err(text);
            assert!(said.contains(words), "{text}: {said}");
        }
    }

    #[test]
    fn hosts() {
        let exact = |name: &str| Ok(HostPattern::Exact(name.to_owned()));
        assert_eq!(host("App.Example.com."), exact("app.example.com"));
        assert_eq!(host("*.example.com"), Ok(HostPattern::Below("example.com".to_owned())));
        assert_eq!(host("*"), Ok(HostPattern::Any));
        assert_eq!(host("::1"), exact("[::1]"));
        assert_eq!(host("10.0.0.5"), exact("10.0.0.5"));
        for (text, words) in [
            ("https://app.example.com/x", "the name alone: \"app.example.com\""),
            ("app.example.com/api", "path = \"/api\""),
            ("app.example.com:8080", "a host has no port"),
            ("app.*.com", "the whole first label only"),
            ("*app.com", "the whole first label only"),
            ("пример.рф", "xn--"),
            ("", "expected a host name"),
            ("a..b", "expected a host name"),
            ("-a.b", "expected a host name"),
            ("a b", "expected a host name"),
        ] {
            let said = host(text).expect_err(text);
            assert!(said.contains(words), "{text}: {said}");
        }
    }

    #[test]
    fn paths() {
        assert_eq!(path_prefix("/").as_deref(), Ok("/"));
        assert_eq!(path_prefix("/api/").as_deref(), Ok("/api"));
        for (text, words) in [
            ("api", "\"/api\""),
            ("", "begins with a slash"),
            ("/a?b=c", "\"/a\""),
            ("/a/*", "no star"),
            ("/a/../b", "without empty parts"),
            ("//a", "without empty parts"),
            ("/a b", "percent-encode"),
        ] {
            let said = path_prefix(text).expect_err(text);
            assert!(said.contains(words), "{text}: {said}");
        }
    }

    #[test]
    fn status_classes() {
        assert_eq!(statuses("5xx"), Ok((500, 599)));
        assert_eq!(statuses("429"), Ok((429, 429)));
        assert_eq!(statuses("500-504"), Ok((500, 504)));
        for text in ["6xx", "99", "600", "504-500", "error", ""] {
            assert!(statuses(text).is_err(), "{text}");
        }
    }
}
