//! Whether the engine's disk holds what a checkpoint brings back: asked before, and told when it filled
//! midway after all.

use super::{ArchiveTrouble, Archivist, Contents};
use crate::archive::format::About;
use crate::runtime::Runtime;

/// Bytes in a megabyte, as disks are sold.
const MB: u64 = 1_000_000;
/// What the system and the engine answer when nothing more can be written.
const FULL: [&str; 3] = ["no space left on device", "disk quota exceeded", "os error 28"];

impl Archivist {
    /// Whether the engine has a checkpoint's image, or needs none.
    pub(super) async fn has_image(&self, contents: &Contents) -> Result<bool, ArchiveTrouble> {
        match contents.manifest.image() {
            Some(id) => Ok(self.docker.image_size(id).await?.is_some()),
            None => Ok(true),
        }
    }

    /// Refuses what the engine's disk cannot hold, as far as that disk is known here.
    pub(super) async fn has_room_for(&self, contents: &Contents) -> Result<(), ArchiveTrouble> {
        let needed = needed(contents, self.has_image(contents).await?);
        match self.docker.room().await.disk {
            Some(free) if needed > free => Err(ArchiveTrouble::NoRoom {
                what: contents.id.clone(),
                needed: needed.div_ceil(MB),
                free: free / MB,
            }),
            _ => Ok(()),
        }
    }

    /// Why a restore failed: with the figures, where the engine's disk filled while it was written. What
    /// was made of it has been thrown away before.
    pub(super) async fn why_not(
        &self,
        trouble: ArchiveTrouble,
        contents: &Contents,
        image_is_here: bool,
    ) -> ArchiveTrouble {
        let said = trouble.to_string().to_lowercase();
        if !FULL.iter().any(|full| said.contains(full)) {
            return trouble;
        }
        let free = self.docker.room().await.disk.unwrap_or(0);
        ArchiveTrouble::Filled {
            what: contents.id.clone(),
            needed: needed(contents, image_is_here).div_ceil(MB),
            free: free / MB,
        }
    }
}

/// Bytes that a checkpoint takes on the engine: its volumes, and its image if that is not there.
fn needed(contents: &Contents, image_is_here: bool) -> u64 {
    let counts = |about: &About| match about {
        About::Volume { .. } => true,
        About::Image { .. } => !image_is_here,
        _ => false,
    };
    let parts = contents.manifest.parts.iter().filter(|part| counts(&part.about));
    parts.map(|part| part.bytes).sum()
}
