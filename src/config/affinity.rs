//! Reads what keeps a visitor on a side, and checks that a cookie of several hosts reaches them.

use super::problem::Problem;
use super::reader::Section;
use super::scalar;
use super::service::Read;
use crate::model::id::ServiceName;
use crate::routing::settings::Affinity;
use crate::routing::table::{HostPattern, Route};

/// What `affinity` and `affinity_domain` say. `name` is the service's, or its group's: the cookie is
/// called by it.
pub(super) fn read(section: &Section<'_>, name: &ServiceName) -> (Affinity, Option<String>) {
    let domain = section.parsed("affinity_domain", "a domain", domain).map(|found| found.value);
    let affinity =
        section.parsed("affinity", "an affinity", |text| affinity(text, name, domain.as_deref()));
    (affinity.map_or(Affinity::None, |found| found.value), domain)
}

fn affinity(text: &str, name: &ServiceName, domain: Option<&str>) -> Result<Affinity, String> {
    // RFC 9110 section 5.6.2: what names of headers and cookies are made of.
    let token = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    match text.split_once(':') {
        None if text == "none" => Ok(Affinity::None),
        // Another name than without a domain: browsers send a cookie that they have of one host alone
        // before the younger one of all hosts (RFC 6265, 5.4).
        None if text == "cookie" => Ok(Affinity::Cookie(match domain {
            Some(domain) => format!("switchback-{name}.{domain}"),
            None => format!("switchback-{name}"),
        })),
        None if text == "client-address" => Ok(Affinity::ClientAddress),
        Some(("cookie", name)) if token(name) => Ok(Affinity::Cookie(name.to_owned())),
        Some(("header", name)) if token(name) => Ok(Affinity::Header(name.to_ascii_lowercase())),
        _ => Err(
            "expected \"none\", \"cookie\", \"cookie:NAME\", \"header:NAME\" or \"client-address\""
                .to_owned(),
        ),
    }
}

/// A domain that browsers may take a cookie for.
fn domain(text: &str) -> Result<String, String> {
    let expected = "expected the domain that all hosts end with, such as \"example.com\"";
    // RFC 6265, 5.2.3: a dot before it says nothing.
    let bare = text.trim().strip_prefix('.').unwrap_or(text.trim());
    match scalar::host(bare) {
        Ok(HostPattern::Exact(name))
            if name.starts_with('[') || name.parse::<std::net::Ipv4Addr>().is_ok() =>
        {
            Err("an address has no hosts below it: ".to_owned() + expected)
        }
        Ok(HostPattern::Exact(name)) if name.contains('.') => Ok(name),
        Ok(HostPattern::Exact(name)) => {
            Err(format!("browsers take no cookie for all of \"{name}\": {expected}"))
        }
        Ok(HostPattern::Any | HostPattern::Below(_)) => Err(expected.to_owned()),
        Err(sentence) => Err(sentence),
    }
}

/// A cookie of a domain is sent to the hosts of that domain, and browsers refuse it from any other.
pub(super) fn check(services: &[Read]) -> Vec<Problem> {
    services.iter().filter_map(problem_of).collect()
}

fn problem_of(read: &Read) -> Option<Problem> {
    let (service, place) = (&read.service, &read.place);
    let domain = service.settings.affinity_domain.as_deref()?;
    let name = &service.name;
    if !matches!(service.settings.affinity, Affinity::Cookie(_)) {
        let title = format!("{name} has `affinity_domain`, and no cookie that it could be for");
        return Some(Problem::error(place.clone(), title).label("write affinity = \"cookie\""));
    }
    let is_outside = |route: &&Route| !reaches(domain, &route.host);
    let outside = service.routes.iter().find(is_outside)?;
    let title = format!("`affinity_domain` of {name} does not hold its host {outside}");
    let label = "write a domain that all its hosts end with, or name its hosts";
    Some(Problem::error(place.clone(), title).label(label))
}

/// Whether a host is of a domain, itself or below it.
fn reaches(domain: &str, host: &HostPattern) -> bool {
    match host {
        HostPattern::Any => false,
        HostPattern::Exact(name) | HostPattern::Below(name) => {
            name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_one_that_browsers_take() {
        assert_eq!(domain(".Example.com"), Ok("example.com".to_owned()));
        assert_eq!(domain("shop.example.com"), Ok("shop.example.com".to_owned()));
        for wrong in ["", "com", "*", "*.example.com", "10.0.0.1", "[::1]", "a.com/x", "a.com:80"] {
            assert!(domain(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn hosts_of_a_domain_are_it_and_what_is_below_it() {
        let exact = |name: &str| HostPattern::Exact(name.to_owned());
        assert!(reaches("example.com", &exact("example.com")));
        assert!(reaches("example.com", &exact("a.b.example.com")));
        assert!(reaches("example.com", &HostPattern::Below("example.com".to_owned())));
        assert!(!reaches("example.com", &exact("badexample.com")));
        assert!(!reaches("a.example.com", &exact("example.com")));
        assert!(!reaches("a.example.com", &HostPattern::Below("example.com".to_owned())));
        assert!(!reaches("example.com", &HostPattern::Any));
    }
}
