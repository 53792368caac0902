//! Queries of the admin API, as they are written in an address. Pure.

/// A query.
pub(super) fn pairs(query: &[(&str, String)]) -> String {
    let pairs = query.iter().map(|(name, value)| format!("{name}={}", escaped(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// Text in a query: what is not plain goes as its bytes in hexadecimal.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_plain_is_escaped() {
        let query = [("since", "2026-11-21T10:00:00Z".to_owned()), ("by", "ann & bob".to_owned())];
        assert_eq!(pairs(&query), "since=2026-11-21T10:00:00Z&by=ann%20%26%20bob");
    }
}
