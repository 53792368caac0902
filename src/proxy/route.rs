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
    pub rule: Option<Arc<Rule>>,
}

impl Route {
    /// The service.
    pub fn service(&self) -> &ServiceEntry {
        // In range: the index came from this very table.
        &self.table.services[self.service]
    }

    /// Times that the request's rule says otherwise than its service.
    fn times(&self) -> Times {
        self.rule.as_ref().map_or_else(Times::default, |rule| rule.rules.times)
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
