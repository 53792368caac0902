//! Opens what is below a directory, and nothing else.
//!
//! There are two ways, which open the same: one may block, the other opens only what the kernel finds in
//! its memory.

use std::borrow::Cow;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bytes::Bytes;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags, makedev, openat, openat2, statx,
};
use rustix::io::Errno;

use super::cached::{Cached, PIECE, is_local};

/// How something is looked for.
#[derive(Debug, Clone, Copy)]
pub enum Way<'a> {
    /// For as long as it takes: blocks.
    Waiting,
    /// In the kernel's memory, on devices of this machine; what is not there, and all that is unusual,
    /// is [`io::ErrorKind::WouldBlock`].
    Cached(&'a Cached),
}

/// What is there under a name.
#[derive(Debug)]
pub enum Looked {
    /// A file.
    File(Box<Opened>),
    /// A directory, whose name does not end as it should.
    Directory,
    /// Nothing that is shown.
    Missing,
}

/// A file, open.
#[derive(Debug)]
pub struct Opened {
    /// It.
    pub file: File,
    /// What the file system says about it.
    pub about: About,
    /// All of it, if it is small and was waited for.
    pub whole: Option<Bytes>,
    /// Its device, if that is of this machine.
    pub local: Option<u64>,
}

/// What a file system says about a thing.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// Bytes of it.
    pub length: u64,
    /// When it was last changed: seconds of the Unix epoch, and nanoseconds.
    pub modified: (i64, i64),
    kind: Kind,
    device: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
    Other,
}

impl About {
    fn is_file(&self) -> bool {
        self.kind == Kind::File
    }

    /// What is known without asking a server: of a device of this machine, all.
    fn cached(fd: &impl AsFd) -> Result<Self, Errno> {
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let about = statx(fd, c"", flags, StatxFlags::BASIC_STATS)?;
        Ok(Self {
            length: about.stx_size,
            modified: (about.stx_mtime.tv_sec, about.stx_mtime.tv_nsec.into()),
            kind: match FileType::from_raw_mode(about.stx_mode.into()) {
                FileType::RegularFile => Kind::File,
                FileType::Directory => Kind::Directory,
                _ => Kind::Other,
            },
            device: makedev(about.stx_dev_major, about.stx_dev_minor),
        })
    }
}

impl From<Metadata> for About {
    fn from(about: Metadata) -> Self {
        let kind = about.file_type();
        Self {
            length: about.len(),
            modified: (about.mtime(), about.mtime_nsec()),
            kind: if kind.is_file() {
                Kind::File
            } else if kind.is_dir() {
                Kind::Directory
            } else {
                Kind::Other
            },
            device: about.dev(),
        }
    }
}

impl Way<'_> {
    /// The directory that everything is below of.
    fn root(self, root: &Path) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match self {
            Self::Waiting => openat(CWD, root, flags, Mode::empty()),
            Self::Cached(cached) => openat2(CWD, root, flags, Mode::empty(), ResolveFlags::CACHED)
                .map_err(|error| {
                    cached.answered(error);
                    Errno::AGAIN
                }),
        }
    }

    /// Opens what is below a directory. A pipe does not hold it up.
    fn below(self, root: &OwnedFd, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match self {
            Self::Waiting => loop {
                match openat2(root, name, flags, Mode::empty(), within) {
                    // Something was renamed meanwhile, and the kernel is not sure.
                    Err(Errno::AGAIN) => {}
                    // Linux before 5.6, or a sandbox that does not know the call.
                    Err(Errno::NOSYS | Errno::PERM) => return step_by_step(root, name, flags),
                    other => return other,
                }
            },
            Self::Cached(_) => {
                openat2(root, name, flags, Mode::empty(), within | ResolveFlags::CACHED)
                    .map_err(|error| if is_missing(error) { error } else { Errno::AGAIN })
            }
        }
    }

    fn about(self, fd: &File) -> Result<About, Errno> {
        match self {
            Self::Waiting => fd
                .metadata()
                .map(About::from)
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)),
            Self::Cached(cached) => About::cached(fd)
                .ok()
                .filter(|about| cached.is_local(about.device))
                .ok_or(Errno::AGAIN),
        }
    }
}

/// Looks for a name below `root`; `index` is what stands for a directory.
pub fn look(
    root: &Path,
    name: &str,
    index: &str,
    is_directory: bool,
    way: Way<'_>,
) -> io::Result<Looked> {
    let root = way.root(root)?;
    let inside = || if name.is_empty() { index.to_owned() } else { format!("{name}/{index}") };
    // `/page.html/` is no other name of `/page.html`, and has no index within.
    let named = match (is_directory, name) {
        (true, _) => Cow::Owned(inside()),
        (false, "") => Cow::Borrowed("."),
        (false, name) => Cow::Borrowed(name),
    };
    match about(&root, &named, way) {
        Ok(about) if about.is_file() => return opened(&root, &named, way),
        Ok(about) if is_directory || about.kind != Kind::Directory => return Ok(Looked::Missing),
        Ok(_) => {}
        Err(error) => return missing(error),
    }
    match about(&root, &inside(), way) {
        // Links in it are relative to it.
        Ok(about) if about.is_file() => Ok(Looked::Directory),
        Ok(_) => Ok(Looked::Missing),
        Err(error) => missing(error),
    }
}

/// What is there, without opening it: to open a pipe or a device is to do something to it, and a pipe's
/// writer may end of it.
fn about(root: &OwnedFd, name: &str, way: Way<'_>) -> Result<About, Errno> {
    way.about(&File::from(way.below(root, name, OFlags::PATH)?))
}

fn opened(root: &OwnedFd, name: &str, way: Way<'_>) -> io::Result<Looked> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut file = match way.below(root, name, flags) {
        Ok(found) => File::from(found),
        Err(error) => return missing(error),
    };
    let about = way.about(&file)?;
    if !about.is_file() {
        // It was another one a moment ago.
        return Ok(Looked::Missing);
    }
    let (mut whole, mut local) = (None, Some(about.device));
    if matches!(way, Way::Waiting) {
        local = local.filter(|_| is_local(&file));
        if about.length <= PIECE as u64 {
            let mut bytes = Vec::with_capacity(about.length as usize);
            (&mut file).take(about.length).read_to_end(&mut bytes)?;
            // Changed meanwhile, it is read as it says that it is, or broken off.
            whole = (bytes.len() as u64 == about.length).then(|| bytes.into());
        }
    }
    Ok(Looked::File(Box::new(Opened { file, about, whole, local })))
}

/// Whether an error says that a thing is not there, or lies elsewhere.
fn is_missing(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NAMETOOLONG)
}

/// What is not there, or lies elsewhere, is missing; the rest is an error.
fn missing(error: Errno) -> io::Result<Looked> {
    match error {
        error if is_missing(error) => Ok(Looked::Missing),
        // A socket, or a device without a driver.
        Errno::NXIO | Errno::NODEV | Errno::INVAL => Ok(Looked::Missing),
        error => Err(error.into()),
    }
}

/// The same where the kernel cannot: part by part, and no link is followed.
fn step_by_step(root: &OwnedFd, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = openat(root, ".", step, Mode::empty())?;
    let (directories, last) = name.rsplit_once('/').unwrap_or(("", name));
    for part in directories.split('/').filter(|part| !part.is_empty()) {
        if part == ".." {
            return Err(Errno::XDEV);
        }
        at = openat(&at, part, step, Mode::empty())?;
    }
    if last == ".." {
        return Err(Errno::XDEV);
    }
    openat(&at, last, flags | OFlags::NOFOLLOW, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Advice, fadvise};
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// What is found by waiting, and what without: the same, where the kernel can be asked.
    fn found(root: &Path, name: &str, is_directory: bool) -> Looked {
        let look = |way| look(root, name, "index.html", is_directory, way);
        let waited = look(Way::Waiting).expect("an answer");
        let cached = Cached::default();
        cached.learn(root.metadata().expect("a root").dev(), 0);
        let at_once = look(Way::Cached(&cached));
        if !cached.knows() {
            eprintln!("SKIPPED: this kernel cannot be asked for what it has in memory");
            return waited;
        }
        match (&waited, at_once) {
            (Looked::File(one), Ok(Looked::File(other))) => {
                assert_eq!(one.about.length, other.about.length, "{name}");
                assert_eq!(one.about.modified, other.about.modified, "{name}");
                assert_eq!(one.about.device, other.about.device, "{name}");
                assert!(other.whole.is_none(), "{name}: nobody reads what may not be wanted");
            }
            (Looked::Directory, Ok(Looked::Directory)) | (Looked::Missing, Ok(Looked::Missing)) => {
            }
            // What cannot be decided without waiting is, by the other way.
            (Looked::Missing, Err(error)) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{name}");
            }
            (waited, at_once) => panic!("{name}: {waited:?}, but {at_once:?}"),
        }
        // What is on a device that nobody knows is not even looked at.
        let stranger = look(Way::Cached(&Cached::default()));
        assert!(!matches!(stranger, Ok(Looked::File(_) | Looked::Directory)), "{name}");
        waited
    }

    #[test]
    fn nothing_outside_is_opened() {
        let outside = tempfile::tempdir().expect("a directory");
        let root = outside.path().join("root");
        std::fs::create_dir_all(root.join("sub")).expect("a directory");
        std::fs::write(outside.path().join("secret"), "secret").expect("a file");
        std::fs::write(root.join("page"), "page").expect("a file");
        std::fs::write(root.join("sub/index.html"), "sub").expect("a file");
        symlink("../secret", root.join("away")).expect("a link");
        symlink(outside.path().join("secret"), root.join("far")).expect("a link");
        symlink("../..", root.join("sub/up")).expect("a link");
        symlink("page", root.join("near")).expect("a link");
        symlink("round", root.join("round")).expect("a link");
        symlink("/proc/self/exe", root.join("magic")).expect("a link");
        let shown = |name: &str, is_directory| match found(&root, name, is_directory) {
            Looked::File(opened) => opened.whole.map(|whole| whole.to_vec()),
            _ => None,
        };
        for name in [
            "../secret",
            "away",
            "far",
            "sub/up/secret",
            "sub/../../secret",
            "/etc/passwd",
            "round",
            "magic",
            "page/x",
        ] {
            assert_eq!(shown(name, false), None, "{name}");
            assert_eq!(shown(name, true), None, "{name}/");
        }
        for name in ["..", "../root", "sub/up", "sub/up/root", "sub/../.."] {
            assert!(matches!(found(&root, name, false), Looked::Missing), "{name}");
            assert!(matches!(found(&root, name, true), Looked::Missing), "{name}/");
        }
        assert_eq!(shown("page", false).as_deref(), Some(&b"page"[..]));
        assert_eq!(shown("page", true), None, "no directory");
        assert_eq!(
            shown("near", false).as_deref(),
            Some(&b"page"[..]),
            "links within are followed"
        );
        assert_eq!(shown("sub", true).as_deref(), Some(&b"sub"[..]));
        assert!(matches!(found(&root, "sub", false), Looked::Directory));
        assert!(matches!(found(&root, "", false), Looked::Missing), "it has no index");
        assert!(matches!(found(&root, "", true), Looked::Missing), "it has no index");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(CWD, &root, flags, Mode::empty()).expect("open");
        for name in ["../secret", "away", "far", "near", "sub/up/secret", "sub/../page", ".."] {
            assert!(step_by_step(&fd, name, OFlags::RDONLY).is_err(), "{name}");
        }
        assert!(step_by_step(&fd, "page", OFlags::RDONLY).is_ok());
    }

    #[test]
    fn only_files_are_shown() {
        let root = tempfile::tempdir().expect("a directory");
        rustix::fs::mknodat(
            CWD,
            root.path().join("pipe"),
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .expect("a pipe");
        std::os::unix::net::UnixListener::bind(root.path().join("socket")).expect("a socket");
        std::fs::create_dir_all(root.path().join("empty/index.html")).expect("a directory");
        // A pipe's writer finds a reader, or none: nobody opens it because a visitor names it.
        let pipe = root.path().join("pipe");
        found(root.path(), "pipe", false);
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let writer = openat(CWD, &pipe, flags, Mode::empty());
        assert_eq!(writer.map(|_| ()), Err(Errno::NXIO), "nobody reads");
        for name in ["pipe", "socket", "empty", "none", &"x".repeat(300)] {
            for is_directory in [false, true] {
                let looked = found(root.path(), name, is_directory);
                assert!(matches!(looked, Looked::Missing), "{name}");
            }
        }
    }

    #[test]
    fn what_is_renamed_meanwhile_is_one_or_the_other() {
        let outside = tempfile::tempdir().expect("a directory");
        let root = outside.path().join("root");
        std::fs::create_dir_all(root.join("one/two")).expect("a directory");
        std::fs::write(outside.path().join("page"), "secret").expect("a file");
        std::fs::write(root.join("one/page"), "page").expect("a file");
        let cached = Cached::default();
        cached.learn(root.metadata().expect("a root").dev(), 0);
        // `one/two/../page` is within, until `two` is moved and its `..` is outside.
        let (from, to) = (root.join("one/two"), outside.path().join("two"));
        let is_over = AtomicBool::new(false);
        let mut shown = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    std::fs::rename(&from, &to).expect("moved");
                    std::fs::rename(&to, &from).expect("moved back");
                }
            });
            for turn in 0..2_000 {
                let way = if turn % 2 == 0 { Way::Cached(&cached) } else { Way::Waiting };
                let looked = look(&root, "one/two/../page", "index.html", false, way);
                if let Ok(Looked::File(opened)) = looked {
                    let said = match opened.whole {
                        Some(whole) => whole.to_vec(),
                        None => io::read_to_string(opened.file).unwrap_or_default().into_bytes(),
                    };
                    shown.push(said);
                }
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert!(shown.iter().all(|said| said == b"page"), "what lies outside");
    }

    #[test]
    fn a_file_of_another_machine_is_waited_for() {
        let root = Path::new("/proc/self");
        let cached = Cached::default();
        let asked = look(root, "status", "index.html", false, Way::Waiting).expect("an answer");
        let Looked::File(opened) = asked else { panic!("no file") };
        assert_eq!(opened.local, None, "it is nobody's disk");
        let asked = look(root, "status", "index.html", false, Way::Cached(&cached));
        assert!(asked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
        // What is not cached is not waited for either; it is found by waiting.
        let root = tempfile::tempdir().expect("a directory");
        std::fs::write(root.path().join("page"), "page").expect("a file");
        let file = File::open(root.path().join("page")).expect("a file");
        file.sync_all().expect("written");
        fadvise(&file, 0, None, Advice::DontNeed).expect("forgotten");
        assert!(matches!(found(root.path(), "page", false), Looked::File(_)));
    }
}
