//! The routing table: the immutable whole of routes, services, pools and splits.

use std::fmt;
use std::sync::Arc;

use super::budget::Budget;
use super::endpoint::EndpointId;
use super::index::Index;
use super::mirror::Mirror;
use super::pool::Pool;
use super::settings::ServiceSettings;
use super::split::Salt;
use crate::analysis::scorecard::Scorecard;
use crate::edge::policy::Policy;
use crate::edge::rules::Maintenance;
use crate::model::id::{RevisionId, ServiceName};
use crate::model::weight::{Side, Weight};

/// The whole of what the data plane knows.
#[derive(Debug, Default)]
pub struct RoutingTable {
    /// Rises by one with each publish.
    pub generation: u64,
    /// Services in no particular order; routes point into this.
    pub services: Vec<ServiceEntry>,
    /// Whether an instance of any of them is told who is at the other end of a connection.
    pub announces: bool,
    index: Arc<Index>,
}

/// A service as the data plane sees it.
#[derive(Debug, Clone)]
pub struct ServiceEntry {
    /// Its name.
    pub name: ServiceName,
    /// How its requests are treated.
    pub settings: Arc<ServiceSettings>,
    /// What is done to its requests besides; `None` when there is nothing to do.
    pub policy: Option<Arc<Policy>>,
    /// Its visitors are kept from it.
    pub maintenance: Option<Maintenance>,
    /// The canary's weight. Zero when there is no canary.
    pub canary_weight: Weight,
    /// Differs between rollouts.
    pub salt: Salt,
    /// An unanswered request of this age counts as an error already; see the analysis.
    pub overdue: std::time::Duration,
    /// The stable revision; `None` before the first one is up.
    pub stable: Option<SideEntry>,
    /// The canary; `None` when there is none.
    pub canary: Option<SideEntry>,
    /// The former revision while it is kept running: asked for nothing but its assets.
    pub warm: Option<SideEntry>,
    /// What the shield may spend; `None` while there is no canary.
    pub budget: Option<Arc<Budget>>,
    /// The part of stable that the canary is compared with, when that is not all of it.
    pub fresh: Option<FreshEntry>,
    /// What copies requests to the canary, before it has any of its own.
    pub mirror: Option<Arc<Mirror>>,
}

impl ServiceEntry {
    /// One side.
    #[must_use]
    pub fn side(&self, side: Side) -> Option<&SideEntry> {
        match side {
            Side::Stable => self.stable.as_ref(),
            Side::Canary => self.canary.as_ref(),
        }
    }

    fn announces(&self) -> bool {
        let fresh = self.fresh.as_ref().map(|fresh| &fresh.side);
        let sides = [self.stable.as_ref(), self.canary.as_ref(), self.warm.as_ref(), fresh];
        let mut endpoints = sides.into_iter().flatten().flat_map(|side| &side.pool.endpoints);
        endpoints.any(|endpoint| !endpoint.preamble.is_none())
    }

    /// A side, or the part of stable that the canary is compared with.
    #[must_use]
    pub fn part(&self, side: Side, is_fresh: bool) -> Option<&SideEntry> {
        match (side, &self.fresh) {
            (Side::Stable, Some(fresh)) if is_fresh => Some(&fresh.side),
            _ => self.side(side),
        }
    }
}

/// Instances of stable that were started with the canary, with a weight of their own.
#[derive(Debug, Clone)]
pub struct FreshEntry {
    /// Their part of the service's traffic.
    pub weight: Weight,
    /// Their pool, and the scorecard that is compared.
    pub side: SideEntry,
}

/// One side of a service.
#[derive(Debug, Clone)]
pub struct SideEntry {
    /// Its revision.
    pub revision: RevisionId,
    /// Where its requests go.
    pub pool: Arc<Pool>,
    /// Where its outcomes are counted during this epoch.
    pub scorecard: Arc<Scorecard>,
    /// Where those of each instance are counted too, while instances are compared.
    pub instances: Option<InstanceCards>,
}

/// Scorecards of single instances, by endpoint.
pub type InstanceCards = Arc<[(EndpointId, Arc<Scorecard>)]>;

impl SideEntry {
    /// The scorecard of one instance, while instances are compared.
    #[must_use]
    pub fn instance(&self, endpoint: EndpointId) -> Option<&Scorecard> {
        let cards = self.instances.as_ref()?;
        cards.iter().find(|(id, _)| *id == endpoint).map(|(_, card)| &**card)
    }
}

/// A host pattern and a path prefix that lead to a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// Which hosts.
    pub host: HostPattern,
    /// A path prefix, matched at segment borders; `/` is every path.
    pub path: String,
}

/// Writes a route as a person would: `*.example.com/api`.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            HostPattern::Any => f.write_str("*")?,
            HostPattern::Exact(host) => f.write_str(host)?,
            HostPattern::Below(host) => write!(f, "*.{host}")?,
        }
        if self.path == "/" { Ok(()) } else { f.write_str(&self.path) }
    }
}

/// Which hosts a route takes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Any host.
    Any,
    /// This host, in lower case.
    Exact(String),
    /// Any name below this one: `example.com` stands for `*.example.com`.
    Below(String),
}

impl RoutingTable {
    /// A table over services, each with its routes. Of two equal routes the later one wins; the
    /// configuration refuses them before they come here.
    #[must_use]
    pub fn new(generation: u64, services: Vec<(ServiceEntry, Vec<Route>)>) -> Self {
        let index = Index::new(services.iter().map(|(entry, routes)| (&entry.name, &routes[..])));
        let entries = services.into_iter().map(|(entry, _)| entry).collect();
        Self::over(generation, entries, Arc::new(index))
    }

    /// A table over services in the order in which the index was told of them. Making it and giving
    /// it up costs something per service, and nothing per route.
    #[must_use]
    pub fn over(generation: u64, services: Vec<ServiceEntry>, index: Arc<Index>) -> Self {
        let announces = services.iter().any(ServiceEntry::announces);
        Self { generation, services, announces, index }
    }

    /// The service for a host (a port and a trailing dot are ignored, case too) and a path: the
    /// exact host before the longest wildcard before any; within a host the longest prefix. A host
    /// whose prefixes do not match leaves the request to the less exact ones.
    #[must_use]
    pub fn route(&self, host: &str, path: &str) -> Option<&ServiceEntry> {
        self.service_of(host, path).and_then(|index| self.services.get(index))
    }

    /// The place of a service in [`Self::services`].
    #[must_use]
    pub fn position(&self, name: &ServiceName) -> Option<usize> {
        self.index.position(name)
    }

    /// Like [`Self::route`], as an index into [`Self::services`].
    #[must_use]
    pub fn service_of(&self, host: &str, path: &str) -> Option<usize> {
        self.index.service_of(host, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(routes: &[(&str, &str, &str)]) -> RoutingTable {
        let services = routes.iter().map(|(name, host, path)| {
            let host = match (*host, host.strip_prefix("*.")) {
                ("*", _) => HostPattern::Any,
                (_, Some(below)) => HostPattern::Below(below.to_owned()),
                (exact, None) => HostPattern::Exact(exact.to_owned()),
            };
            let entry = ServiceEntry {
                name: ServiceName::new(name).expect("a name"),
                settings: Arc::default(),
                policy: None,
                maintenance: None,
                canary_weight: Weight::ZERO,
                salt: Salt::new(0),
                overdue: std::time::Duration::from_secs(1),
                stable: None,
                canary: None,
                warm: None,
                budget: None,
                fresh: None,
                mirror: None,
            };
            (entry, vec![Route { host, path: (*path).to_owned() }])
        });
        RoutingTable::new(1, services.collect())
    }

    #[test]
    fn the_most_exact_host_and_the_longest_prefix_win() {
        let table = table(&[
            ("any", "*", "/"),
            ("wild", "*.example.com", "/"),
            ("deep", "*.eu.example.com", "/"),
            ("app", "app.example.com", "/"),
            ("api", "app.example.com", "/api"),
            ("v2", "app.example.com", "/api/v2/"),
            ("only", "only.example.com", "/here"),
        ]);
        let to = |host: &str, path: &str| table.route(host, path).map(|s| s.name.to_string());
        for (host, path, service) in [
            ("app.example.com", "/", "app"),
            ("APP.Example.com.:8080", "/x", "app"),
            ("app.example.com", "/api", "api"),
            ("app.example.com", "/api/", "api"),
            ("app.example.com", "/apis", "app"),
            ("app.example.com", "/api/v2", "v2"),
            ("app.example.com", "/api/v2/users/1/2/3", "v2"),
            ("app.example.com", "/api/v20", "api"),
            ("x.example.com", "/", "wild"),
            ("a.b.example.com", "/", "wild"),
            ("a.eu.example.com", "/", "deep"),
            ("example.com", "/", "any"),
            ("only.example.com", "/here/x", "only"),
            ("only.example.com", "/there", "wild"),
            ("[::1]:80", "/", "any"),
            ("", "/", "any"),
            ("other", "*", "any"),
        ] {
            assert_eq!(to(host, path).as_deref(), Some(service), "{host} {path}");
        }
    }

    #[test]
    fn many_hosts_are_told_apart() {
        let names: Vec<String> = (0..5_000).map(|n| format!("a{n}.example.com")).collect();
        let routes = names.iter().enumerate().flat_map(|(n, host)| {
            let path = |path: &str| (format!("s{n}"), host.clone(), path.to_owned());
            // The later one of two equal routes wins.
            [path("/"), path("/api"), path("/")].into_iter().take(1 + n % 3)
        });
        let routes: Vec<(String, String, String)> = routes.collect();
        let borrowed: Vec<(&str, &str, &str)> =
            routes.iter().map(|(n, h, p)| (n.as_str(), h.as_str(), p.as_str())).collect();
        let table = table(&borrowed);
        for (n, host) in names.iter().enumerate() {
            for path in ["/", "/api", "/apis"] {
                let found = table.route(host, path).map(|service| service.name.to_string());
                assert_eq!(found, Some(format!("s{n}")), "{host} {path}");
            }
        }
        assert!(table.route("a5000.example.com", "/").is_none());
    }

    #[test]
    fn long_hosts_are_told_apart_too() {
        let [one, other] = ["com", "org"].map(|end| format!("{}.example.{end}", "x".repeat(60)));
        // The longest that lies beside what it leads to, and the shortest that does not.
        let [fits, longer] = [27, 28].map(|length| "y".repeat(length));
        let table = table(&[
            ("one", &one, "/"),
            ("api", &other, "/api"),
            ("other", &other, "/"),
            ("fits", &fits, "/"),
            ("longer", &longer, "/"),
        ]);
        let to = |host: &str, path: &str| table.route(host, path).map(|s| s.name.to_string());
        for (host, path, service) in [
            (one.as_str(), "/api", "one"),
            (&other, "/api/x", "api"),
            (&other, "/x", "other"),
            (&format!("{}.:80", other.to_uppercase()), "/x", "other"),
            (&fits, "/", "fits"),
            (&longer, "/", "longer"),
        ] {
            assert_eq!(to(host, path).as_deref(), Some(service), "{host} {path}");
        }
        assert_eq!(to(&fits[1..], "/"), None);
        assert_eq!(to(&format!("y{longer}"), "/"), None);
    }

    #[test]
    fn an_unknown_host_has_no_service() {
        let table = table(&[("app", "app.example.com", "/api")]);
        assert!(table.route("other.example.com", "/api").is_none());
        assert!(table.route("app.example.com", "/").is_none());
    }
}
