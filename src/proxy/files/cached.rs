//! What the kernel has in memory, for a worker that must not wait.
//!
//! A look-up can be asked so that the kernel says "not at once" instead of waiting (`RESOLVE_CACHED`), and
//! so can a read (`RWF_NOWAIT`). What it can give at once costs a worker a few system calls on its own
//! thread; the rest goes to a thread that may wait. Network file systems are not asked: with them also
//! what is in memory may want a word with a server, and a server that is gone would hold up every visitor.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::IoSliceMut;

use bytes::{Bytes, BytesMut};
use rustix::fs::fstatfs;
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use crate::proxy::clock::Tick;

/// Bytes of a file that are read at a time.
pub const PIECE: usize = 64 * 1024;
/// A device is believed to be of this machine for a minute, in ticks: numbers are given again.
const BELIEVED: Tick = 600;
/// Devices that a worker knows of.
const DEVICES: usize = 16;

/// File systems of this machine, as `statfs` names them (`linux/magic.h` and the sources of each): ext2
/// to ext4, XFS, Btrfs, F2FS, bcachefs, ZFS, overlays of these, tmpfs, SquashFS, EROFS and ISO 9660.
const LOCAL: [u32; 11] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0xf2f5_2010,
    0xca45_1a4e,
    0x2fc1_2fc1,
    0x794c_7630,
    0x0102_1994,
    0x7371_7368,
    0xe0f5_e1e2,
    0x9660,
];

/// Whether a file is on a file system of this machine. May block.
pub fn is_local(file: &File) -> bool {
    fstatfs(file).is_ok_and(|about| LOCAL.contains(&(about.f_type as u32)))
}

/// Why bytes cannot be had at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Not {
    /// They are not in memory at the moment.
    Now,
    /// This file cannot be asked so, or there are no such bytes.
    Ever,
}

/// What a worker knows of the kernel's caches.
#[derive(Debug)]
pub struct Cached {
    /// Whether the kernel can be asked for look-ups.
    knows: Cell<bool>,
    /// Devices of this machine, and when that was seen.
    devices: RefCell<Vec<(u64, Tick)>>,
    /// The buffer of the last piece: once its bytes are gone it is read into again.
    spare: RefCell<Bytes>,
}

impl Default for Cached {
    fn default() -> Self {
        Self { knows: Cell::new(true), devices: RefCell::default(), spare: RefCell::default() }
    }
}

impl Cached {
    /// Whether look-ups may be asked for.
    pub fn knows(&self) -> bool {
        self.knows.get()
    }

    /// What became of a first look, at a path that no visitor chose.
    pub fn answered(&self, error: Errno) {
        // Linux before 5.12, before 5.6, or a sandbox that does not know the call.
        if matches!(error, Errno::INVAL | Errno::TOOBIG | Errno::NOSYS | Errno::PERM) {
            self.knows.set(false);
        }
    }

    /// Whether a device is of this machine, as far as is known.
    pub fn is_local(&self, device: u64) -> bool {
        self.devices.borrow().iter().any(|(known, _)| *known == device)
    }

    /// A device is of this machine.
    pub fn learn(&self, device: u64, now: Tick) {
        let mut devices = self.devices.borrow_mut();
        devices.retain(|(known, _)| *known != device);
        if devices.len() == DEVICES {
            devices.remove(0);
        }
        devices.push((device, now));
    }

    /// Forgets what may be so no longer.
    pub fn tick(&self, now: Tick) {
        self.devices.borrow_mut().retain(|(_, seen)| now.saturating_sub(*seen) < BELIEVED);
        self.spare.take();
    }

    /// Bytes of a file, at least one and at most [`PIECE`].
    pub fn read(&self, file: &File, at: u64, wanted: usize) -> Result<Bytes, Not> {
        let wanted = wanted.min(PIECE);
        // Who is slow to take a small answer must not hold a large buffer.
        let is_large = wanted > PIECE / 2;
        let mut buffer = if is_large { self.buffer() } else { BytesMut::zeroed(wanted) };
        let into = &mut [IoSliceMut::new(&mut buffer[..wanted])];
        let read = preadv2(file, into, at, ReadWriteFlags::NOWAIT);
        let buffer = buffer.freeze();
        let read = match read {
            Ok(read @ 1..) => read,
            other => {
                if is_large {
                    self.spare.replace(buffer);
                }
                let is_later = matches!(other, Err(Errno::AGAIN | Errno::INTR));
                return Err(if is_later { Not::Now } else { Not::Ever });
            }
        };
        if !is_large {
            return Ok(buffer.slice(..read));
        }
        let piece = if read > PIECE / 2 {
            buffer.slice(..read)
        } else {
            Bytes::copy_from_slice(&buffer[..read])
        };
        self.spare.replace(buffer);
        Ok(piece)
    }

    /// Room for a piece. Nothing is cleared that is read over, as long as clients are fast.
    fn buffer(&self) -> BytesMut {
        self.spare.take().try_into_mut().unwrap_or_else(|_| BytesMut::zeroed(PIECE))
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Advice, fadvise};

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let named = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(named.path(), bytes).expect("a file");
        File::open(named.path()).expect("a file")
    }

    #[test]
    fn pieces_are_what_the_file_says() {
        let cached = Cached::default();
        let text: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        let file = file(&text);
        if cached.read(&file, 0, 1) == Err(Not::Ever) {
            eprintln!("SKIPPED: this file system cannot be asked");
            return;
        }
        // All are held at the same time: none is read over.
        let mut held = Vec::new();
        for (at, wanted) in [
            (0, PIECE),
            (1, PIECE),
            (65_536, PIECE),
            (7, 40_000),
            (150_000, PIECE),
            (199_000, PIECE),
            (100, 10),
            (199_999, 40_000),
        ] {
            let end = text.len().min(at + wanted);
            let mut got = Vec::new();
            while got.len() < end - at {
                let from = (at + got.len()) as u64;
                let piece = cached.read(&file, from, wanted - got.len()).expect("in memory");
                got.extend_from_slice(&piece);
                held.push((at + got.len() - piece.len(), piece));
            }
        }
        for (at, piece) in &held {
            assert!(*piece == text[*at..*at + piece.len()], "{at}");
        }
        // Let go, the buffer is used again.
        held.clear();
        let first = cached.read(&file, 0, PIECE).expect("in memory");
        let place = first.as_ptr();
        drop(first);
        let second = cached.read(&file, 5, PIECE).expect("in memory");
        assert_eq!(second.as_ptr(), place);
        assert!(second == text[5..5 + second.len()]);
        assert_eq!(cached.read(&file, 200_000, PIECE), Err(Not::Ever), "there are no more");
        cached.tick(0);
        assert!(cached.read(&file, 0, PIECE).is_ok() && second == text[5..5 + second.len()]);
    }

    #[test]
    fn nobody_waits_for_a_disk() {
        let cached = Cached::default();
        let file = file(&vec![b'x'; 1 << 20]);
        file.sync_all().expect("written");
        fadvise(&file, 0, None, Advice::DontNeed).expect("forgotten");
        match cached.read(&file, 512 * 1024, PIECE) {
            Err(Not::Now) => {}
            other => {
                eprintln!("SKIPPED: this file system keeps it, or cannot be asked: {other:?}");
            }
        }
        let (reader, _writer) = std::io::pipe().expect("a pipe");
        let reader = File::from(std::os::fd::OwnedFd::from(reader));
        assert_eq!(cached.read(&reader, 0, PIECE), Err(Not::Ever));
    }

    #[test]
    fn devices_are_believed_for_a_while() {
        let cached = Cached::default();
        assert!(!cached.is_local(7) && cached.knows());
        cached.learn(7, 100);
        cached.tick(100 + BELIEVED - 1);
        assert!(cached.is_local(7) && !cached.is_local(8));
        cached.tick(100 + BELIEVED);
        assert!(!cached.is_local(7));
        for device in 0..100 {
            cached.learn(device, 0);
        }
        assert!(cached.devices.borrow().len() == DEVICES && cached.is_local(99));
        cached.answered(Errno::NOENT);
        assert!(cached.knows());
        cached.answered(Errno::INVAL);
        assert!(!cached.knows());
        let proc = File::open("/proc/self/status").expect("a file");
        assert!(!is_local(&proc));
    }
}
