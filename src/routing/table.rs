//! The routing table: the immutable whole of routes, services, pools and splits.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault};
use std::sync::Arc;

use hashbrown::HashTable;

use super::budget::Budget;
use super::endpoint::EndpointId;
use super::mirror::Mirror;
use super::pool::Pool;
use super::settings::ServiceSettings;
use super::split::Salt;
use crate::analysis::scorecard::Scorecard;
use crate::edge::policy::Policy;
use crate::edge::rules::Maintenance;
use crate::model::id::{RevisionId, ServiceName};
use crate::model::weight::{Side, Weight};

type Hashing = BuildHasherDefault<rapidhash::fast::RapidHasher<'static>>;

/// The whole of what the data plane knows.
#[derive(Debug, Default)]
pub struct RoutingTable {
    /// Rises by one with each publish.
    pub generation: u64,
    /// Services in no particular order; routes point into this.
    pub services: Vec<ServiceEntry>,
    /// Whether an instance of any of them is told who is at the other end of a connection.
    pub announces: bool,
    exact: Hosts,
    wildcard: Hosts,
    any: Paths,
    names: HashMap<Box<str>, usize, Hashing>,
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

/// Hosts, each with its paths.
///
/// Their names lie in one text and their slots are small, so that many thousands of them stay in a
/// core's own cache: among 10,000 hosts a look-up takes as long as among ten.
#[derive(Debug, Default)]
struct Hosts {
    names: String,
    slots: HashTable<Slot>,
    hashing: Hashing,
}

#[derive(Debug)]
struct Slot {
    /// Where its name is.
    at: u32,
    length: u32,
    paths: Paths,
}

impl Slot {
    fn name<'a>(&self, names: &'a str) -> &'a str {
        let at = self.at as usize;
        names.get(at..at + self.length as usize).unwrap_or_default()
    }
}

impl Hosts {
    fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn get(&self, host: &str) -> Option<&Paths> {
        let hash = self.hashing.hash_one(host);
        self.slots.find(hash, |slot| slot.name(&self.names) == host).map(|slot| &slot.paths)
    }

    fn insert(&mut self, host: &str, path: &str, service: usize) {
        let hash = self.hashing.hash_one(host);
        let Self { names, slots, hashing } = self;
        let known = slots.find_mut(hash, |slot| slot.name(names) == host);
        if let Some(slot) = known {
            slot.paths.insert(path, service);
            return;
        }
        // 4 GiB of host names are more than a configuration can have.
        let (Ok(at), Ok(length)) = (u32::try_from(names.len()), u32::try_from(host.len())) else {
            return;
        };
        names.push_str(host);
        let mut paths = Paths::default();
        paths.insert(path, service);
        let slot = Slot { at, length, paths };
        slots.insert_unique(hash, slot, |slot| hashing.hash_one(slot.name(names)));
    }
}

/// Path prefixes of one host, each with the service it leads to. Most hosts have one for all paths.
#[derive(Debug, Default)]
struct Paths {
    all: Option<u32>,
    deep: Option<Box<Deep>>,
}

/// Prefixes that are not of all paths.
#[derive(Debug, Default)]
struct Deep {
    by_prefix: HashMap<Box<str>, u32, Hashing>,
    /// The most segments in any prefix: deeper parts of a path need no look-up.
    deepest: usize,
}

impl Paths {
    fn insert(&mut self, path: &str, service: usize) {
        let service = u32::try_from(service).ok();
        let prefix = path.trim_end_matches('/');
        if prefix.is_empty() {
            self.all = service;
        } else if let Some(service) = service {
            let deep = self.deep.get_or_insert_default();
            deep.deepest = deep.deepest.max(prefix.matches('/').count());
            deep.by_prefix.insert(prefix.into(), service);
        }
    }

    /// The service of the longest prefix.
    fn find(&self, path: &str) -> Option<usize> {
        let deep = self.deep.as_ref().and_then(|deep| deep.find(path));
        deep.or(self.all).map(|service| service as usize)
    }
}

impl Deep {
    /// Costs one look-up per segment, however many prefixes.
    fn find(&self, path: &str) -> Option<u32> {
        // The end of the part that has as many segments as the deepest prefix.
        let mut end = path
            .bytes()
            .enumerate()
            .filter(|(_, byte)| *byte == b'/')
            .nth(self.deepest)
            .map_or(path.len(), |(at, _)| at);
        while end > 0 {
            if let Some(service) = self.by_prefix.get(&path[..end]) {
                return Some(*service);
            }
            end = path[..end].rfind('/').unwrap_or(0);
        }
        None
    }
}

impl RoutingTable {
    /// A table over services, each with its routes. Of two equal routes the later one wins; the
    /// configuration refuses them before they come here.
    #[must_use]
    pub fn new(generation: u64, services: Vec<(ServiceEntry, Vec<Route>)>) -> Self {
        let mut table = Self { generation, ..Self::default() };
        for (index, (service, routes)) in services.into_iter().enumerate() {
            table.names.insert(service.name.as_str().into(), index);
            table.announces |= service.announces();
            table.services.push(service);
            for route in routes {
                match &route.host {
                    HostPattern::Any => table.any.insert(&route.path, index),
                    HostPattern::Exact(host) => table.exact.insert(host, &route.path, index),
                    HostPattern::Below(host) => table.wildcard.insert(host, &route.path, index),
                }
            }
        }
        table
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
        self.names.get(name.as_str()).copied()
    }

    /// Like [`Self::route`], as an index into [`Self::services`].
    #[must_use]
    pub fn service_of(&self, host: &str, path: &str) -> Option<usize> {
        if !self.exact.is_empty() || !self.wildcard.is_empty() {
            let host = normal_host(host);
            if let Some(found) = self.exact.get(&host).and_then(|paths| paths.find(path)) {
                return Some(found);
            }
            if !self.wildcard.is_empty() {
                let mut rest: &str = &host;
                while let Some((_, parent)) = rest.split_once('.') {
                    if let Some(found) = self.wildcard.get(parent).and_then(|p| p.find(path)) {
                        return Some(found);
                    }
                    rest = parent;
                }
            }
        }
        self.any.find(path)
    }
}

/// A host in lower case without port and trailing dot.
fn normal_host(host: &str) -> Cow<'_, str> {
    // Most are so already, which one look without a branch per byte tells.
    let odd =
        host.bytes().fold(false, |odd, byte| odd | (byte == b':') | byte.is_ascii_uppercase());
    if !odd && !host.ends_with('.') {
        return Cow::Borrowed(host);
    }
    let bare = match host.strip_prefix('[') {
        // An IPv6 literal keeps its brackets.
        Some(rest) => rest.find(']').map_or(host, |end| &host[..end + 2]),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    let bare = bare.strip_suffix('.').unwrap_or(bare);
    if bare.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(bare.to_ascii_lowercase())
    } else {
        Cow::Borrowed(bare)
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
    fn an_unknown_host_has_no_service() {
        let table = table(&[("app", "app.example.com", "/api")]);
        assert!(table.route("other.example.com", "/api").is_none());
        assert!(table.route("app.example.com", "/").is_none());
    }
}
