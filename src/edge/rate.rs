//! How limits are written: `10/s burst 20 by client-address`, `8 by header:X-Api-Key`.

use std::fmt;
use std::time::Duration;

use http::HeaderName;

/// By what requests are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// The client's address; of an IPv6 address its first 64 bits, which one household has.
    ClientAddress,
    /// A header field's value; the client's address where there is none.
    Header(HeaderName),
    /// Not at all: one count for everyone.
    Everyone,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientAddress => f.write_str("client-address"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Everyone => f.write_str("everyone"),
        }
    }
}

/// So many requests in a time, and so many at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    /// From one request to the next, at a steady pace.
    pub interval: Duration,
    /// Requests that may come at once after a silence.
    pub burst: u32,
    /// By what they are told apart.
    pub key: Key,
}

/// So many requests in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtOnce {
    /// The most.
    pub most: u32,
    /// By what they are told apart.
    pub key: Key,
}

const UNITS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];

fn key(words: &[&str], example: &str) -> Result<Key, String> {
    let named = |name: &str| {
        name.parse().map(Key::Header).map_err(|_| format!("{name:?} cannot name a header"))
    };
    match words {
        [] | ["by", "client-address"] => Ok(Key::ClientAddress),
        ["by", "everyone"] => Ok(Key::Everyone),
        ["by", other] => match other.strip_prefix("header:") {
            Some(name) => named(name),
            None => Err("expected by client-address, by header:NAME or by everyone".to_owned()),
        },
        _ => Err(format!("expected for example \"{example}\"")),
    }
}

impl Rate {
    /// Reads `10/s`, `30/m burst 10`, `100/h by header:X-Api-Key`. Without `burst`, as many may come
    /// at once as in one unit of time. The error says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        const EXAMPLE: &str = "10/s burst 20 by client-address";
        let example = || format!("expected for example \"{EXAMPLE}\"");
        let words: Vec<&str> = text.split_whitespace().collect();
        let (first, mut rest) = words.split_first().ok_or_else(example)?;
        let (count, unit) = first.split_once('/').ok_or_else(example)?;
        if let Some(number) = count.strip_suffix('r') {
            return Err(format!("write \"{number}/{unit}\""));
        }
        let count: u32 = count
            .parse()
            .ok()
            .filter(|count| (1..=1_000_000).contains(count))
            .ok_or_else(|| "expected 1 to 1000000 requests".to_owned())?;
        let seconds = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, seconds)| *seconds);
        let seconds =
            seconds.ok_or_else(|| format!("expected requests per s, m, h or d: \"{count}/s\""))?;
        let mut burst = count;
        if let ["burst", number, ..] = rest {
            let number = number.parse().ok().filter(|number| (1..=1_000_000).contains(number));
            burst = number.ok_or_else(|| "expected a burst of 1 to 1000000".to_owned())?;
            rest = &rest[2..];
        }
        let interval = Duration::from_secs(seconds) / count;
        Ok(Self { interval, burst, key: key(rest, EXAMPLE)? })
    }
}

impl AtOnce {
    /// Reads `8`, `8 by client-address`, `100 by everyone`. The error says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        const EXAMPLE: &str = "8 by client-address";
        let words: Vec<&str> = text.split_whitespace().collect();
        let (first, rest) =
            words.split_first().ok_or_else(|| format!("expected for example \"{EXAMPLE}\""))?;
        let most = first.parse().ok().filter(|most| (1..=1_000_000).contains(most));
        let most = most.ok_or_else(|| "expected 1 to 1000000 requests".to_owned())?;
        Ok(Self { most, key: key(rest, EXAMPLE)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read() {
        let rate = |text: &str| {
            Rate::parse(text).map(|r| (r.interval.as_millis(), r.burst, r.key.to_string()))
        };
        let by = "client-address".to_owned();
        assert_eq!(rate("10/s burst 20 by client-address"), Ok((100, 20, by.clone())));
        assert_eq!(rate("30/m"), Ok((2_000, 30, by.clone())));
        assert_eq!(rate("1/d burst 5"), Ok((86_400_000, 5, by)));
        assert_eq!(rate("2/h by header:X-Api-Key"), Ok((1_800_000, 2, "header:x-api-key".into())));
        assert_eq!(rate("5/s by everyone"), Ok((200, 5, "everyone".into())));
        for (text, words) in [
            ("", "expected for example"),
            ("10", "expected for example"),
            ("10r/s", "write \"10/s\""),
            ("0/s", "1 to 1000000"),
            ("10/y", "per s, m, h or d"),
            ("10/s burst x", "a burst of"),
            ("10/s burst", "expected for example"),
            ("10/s by cookie", "by client-address"),
            ("10/s by header:", "cannot name a header"),
            ("10/s nodelay", "expected for example"),
        ] {
            let said = Rate::parse(text).expect_err(text);
            assert!(said.contains(words), "{text}: {said}");
        }
        let most = AtOnce::parse("8 by everyone").expect("a limit");
        assert_eq!((most.most, most.key), (8, Key::Everyone));
        assert!(AtOnce::parse("0").is_err() && AtOnce::parse("many").is_err());
    }
}
