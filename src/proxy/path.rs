//! What a path means for routing. No input or output here.
//!
//! Routes are matched on the path with dot segments resolved, slashes merged, and those escapes undone
//! that stand for letters, digits, `-._~`, `/` and `\`, so that `/a/%2e%2e/admin` is `/admin` for us as
//! for the app behind us. What is forwarded is what the client wrote. A path that leads out of its root,
//! that holds NUL, or that spells a character in more bytes than it needs, is refused: whoever decodes
//! such a path differently than its guard is open.

use crate::telemetry::traffic::Reason;

/// The path to be routed by, if it is not the one that was sent.
pub fn normal(path: &str) -> Result<Option<String>, Reason> {
    let mut before = 0;
    let mut odd = false;
    for byte in path.bytes() {
        odd |= byte == b'%' || (before == b'/' && matches!(byte, b'/' | b'.'));
        before = byte;
    }
    if odd { resolve(path).map(Some) } else { Ok(None) }
}

fn resolve(path: &str) -> Result<String, Reason> {
    let mut plain = Vec::with_capacity(path.len());
    let mut escaped = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first != b'%' {
            plain.push(*first);
            escaped.clear();
            continue;
        }
        let byte = rest.first_chunk::<2>().and_then(escape).ok_or(Reason::Target)?;
        escaped.push(byte);
        if byte == 0 || is_overlong(&escaped) {
            return Err(Reason::Target);
        }
        match byte {
            b'/' | b'\\' => plain.push(b'/'),
            b'-' | b'.' | b'_' | b'~' => plain.push(byte),
            byte if byte.is_ascii_alphanumeric() => plain.push(byte),
            _ => {
                plain.push(b'%');
                plain.extend(rest[..2].iter().map(u8::to_ascii_uppercase));
            }
        }
        rest = &rest[2..];
    }
    let plain = String::from_utf8_lossy(&plain);
    let mut segments: Vec<&str> = Vec::new();
    let mut is_directory = true;
    for segment in plain.split('/').skip(1) {
        is_directory = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop().ok_or(Reason::Target)?;
            }
            segment => segments.push(segment),
        }
    }
    let mut normal = String::with_capacity(plain.len());
    for segment in &segments {
        normal.push('/');
        normal.push_str(segment);
    }
    if is_directory || normal.is_empty() {
        normal.push('/');
    }
    Ok(normal)
}

fn escape(digits: &[u8; 2]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()
}

/// Whether escaped bytes end with a character of UTF-8 that is spelled too long (RFC 3629, 3).
fn is_overlong(escaped: &[u8]) -> bool {
    matches!(
        escaped,
        [.., 0xc0 | 0xc1, 0x80..=0xbf] | [.., 0xe0, 0x80..=0x9f] | [.., 0xf0, 0x80..=0x8f]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_paths_are_themselves() {
        for path in ["/", "/a", "/a/b.c", "/a/", "/a.b/c..d", "*"] {
            assert_eq!(normal(path), Ok(None), "{path}");
        }
    }

    #[test]
    fn paths_mean_what_the_app_will_take_them_for() {
        for (path, meant) in [
            ("/a/../b", "/b"),
            ("/a/./b", "/a/b"),
            ("//a///b//", "/a/b/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a%2fb", "/a/b"),
            ("/a/..%2fb", "/b"),
            ("/a%5c..%5Cb", "/b"),
            ("/%61dmin", "/admin"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/%e9", "/%E9"),
            ("/a%20b", "/a%20b"),
            ("/%252e%252e/b", "/%252e%252e/b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
        ] {
            assert_eq!(normal(path), Ok(Some(meant.to_owned())), "{path}");
        }
    }

    #[test]
    fn what_leads_out_or_is_spelled_wrong_is_refused() {
        for bad in [
            "/..",
            "/../a",
            "/a/../../b",
            "/%2e%2e/a",
            "/a/..%2f..%2fb",
            "/%00",
            "/a%00.png",
            "/%",
            "/%4",
            "/%zz",
            "/%-1",
            "/%+1",
            "/%c0%af",
            "/..%c0%af",
            "/%e0%80%af",
            "/%f0%80%80%af",
            "/%C1%9C",
        ] {
            assert_eq!(normal(bad), Err(Reason::Target), "{bad}");
        }
    }
}
