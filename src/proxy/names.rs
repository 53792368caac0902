//! Names of fields that came lately.
//!
//! To make a name of bytes, `http` looks at each letter twice, searches it among the names that it
//! knows, and copies it into room of its own when it is none of them. But the same few dozen names
//! come with every message, in the same letters. They are remembered by each thread, in a table in
//! which a name has one place: what else belongs there takes it. What is given is what
//! [`HeaderName::from_bytes`] gives, so that nobody who sends odd names changes anything but time.

use std::cell::RefCell;

use http::header::{HeaderName, InvalidHeaderName};

/// Places: several times the names that a site's messages have. A power of two.
const PLACES: usize = 512;
/// Of 20,000 odd numbers drawn at random the first that keeps the names of browsers, proxies and apps
/// (the last test below has them) apart, in small letters and in capitals.
const SPREAD: u32 = 0x781b_5121;
/// Bytes of a name that is remembered: `access-control-allow-credentials` has as many.
const LONGEST: usize = 32;

/// A name, and the bytes that it was made of.
#[derive(Debug)]
struct Place {
    length: u8,
    bytes: [u8; LONGEST],
    name: HeaderName,
}

thread_local! {
    static LATELY: RefCell<Vec<Option<Place>>> = const { RefCell::new(Vec::new()) };
}

/// The name that is written so.
#[inline]
pub fn name(bytes: &[u8]) -> Result<HeaderName, InvalidHeaderName> {
    let (Some(at), length) = (place(bytes), bytes.len() as u8) else {
        return HeaderName::from_bytes(bytes);
    };
    LATELY.with_borrow_mut(|places| match places.get(at) {
        Some(Some(place)) if place.length == length && place.bytes[..bytes.len()] == *bytes => {
            Ok(place.name.clone())
        }
        _ => learn(places, at, bytes),
    })
}

/// Where a name has its place; `None` when it is not remembered. Its length and three of its letters
/// tell the names in use apart.
#[inline]
fn place(bytes: &[u8]) -> Option<usize> {
    let length = bytes.len();
    if length > LONGEST {
        return None;
    }
    let (first, middle) = (*bytes.first()?, *bytes.get(length / 2)?);
    let late = *bytes.get(length.saturating_sub(3))?;
    let known = u32::from_le_bytes([first, middle, late, length as u8]);
    Some((known.wrapping_mul(SPREAD) >> (32 - PLACES.ilog2())) as usize)
}

#[cold]
fn learn(
    places: &mut Vec<Option<Place>>,
    at: usize,
    bytes: &[u8],
) -> Result<HeaderName, InvalidHeaderName> {
    let name = HeaderName::from_bytes(bytes)?;
    if places.is_empty() {
        places.resize_with(PLACES, || None);
    }
    let mut letters = [0; LONGEST];
    if let (Some(room), Some(place)) = (letters.get_mut(..bytes.len()), places.get_mut(at)) {
        room.copy_from_slice(bytes);
        *place = Some(Place { length: bytes.len() as u8, bytes: letters, name: name.clone() });
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_the_library_makes_of_it_however_often_it_comes() {
        let long = "x-".repeat(40);
        let names = [
            "host",
            "Host",
            "hOST",
            "x-app-version",
            "X-App-Version",
            "a",
            "",
            "no good",
            "\u{e9}",
            "a:",
            "access-control-allow-credentials",
            "access-control-allow-credentials2",
            &long,
        ];
        for _ in 0..3 {
            for bytes in names {
                let expected = HeaderName::from_bytes(bytes.as_bytes()).ok();
                assert_eq!(name(bytes.as_bytes()).ok(), expected, "{bytes}");
            }
        }
    }

    #[test]
    fn names_that_have_the_same_place_are_not_mixed_up() {
        let pair = ["x-csrf-token", "x-xsrf-token"];
        assert_eq!(place(pair[0].as_bytes()), place(pair[1].as_bytes()));
        for _ in 0..3 {
            for bytes in pair {
                assert_eq!(name(bytes.as_bytes()).expect("a name"), bytes);
            }
        }
    }

    #[test]
    fn the_names_of_browsers_and_apps_have_places_of_their_own() {
        let small = "host connection accept accept-encoding accept-language cookie user-agent \
            cache-control pragma referer origin upgrade-insecure-requests sec-fetch-dest \
            sec-fetch-mode sec-fetch-site sec-fetch-user sec-ch-ua sec-ch-ua-mobile \
            sec-ch-ua-platform if-none-match if-modified-since content-type content-length \
            authorization priority x-requested-with x-forwarded-for x-forwarded-proto \
            x-forwarded-host x-real-ip server date etag last-modified vary location set-cookie \
            transfer-encoding strict-transport-security x-frame-options x-content-type-options \
            content-security-policy referrer-policy expires content-encoding accept-ranges \
            x-request-id traceparent alt-svc age te dnt range if-range cf-ray cf-connecting-ip \
            cf-ipcountry cdn-loop x-powered-by link via cf-visitor cf-cache-status \
            permissions-policy access-control-allow-origin access-control-allow-methods \
            access-control-allow-headers access-control-allow-credentials \
            access-control-max-age x-xsrf-token x-api-key";
        let capital = |name: &str| {
            let words = name.split('-').map(|word| word[..1].to_uppercase() + &word[1..]);
            words.collect::<Vec<_>>().join("-")
        };
        let capitals: Vec<_> = small.split_whitespace().map(capital).collect();
        for names in [small.split_whitespace().collect(), capitals.iter().map(|n| &**n).collect()] {
            let names: Vec<&str> = names;
            let mut places: Vec<_> = names.iter().map(|name| place(name.as_bytes())).collect();
            places.sort_unstable();
            places.dedup();
            assert_eq!(places.len(), names.len(), "{names:?}");
        }
    }
}
