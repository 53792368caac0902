//! Whose an instance is.

use super::driver::Driver;
use crate::model::id::{InstanceId, ServiceName};

/// Which part of a service an instance belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Stable(u32),
    Canary,
    Fresh,
    Warm,
}

impl Driver {
    /// Finds the owner of an instance.
    pub(super) fn owner(&self, instance: &InstanceId) -> Option<(ServiceName, Owner)> {
        let holds =
            |list: &[crate::model::instance::Instance]| list.iter().any(|i| i.id == *instance);
        for (name, service) in &self.services {
            if service
                .active
                .as_ref()
                .is_some_and(|a| !a.rollout.phase.is_over() && holds(&a.rollout.instances))
            {
                return Some((name.clone(), Owner::Canary));
            }
            if service.active.as_ref().is_some_and(|a| a.fresh.is(instance)) {
                return Some((name.clone(), Owner::Fresh));
            }
            if let Some(stable) = &service.record.stable
                && let Some(replica) = stable.instances.iter().position(|i| i.id == *instance)
            {
                return Some((name.clone(), Owner::Stable(replica as u32)));
            }
            if service.record.warm.as_ref().is_some_and(|warm| holds(&warm.placed.instances)) {
                return Some((name.clone(), Owner::Warm));
            }
        }
        None
    }
}
