//! How requests of one service are treated on their way.

use std::time::Duration;

/// How requests of one service are treated: time limits, retries, affinity, what counts as an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSettings {
    /// Time to establish a connection to an instance.
    pub connect_timeout: Duration,
    /// Time from the last byte of the request to the first of the response's headers.
    pub response_timeout: Duration,
    /// Time without a byte in either direction, on bodies and tunnels.
    pub idle_timeout: Duration,
    /// How many more endpoints a request may be tried on.
    pub retries: u32,
    /// What keeps a user on one side.
    pub affinity: Affinity,
    /// Which statuses are errors.
    pub errors: ErrorRule,
    /// What lets a tester choose a side; `None` when nobody may.
    pub tester_secret: Option<String>,
    /// Whether only clients with a certificate are served.
    pub client_certificate: bool,
}

impl Default for ServiceSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(300),
            retries: 1,
            affinity: Affinity::None,
            errors: ErrorRule::default(),
            tester_secret: None,
            client_certificate: false,
        }
    }
}

/// What keeps a user on one side of the split.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Affinity {
    /// Nothing: each request is an independent coin.
    #[default]
    None,
    /// A cookie of this name, which the proxy issues to whoever comes without.
    Cookie(String),
    /// The value of this request header (lower case); requests without it are independent coins.
    Header(String),
    /// The client's address.
    ClientAddress,
}

/// Which statuses are errors: a bit for each of 100 to 599.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorRule {
    bits: [u64; 8],
}

impl Default for ErrorRule {
    /// 500 to 599.
    fn default() -> Self {
        let mut rule = Self { bits: [0; 8] };
        for status in 500..600 {
            rule.add(status);
        }
        rule
    }
}

impl ErrorRule {
    /// A rule over these statuses. Statuses outside 100 to 599 are left out.
    #[must_use]
    pub fn of(statuses: impl IntoIterator<Item = u16>) -> Self {
        let mut rule = Self { bits: [0; 8] };
        for status in statuses {
            rule.add(status);
        }
        rule
    }

    fn add(&mut self, status: u16) {
        if let Some(bit) = status.checked_sub(100).filter(|bit| *bit < 500) {
            self.bits[usize::from(bit / 64)] |= 1 << (bit % 64);
        }
    }

    /// Whether this status is an error.
    #[inline]
    #[must_use]
    pub fn is_error(&self, status: u16) -> bool {
        let bit = status.wrapping_sub(100);
        bit < 500 && self.bits[usize::from(bit / 64)] & (1 << (bit % 64)) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_5xx_unless_told_otherwise() {
        let rule = ErrorRule::default();
        assert!(rule.is_error(500) && rule.is_error(599));
        assert!(
            !rule.is_error(499) && !rule.is_error(200) && !rule.is_error(0) && !rule.is_error(600)
        );
        let rule = ErrorRule::of([429, 503, 9000]);
        assert!(rule.is_error(429) && rule.is_error(503) && !rule.is_error(500));
    }
}
