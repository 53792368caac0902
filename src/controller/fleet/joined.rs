//! Services that belong together: their canaries have one weight at any moment.

use super::Fleet;
use super::deployment::Deployment;
use crate::model::id::ServiceName;
use crate::model::weight::Weight;

impl Fleet {
    /// From the next publish on, the canary of a service goes with those of the same number, or by itself.
    pub fn join(&mut self, name: &ServiceName, number: Option<u64>) {
        if let Some(deployment) = self.services.get_mut(name) {
            deployment.joined = number;
        }
    }

    /// The weight that a canary is published with. Joined ones have the least that any of them has: up
    /// with the last of them, and down with the first, each in one publish, so that whoever meets one
    /// canary meets all. Who has become stable is not joined any more.
    pub(super) fn published_weight(&self, deployment: &Deployment) -> Weight {
        if deployment.canary.is_none() {
            return Weight::ZERO;
        }
        let Some(number) = deployment.joined else { return deployment.weight };
        let joined = self.services.values().filter(|other| other.joined == Some(number));
        joined.map(|other| other.weight).min().unwrap_or(deployment.weight)
    }
}
