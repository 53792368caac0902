//! Takes over a container that somebody else runs.

use super::{ArchiveTrouble, Archivist};
use crate::controller::handle::{Handle, Launching};
use crate::controller::status::DeployAccepted;
use crate::model::id::ServiceName;
use crate::model::progress::Listener;
use crate::model::revision::Source;

impl Archivist {
    /// Starts a container that is told all that this one was, makes it stable when it is healthy, and
    /// leaves the one it was taken from alone.
    pub async fn adopt(
        &self,
        handle: &Handle,
        service: &ServiceName,
        container: &str,
        told: &Listener,
    ) -> Result<DeployAccepted, ArchiveTrouble> {
        let held = handle.held_of(service).await?;
        if let Some(refused) = held.busy {
            return Err(refused.into());
        }
        if let Some(stable) = held.stable {
            return Err(ArchiveTrouble::Invalid(format!(
                "revision {} of {service} serves already: a container is adopted by a service on which nothing runs yet",
                stable.revision
            )));
        }
        if !matches!(held.config.template.source, Source::Image(_)) {
            return Err(ArchiveTrouble::Invalid(format!(
                "{service} runs no containers: give it an `image` and a `port`"
            )));
        }
        told.begin(&format!("looking at {container}"));
        let spec = self.docker.adopt(container, &held.config.template).await?;
        told.begin("starting another one like it");
        let accepted = handle.launch(service.clone(), spec, Launching::Adopted).await?;
        let sentence =
            format!("revision {} is adopted from the container {container}", accepted.revision);
        handle.tell(service.clone(), sentence).await;
        Ok(accepted)
    }
}
