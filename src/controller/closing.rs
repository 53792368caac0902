//! The end of a daemon: what may go on without it stays, everything else is stopped.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::driver::Driver;
use crate::model::id::InstanceId;
use crate::model::instance::Ownership;
use crate::model::revision::Source;
use crate::runtime::docker::DockerRuntime;
use crate::runtime::{Found, Runtime, State};

/// How long launches and stops under way are waited for.
const UNDER_WAY: Duration = Duration::from_secs(5);

/// The grace of an instance whose revision is not known.
const GRACE: Duration = Duration::from_secs(10);

/// What a daemon leaves running when it stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Containers, to be found again.
    Containers,
    /// Nothing, nor the images kept for a way back.
    Nothing,
}

impl Driver {
    /// Stops what only lives while the daemon does: child processes, and containers too when nothing
    /// shall be left. Containers that stay are found again at the next start. Call after the proxy
    /// has drained.
    pub async fn close(self, leave: Leave) {
        let mut stops = Vec::new();
        for service in self.services.values() {
            for watched in service.watched.values() {
                watched.cancel.cancel();
            }
            for placed in service.placed() {
                let Some(revision) = service.revisions.get(&placed.revision) else { continue };
                let process = matches!(revision.spec.source, Source::Command(_));
                if !process && leave == Leave::Containers {
                    continue;
                }
                let grace = revision.spec.stop_grace;
                let runtime = self.runtimes.of(&revision.spec.source);
                let ids = placed.instances.into_iter().map(|instance| instance.id);
                stops.extend(ids.map(|id| stop(Arc::clone(&runtime), id, grace)));
            }
        }
        self.tasks.close();
        let under_way = tokio::time::timeout(UNDER_WAY, self.tasks.wait());
        let (_stopped, _ended) = tokio::join!(join_all(stops), under_way);
        // What was being launched when the stop came is placed nowhere yet.
        let mut runtimes = vec![&self.runtimes.process];
        if leave == Leave::Nothing && self.daemon.docker == Some(true) {
            runtimes.push(&self.runtimes.docker);
        }
        for runtime in runtimes {
            let left = runtime.list().await.unwrap_or_default();
            let runs = |found: &Found| matches!(found.state, State::Running { .. });
            let left = left.into_iter().filter(runs);
            let stops =
                left.map(|found| stop(Arc::clone(runtime), found.id, self.grace(&found.ownership)));
            join_all(stops).await;
        }
        if leave == Leave::Nothing && self.daemon.docker == Some(true) {
            release_images(self.images.clone()).await;
        }
    }

    fn grace(&self, of: &Ownership) -> Duration {
        let service = self.services.get(&of.service);
        let revision = service.and_then(|service| service.revisions.get(&of.revision));
        revision.map_or(GRACE, |revision| revision.spec.stop_grace)
    }
}

async fn stop(runtime: Arc<dyn Runtime>, id: InstanceId, grace: Duration) {
    if let Err(error) = runtime.stop(&id, grace).await {
        tracing::warn!(instance = %id, %error, "an instance was not stopped");
    }
}

/// Takes our names of images: there is no way back without this daemon.
async fn release_images(docker: Option<Arc<DockerRuntime>>) {
    let Some(docker) = docker else { return };
    for kept in docker.kept_images().await.unwrap_or_default() {
        if let Err(error) = docker.remove_image(&kept.name).await {
            tracing::warn!(image = kept.name, %error, "not removed");
        }
    }
}
