//! Reads an archive, entry by entry, and believes nothing of it.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Component, Path};

use aws_lc_rs::digest::{Context, SHA256, digest};

use super::ArchiveError;
use super::format::{Entry, FORMAT, HEAD, Head, MANIFEST, Manifest, hex};

/// The longest head or manifest in bytes; they have some kilobytes.
const LONGEST: u64 = 4 * 1024 * 1024;

type Source = zstd::Decoder<'static, BufReader<File>>;

/// What is done with a part: its name, and its bytes.
pub type Visit<'v> = &'v mut dyn FnMut(&str, &mut dyn Read) -> io::Result<()>;

/// What an archive says that it is, without reading more of it than that.
pub fn head(path: &Path) -> Result<Head, ArchiveError> {
    let mut archive = open(path)?;
    let mut walk = Walk::begin(path, &mut archive)?;
    walk.head()
}

/// Reads all of an archive and hands on every part. Fails when anything in it is not as it was written;
/// whatever was made of the parts until then must be thrown away.
pub fn walk(path: &Path, visit: Visit<'_>) -> Result<Manifest, ArchiveError> {
    let mut archive = open(path)?;
    let mut walk = Walk::begin(path, &mut archive)?;
    let head = walk.head()?;
    let mut found: Vec<(String, u64, String)> = Vec::new();
    let manifest = loop {
        let part = match walk.peek()? {
            Some(Entry::Piece { part, .. }) => part.clone(),
            Some(Entry::Manifest) => break walk.manifest()?,
            Some(Entry::Sum) => return Err(walk.damaged(MANIFEST, "it is not there")),
            Some(Entry::Head) => return Err(walk.damaged(HEAD, "it stands there twice")),
            None => return Err(walk.damaged(MANIFEST, "it is not there: the file was cut off")),
        };
        if found.iter().any(|(name, ..)| *name == part) {
            return Err(walk.damaged(&part, "it stands there twice"));
        }
        let mut pieces = Pieces {
            part: part.clone(),
            walk: &mut walk,
            number: 0,
            entry: None,
            hash: Context::new(&SHA256),
            bytes: 0,
        };
        let read = visit(&part, &mut pieces)
            .and_then(|()| io::copy(&mut pieces, &mut io::sink()).map(drop));
        let (bytes, hash) = (pieces.bytes, pieces.hash);
        read.map_err(|error| walk.broken(&part, &error))?;
        found.push((part, bytes, hex(hash.finish().as_ref())));
    };
    if walk.peek()?.is_some() {
        return Err(walk.damaged(MANIFEST, "something follows it"));
    }
    drop(walk);
    // Nor may anything follow the archive within the stream that cannot be read.
    io::copy(&mut archive.into_inner(), &mut io::sink())
        .map_err(|error| damaged(path, MANIFEST, &error.to_string()))?;
    compare(path, &head, &manifest, &found)?;
    Ok(manifest)
}

/// Reads all of an archive, and into the archives within it; nothing is made of it.
pub fn verify(path: &Path, count: &mut dyn FnMut(u64)) -> Result<Manifest, ArchiveError> {
    let mut all = 0;
    walk(path, &mut |name, part| {
        let mut counted = Counted { part, all: &mut all, count };
        if name.ends_with(".tar") { scan(&mut counted) } else { Ok(()) }?;
        io::copy(&mut counted, &mut io::sink()).map(drop)
    })
}

/// Reads an archive within an archive and refuses paths that lead out of it.
pub fn scan(part: &mut dyn Read) -> io::Result<()> {
    let mut archive = tar::Archive::new(part);
    for entry in archive.entries()? {
        let entry = entry?;
        let path = entry.path()?;
        let climbs = |path: &Path| {
            path.components().any(|part| matches!(part, Component::ParentDir | Component::RootDir))
        };
        let hard = entry.header().entry_type() == tar::EntryType::Link;
        let link = entry.link_name()?.filter(|_| hard);
        if climbs(&path) || link.is_some_and(|link| climbs(&link)) {
            return Err(io::Error::other(format!("{:?} leads out of it", path.display())));
        }
    }
    Ok(())
}

fn compare(
    path: &Path,
    head: &Head,
    manifest: &Manifest,
    found: &[(String, u64, String)],
) -> Result<(), ArchiveError> {
    if manifest.head != *head {
        return Err(damaged(path, HEAD, "the manifest says something else"));
    }
    for part in &manifest.parts {
        let Some((_, bytes, sha256)) = found.iter().find(|(name, ..)| *name == part.name) else {
            return Err(damaged(path, &part.name, "it is not there"));
        };
        if *bytes != part.bytes {
            let reason = format!("it has {bytes} bytes instead of {}", part.bytes);
            return Err(damaged(path, &part.name, &reason));
        }
        if *sha256 != part.sha256 {
            let reason = format!("its SHA-256 is {sha256} instead of {}", part.sha256);
            return Err(damaged(path, &part.name, &reason));
        }
    }
    let listed = |name: &String| manifest.parts.iter().any(|part| part.name == *name);
    match found.iter().find(|(name, ..)| !listed(name)) {
        Some((name, ..)) => Err(damaged(path, name, "the manifest does not know it")),
        None => Ok(()),
    }
}

fn open(path: &Path) -> Result<tar::Archive<Source>, ArchiveError> {
    let file = File::open(path).map_err(|error| ArchiveError::disk("reading", path, &error))?;
    let decoder = zstd::Decoder::new(file).map_err(|error| not_one(path, &error.to_string()))?;
    Ok(tar::Archive::new(decoder))
}

fn not_one(path: &Path, reason: &str) -> ArchiveError {
    ArchiveError::NotOne { path: path.to_owned(), reason: reason.to_owned() }
}

fn damaged(path: &Path, part: &str, reason: &str) -> ArchiveError {
    let (part, reason) = (part.to_owned(), reason.to_owned());
    ArchiveError::Damaged { path: path.to_owned(), part, reason }
}

/// An archive on the way through it.
struct Walk<'a> {
    path: &'a Path,
    entries: tar::Entries<'a, Source>,
    /// The entry that comes next, when it was looked at already.
    next: Option<(Entry, tar::Entry<'a, Source>)>,
    /// The part that was read last, to name where it breaks off.
    part: String,
}

impl<'a> Walk<'a> {
    fn begin(path: &'a Path, archive: &'a mut tar::Archive<Source>) -> Result<Self, ArchiveError> {
        let entries = archive.entries().map_err(|error| not_one(path, &error.to_string()))?;
        // Raw: names that need an extension of the format are none of ours.
        Ok(Self { path, entries: entries.raw(true), next: None, part: HEAD.to_owned() })
    }

    fn damaged(&self, part: &str, reason: &str) -> ArchiveError {
        damaged(self.path, part, reason)
    }

    /// Where reading failed: the disk, or the stream's own checks.
    fn broken(&self, part: &str, error: &io::Error) -> ArchiveError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged(part, "it is cut off there"),
            _ => self.damaged(part, &error.to_string()),
        }
    }

    /// The name of the next entry.
    fn peek(&mut self) -> Result<Option<&Entry>, ArchiveError> {
        if self.next.is_none() {
            let Some(entry) = self.entries.next() else { return Ok(None) };
            let entry = entry.map_err(|error| self.broken(&self.part, &error))?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let regular = entry.header().entry_type() == tar::EntryType::Regular;
            let parsed = Entry::parse(&name).filter(|_| regular).ok_or_else(|| {
                self.damaged(&name, "nothing of this name belongs into an archive of a checkpoint")
            })?;
            self.next = Some((parsed, entry));
        }
        Ok(self.next.as_ref().map(|(name, _)| name))
    }

    fn text(&mut self, name: &str) -> Result<Vec<u8>, ArchiveError> {
        let Some((_, entry)) = self.next.take() else {
            return Err(self.damaged(name, "it is not there"));
        };
        let mut text = Vec::new();
        let read = entry.take(LONGEST).read_to_end(&mut text);
        read.map_err(|error| self.broken(name, &error))?;
        Ok(text)
    }

    fn json<T: serde::de::DeserializeOwned>(
        &self,
        name: &str,
        text: &[u8],
    ) -> Result<T, ArchiveError> {
        serde_json::from_slice(text).map_err(|error| self.damaged(name, &error.to_string()))
    }

    fn head(&mut self) -> Result<Head, ArchiveError> {
        /// What can be read of any format.
        #[derive(serde::Deserialize)]
        struct Any {
            format: u32,
            #[serde(default)]
            written_by: String,
        }
        let path = self.path;
        match self.peek() {
            Ok(Some(Entry::Head)) => {}
            Ok(_) => return Err(not_one(path, "it does not begin with what it is")),
            Err(error) => return Err(not_one(path, &error.to_string())),
        }
        let text = self.text(HEAD)?;
        let value: serde_json::Value = self.json(HEAD, &text)?;
        let any: Any = serde_json::from_value(value.clone())
            .map_err(|error| not_one(path, &error.to_string()))?;
        if any.format > FORMAT {
            let path = path.to_owned();
            return Err(ArchiveError::Newer { path, found: any.format, by: any.written_by });
        }
        serde_json::from_value(value).map_err(|error| self.damaged(HEAD, &error.to_string()))
    }

    fn manifest(&mut self) -> Result<Manifest, ArchiveError> {
        MANIFEST.clone_into(&mut self.part);
        let text = self.text(MANIFEST)?;
        match self.peek()? {
            Some(Entry::Sum) => {}
            _ => return Err(self.damaged(MANIFEST, "its SHA-256 does not follow it")),
        }
        let sum = self.text(MANIFEST)?;
        if hex(digest(&SHA256, &text).as_ref()).as_bytes() != sum {
            return Err(self.damaged(MANIFEST, "its SHA-256 is another one"));
        }
        self.json(MANIFEST, &text)
    }
}

/// A part, of its pieces.
struct Pieces<'w, 'a> {
    part: String,
    walk: &'w mut Walk<'a>,
    number: u32,
    entry: Option<tar::Entry<'a, Source>>,
    hash: Context,
    bytes: u64,
}

impl Read for Pieces<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(entry) = &mut self.entry {
                let read = entry.read(buffer)?;
                if read > 0 {
                    self.hash.update(&buffer[..read]);
                    self.bytes += read as u64;
                    return Ok(read);
                }
                self.entry = None;
            }
            self.walk.part.clone_from(&self.part);
            let next = self.walk.peek().map_err(|error| match error {
                ArchiveError::Damaged { reason, .. } => io::Error::other(reason),
                other => io::Error::other(other),
            })?;
            match next {
                Some(Entry::Piece { part, number }) if *part == self.part => {
                    if *number != self.number {
                        let missing = format!("its piece {} is not there", self.number);
                        return Err(io::Error::other(missing));
                    }
                    self.number += 1;
                    self.entry = self.walk.next.take().map(|(_, entry)| entry);
                }
                _ => return Ok(0),
            }
        }
    }
}

struct Counted<'c> {
    part: &'c mut dyn Read,
    all: &'c mut u64,
    count: &'c mut dyn FnMut(u64),
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.part.read(buffer)?;
        *self.all += read as u64;
        (self.count)(*self.all);
        Ok(read)
    }
}
