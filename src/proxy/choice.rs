//! Which side a request goes to, and whether that makes it an observation.
//!
//! A coin per request, the hash of what keeps a user on a side, or a tester's wish. Pure: the
//! randomness and the time are handed in.

use std::net::IpAddr;

use http::header::{HeaderMap, HeaderValue};

use super::affinity;
use super::headers::{FORCE, Found, SECRET};
use super::tester;
use crate::model::weight::Side;
use crate::routing::settings::Affinity;
use crate::routing::split::Ticket;
use crate::routing::table::ServiceEntry;

/// What a request's side follows from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    basis: Basis,
    /// The hash of what keeps the client on a side; none where a coin was thrown.
    pub session: Option<u32>,
    /// The cookie to give the user, who came without.
    pub set_cookie: Option<HeaderValue>,
    /// The tester's cookie came along, and does not go further.
    pub strip_cookie: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Basis {
    /// There is one side only.
    Only,
    Ticket(Ticket),
    Forced(Side),
}

/// What a choice is made from.
#[derive(Debug)]
pub struct Asker<'a> {
    /// The request's fields.
    pub headers: &'a HeaderMap,
    /// Which fields of interest there are.
    pub found: Found,
    /// How many `Cookie` fields came, and the first of them: mostly it is the only one, and need not be
    /// looked up.
    pub cookies: (u32, Option<&'a HeaderValue>),
    /// Who asks.
    pub client: IpAddr,
    /// Whether over TLS.
    pub secure: bool,
}

impl<'a> Asker<'a> {
    fn cookie(&self, name: &str) -> Option<&'a [u8]> {
        match self.cookies {
            (0, _) | (_, None) => None,
            (1, Some(field)) => affinity::cookie_in(field, name),
            _ => affinity::cookie(self.headers, name),
        }
    }
}

impl Choice {
    /// Chooses for a request.
    pub fn new(
        service: &ServiceEntry,
        asker: &Asker<'_>,
        random: impl Fn() -> u64,
        unix_now: impl Fn() -> u64,
    ) -> Self {
        let choice = |basis| Self { basis, session: None, set_cookie: None, strip_cookie: false };
        let mut strip_cookie = false;
        if let Some(secret) = &service.settings.tester_secret {
            if asker.found.has(Found::TESTER)
                && let Some(side) = by_header(secret, asker.headers)
            {
                return choice(Basis::Forced(side));
            }
            if let Some(cookie) = asker.cookie(tester::COOKIE) {
                strip_cookie = true;
                let cookie = std::str::from_utf8(cookie).ok();
                let side = cookie.and_then(|cookie| tester::verify(secret, cookie, unix_now()));
                if let Some(side) = side {
                    return Self { strip_cookie, ..choice(Basis::Forced(side)) };
                }
            }
        }
        if service.canary.is_none() {
            return Self { strip_cookie, ..choice(Basis::Only) };
        }
        let coin = || (Ticket::random((random() >> 32) as u32), None);
        let of = |key: &[u8]| {
            let (ticket, session) = Ticket::of_key(affinity::key(key), &service.salt);
            (ticket, Some(session))
        };
        let mut set_cookie = None;
        let (ticket, session) = match &service.settings.affinity {
            Affinity::None => coin(),
            Affinity::Cookie(name) => match asker.cookie(name) {
                Some(key) => of(key),
                None => {
                    let key = affinity::new_key(random());
                    let domain = service.settings.affinity_domain.as_deref();
                    set_cookie = affinity::set_cookie(name, key, domain, asker.secure);
                    of(&key)
                }
            },
            Affinity::Header(name) => {
                asker.headers.get(name).map_or_else(coin, |value| of(value.as_bytes()))
            }
            Affinity::ClientAddress => match asker.client.to_canonical() {
                IpAddr::V4(address) => of(&address.octets()),
                // A household has a /64, and its devices change the rest at will.
                IpAddr::V6(address) => of(&address.octets()[..8]),
            },
        };
        Self { basis: Basis::Ticket(ticket), session, set_cookie, strip_cookie }
    }

    /// The side in a table's entry: what was chosen, or the only one that there is.
    pub fn side(&self, service: &ServiceEntry) -> Side {
        let wanted = match self.basis {
            Basis::Only => Side::Stable,
            Basis::Ticket(ticket) => ticket.side(service.canary_weight),
            Basis::Forced(side) => side,
        };
        match (service.side(wanted), wanted) {
            (None, Side::Canary) => Side::Stable,
            (None, Side::Stable) if service.canary.is_some() => Side::Canary,
            _ => wanted,
        }
    }

    /// Whether it goes to the part of stable that the canary is compared with, when there is one and
    /// it is healthy.
    pub fn is_fresh(&self, service: &ServiceEntry) -> bool {
        let Some(fresh) = &service.fresh else { return false };
        matches!(self.basis, Basis::Ticket(ticket) if ticket.is_among_highest(fresh.weight))
            && self.side(service) == Side::Stable
            && fresh.side.pool.is_available()
    }

    /// Whether the request says something about its side: not when a tester chose it.
    pub fn is_observation(&self) -> bool {
        !matches!(self.basis, Basis::Forced(_))
    }
}

fn by_header(secret: &str, headers: &HeaderMap) -> Option<Side> {
    let side = headers.get(FORCE)?.to_str().ok().and_then(tester::side_of)?;
    let given = headers.get(SECRET)?;
    tester::is_secret(secret, given.as_bytes()).then_some(side)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    use crate::analysis::scorecard::Scorecard;
    use crate::model::id::{RevisionId, ServiceName};
    use crate::model::weight::Weight;
    use crate::routing::pool::Pool;
    use crate::routing::settings::ServiceSettings;
    use crate::routing::split::Salt;
    use crate::routing::table::SideEntry;

    fn side(revision: u32) -> SideEntry {
        SideEntry {
            revision: RevisionId(revision),
            pool: Arc::new(Pool::new(RevisionId(revision), Vec::new())),
            scorecard: Arc::new(Scorecard::new(1)),
            instances: None,
        }
    }

    fn service(affinity: Affinity, percent: f64) -> ServiceEntry {
        let settings = ServiceSettings {
            affinity,
            tester_secret: Some("secret".to_owned()),
            ..ServiceSettings::default()
        };
        ServiceEntry {
            name: ServiceName::new("web").expect("a name"),
            settings: Arc::new(settings),
            policy: None,
            maintenance: None,
            canary_weight: Weight::from_percent(percent).expect("a weight"),
            salt: Salt::new(3),
            overdue: Duration::from_secs(1),
            stable: Some(side(1)),
            canary: Some(side(2)),
            warm: None,
            budget: None,
            fresh: None,
            mirror: None,
        }
    }

    fn choose(service: &ServiceEntry, fields: &[(&'static str, &str)], random: u64) -> Choice {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        let seen = crate::proxy::headers::Seen::look(&headers);
        let asker = Asker {
            headers: &headers,
            found: seen.found,
            cookies: (seen.cookies, seen.cookie),
            client: IpAddr::from([1, 2, 3, 4]),
            secure: false,
        };
        Choice::new(service, &asker, || random, || 1_000)
    }

    #[test]
    fn without_affinity_the_coin_decides() {
        let service = service(Affinity::None, 50.0);
        assert_eq!(choose(&service, &[], 0).side(&service), Side::Canary);
        assert_eq!(choose(&service, &[], u64::MAX).side(&service), Side::Stable);
        assert_eq!(choose(&service, &[], 0).session, None);
    }

    #[test]
    fn testers_force_a_side_and_are_no_observation() {
        let service = service(Affinity::None, 0.0);
        let force = ("x-switchback-force", "canary");
        let forced = choose(&service, &[force, ("x-switchback-secret", "secret")], u64::MAX);
        assert_eq!(forced.side(&service), Side::Canary);
        assert!(!forced.is_observation());
        for fields in [vec![force], vec![force, ("x-switchback-secret", "wrong")]] {
            let choice = choose(&service, &fields, u64::MAX);
            assert_eq!(choice.side(&service), Side::Stable);
            assert!(choice.is_observation());
        }
        let cookie = format!("switchback-force={}", tester::sign("secret", Side::Canary, 1_000));
        let choice = choose(&service, &[("cookie", &cookie)], u64::MAX);
        assert_eq!((choice.side(&service), choice.strip_cookie), (Side::Canary, true));
    }

    #[test]
    fn a_user_without_a_cookie_gets_one_that_keeps_its_side() {
        let service = service(Affinity::Cookie("who".to_owned()), 50.0);
        for random in 0..50_u64 {
            let random = random.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let first = choose(&service, &[], random);
            let set = first.set_cookie.clone().expect("a cookie");
            let pair = set.to_str().expect("text").split(';').next().expect("a pair").to_owned();
            let again = choose(&service, &[("cookie", &pair)], 0);
            assert_eq!(again.side(&service), first.side(&service));
            assert_eq!(again.session, first.session);
            assert!(first.session.is_some());
            assert!(again.set_cookie.is_none());
        }
    }

    #[test]
    fn a_part_of_stable_has_tickets_of_its_own() {
        let mut service = service(Affinity::None, 30.0);
        let high = u64::MAX;
        assert!(!choose(&service, &[], high).is_fresh(&service));
        let weight = Weight::from_percent(30.0).expect("a weight");
        let endpoint = crate::proxy::tests::support::endpoint(([127, 0, 0, 1], 1).into());
        let part = crate::proxy::tests::support::side(1, &[std::sync::Arc::clone(&endpoint)]);
        service.fresh = Some(crate::routing::table::FreshEntry { weight, side: part });
        assert!(choose(&service, &[], high).is_fresh(&service));
        for other in [0, u64::MAX / 2] {
            assert!(!choose(&service, &[], other).is_fresh(&service));
        }
        endpoint.set_healthy(false);
        assert!(!choose(&service, &[], high).is_fresh(&service));
    }

    #[test]
    fn a_side_that_is_not_there_is_replaced_by_the_other() {
        let mut service = service(Affinity::None, 100.0);
        service.canary = None;
        assert_eq!(choose(&service, &[], 0).side(&service), Side::Stable);
        let mut service = self::service(Affinity::None, 0.0);
        service.stable = None;
        assert_eq!(choose(&service, &[], 0).side(&service), Side::Canary);
    }
}
