//! Which service a host and a path lead to: shared by all tables until a route changes, so that a new
//! weight costs the same with ten thousand routes as with one.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault};

use hashbrown::HashTable;

use super::table::{HostPattern, Route};
use crate::model::id::ServiceName;

type Hashing = BuildHasherDefault<rapidhash::fast::RapidHasher<'static>>;

/// Routes, and the services by their names. Services are meant by their places in a table.
#[derive(Debug, Default)]
pub struct Index {
    exact: Hosts,
    wildcard: Hosts,
    any: Paths,
    names: HashMap<Box<str>, usize, Hashing>,
}

/// Hosts, each with what it leads to.
///
/// A look-up touches one slot, however many there are: what is told of a host lies beside its name.
#[derive(Debug, Default)]
struct Hosts {
    slots: HashTable<Slot>,
    /// Names that are too long for a slot.
    long: Vec<Box<str>>,
    /// Paths of hosts that not all lead to one service.
    deep: Vec<Paths>,
    hashing: Hashing,
}

/// A host: half a line of a processor's cache.
#[derive(Debug)]
struct Slot {
    leads: u32,
    /// Of the name; [`LONG`] when that is elsewhere.
    length: u8,
    /// The name, or its place in [`Hosts::long`].
    name: [u8; NAME],
}

/// Bytes of a name within a slot: more than most hosts have.
const NAME: usize = 27;
/// The length of a name that is elsewhere.
const LONG: u8 = u8::MAX;
/// Marks a place in [`Hosts::deep`]; else it is a service's.
const DEEP: u32 = 1 << 31;

impl Slot {
    fn name<'a>(&'a self, long: &'a [Box<str>]) -> &'a [u8] {
        if self.length == LONG {
            let [a, b, c, d, ..] = self.name;
            let at = u32::from_le_bytes([a, b, c, d]);
            return long.get(at as usize).map_or(&[], |name| name.as_bytes());
        }
        self.name.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl Hosts {
    fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The service that a host and a path lead to.
    fn find(&self, host: &str, path: &str) -> Option<usize> {
        let hash = self.hashing.hash_one(host.as_bytes());
        let slot = self.slots.find(hash, |slot| slot.name(&self.long) == host.as_bytes())?;
        if slot.leads & DEEP == 0 {
            return Some(slot.leads as usize);
        }
        self.deep.get((slot.leads & !DEEP) as usize)?.find(path)
    }

    fn insert(&mut self, host: &str, path: &str, service: u32) {
        let Self { slots, long, deep, hashing } = self;
        let hash = hashing.hash_one(host.as_bytes());
        let known = slots.find_mut(hash, |slot| slot.name(long) == host.as_bytes());
        let leads = match known.as_ref().map(|slot| slot.leads) {
            Some(leads) if leads & DEEP != 0 => {
                if let Some(paths) = deep.get_mut((leads & !DEEP) as usize) {
                    paths.insert(path, service);
                }
                return;
            }
            // Most hosts lead to one service, whatever the path.
            _ if prefix_of(path).is_empty() => service,
            all => {
                let mut paths = Paths { all, deep: None };
                paths.insert(path, service);
                deep.push(paths);
                DEEP | (deep.len() - 1) as u32
            }
        };
        if let Some(slot) = known {
            slot.leads = leads;
            return;
        }
        let (mut name, mut length) = ([0; NAME], LONG);
        if let Some(room) = name.get_mut(..host.len()) {
            room.copy_from_slice(host.as_bytes());
            length = host.len() as u8;
        } else {
            name[..4].copy_from_slice(&(long.len() as u32).to_le_bytes());
            long.push(host.into());
        }
        slots.insert_unique(hash, Slot { leads, length, name }, |slot| {
            hashing.hash_one(slot.name(long))
        });
    }
}

/// Path prefixes of one host, each with the service it leads to.
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

/// A prefix as it is looked for; empty for all paths.
fn prefix_of(path: &str) -> &str {
    path.trim_end_matches('/')
}

impl Paths {
    fn insert(&mut self, path: &str, service: u32) {
        let prefix = prefix_of(path);
        if prefix.is_empty() {
            self.all = Some(service);
        } else {
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

impl Index {
    /// An index of services, in their order in the tables that it is for. Of two equal routes the
    /// later one wins.
    pub fn new<'a>(services: impl Iterator<Item = (&'a ServiceName, &'a [Route])>) -> Self {
        let mut index = Self::default();
        for (place, (name, routes)) in services.enumerate() {
            index.names.insert(name.as_str().into(), place);
            // 2^31 services do not fit into memory.
            let Some(service) = u32::try_from(place).ok().filter(|place| place & DEEP == 0) else {
                continue;
            };
            for route in routes {
                match &route.host {
                    HostPattern::Any => index.any.insert(&route.path, service),
                    HostPattern::Exact(host) => index.exact.insert(host, &route.path, service),
                    HostPattern::Below(host) => index.wildcard.insert(host, &route.path, service),
                }
            }
        }
        index
    }

    /// The place of a service.
    #[must_use]
    pub fn position(&self, name: &ServiceName) -> Option<usize> {
        self.names.get(name.as_str()).copied()
    }

    /// The place of the service for a host and a path; see [`super::table::RoutingTable::route`].
    #[must_use]
    pub fn service_of(&self, host: &str, path: &str) -> Option<usize> {
        if !self.exact.is_empty() || !self.wildcard.is_empty() {
            // Most hosts come as they are written here, which need not be looked at for that.
            if let Some(found) = self.exact.find(host, path) {
                return Some(found);
            }
            let normal = normal_host(host);
            if *normal != *host
                && let Some(found) = self.exact.find(&normal, path)
            {
                return Some(found);
            }
            let host = normal;
            if !self.wildcard.is_empty() {
                let mut rest: &str = &host;
                while let Some((_, parent)) = rest.split_once('.') {
                    if let Some(found) = self.wildcard.find(parent, path) {
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
    // One look without a branch per byte.
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
