//! A revision in the data plane: its endpoints, and what was counted of them in each epoch.

use std::sync::Arc;

use crate::analysis::scorecard::{Sample, Scorecard};
use crate::analysis::sessions::Sessions;
use crate::model::id::RevisionId;
use crate::routing::endpoint::Endpoint;
use crate::routing::pool::Pool;
use crate::routing::table::{InstanceCards, SideEntry};

/// A revision's endpoints with what was counted of them.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) pool: Arc<Pool>,
    pub(super) card: Arc<Scorecard>,
    pub(super) instances: Option<InstanceCards>,
    /// Cards of earlier epochs that a request may still hold.
    pub(super) retired: Vec<Arc<Scorecard>>,
    /// What cards counted that nobody holds any more.
    pub(super) folded: Sample,
}

impl Group {
    pub(super) fn new(revision: RevisionId, endpoints: Vec<Arc<Endpoint>>, workers: usize) -> Self {
        Self {
            pool: Arc::new(Pool::new(revision, endpoints)),
            card: Arc::new(Scorecard::new(workers)),
            instances: None,
            retired: Vec::new(),
            folded: Sample::default(),
        }
    }

    pub(super) fn begin_epoch(&mut self, workers: usize, sessions: Option<Arc<Sessions>>) {
        let new = Arc::new(Scorecard::new(workers).of_sessions(sessions));
        let card = std::mem::replace(&mut self.card, new);
        self.retired.push(card);
        let folded = &mut self.folded;
        self.retired.retain(|card| {
            let held = Arc::strong_count(card) > 1;
            if !held {
                card.add_to(folded);
            }
            held
        });
    }

    pub(super) fn total(&self) -> Sample {
        let mut total = self.folded.clone();
        for card in self.retired.iter().chain(std::iter::once(&self.card)) {
            card.add_to(&mut total);
        }
        total
    }

    /// Whether it has any endpoint.
    pub(super) fn serves(&self) -> bool {
        !self.pool.endpoints.is_empty()
    }

    pub(super) fn entry(&self) -> SideEntry {
        SideEntry {
            revision: self.pool.revision,
            pool: Arc::clone(&self.pool),
            scorecard: Arc::clone(&self.card),
            instances: self.instances.clone(),
        }
    }

    /// From this epoch on, each instance is counted by itself too, or not any more.
    pub(super) fn count_instances(&mut self, workers: usize, each: bool) {
        let card = |endpoint: &Arc<Endpoint>| (endpoint.id, Arc::new(Scorecard::new(workers)));
        self.instances = each.then(|| self.pool.endpoints.iter().map(card).collect());
    }
}
