//! Checkpoints as files: one archive has everything that it takes to bring a revision back.
//!
//! ```text
//! ID.tar.zst ─ checkpoint.json           what it is: format, service, revision, when, why
//!            ─ configuration.toml/000000 the parts, each in pieces of 4 MiB, so that it can be
//!            ─ revision.json/000000      streamed without knowing its length: `cat image.tar/*`
//!            ─ image.tar/000000 …        is what `docker load` takes
//!            ─ volume-0.tar/000000 …
//!            ─ dump/000000 …
//!            ─ manifest.json             at the end: length and SHA-256 of every part
//!            ─ manifest.sha256           and that of the manifest
//! ```
//!
//! Reads and writes files and knows neither engine nor rollout; what the parts are made of is handed
//! in as readers, what becomes of them is done by whoever asks.
//!
//! Invariants: under its final name an archive is whole and on the disk; no name in an archive is ever
//! used as a path; whatever is not exactly as it was written is refused, with the part that it is in.

pub mod format;
pub mod reader;
pub mod shelf;
#[cfg(test)]
mod tests;
pub mod writer;

use std::path::{Path, PathBuf};

/// Why an archive could not be written or read. Each display says what to change.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ArchiveError {
    /// There is none of this name.
    #[error("there is no checkpoint {id:?}: `switchback checkpoint ls` lists them")]
    NotFound {
        /// What was asked for.
        id: String,
    },
    /// It is something else.
    #[error("{} is not an archive of a checkpoint: {reason}", .path.display())]
    NotOne {
        /// Which file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// It is not as it was written.
    #[error("the archive {} is damaged in its part {part:?}: {reason}; use another one", .path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Which part.
        part: String,
        /// How.
        reason: String,
    },
    /// A later version wrote it.
    #[error(
        "the archive {} has format {found}, and this version reads up to format {}: use Switchback {by} or later",
        .path.display(), format::FORMAT
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Which version wrote it.
        by: String,
    },
    /// It is of another service.
    #[error("the archive {} is of the service {of}, not of {wanted}", .path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        of: String,
        /// Whose it should be.
        wanted: String,
    },
    /// The disk has no room.
    #[error(
        "not enough room in {}: some {needed} MB are needed and {free} MB are free; remove old \
         checkpoints (`switchback checkpoint rm`), or put them elsewhere ([state] checkpoints)",
        .dir.display()
    )]
    NoRoom {
        /// Where.
        dir: PathBuf,
        /// Megabytes that it may take.
        needed: u64,
        /// Megabytes that there are.
        free: u64,
    },
    /// It could not be written or read.
    #[error("{what}: {reason}")]
    Disk {
        /// What was done.
        what: String,
        /// Why it failed.
        reason: String,
    },
    /// What goes into it could not be had.
    #[error("{part} could not be read: {reason}")]
    Source {
        /// Which part.
        part: String,
        /// Why.
        reason: String,
    },
}

impl ArchiveError {
    fn disk(what: &str, path: &Path, error: &std::io::Error) -> Self {
        let reason = match error.kind() {
            std::io::ErrorKind::StorageFull => "the disk is full; nothing is left of it".to_owned(),
            _ => error.to_string(),
        };
        Self::Disk { what: format!("{what} {}", path.display()), reason }
    }
}
