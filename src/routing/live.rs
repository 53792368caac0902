//! The live routing table: the one place in the house where something is swapped.
//!
//! The controller publishes, workers load. A worker keeps a [`Reader`]; while nothing changed, its
//! load is one atomic read and a compare.

use std::sync::Arc;

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;

use super::table::RoutingTable;

/// The door by which decisions reach the data plane.
#[derive(Debug, Clone, Default)]
pub struct Live {
    table: Arc<ArcSwap<RoutingTable>>,
}

/// A worker's view of the live table.
#[derive(Debug)]
pub struct Reader {
    cache: Cache<Arc<ArcSwap<RoutingTable>>, Arc<RoutingTable>>,
}

impl Live {
    /// Makes a table live. Requests that began under the old one finish under it.
    pub fn publish(&self, table: RoutingTable) {
        self.table.store(Arc::new(table));
    }

    /// The live table.
    #[must_use]
    pub fn load(&self) -> Arc<RoutingTable> {
        self.table.load_full()
    }

    /// A view for one worker.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader { cache: Cache::new(Arc::clone(&self.table)) }
    }
}

impl Reader {
    /// The live table; exactly one load per request, so that a request sees one truth.
    #[inline]
    pub fn load(&mut self) -> &Arc<RoutingTable> {
        self.cache.load()
    }
}
