//! A service's policy: its rules with what they remember, and what they decide about a request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::facts::Facts;
use super::fields::{Edits, security};
use super::flight::{Flight, Flights};
use super::limit::{Limiter, Seed};
use super::matcher::Matcher;
use super::path::normal;
use super::rate::Key;
use super::rules::{Access, Act, Limits, Page, Rules, Spec};
use crate::model::id::ServiceName;

/// Never sent to https: a certificate authority asks here by cleartext (RFC 8555, 8.3).
const ACME: &str = "/.well-known/acme-challenge/";
/// What a client that has too many requests in flight is told to wait, in seconds.
const FLIGHT_PAUSE: u64 = 1;

/// A service's rules, with what they remember.
#[derive(Debug)]
pub struct Policy {
    spec: Spec,
    base: Rule,
    routes: Vec<Rule>,
}

/// The rules of a service or a route, ready to decide.
#[derive(Debug)]
pub struct Rule {
    /// What was written.
    pub rules: Rules,
    /// All that is done to a response's header, `Strict-Transport-Security` aside.
    pub response: Edits,
    /// The service whose instances answer, if it is another one.
    pub leads_to: Option<ServiceName>,
    /// Whether anybody is turned away or sent elsewhere at once: [`Rule::admit`] is to be asked.
    pub admits: bool,
    /// Whether there is anything to do for who is admitted.
    pub acts: bool,
    /// Whether it is still asked about a request when that has gone on.
    pub keeps: bool,
    /// Whether something takes time before a request may go on.
    pub waits: bool,
    counters: Arc<Counters>,
}

/// What limits remember.
#[derive(Debug)]
struct Counters {
    limits: Limits,
    rates: Vec<Limiter>,
    at_once: Vec<Arc<Flights>>,
}

impl Counters {
    fn new(limits: &Limits, seed: &Seed, now: Instant) -> Arc<Self> {
        let rates = limits.rates.iter().map(|rate| Limiter::new(rate, seed.clone(), now));
        let at_once =
            limits.at_once.iter().map(|most| Arc::new(Flights::new(most.most, seed.clone())));
        Arc::new(Self {
            rates: rates.collect(),
            at_once: at_once.collect(),
            limits: limits.clone(),
        })
    }
}

/// An answer that needs no instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Where to go instead.
    pub location: Option<String>,
    /// Seconds after which to try again.
    pub retry_after: Option<u64>,
    /// Methods that may be used.
    pub allow: Option<String>,
    /// What a password is asked for.
    pub realm: Option<String>,
    /// Its body and the type of that; a page of the proxy's otherwise.
    pub body: Option<(Bytes, HeaderValue)>,
}

impl Reply {
    /// Nothing but a status.
    #[must_use]
    pub fn of(status: StatusCode) -> Self {
        Self { status, location: None, retry_after: None, allow: None, realm: None, body: None }
    }

    /// Say who you are.
    #[must_use]
    pub fn who(realm: &str) -> Self {
        Self { realm: Some(realm.to_owned()), ..Self::of(StatusCode::UNAUTHORIZED) }
    }

    /// Come again.
    #[must_use]
    pub fn later(seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..Self::of(StatusCode::SERVICE_UNAVAILABLE) }
    }

    /// Go elsewhere.
    #[must_use]
    pub fn redirect(status: StatusCode, location: String) -> Self {
        Self { location: Some(location), ..Self::of(status) }
    }
}

impl Policy {
    /// A policy. What `previous` remembers is kept where the limits are the same, so that a reload
    /// does not make everybody's burst whole.
    #[must_use]
    pub fn new(spec: Spec, previous: Option<&Self>, seed: &Seed, now: Instant) -> Self {
        let keep = |former: Option<&Rule>, limits: &Limits| {
            former
                .map(|rule| &rule.counters)
                .filter(|counters| counters.limits == *limits)
                .map_or_else(|| Counters::new(limits, seed, now), Arc::clone)
        };
        let base = keep(previous.map(|policy| &policy.base), &spec.base.limits);
        let routes = spec.routes.iter().map(|route| {
            let counters = if route.own_limits {
                let former = previous.and_then(|policy| policy.route(&route.matcher));
                keep(former, &route.rules.limits)
            } else {
                Arc::clone(&base)
            };
            Rule::new(route.rules.clone(), route.leads_to.clone(), counters)
        });
        let routes = routes.collect();
        let base = Rule::new(spec.base.clone(), None, base);
        Self { spec, base, routes }
    }

    /// What was written.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The place of the rule of the first route that takes a request, else of the service's.
    #[must_use]
    pub fn place(&self, facts: &Facts<'_>, headers: &HeaderMap) -> usize {
        let routes = &self.spec.routes;
        if routes.is_empty() {
            return 0;
        }
        let path = normal(facts.uri.path());
        let found = routes.iter().position(|route| route.matcher.matches(facts, &path, headers));
        found.unwrap_or(routes.len())
    }

    /// The rule at a place. Workers come by it without counting how many of them have it.
    #[must_use]
    pub fn at(&self, place: usize) -> &Rule {
        self.routes.get(place).unwrap_or(&self.base)
    }

    /// The rule of the first route that takes a request, else the service's.
    #[must_use]
    pub fn rule(&self, facts: &Facts<'_>, headers: &HeaderMap) -> &Rule {
        self.at(self.place(facts, headers))
    }

    fn route(&self, matcher: &Matcher) -> Option<&Rule> {
        let mut routes = self.spec.routes.iter().zip(&self.routes);
        routes.find(|(route, _)| route.matcher == *matcher).map(|(_, rule)| rule)
    }
}

impl Rule {
    fn new(rules: Rules, leads_to: Option<ServiceName>, counters: Arc<Counters>) -> Self {
        let preset = if rules.security_headers { security() } else { Vec::new() };
        let response = Edits::new(preset).then(rules.response.clone());
        let nothing = Rules::default();
        let Rules { access, to_https, canonical_host, limits, .. } = &rules;
        let admits = *access != nothing.access
            || *to_https
            || canonical_host.is_some()
            || *limits != nothing.limits;
        let acts = Rules {
            access: Access::default(),
            to_https: false,
            canonical_host: None,
            limits: Limits::default(),
            ..rules.clone()
        } != nothing;
        let waits = rules.users.is_some()
            || rules.forward_auth.is_some()
            || matches!(rules.act, Act::Files(_));
        let keeps = !rules.request.are_fixed()
            || !response.are_fixed()
            || !rules.pages.is_empty()
            || !rules.compress.is_empty();
        Self { rules, response, leads_to, admits, acts, keeps, waits, counters }
    }

    /// Whether a request may go on, and what is counted of it until its end. `https_port` is where
    /// encrypted connections are taken; 0 when nowhere.
    pub fn admit(
        &self,
        facts: &Facts<'_>,
        headers: &HeaderMap,
        https_port: u16,
        now: Instant,
    ) -> Result<Vec<Flight>, Box<Reply>> {
        let rules = &self.rules;
        if !rules.access.admits(facts.client) {
            return Err(Box::new(Reply::of(StatusCode::FORBIDDEN)));
        }
        if rules.to_https
            && let Some(location) = to_https(facts, https_port)
        {
            return Err(Box::new(Reply::redirect(StatusCode::PERMANENT_REDIRECT, location)));
        }
        if let Some(location) = self.to_canonical(facts) {
            return Err(Box::new(Reply::redirect(StatusCode::PERMANENT_REDIRECT, location)));
        }
        if rules.access.certificate && !facts.certificate {
            return Err(Box::new(Reply::of(StatusCode::FORBIDDEN)));
        }
        let methods = &rules.access.methods;
        if !methods.is_empty() && !methods.contains(facts.method) {
            let allow: Vec<&str> = methods.iter().map(http::Method::as_str).collect();
            let allow = Some(allow.join(", "));
            let reply = Reply { allow, ..Reply::of(StatusCode::METHOD_NOT_ALLOWED) };
            return Err(Box::new(reply));
        }
        self.count(facts, headers, now)
    }

    fn count(
        &self,
        facts: &Facts<'_>,
        headers: &HeaderMap,
        now: Instant,
    ) -> Result<Vec<Flight>, Box<Reply>> {
        let Counters { limits, rates, at_once } = &*self.counters;
        let mut flights = Vec::new();
        if rates.is_empty() && at_once.is_empty() || limits.exempt.contains(facts.client) {
            return Ok(flights);
        }
        for (limit, flown) in limits.at_once.iter().zip(at_once) {
            let Some(flight) = with_key(&limit.key, facts, headers, |key| flown.take(key)) else {
                let status = too_many(&limit.key);
                let retry_after = Some(FLIGHT_PAUSE);
                return Err(Box::new(Reply { retry_after, ..Reply::of(status) }));
            };
            flights.push(flight);
        }
        for (limit, limiter) in limits.rates.iter().zip(rates) {
            let taken = with_key(&limit.key, facts, headers, |key| limiter.take(key, now));
            if let Err(wait) = taken {
                let retry_after = Some(whole_seconds(wait));
                return Err(Box::new(Reply { retry_after, ..Reply::of(too_many(&limit.key)) }));
            }
        }
        Ok(flights)
    }

    /// The answer to a request that needs no instance.
    #[must_use]
    pub fn reply(&self, facts: &Facts<'_>) -> Option<Reply> {
        match &self.rules.act {
            Act::Forward | Act::Files(_) => None,
            Act::Redirect { status, to } => Some(Reply::redirect(*status, to.location(facts))),
            Act::Respond { status, body } => {
                Some(Reply { body: body.clone(), ..Reply::of(*status) })
            }
        }
    }

    /// The page for a status, in place of the proxy's own.
    #[must_use]
    pub fn page(&self, status: StatusCode) -> Option<&Page> {
        let status = status.as_u16();
        let fits = |page: &&Page| (page.statuses.0..=page.statuses.1).contains(&status);
        // A page for one status before one for a class of them.
        self.rules.pages.iter().filter(fits).min_by_key(|page| page.statuses.1 - page.statuses.0)
    }

    fn to_canonical(&self, facts: &Facts<'_>) -> Option<String> {
        let canonical = self.rules.canonical_host.as_deref()?;
        let name = facts.name();
        if name.is_empty() || name.trim_end_matches('.').eq_ignore_ascii_case(canonical) {
            return None;
        }
        let port = &facts.host[name.len()..];
        Some(format!("{}://{canonical}{port}{}", facts.scheme(), facts.path_and_query()))
    }
}

/// Where a cleartext request is sent to; `None` when it may stay.
#[must_use]
pub fn to_https(facts: &Facts<'_>, https_port: u16) -> Option<String> {
    let name = facts.name();
    if facts.secure || https_port == 0 || name.is_empty() || facts.uri.path().starts_with(ACME) {
        return None;
    }
    let target = facts.path_and_query();
    Some(match https_port {
        443 => format!("https://{name}{target}"),
        port => format!("https://{name}:{port}{target}"),
    })
}

/// 429 says that this client asks too much; that all of them do is no client's fault.
fn too_many(key: &Key) -> StatusCode {
    match key {
        Key::Everyone => StatusCode::SERVICE_UNAVAILABLE,
        Key::ClientAddress | Key::Header(_) => StatusCode::TOO_MANY_REQUESTS,
    }
}

fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// What a limit tells clients apart by: what kind of thing it is, and its bytes. A field that spells the
/// bytes of somebody's address is not that address.
fn with_key<T>(
    key: &Key,
    facts: &Facts<'_>,
    headers: &HeaderMap,
    act: impl FnOnce((u8, &[u8])) -> T,
) -> T {
    const FIELD: u8 = 0;
    const ADDRESS: u8 = 1;
    const EVERYONE: u8 = 2;
    if let Key::Header(name) = key
        && let Some(value) = headers.get(name)
    {
        return act((FIELD, value.as_bytes()));
    }
    if *key == Key::Everyone {
        return act((EVERYONE, &[]));
    }
    match facts.client.to_canonical() {
        std::net::IpAddr::V4(address) => act((ADDRESS, &address.octets())),
        std::net::IpAddr::V6(address) => act((ADDRESS, &address.octets()[..8])),
    }
}

#[cfg(test)]
mod tests;
