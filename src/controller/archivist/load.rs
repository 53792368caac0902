//! Hands a dump to the command that loads it, in an instance that has the restored volumes and no
//! visitors.

use std::time::Duration;

use tokio::runtime::Handle as Runtime;

use super::restore::{pipe, pour};
use super::{ArchiveTrouble, Archivist, Contents, aside};
use crate::archive::format::DUMP;
use crate::archive::reader;
use crate::config::Service;
use crate::model::instance::Instance;
use crate::model::progress::Listener;

/// What loads a dump, and how long it may take.
pub(super) struct Load {
    command: Vec<String>,
    within: Duration,
}

impl Load {
    /// What is to be done with the dump of a checkpoint, if there is one and a command for it.
    pub(super) fn of(contents: &Contents, config: Option<&Service>) -> Option<Self> {
        let keeping = &config?.keeping;
        let has_dump = contents.manifest.parts.iter().any(|part| part.name == DUMP);
        (has_dump && !keeping.restore_command.is_empty())
            .then(|| Self { command: keeping.restore_command.clone(), within: keeping.timeout })
    }
}

impl Archivist {
    /// Runs the command in an instance, the dump on its standard input.
    pub(super) async fn load(
        &self,
        contents: &Contents,
        instance: &Instance,
        load: Load,
        told: &Listener,
    ) -> Result<(), ArchiveTrouble> {
        told.begin("loading the dump");
        let path = self.shelf.find(&contents.id)?;
        let (docker, runtime, id) = (self.docker.clone(), Runtime::current(), instance.id.clone());
        aside(move || {
            let mut loaded = Ok(());
            reader::walk(&path, &mut |name, part| {
                if name != DUMP {
                    return Ok(());
                }
                let (sender, flow) = pipe();
                let (docker, id) = (docker.clone(), id.clone());
                let Load { command, within } = &load;
                let (command, within) = (command.clone(), *within);
                let into =
                    runtime.spawn(async move { docker.feed_in(&id, &command, flow, within).await });
                let poured = pour(part, &sender);
                drop(sender);
                loaded = runtime.block_on(into).map_err(std::io::Error::other)?;
                // What the command says is more than that it stopped reading.
                if loaded.is_ok() { poured } else { Ok(()) }
            })?;
            Ok(loaded?)
        })
        .await
    }
}
