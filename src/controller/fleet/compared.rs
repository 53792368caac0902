//! What the canary is compared with: all of stable, an instance of it that was started with the canary,
//! and its instances among themselves.

use std::sync::Arc;

use super::super::group::Group;
use super::Fleet;
use crate::analysis::scorecard::Sample;
use crate::model::id::{RevisionId, ServiceName};
use crate::model::instance::Instance;
use crate::model::revision::Speech;
use crate::model::weight::Weight;
use crate::routing::endpoint::{Endpoint, EndpointId};

impl Fleet {
    /// What the canary is compared with counted in this epoch: stable, or its fresh instances.
    #[must_use]
    pub fn compared(&self, name: &ServiceName) -> Sample {
        let Some(deployment) = self.services.get(name) else { return Sample::default() };
        match &deployment.fresh {
            Some(fresh) if deployment.fresh_weight > Weight::ZERO => fresh.card.sample(),
            _ => deployment.stable.as_ref().map(|group| group.card.sample()).unwrap_or_default(),
        }
    }

    /// As how many clients those of what the canary is compared with, and those of the canary, count in
    /// this epoch; none where a coin is thrown for every request.
    #[must_use]
    pub fn clients(&self, name: &ServiceName) -> Option<[f64; 2]> {
        let deployment = self.services.get(name)?;
        deployment.sessions.as_ref()?;
        let count = |group: &Option<Group>| group.as_ref().map_or(0.0, |g| g.card.clients());
        let compared = match &deployment.fresh {
            Some(_) if deployment.fresh_weight > Weight::ZERO => &deployment.fresh,
            _ => &deployment.stable,
        };
        // A tenth of a client is more than is known.
        Some([compared, &deployment.canary].map(|group| (count(group) * 10.0).round() / 10.0))
    }

    /// The weight of what the canary is compared with, once it has this weight.
    #[must_use]
    pub fn compared_weight(&self, name: &ServiceName, canary: Weight) -> Weight {
        let part = self.services.get(name).map(|deployment| deployment.part_for(canary));
        part.filter(|part| *part > Weight::ZERO).unwrap_or(canary.complement())
    }

    /// What each of stable's instances counted in this epoch, while they are compared.
    #[must_use]
    pub fn instances(&self, name: &ServiceName) -> Vec<Sample> {
        let stable = self.services.get(name).and_then(|deployment| deployment.stable.as_ref());
        let cards = stable.and_then(|stable| stable.instances.as_ref());
        cards.map(|cards| cards.iter().map(|(_, card)| card.sample()).collect()).unwrap_or_default()
    }

    /// From the next epoch on stable's instances are counted one by one, or not any more.
    pub fn compare_instances(&mut self, name: &ServiceName, each: bool) {
        if let Some(deployment) = self.services.get_mut(name) {
            deployment.compares_instances = each;
        }
    }

    /// Places instances of stable's revision that the canary is to be compared with. They get weight
    /// at the next shift.
    pub fn place_fresh(
        &mut self,
        name: &ServiceName,
        revision: RevisionId,
        instance: &Instance,
        speech: Speech,
    ) {
        self.last_endpoint += 1;
        let id = EndpointId(self.last_endpoint);
        let endpoint = Endpoint::new(id, instance.id.clone(), instance.address, speech);
        if let Some(deployment) = self.services.get_mut(name) {
            deployment.fresh = Some(Group::new(revision, vec![endpoint], self.workers));
        }
    }

    /// Takes them out again; what they counted goes to stable. One publish.
    pub fn remove_fresh(&mut self, name: &ServiceName) -> Vec<Arc<Endpoint>> {
        let Some(deployment) = self.services.get_mut(name) else { return Vec::new() };
        deployment.fresh_weight = Weight::ZERO;
        let Some(fresh) = deployment.fresh.take() else { return Vec::new() };
        let stable = deployment
            .stable
            .iter_mut()
            .chain(&mut deployment.aside)
            .find(|group| group.pool.revision == fresh.pool.revision);
        if let Some(stable) = stable {
            stable.folded.merge(&fresh.folded);
            stable.retired.extend(fresh.retired);
            stable.retired.push(fresh.card);
        }
        self.publish();
        fresh.pool.endpoints.to_vec()
    }
}
