//! Writes an archive: under another name until all of it is on the disk.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256, digest};

use super::ArchiveError;
use super::format::{About, Entry, HEAD, Head, MANIFEST, Manifest, PIECE, Part, SUM, hex};

/// Zstandard's own default, which compresses some 300 MB a second on one core.
const LEVEL: i32 = 3;

/// What an unfinished archive's name ends with.
pub const PARTIAL: &str = "partial";

type Out = tar::Builder<zstd::Encoder<'static, BufWriter<File>>>;

/// An archive that is being written. Dropped before [`Writer::finish`], nothing of it stays.
pub struct Writer {
    out: Option<Out>,
    manifest: Manifest,
    path: PathBuf,
    partial: PathBuf,
}

impl Writer {
    /// Begins an archive at `path`, readable by nobody else: it may hold secrets.
    pub fn create(path: &Path, head: Head) -> Result<Self, ArchiveError> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".");
        partial.push(PARTIAL);
        let partial = PathBuf::from(partial);
        let fail = |error: io::Error| ArchiveError::disk("writing", path, &error);
        let file = File::options().write(true).create_new(true).mode(0o600).open(&partial);
        let file = file.map_err(fail)?;
        let mut this = Self {
            out: None,
            manifest: Manifest { head, parts: Vec::new() },
            path: path.to_owned(),
            partial,
        };
        // Without a sum of the whole stream: those of the parts also tell where it is damaged.
        let encoder = zstd::Encoder::new(BufWriter::new(file), LEVEL).map_err(fail)?;
        this.out = Some(tar::Builder::new(encoder));
        let head = serde_json::to_vec_pretty(&this.manifest.head).map_err(|e| fail(e.into()))?;
        this.entry(HEAD, &head)?;
        Ok(this)
    }

    /// Writes a part to its end; `count` hears the bytes so far.
    pub fn part(
        &mut self,
        name: &str,
        about: About,
        source: &mut dyn Read,
        count: &mut dyn FnMut(u64),
    ) -> Result<(), ArchiveError> {
        let mut hash = Context::new(&SHA256);
        let (mut bytes, mut number) = (0, 0);
        let mut piece = Vec::with_capacity(PIECE);
        loop {
            piece.clear();
            (&mut *source).take(PIECE as u64).read_to_end(&mut piece).map_err(|error| {
                ArchiveError::Source { part: name.to_owned(), reason: error.to_string() }
            })?;
            // A part of nothing has one piece too, so that it is there.
            if piece.is_empty() && number > 0 {
                break;
            }
            hash.update(&piece);
            self.entry(&Entry::piece(name, number), &piece)?;
            bytes += piece.len() as u64;
            number += 1;
            count(bytes);
            if piece.len() < PIECE {
                break;
            }
        }
        let sha256 = hex(hash.finish().as_ref());
        self.manifest.parts.push(Part { name: name.to_owned(), about, bytes, sha256 });
        Ok(())
    }

    fn entry(&mut self, name: &str, bytes: &[u8]) -> Result<(), ArchiveError> {
        let fail = |error: io::Error| ArchiveError::disk("writing", &self.path, &error);
        let out = self.out.as_mut().ok_or_else(|| fail(io::Error::other("it is closed")))?;
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_entry_type(tar::EntryType::Regular);
        out.append_data(&mut header, name, bytes).map_err(fail)
    }

    /// Writes the manifest, puts everything on the disk and gives the archive its name.
    pub fn finish(mut self) -> Result<Manifest, ArchiveError> {
        let path = self.path.clone();
        let fail = |error: io::Error| ArchiveError::disk("writing", &path, &error);
        let manifest = serde_json::to_vec_pretty(&self.manifest).map_err(|e| fail(e.into()))?;
        self.entry(MANIFEST, &manifest)?;
        self.entry(SUM, hex(digest(&SHA256, &manifest).as_ref()).as_bytes())?;
        let out = self.out.take().ok_or_else(|| fail(io::Error::other("it is closed")))?;
        let encoder = out.into_inner().map_err(fail)?;
        let mut buffered = encoder.finish().map_err(fail)?;
        buffered.flush().map_err(fail)?;
        let file = buffered.into_inner().map_err(|error| fail(error.into_error()))?;
        file.sync_all().map_err(fail)?;
        fs::rename(&self.partial, &self.path).map_err(fail)?;
        if let Some(dir) = self.path.parent() {
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(fail)?;
        }
        Ok(self.manifest.clone())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // After `finish` there is no such file any more.
        let _ = fs::remove_file(&self.partial);
    }
}
