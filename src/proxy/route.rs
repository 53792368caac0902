//! Where a request goes: a service in the table that was live when it came, and the rule that holds
//! for it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::clock::ticks;
use super::exchange::Patience;
use super::limits::Limits;
use crate::edge::policy::Rule;
use crate::edge::rules::Times;
use crate::model::weight::Side;
use crate::routing::table::{RoutingTable, ServiceEntry, SideEntry};

/// The table under which a request goes its whole way, shared within a worker without atomics.
pub type Snapshot = Rc<Arc<RoutingTable>>;

/// A service and a side of it, in the table that a request goes by.
#[derive(Debug, Clone)]
pub struct Route {
    /// The table.
    pub table: Snapshot,
    /// The service's place in it.
    pub service: usize,
    /// The rule of the service's policy that the request goes by.
    pub rule: Option<Ruled>,
}

/// A rule of a service's policy, by its place in a table: it is come by without a count that workers
/// share.
#[derive(Debug, Clone)]
pub struct Ruled {
    table: Snapshot,
    service: u32,
    place: u32,
}

impl Ruled {
    /// The rule at this place of the policy of a service, which has one.
    pub fn new(table: Snapshot, service: usize, place: usize) -> Self {
        // A table of 2^32 services does not fit into memory.
        let narrow = |index| u32::try_from(index).unwrap_or(u32::MAX);
        Self { table, service: narrow(service), place: narrow(place) }
    }

    /// The rule.
    pub fn rule(&self) -> &Rule {
        // In range: the index came from this very table.
        match &self.table.services[self.service as usize].policy {
            Some(policy) => policy.at(self.place as usize),
            None => unreachable!("the place came from this very policy"),
        }
    }
}

impl Route {
    /// The service.
    pub fn service(&self) -> &ServiceEntry {
        // In range: the index came from this very table.
        &self.table.services[self.service]
    }

    /// Times that the request's rule says otherwise than its service.
    fn times(&self) -> Times {
        self.rule.as_ref().map_or_else(Times::default, |ruled| ruled.rule().rules.times)
    }

    /// How long a connection to an instance may take.
    pub fn connect_timeout(&self) -> Duration {
        self.times().connect.unwrap_or(self.service().settings.connect_timeout)
    }

    /// How many more endpoints may be tried.
    pub fn retries(&self) -> u32 {
        self.times().retries.unwrap_or(self.service().settings.retries)
    }

    /// How long each stage may last.
    pub fn patience(&self, limits: &Limits) -> Patience {
        let (service, times) = (self.service(), self.times());
        let settings = &service.settings;
        // A route that may take longer than its service is not late when that would be.
        let own = times.response.filter(|own| *own > settings.response_timeout);
        Patience {
            response: ticks(times.response.unwrap_or(settings.response_timeout)),
            overdue: ticks(own.unwrap_or(service.overdue)),
            idle: ticks(times.idle.unwrap_or(settings.idle_timeout)),
            upload: ticks(limits.body_stall),
            upload_rate: limits.body_rate,
            write: ticks(limits.write_stall),
        }
    }

    /// One side of it.
    pub fn side(&self, side: Side) -> Option<&SideEntry> {
        self.service().side(side)
    }
}
