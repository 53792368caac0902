//! Which runtime runs what.

use std::sync::Arc;

use crate::model::revision::Source;
use crate::runtime::Runtime;

/// The runtimes that services may use.
#[derive(Debug, Clone)]
pub struct Runtimes {
    /// For `image`.
    pub docker: Arc<dyn Runtime>,
    /// For `command`.
    pub process: Arc<dyn Runtime>,
    /// For `endpoints`.
    pub fixed: Arc<dyn Runtime>,
}

impl Runtimes {
    /// The runtime that a source needs.
    #[must_use]
    pub fn of(&self, source: &Source) -> Arc<dyn Runtime> {
        match source {
            Source::Image(_) => Arc::clone(&self.docker),
            Source::Command(_) => Arc::clone(&self.process),
            Source::Endpoints(_) => Arc::clone(&self.fixed),
        }
    }
}
