//! Why a container that runs cannot be reached, as far as can be told from outside of it.

use bollard::models::ContainerInspectResponse;

use super::client::Host;
use super::{DockerRuntime, LAST_LINES, container, hardening};
use crate::model::instance::Instance;
use crate::runtime::listening;

impl DockerRuntime {
    /// Looks at the listening sockets in the container, when the engine runs on this machine.
    pub(super) async fn explain(&self, instance: &Instance) -> Option<String> {
        let found = self.look(&instance.id.0).await.ok()??;
        let ailment = container::ailment(&found);
        let why = self.in_the_way(instance, &found).await.or(ailment);
        let lines = self.tail(&instance.id.0, LAST_LINES).await.unwrap_or_default();
        match hardening::hint_of(&found, &lines) {
            Some(hint) => Some(why.map_or(hint.to_owned(), |why| format!("{why}; {hint}"))),
            None => why,
        }
    }

    /// What is in the way of a connection, as seen in the container's network namespace.
    async fn in_the_way(
        &self,
        instance: &Instance,
        found: &ContainerInspectResponse,
    ) -> Option<String> {
        let Host::Unix(_) = self.client.host() else { return None };
        let id = instance.id.0.to_string();
        let pid = found.state.as_ref()?.pid.filter(|pid| *pid > 0)?;
        let (pid, wanted) = (i32::try_from(pid).ok()?, instance.address);
        let look = move || {
            // From within another pid namespace, the number may be somebody else's.
            let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
            groups.contains(&id).then_some(())?;
            listening::explain(&listening::namespace(pid)?, wanted, |port| {
                format!("set port = {port}")
            })
        };
        tokio::task::spawn_blocking(look).await.ok()?
    }
}
