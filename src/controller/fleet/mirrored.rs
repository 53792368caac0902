//! Copies of requests to a canary that has no visitors yet.

use std::sync::Arc;
use std::time::Instant;

use super::Fleet;
use crate::analysis::criteria::Criteria;
use crate::model::id::ServiceName;
use crate::model::mirror::MirrorSpec;
use crate::routing::mirror::Mirror;

impl Fleet {
    /// Begins to copy requests to the canary, and publishes. It ends with the next shift or switch.
    pub fn mirror(
        &mut self,
        name: &ServiceName,
        spec: &MirrorSpec,
        criteria: &Criteria,
    ) -> Result<Option<Arc<Mirror>>, String> {
        let Some(deployment) = self.services.get_mut(name) else { return Ok(None) };
        // How late an answer is follows from what stable took so far.
        deployment.overdue = deployment.overdue_age();
        let mirror = Mirror::new(spec, criteria, self.workers, Instant::now())?;
        deployment.mirror = Some(Arc::clone(&mirror));
        self.publish();
        Ok(Some(mirror))
    }

    /// Sends no more copies, and publishes.
    pub fn end_mirror(&mut self, name: &ServiceName) {
        let mirror = self.services.get_mut(name).and_then(|deployment| deployment.mirror.take());
        if mirror.is_some() {
            self.publish();
        }
    }
}
