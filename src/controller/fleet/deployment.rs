//! What a service has in the data plane.

use std::sync::Arc;
use std::time::Duration;

use crate::analysis::sessions::Sessions;
use crate::controller::group::Group;
use crate::edge::policy::Policy;
use crate::edge::rules::Maintenance;
use crate::model::id::RevisionId;
use crate::model::weight::Weight;
use crate::routing::budget::Budget;
use crate::routing::mirror::Mirror;
use crate::routing::settings::ServiceSettings;
use crate::routing::split::Salt;
use crate::routing::table::Route;

/// The least age at which an unanswered request counts as overdue, and how many times stable's 99th
/// percentile it must have: from the analysis (section 1), so that a hung canary shows within a
/// second or so instead of at the proxy's timeout.
pub(super) const OVERDUE_LEAST: Duration = Duration::from_secs(1);
const OVERDUE_TIMES_P99: f64 = 8.0;

/// What a service has in the data plane.
#[derive(Debug)]
pub(super) struct Deployment {
    pub(super) routes: Vec<Route>,
    pub(super) settings: Arc<ServiceSettings>,
    pub(super) policy: Option<Arc<Policy>>,
    pub(super) maintenance: Option<Maintenance>,
    pub(super) salt: Salt,
    pub(super) weight: Weight,
    pub(super) overdue: Duration,
    /// Who met an error in the rollout under way, where clients are assigned.
    pub(super) sessions: Option<Arc<Sessions>>,
    /// Stable's instances are counted one by one.
    pub(super) compares_instances: bool,
    pub(super) stable: Option<Group>,
    /// Instances of stable's revision that were started with the canary, and the weight that they
    /// have at the present step: all that the canary is compared with, unless it is nothing.
    pub(super) fresh: Option<Group>,
    pub(super) fresh_weight: Weight,
    /// What copies requests to the canary, while it has none of its own.
    pub(super) mirror: Option<Arc<Mirror>>,
    pub(super) canary: Option<Group>,
    /// Former revisions that run but have no side.
    pub(super) aside: Vec<Group>,
    /// What the shield may spend, and did since the service came.
    pub(super) budget: Arc<Budget>,
}

impl Deployment {
    pub(super) fn group(&self, revision: RevisionId) -> Option<&Group> {
        self.groups().find(|group| group.pool.revision == revision)
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = &Group> {
        self.stable.iter().chain(&self.canary).chain(&self.aside).chain(&self.fresh)
    }

    pub(super) fn begin_epoch(&mut self, workers: usize) {
        self.overdue = self.overdue_age();
        if let Some(stable) = &mut self.stable {
            stable.count_instances(workers, self.compares_instances);
        }
        for group in self.stable.iter_mut().chain(&mut self.canary).chain(&mut self.fresh) {
            group.begin_epoch(workers, self.sessions.clone());
        }
    }

    /// The weight that fresh instances of stable get beside a canary of this weight: as much for each
    /// of them as an instance of the canary has, and at most half of what is left.
    pub(super) fn part_for(&self, canary: Weight) -> Weight {
        let (Some(fresh), Some(side)) = (&self.fresh, &self.canary) else { return Weight::ZERO };
        let serves = fresh.pool.endpoints.iter().filter(|e| e.is_healthy()).count() as u64;
        let instances = side.pool.endpoints.len().max(1) as u64;
        let alike = u64::from(canary.basis_points()) * serves / instances;
        let most = u64::from(canary.complement().basis_points()) / 2;
        Weight::from_basis_points(alike.min(most) as u16).unwrap_or_default()
    }

    pub(super) fn overdue_age(&self) -> Duration {
        let p99 = self.stable.as_ref().and_then(|group| group.total().latency().quantile(0.99));
        let age = p99.map_or(OVERDUE_LEAST, |micros| {
            Duration::from_micros((micros * OVERDUE_TIMES_P99) as u64)
        });
        age.max(OVERDUE_LEAST).min(self.settings.response_timeout)
    }
}
