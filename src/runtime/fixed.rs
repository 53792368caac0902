//! Runtime `static`: addresses that somebody else runs.
//!
//! Launches nothing and stops nothing; hands out the nth address as the nth instance. Whether
//! anything listens there is the prober's to find out.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::{BoxFuture, ready};
use tokio::sync::mpsc;

use super::{Found, Runtime, RuntimeError, RuntimeEvent, State, Written};
use crate::model::id::InstanceId;
use crate::model::instance::{Instance, Ownership};
use crate::model::revision::{RevisionSpec, Source};

/// What every id begins with; the service, the revision's number and the address follow. The same address
/// may serve two revisions and two services, and these are so many instances.
const PREFIX: &str = "static-";

/// Hands out given addresses.
#[derive(Debug, Default, Clone, Copy)]
pub struct FixedRuntime;

impl FixedRuntime {
    fn nth(spec: &RevisionSpec, ownership: &Ownership) -> Result<Instance, RuntimeError> {
        let addresses = addresses(spec)?;
        let Ownership { service, revision, replica, .. } = ownership;
        let nth = usize::try_from(*replica).ok().and_then(|nth| addresses.get(nth));
        let address = *nth.ok_or_else(|| {
            RuntimeError::NotFound(format!(
                "there are {} endpoints, so no number {}: set replicas to {} or leave it out",
                addresses.len(),
                u64::from(*replica) + 1,
                addresses.len(),
            ))
        })?;
        Ok(Instance {
            id: InstanceId::new(&format!("{PREFIX}{service}-{revision}-{address}")),
            address,
        })
    }
}

impl Runtime for FixedRuntime {
    fn name(&self) -> &'static str {
        "static"
    }

    fn prepare<'a>(
        &'a self,
        spec: &'a RevisionSpec,
    ) -> BoxFuture<'a, Result<RevisionSpec, RuntimeError>> {
        let checked = addresses(spec).and_then(|addresses| {
            let replicas = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
            if replicas == 0 {
                return Err(RuntimeError::NotFound(
                    "endpoints is empty: give one address at least".to_owned(),
                ));
            }
            // One instance per address, whatever was asked.
            Ok(RevisionSpec { replicas, ..spec.clone() })
        });
        Box::pin(ready(checked))
    }

    fn launch<'a>(
        &'a self,
        spec: &'a RevisionSpec,
        ownership: &'a Ownership,
    ) -> BoxFuture<'a, Result<Instance, RuntimeError>> {
        Box::pin(ready(Self::nth(spec, ownership)))
    }

    fn stop<'a>(
        &'a self,
        _instance: &'a InstanceId,
        _grace: Duration,
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(ready(Ok(())))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Found>, RuntimeError>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn inspect<'a>(
        &'a self,
        instance: &'a InstanceId,
    ) -> BoxFuture<'a, Result<State, RuntimeError>> {
        let address =
            instance.0.rsplit('-').next().and_then(|text| text.parse::<SocketAddr>().ok());
        let state = address.map_or(State::Gone, |address| State::Running {
            instance: Instance { id: instance.clone(), address },
            health: None,
        });
        Box::pin(ready(Ok(state)))
    }

    fn logs<'a>(
        &'a self,
        _instance: &'a InstanceId,
        _lines: usize,
    ) -> BoxFuture<'a, Result<Vec<String>, RuntimeError>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn written<'a>(
        &'a self,
        _instance: &'a InstanceId,
        _lines: usize,
        _since: Option<jiff::Timestamp>,
    ) -> BoxFuture<'a, Result<Vec<Written>, RuntimeError>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    /// Nothing is ever reported, so the sender is dropped.
    fn watch(&self, _events: mpsc::Sender<RuntimeEvent>) {}
}

fn addresses(spec: &RevisionSpec) -> Result<&[SocketAddr], RuntimeError> {
    match &spec.source {
        Source::Endpoints(addresses) => Ok(addresses),
        Source::Image(_) | Source::Command(_) => Err(RuntimeError::Failed(format!(
            "{} has to be launched, and the runtime static launches nothing",
            spec.source
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::{RevisionId, RolloutId, ServiceName};
    use crate::model::revision::{ContainerSpec, ProbeKind, ProbeSpec, UpstreamProtocol};

    fn spec(addresses: &[&str]) -> RevisionSpec {
        RevisionSpec {
            source: Source::Endpoints(addresses.iter().map(|text| text.parse().unwrap()).collect()),
            replicas: 1,
            port: 0,
            env: std::collections::BTreeMap::new(),
            secrets: Default::default(),
            protocol: UpstreamProtocol::Http1,
            preamble: Default::default(),
            probe: ProbeSpec {
                kind: ProbeKind::Auto,
                interval: Duration::from_secs(1),
                timeout: Duration::from_secs(1),
                rise: 1,
                fall: 1,
                deadline: Duration::from_secs(1),
            },
            stop_grace: Duration::ZERO,
            container: ContainerSpec::default(),
        }
    }

    fn replica(replica: u32) -> Ownership {
        let service = ServiceName::new("web").unwrap();
        Ownership { service, revision: RevisionId(1), rollout: RolloutId(1), replica }
    }

    #[tokio::test]
    async fn the_nth_address_is_the_nth_instance() {
        let runtime = FixedRuntime;
        let spec = runtime.prepare(&spec(&["10.0.0.5:3000", "[fd00::1]:80"])).await.unwrap();
        assert_eq!(spec.replicas, 2);
        let second = runtime.launch(&spec, &replica(1)).await.unwrap();
        assert_eq!(second.id.0.as_ref(), "static-web-1-[fd00::1]:80");
        let State::Running { instance, health: None } = runtime.inspect(&second.id).await.unwrap()
        else {
            panic!()
        };
        assert_eq!(instance, second);
        // Another service at the same address has instances of its own.
        let service = ServiceName::new("other-web").unwrap();
        let other = runtime.launch(&spec, &Ownership { service, ..replica(1) }).await.unwrap();
        assert_eq!((other.address, other.id == second.id), (second.address, false));
        assert!(runtime.launch(&spec, &replica(2)).await.is_err());
        runtime.stop(&second.id, Duration::ZERO).await.unwrap();
        assert!(runtime.list().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn no_address_is_no_revision() {
        let error = FixedRuntime.prepare(&spec(&[])).await.unwrap_err().to_string();
        assert!(error.contains("give one address at least"), "{error}");
    }
}
