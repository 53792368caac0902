//! What instances have written, for who asks.

use std::sync::Arc;

use futures_util::future::try_join_all;
use jiff::Timestamp;
use tokio::sync::oneshot;

use super::driver::Driver;
use super::handle::Refused;
use super::status::InstanceLogs;
use crate::model::id::{InstanceId, RevisionId, ServiceName};
use crate::runtime::{Runtime, RuntimeError};
use crate::store::records::Placed;

/// Which output, and how much of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Of this revision; of the stable one where nothing is said.
    pub revision: Option<RevisionId>,
    /// Of every revision that has instances.
    pub all: bool,
    /// Lines of each instance.
    pub lines: usize,
    /// Not before.
    pub since: Option<Timestamp>,
    /// With the moment of each line.
    pub times: bool,
}

/// An instance, its revision, and who has its output.
type Asked = (Arc<dyn Runtime>, RevisionId, InstanceId);

impl Driver {
    pub(super) fn logs(
        &self,
        name: &ServiceName,
        wanted: Output,
        answer: oneshot::Sender<Result<Vec<InstanceLogs>, Refused>>,
    ) {
        let asked = match self.wanted_of(name, &wanted) {
            Ok(asked) => asked,
            Err(refused) => {
                let _ = answer.send(Err(refused));
                return;
            }
        };
        self.tasks.spawn(async move {
            let each = asked.iter().map(|(runtime, revision, id)| {
                let wanted = &wanted;
                async move { read(runtime, *revision, id, wanted).await }
            });
            let logs = try_join_all(each).await;
            let _ = answer.send(logs.map_err(|error| Refused::Unavailable(error.to_string())));
        });
    }

    /// Whose output is wanted, and who has it.
    fn wanted_of(&self, name: &ServiceName, wanted: &Output) -> Result<Vec<Asked>, Refused> {
        let service = self.known(name)?;
        let found = service.placed();
        let stable = service.record.stable.as_ref().map(|placed| placed.revision);
        let one = wanted.revision.or(stable).or(found.first().map(|placed| placed.revision));
        let is_wanted = |placed: &Placed| wanted.all || Some(placed.revision) == one;
        let mut asked = Vec::new();
        for Placed { revision, instances } in found.into_iter().filter(is_wanted) {
            let (runtime, _) = self.launcher(service, revision);
            asked.extend(instances.into_iter().map(|i| (Arc::clone(&runtime), revision, i.id)));
        }
        if asked.is_empty() {
            let which = wanted.revision.map_or_else(String::new, |id| format!(" of revision {id}"));
            return Err(Refused::NotFound(format!("no instance{which} of {name} runs")));
        }
        Ok(asked)
    }
}

async fn read(
    runtime: &Arc<dyn Runtime>,
    revision: RevisionId,
    id: &InstanceId,
    wanted: &Output,
) -> Result<InstanceLogs, RuntimeError> {
    let (instance, revision) = (id.to_string(), revision.0);
    if !wanted.times && wanted.since.is_none() {
        let lines = runtime.logs(id, wanted.lines).await?;
        return Ok(InstanceLogs { instance, revision, lines, times: Vec::new() });
    }
    let written = runtime.written(id, wanted.lines, wanted.since).await?;
    let at = |at: Option<Timestamp>| at.map_or_else(String::new, |at| format!("{at:.6}"));
    let (times, lines) = written.into_iter().map(|line| (at(line.at), line.text)).unzip();
    Ok(InstanceLogs { instance, revision, lines, times })
}
