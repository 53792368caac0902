//! Room on disk for request bodies that are read in advance.
//!
//! Files have no name from the moment they are made, so that nothing is left of them however the
//! process ends. All workers share the room; a body for which there is none goes on without.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

/// A directory in which so many bytes may lie.
#[derive(Debug, Default)]
pub struct Spool {
    directory: PathBuf,
    most: u64,
    used: AtomicU64,
}

impl Spool {
    /// Up to `most` bytes in a directory that is there.
    pub fn new(directory: PathBuf, most: u64) -> Arc<Self> {
        Arc::new(Self { directory, most, used: AtomicU64::new(0) })
    }

    /// Bytes that lie there.
    #[cfg(test)]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> bool {
        let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.most);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

/// A file in a spool; gone when this is dropped.
#[derive(Debug)]
pub struct Spooled {
    spool: Arc<Spool>,
    file: File,
    length: u64,
}

impl Spooled {
    /// Makes one, with nothing in it. Blocks.
    pub fn new(spool: &Arc<Spool>) -> io::Result<Self> {
        let file = tempfile::tempfile_in(&spool.directory)?;
        Ok(Self { spool: Arc::clone(spool), file, length: 0 })
    }

    /// Bytes in it.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Adds bytes. Blocks. On an error, as for want of room, none of them is in it.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = bytes.len() as u64;
        if !self.spool.take(length) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if let Err(error) = self.file.write_all_at(bytes, self.length) {
            self.spool.used.fetch_sub(length, Ordering::Relaxed);
            return Err(error);
        }
        self.length += length;
        Ok(())
    }

    /// Up to `most` bytes from there on, at least one. Blocks.
    pub fn read(&self, at: u64, most: usize) -> io::Result<Bytes> {
        let left = usize::try_from(self.length.saturating_sub(at)).unwrap_or(most);
        let mut bytes = vec![0; most.min(left)];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes.into())
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        self.spool.used.fetch_sub(self.length, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_there_is_bounded_and_leaves_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let spool = Spool::new(directory.path().to_owned(), 10);
        let mut one = Spooled::new(&spool).expect("a file");
        one.append(b"abc").and_then(|()| one.append(b"def")).expect("room");
        let mut two = Spooled::new(&spool).expect("a file");
        let full = two.append(b"12345").expect_err("no room");
        assert_eq!((full.kind(), spool.used()), (io::ErrorKind::StorageFull, 6));
        two.append(b"1234").expect("room");
        one.append(b"g").expect_err("no room");
        assert_eq!((one.length(), one.read(2, 100).expect("bytes")), (6, Bytes::from("cdef")));
        assert_eq!(one.read(1, 2).expect("bytes"), "bc");
        let left = std::fs::read_dir(directory.path()).expect("a directory").count();
        assert_eq!(left, 0, "a file has a name");
        drop(one);
        assert_eq!(spool.used(), 4);
        two.append(b"5").expect("room again");
    }
}
