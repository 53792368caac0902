//! What keeps a user on a side: reading cookies, and issuing the one that the proxy gives itself.
//!
//! The key in the cookie is random and says nothing; the side follows from its hash and the weight.
//! The cookie is issued only while there is a canary: before, nobody has a side to be kept on.

use http::header::{COOKIE, HeaderMap, HeaderValue};

use super::ids::hex;

/// How long a user stays known: longer than any rollout.
const MAX_AGE: &str = "2592000";
/// The longest key that is taken from a cookie or header; what is beyond it does not count.
const LONGEST_KEY: usize = 256;

/// The value of a cookie, ASCII, from however many `Cookie` fields there are.
#[must_use]
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    headers.get_all(COOKIE).iter().find_map(|field| cookie_in(field, name))
}

/// The value of a cookie in one `Cookie` field. Looks at each byte once: this is on the way of every
/// request of a service with a sticky cookie.
#[must_use]
pub fn cookie_in<'a>(field: &'a HeaderValue, name: &str) -> Option<&'a [u8]> {
    let mut rest = field.as_bytes().trim_ascii_start();
    loop {
        if let Some(value) = rest.strip_prefix(name.as_bytes())
            && let Some(value) = value.strip_prefix(b"=")
        {
            let end = memchr::memchr(b';', value).unwrap_or(value.len());
            let value = value.get(..end)?.trim_ascii_end();
            return value.is_ascii().then_some(value);
        }
        let end = memchr::memchr(b';', rest)?;
        rest = rest.get(end + 1..)?.trim_ascii_start();
    }
}

/// A key cut to what counts.
#[must_use]
pub fn key(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(LONGEST_KEY)]
}

/// A new key for a user.
#[must_use]
pub fn new_key(random: u64) -> [u8; 16] {
    let mut key = [0; 16];
    hex(random, &mut key);
    key
}

/// The `Set-Cookie` that gives a user this key, for this host or for all of a domain.
#[must_use]
pub fn set_cookie(
    name: &str,
    key: [u8; 16],
    domain: Option<&str>,
    secure: bool,
) -> Option<HeaderValue> {
    let key = std::str::from_utf8(&key).ok()?;
    let domain = domain.map_or_else(String::new, |domain| format!("; Domain={domain}"));
    let secure = if secure { "; Secure" } else { "" };
    let text =
        format!("{name}={key}{domain}; Path=/; Max-Age={MAX_AGE}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::try_from(text).ok()
}

/// Takes a cookie out of what goes upstream, leaving the others as they were.
pub fn strip_cookie(headers: &mut HeaderMap, name: &str) {
    if cookie(headers, name).is_none() {
        return;
    }
    let mut kept = String::new();
    for field in headers.get_all(COOKIE) {
        let Ok(text) = field.to_str() else { return };
        for pair in text.split(';').map(str::trim) {
            if pair.is_empty() || pair.split_once('=').is_some_and(|(found, _)| found == name) {
                continue;
            }
            if !kept.is_empty() {
                kept.push_str("; ");
            }
            kept.push_str(pair);
        }
    }
    headers.remove(COOKIE);
    if !kept.is_empty()
        && let Ok(value) = HeaderValue::try_from(kept)
    {
        headers.insert(COOKIE, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(fields: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(COOKIE, HeaderValue::from_static(field));
        }
        headers
    }

    #[test]
    fn a_cookie_is_found_among_others_and_among_crumbs() {
        let headers = with(&["a=1; user=two;b=3", "c=4"]);
        assert_eq!(cookie(&headers, "user"), Some(&b"two"[..]));
        assert_eq!(cookie(&headers, "c"), Some(&b"4"[..]));
        assert_eq!(cookie(&headers, "use"), None);
        assert_eq!(cookie(&HeaderMap::new(), "a"), None);
        let odd = with(&[" a = 1;user ; userid=5;  user=two words ;b"]);
        assert_eq!(cookie(&odd, "user"), Some(&b"two words"[..]));
        assert_eq!((cookie(&odd, "a"), cookie(&odd, "b")), (None, None));
    }

    #[test]
    fn a_cookie_can_be_taken_out() {
        let mut headers = with(&["a=1; user=two;b=3", "user=x"]);
        strip_cookie(&mut headers, "user");
        assert_eq!(headers.get(COOKIE).expect("the others"), "a=1; b=3");
        strip_cookie(&mut headers, "a");
        strip_cookie(&mut headers, "b");
        assert!(headers.get(COOKIE).is_none());
    }

    #[test]
    fn the_cookie_is_for_the_server_only() {
        let value = set_cookie("who", new_key(0xabc), None, true).expect("a value");
        assert_eq!(
            value,
            "who=0000000000000abc; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax; Secure"
        );
        let value = set_cookie("who", new_key(1), Some("example.com"), false).expect("a value");
        assert_eq!(
            value,
            "who=0000000000000001; Domain=example.com; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax"
        );
    }
}
