//! Opens what is below a directory, and nothing else. These calls block.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use bytes::Bytes;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

/// Bytes up to which a file is read at once.
pub const SMALL: u64 = 64 * 1024;

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
    pub about: Metadata,
    /// All of it, if it is small.
    pub whole: Option<Bytes>,
}

/// Looks for a name below `root`; `index` is what stands for a directory.
pub fn look(root: &Path, name: &str, index: &str, is_directory: bool) -> io::Result<Looked> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, root, flags, Mode::empty())?;
    let named = if name.is_empty() { "." } else { name };
    let about = match about(&root, named) {
        Ok(about) => about,
        Err(error) => return missing(error),
    };
    if about.is_file() {
        // `/page.html/` is no other name of `/page.html`.
        return if is_directory { Ok(Looked::Missing) } else { opened(&root, named) };
    }
    if !about.is_dir() {
        return Ok(Looked::Missing);
    }
    let index = if name.is_empty() { index.to_owned() } else { format!("{name}/{index}") };
    match self::about(&root, &index) {
        Ok(about) if !about.is_file() => Ok(Looked::Missing),
        Ok(_) if is_directory => opened(&root, &index),
        // Links in it are relative to it.
        Ok(_) => Ok(Looked::Directory),
        Err(error) => missing(error),
    }
}

/// What is there, without opening it: to open a pipe or a device is to do something to it, and a pipe's
/// writer may end of it.
fn about(root: &OwnedFd, name: &str) -> Result<Metadata, Errno> {
    let found = File::from(below(root, name, OFlags::PATH)?);
    found.metadata().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

fn opened(root: &OwnedFd, name: &str) -> io::Result<Looked> {
    let mut file = match below(root, name, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
        Ok(found) => File::from(found),
        Err(error) => return missing(error),
    };
    let about = file.metadata()?;
    if !about.is_file() {
        // It was another one a moment ago.
        return Ok(Looked::Missing);
    }
    let mut whole = None;
    if about.len() <= SMALL {
        let mut bytes = Vec::with_capacity(about.len() as usize);
        (&mut file).take(about.len()).read_to_end(&mut bytes)?;
        // Changed meanwhile, it is read as it says that it is, or broken off.
        whole = (bytes.len() as u64 == about.len()).then(|| bytes.into());
    }
    Ok(Looked::File(Box::new(Opened { file, about, whole })))
}

/// What is not there, or lies elsewhere, is missing; the rest is an error.
fn missing(error: Errno) -> io::Result<Looked> {
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NAMETOOLONG => {
            Ok(Looked::Missing)
        }
        // A socket, or a device without a driver.
        Errno::NXIO | Errno::NODEV | Errno::INVAL => Ok(Looked::Missing),
        error => Err(error.into()),
    }
}

/// Opens what is below a directory. A pipe does not hold it up.
fn below(root: &OwnedFd, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    loop {
        match openat2(root, name, flags, Mode::empty(), within) {
            // Something was renamed meanwhile, and the kernel is not sure.
            Err(Errno::AGAIN) => {}
            // Linux before 5.6, or a sandbox that does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => return step_by_step(root, name, flags),
            other => return other,
        }
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
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_outside_is_opened() {
        let outside = tempfile::tempdir().expect("a directory");
        let root = outside.path().join("root");
        std::fs::create_dir_all(root.join("sub")).expect("a directory");
        std::fs::write(outside.path().join("secret"), "secret").expect("a file");
        std::fs::write(root.join("page"), "page").expect("a file");
        symlink("../secret", root.join("away")).expect("a link");
        symlink(outside.path().join("secret"), root.join("far")).expect("a link");
        symlink("../..", root.join("sub/up")).expect("a link");
        symlink("page", root.join("near")).expect("a link");
        let shown = |name: &str| match look(&root, name, "index.html", false) {
            Ok(Looked::File(opened)) => opened.whole.map(|whole| whole.to_vec()),
            _ => None,
        };
        for name in ["../secret", "away", "far", "sub/up/secret", "sub/../../secret", "/etc/passwd"]
        {
            assert_eq!(shown(name), None, "{name}");
        }
        assert_eq!(shown("page").as_deref(), Some(&b"page"[..]));
        assert_eq!(shown("near").as_deref(), Some(&b"page"[..]), "links within are followed");
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
        std::fs::create_dir(root.path().join("empty")).expect("a directory");
        // A pipe's writer finds a reader, or none: nobody opens it because a visitor names it.
        let pipe = root.path().join("pipe");
        look(root.path(), "pipe", "index.html", false).expect("an answer");
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let writer = openat(CWD, &pipe, flags, Mode::empty());
        assert_eq!(writer.map(|_| ()), Err(Errno::NXIO), "nobody reads");
        for name in ["pipe", "socket", "empty", "none", &"x".repeat(300)] {
            let looked = look(root.path(), name, "index.html", false).expect("an answer");
            assert!(matches!(looked, Looked::Missing), "{name}");
        }
    }
}
