//! How requests of one service are treated on their way.

use std::time::Duration;

use super::asset::Assets;
use crate::model::weight::Weight;

/// How requests of one service are treated: time limits, retries, affinity, what counts as an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSettings {
    /// Time to establish a connection to an instance.
    pub connect_timeout: Duration,
    /// Time from the last byte of the request to the first of the response's headers.
    pub response_timeout: Duration,
    /// Time without a byte in either direction, on bodies and tunnels.
    pub idle_timeout: Duration,
    /// Bytes of a request's body; more are refused with 413. [`u64::MAX`] is no limit.
    pub max_body: u64,
    /// Bytes of a request's body that are read before an instance is asked for; 0 is none.
    pub buffer_requests: u64,
    /// How many more endpoints a request may be tried on.
    pub retries: u32,
    /// How many are: a part of the requests that come.
    pub retry_budget: Weight,
    /// What keeps a user on one side.
    pub affinity: Affinity,
    /// The domain whose hosts have the cookie of [`Affinity::Cookie`] together; `None` where each host
    /// has its own.
    pub affinity_domain: Option<String>,
    /// Which statuses are errors.
    pub errors: ErrorRule,
    /// Paths for which another rule holds, or which say nothing: the longest prefix first.
    pub exceptions: Vec<Exception>,
    /// What lets a tester choose a side; `None` when nobody may.
    pub tester_secret: Option<String>,
    /// Whether only clients with a certificate are served.
    pub client_certificate: bool,
    /// Which failures of a canary stable answers.
    pub shield: Shield,
    /// How many of them: a part of the requests that stable gets by itself.
    pub shield_budget: Weight,
    /// Bytes of a request's body that are kept so that it can be sent again.
    pub shield_body: usize,
    /// What is asked of the other revision when one says 404.
    pub assets: Assets,
    /// Whether instances are told by `Forwarded` too who sent a request.
    pub forwarded: bool,
    /// Whether cleartext requests are sent to https. A policy, where there is one, says it itself.
    pub to_https: bool,
}

/// Which requests that the canary failed are sent to stable before the user sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shield {
    /// None.
    Off,
    /// What changes nothing: GET, HEAD, OPTIONS.
    Safe,
    /// PUT and DELETE too, which may be done twice (RFC 9110, 9.2.2).
    #[default]
    Idempotent,
}

impl Default for ServiceSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(300),
            max_body: u64::MAX,
            buffer_requests: 0,
            retries: 1,
            retry_budget: Weight::from_basis_points(2_000).unwrap_or(Weight::ZERO),
            affinity: Affinity::None,
            affinity_domain: None,
            errors: ErrorRule::default(),
            exceptions: Vec::new(),
            tester_secret: None,
            client_certificate: false,
            shield: Shield::default(),
            // 20 %, as Finagle, Envoy and Linkerd have it.
            shield_budget: Weight::from_basis_points(2_000).unwrap_or(Weight::ZERO),
            shield_body: 64 * 1024,
            assets: Assets::default(),
            forwarded: false,
            to_https: false,
        }
    }
}

impl ServiceSettings {
    /// Adds exceptions for path prefixes; `None` leaves their requests out of the evidence.
    pub fn except(&mut self, exceptions: impl IntoIterator<Item = (String, Option<ErrorRule>)>) {
        let exceptions = exceptions.into_iter().map(|(path, errors)| Exception { path, errors });
        self.exceptions.extend(exceptions);
        self.exceptions.sort_by_key(|exception| std::cmp::Reverse(exception.path.len()));
    }

    /// The exception for a path, as its place in [`Self::exceptions`].
    #[inline]
    #[must_use]
    pub fn exception(&self, path: &str) -> Option<u16> {
        if self.exceptions.is_empty() {
            return None;
        }
        let place = self.exceptions.iter().position(|exception| exception.holds_for(path));
        place.and_then(|place| u16::try_from(place).ok())
    }

    /// The rule for an exception's place, or the service's own; `None` where requests say nothing.
    #[inline]
    #[must_use]
    pub fn rule(&self, exception: Option<u16>) -> Option<&ErrorRule> {
        match exception.and_then(|place| self.exceptions.get(usize::from(place))) {
            Some(exception) => exception.errors.as_ref(),
            None => Some(&self.errors),
        }
    }
}

/// A path prefix whose requests count in another way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// The prefix, matched at segment borders; without a slash at its end, unless it is `/`.
    pub path: String,
    /// What is an error there; `None` when requests there are no observations.
    pub errors: Option<ErrorRule>,
}

impl Exception {
    fn holds_for(&self, path: &str) -> bool {
        let prefix = self.path.trim_end_matches('/');
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
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
    fn the_longest_exception_holds() {
        let mut settings = ServiceSettings::default();
        assert_eq!(settings.exception("/anything"), None);
        settings.except([
            ("/api".to_owned(), Some(ErrorRule::of([429]))),
            ("/api/health".to_owned(), None),
        ]);
        let rule = |path: &str| settings.rule(settings.exception(path));
        assert!(rule("/api/v1").is_some_and(|rule| rule.is_error(429) && !rule.is_error(500)));
        assert_eq!(rule("/api/health"), None);
        assert_eq!(rule("/api/health/deep"), None);
        assert!(rule("/api/healthy").is_some_and(|rule| rule.is_error(429)));
        assert!(rule("/apis").is_some_and(|rule| rule.is_error(500)));
        // A table that is newer than the request may have fewer exceptions.
        assert_eq!(settings.rule(Some(9)), Some(&settings.errors));
    }

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
