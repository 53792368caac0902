//! Services from containers' labels: beside those of the file, and kept where the containers are.
//!
//! A new image among a service's containers is deployed like any other revision, once. Containers of
//! the image that serves which came, went or moved replace its addresses at once, without steps: it is
//! the same app. Nothing here starts or stops a container.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::driver::Driver;
use super::prepare::Wanted;
use crate::config::Service as ServiceConfig;
use crate::config::labels::{self, Described, Group};
use crate::model::id::ServiceName;
use crate::model::labelled::Labelled;
use crate::model::revision::Source;
use crate::rollout::machine::Kind as RolloutKind;

/// What labels say, and what was made of it.
#[derive(Debug, Default)]
pub(super) struct Labels {
    /// All containers with labels.
    pub containers: Vec<Labelled>,
    /// What is wrong with them.
    pub notes: Vec<String>,
    described: Vec<Described>,
    /// What was deployed, or tried: an image that was taken back is not tried again where it is.
    tried: BTreeSet<(ServiceName, String, BTreeSet<SocketAddr>)>,
}

impl Labels {
    /// Takes containers in.
    pub fn take(&mut self, containers: &[Labelled], configured: &[ServiceConfig]) {
        let (described, notes) = labels::read(containers, configured, &self.described);
        for note in notes.iter().filter(|note| !self.notes.contains(note)) {
            tracing::warn!("{note}");
        }
        (self.described, self.notes) = (described, notes);
        self.containers = containers.to_vec();
        let there = |name: &ServiceName, image: &str, addresses: &BTreeSet<SocketAddr>| {
            self.described.iter().any(|one| {
                let is_group = |g: &Group| g.image_id == image && g.addresses == *addresses;
                one.service.name == *name && one.groups.iter().any(is_group)
            })
        };
        self.tried.retain(|(name, image, addresses)| there(name, image, addresses));
    }
}

/// What to do about a service's containers.
#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    Nothing,
    /// Take these addresses, in steps or at once.
    Deploy(&'a Group, RolloutKind),
}

/// What to do when these addresses serve and those groups are there, oldest first.
fn step<'a>(
    serving: Option<&BTreeSet<SocketAddr>>,
    groups: &'a [Group],
    tried: impl Fn(&Group) -> bool,
) -> Step<'a> {
    let Some(newest) = groups.last() else { return Step::Nothing };
    let serves = |group: &&Group| {
        serving.is_some_and(|serving| group.addresses.iter().any(|one| serving.contains(one)))
    };
    let Some(current) = groups.iter().find(serves) else {
        // Nothing serves, or what served is gone.
        let fresh = groups.iter().rev().find(|group| !tried(group));
        return fresh.map_or(Step::Nothing, |group| Step::Deploy(group, RolloutKind::Direct));
    };
    if serving != Some(&current.addresses) && !tried(current) {
        return Step::Deploy(current, RolloutKind::Direct);
    }
    if newest.image_id != current.image_id && !tried(newest) {
        return Step::Deploy(newest, RolloutKind::Canary);
    }
    Step::Nothing
}

impl Driver {
    /// All services that there should be.
    pub(super) fn wanted(&self) -> Vec<ServiceConfig> {
        let described = self.labels.described.iter().map(|one| one.service.clone());
        self.configured.iter().cloned().chain(described).collect()
    }

    /// Containers with labels came, went or moved.
    pub(super) fn relabel(&mut self, found: &[Labelled]) {
        self.labels.take(found, &self.configured);
        let said = self.reconfigure(self.wanted());
        tracing::info!("containers with labels: {said}");
    }

    /// Goes where a service's containers are, unless it is on its way already.
    pub(super) fn follow_labels(&mut self, name: &ServiceName) {
        let described = self.labels.described.iter().find(|one| one.service.name == *name);
        let (Some(described), Some(service)) = (described, self.services.get(name)) else { return };
        if service.active.is_some() || service.preparing {
            return;
        }
        let serving: Option<BTreeSet<SocketAddr>> = service
            .record
            .stable
            .as_ref()
            .map(|stable| stable.instances.iter().map(|instance| instance.address).collect());
        let key = |group: &Group| (name.clone(), group.image_id.clone(), group.addresses.clone());
        let tried = |group: &Group| self.labels.tried.contains(&key(group));
        let Step::Deploy(group, kind) = step(serving.as_ref(), &described.groups, tried) else {
            return;
        };
        let mut spec = service.config.template.clone();
        spec.source = Source::Endpoints(group.addresses.iter().copied().collect());
        let mut plan = service.config.plan.clone();
        if kind == RolloutKind::Direct {
            plan.bake = Duration::ZERO;
        }
        let (key, image) = (key(group), group.image.clone());
        self.labels.tried.insert(key);
        tracing::info!(service = %name, image, "containers with labels are deployed");
        // There is nothing of ours to archive.
        let wanted = Wanted { kind, checkpoint: false, ..Wanted::new(spec, plan) };
        self.prepare(name, wanted, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(image: &str, last: &[u8]) -> Group {
        let address = |last: &u8| SocketAddr::from(([172, 18, 0, *last], 3000));
        Group {
            image_id: image.to_owned(),
            image: image.to_owned(),
            addresses: last.iter().map(address).collect(),
        }
    }

    #[test]
    fn a_new_image_is_a_canary_and_a_moved_container_is_not() {
        let (one, two) = (group("one", &[2, 3]), group("two", &[4]));
        let both = [one.clone(), two.clone()];
        let never = |_: &Group| false;
        let serving = Some(&one.addresses);
        use RolloutKind::{Canary, Direct};
        assert_eq!(step(serving, std::slice::from_ref(&one), never), Step::Nothing);
        assert_eq!(step(serving, &both, never), Step::Deploy(&two, Canary));
        assert_eq!(step(serving, &both, |group| *group == two), Step::Nothing, "once");
        // It was promoted; the former one still runs.
        assert_eq!(step(Some(&two.addresses), &both, never), Step::Nothing);
        // One more container, one fewer, another address: the same image.
        for last in [&[2, 3, 5][..], &[3], &[3, 9]] {
            let moved = [group("one", last)];
            assert_eq!(step(serving, &moved, never), Step::Deploy(&moved[0], Direct));
        }
        // All that served is gone.
        let elsewhere = [group("one", &[7])];
        assert_eq!(step(serving, &elsewhere, never), Step::Deploy(&elsewhere[0], Direct));
        assert_eq!(step(None, &both, |group| *group == two), Step::Deploy(&one, Direct));
        assert_eq!(step(serving, &[], never), Step::Nothing);
    }
}
