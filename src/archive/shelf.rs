//! The directory in which archives stand.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::format::Head;
use super::writer::PARTIAL;
use super::{ArchiveError, reader};
use crate::model::id::ServiceName;

/// What an archive's file name ends with.
const ENDING: &str = ".tar.zst";

/// What stays free on a disk: an archive must not be what fills it.
const RESERVE: u64 = 64 * 1024 * 1024;

/// An archive, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its name.
    pub id: String,
    /// Its file.
    pub path: PathBuf,
    /// Bytes on the disk.
    pub bytes: u64,
    /// What it says that it is; none when that cannot be read.
    pub head: Option<Head>,
    /// Why it cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// The directory.
#[derive(Debug, Clone)]
pub struct Shelf {
    dir: PathBuf,
}

impl Shelf {
    /// The shelf in this directory, which is made when it is needed.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// All archives, newest first, of one service or of all.
    pub fn list(&self, service: Option<&ServiceName>) -> Result<Vec<Listed>, ArchiveError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(ArchiveError::disk("reading", &self.dir, &error)),
        };
        let mut listed = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(id) = name.to_str().and_then(|name| name.strip_suffix(ENDING)) else {
                continue;
            };
            let (head, trouble) = match reader::head(&entry.path()) {
                Ok(head) => (Some(head), None),
                Err(error) => (None, Some(error.to_string())),
            };
            let of = head.as_ref().map(|head| &head.service);
            if service.is_some_and(|service| of.is_some_and(|of| of != service)) {
                continue;
            }
            let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
            listed.push(Listed { id: id.to_owned(), path: entry.path(), bytes, head, trouble });
        }
        let created = |one: &Listed| one.head.as_ref().map(|head| head.created.clone());
        listed.sort_by(|a, b| created(b).cmp(&created(a)).then_with(|| b.id.cmp(&a.id)));
        Ok(listed)
    }

    /// The file of an archive: one of this shelf by its id, or another one by its absolute path.
    pub fn find(&self, id: &str) -> Result<PathBuf, ArchiveError> {
        let none = || ArchiveError::NotFound { id: id.to_owned() };
        let path = if id.starts_with('/') {
            PathBuf::from(id)
        } else {
            let id = id.strip_suffix(ENDING).unwrap_or(id);
            let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            if id.is_empty() || !id.bytes().all(plain) {
                return Err(none());
            }
            self.dir.join(format!("{id}{ENDING}"))
        };
        if path.is_file() { Ok(path) } else { Err(none()) }
    }

    /// The id and the file of a new archive.
    pub fn place(&self, head: &Head) -> Result<(String, PathBuf), ArchiveError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(|error| ArchiveError::disk("making", &self.dir, &error))?;
        let digits = |c: &char| c.is_ascii_digit();
        // 2026-11-21T10:15:00.000Z → 20261121-101500
        let when: String = head.created.chars().filter(digits).take(14).collect();
        let (day, time) = when.split_at(when.len().min(8));
        let plain = format!("{}-{day}-{time}-r{}", head.service, head.revision);
        let mut id = plain.clone();
        for number in 2.. {
            let path = self.dir.join(format!("{id}{ENDING}"));
            let partial = self.dir.join(format!("{id}{ENDING}.{PARTIAL}"));
            if !path.exists() && !partial.exists() {
                return Ok((id, path));
            }
            id = format!("{plain}-{number}");
        }
        Err(ArchiveError::NotFound { id })
    }

    /// Removes an archive.
    pub fn remove(&self, id: &str) -> Result<u64, ArchiveError> {
        let path = self.find(id)?;
        let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        fs::remove_file(&path).map_err(|error| ArchiveError::disk("removing", &path, &error))?;
        Ok(bytes)
    }

    /// Whether so many bytes more can be written.
    pub fn has_room(&self, needed: u64) -> Result<(), ArchiveError> {
        let mut dir = self.dir.as_path();
        while !dir.exists() {
            dir = dir.parent().unwrap_or(Path::new("/"));
        }
        let Ok(disk) = rustix::fs::statvfs(dir) else { return Ok(()) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let needed = needed.saturating_add(RESERVE.min(free / 10));
        if needed <= free {
            return Ok(());
        }
        let dir = self.dir.clone();
        Err(ArchiveError::NoRoom {
            dir,
            needed: needed.div_ceil(1_000_000),
            free: free / 1_000_000,
        })
    }

    /// What a daemon that died left half-written: files and their bytes.
    #[must_use]
    pub fn unfinished(&self) -> Vec<(PathBuf, u64)> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let ending = format!("{ENDING}.{PARTIAL}");
        entries
            .filter(|entry| entry.file_name().to_string_lossy().ends_with(&ending))
            .map(|entry| (entry.path(), entry.metadata().map_or(0, |metadata| metadata.len())))
            .collect()
    }
}

/// Which automatic archives of a service have had their time, of a list with the newest first. The
/// newest stays in any case; what a person asked for stays until a person removes it.
#[must_use]
pub fn expired(
    listed: &[Listed],
    keep: usize,
    max_age: Duration,
    now: jiff::Timestamp,
) -> Vec<String> {
    let automatic = listed.iter().filter_map(|one| Some((one, one.head.as_ref()?)));
    let automatic = automatic.filter(|(_, head)| head.automatic);
    let is_old = |head: &Head| {
        let created: Option<jiff::Timestamp> = head.created.parse().ok();
        let age = created.and_then(|created| Duration::try_from(now.duration_since(created)).ok());
        age.is_some_and(|age| age > max_age)
    };
    automatic
        .enumerate()
        .filter(|(at, (_, head))| *at > 0 && (*at >= keep || is_old(head)))
        .map(|(_, (one, _))| one.id.clone())
        .collect()
}
