//! What is sent to the builder: a directory as a tar, without what `.dockerignore` leaves out.
//!
//! The same files make the same tar: sorted, without owners and times, so that its sum tells whether
//! anything differs. `.git` is left out, which would make every commit differ.

use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use aws_lc_rs::digest::{Context as Hash, SHA256};
use globset::{GlobBuilder, GlobMatcher};

use crate::cli::exit::Exit;
use crate::cli::trouble::Trouble;

/// A tar to build from.
#[derive(Debug)]
pub(super) struct Context {
    /// Read from its beginning; without a name.
    pub(super) file: File,
    /// Its SHA-256, in hexadecimal.
    pub(super) sha256: String,
}

impl Context {
    /// Reads the directory `below` the source at `root`.
    pub(super) fn of(root: &Path, below: &str, dockerfile: &str) -> Result<Self, Trouble> {
        let dir = &root.join(below);
        let wrong = |sentence: String| Trouble::new(Exit::Error, sentence);
        if !dir.is_dir() {
            return Err(wrong(format!(
                "the source has no directory {below:?}: `build.context` names one, seen from its root"
            )));
        }
        if !dir.join(dockerfile).is_file() {
            return Err(wrong(format!(
                "there is no {dockerfile} in {below:?} of the source: write one, or name it with \
                 `build.dockerfile`"
            )));
        }
        let ignored = fs::read_to_string(dir.join(".dockerignore")).unwrap_or_default();
        let rules = Rules::parse(&ignored, dockerfile).map_err(wrong)?;
        pack(dir, &rules).map_err(|error| wrong(format!("cannot read {}: {error}", dir.display())))
    }
}

fn pack(dir: &Path, rules: &Rules) -> io::Result<Context> {
    let path = std::env::temp_dir().join(format!(
        "switchback-context-{}-{:016x}",
        std::process::id(),
        fastrand::u64(..)
    ));
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    // Its room is given back whatever happens to this process.
    fs::remove_file(&path)?;
    let mut tar = tar::Builder::new(Summed { file, hash: Hash::new(&SHA256) });
    add(&mut tar, dir, Path::new(""), rules)?;
    let Summed { mut file, hash } = tar.into_inner()?;
    file.rewind()?;
    let sha256 = hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Context { file, sha256 })
}

fn add(tar: &mut tar::Builder<Summed>, root: &Path, below: &Path, rules: &Rules) -> io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(root.join(below))?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = below.join(entry.file_name());
        let kind = entry.file_type()?;
        let keeps = rules.keeps(&path);
        let mut header = tar::Header::new_gnu();
        header.set_mtime(0);
        header.set_mode(entry.metadata()?.permissions().mode() & 0o777);
        if kind.is_dir() {
            if keeps {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_size(0);
                tar.append_data(&mut header, &path, io::empty())?;
            }
            // A later rule may keep something below what is left out.
            if keeps || rules.has_exceptions {
                add(tar, root, &path, rules)?;
            }
        } else if !keeps {
        } else if kind.is_symlink() {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, &path, fs::read_link(entry.path())?)?;
        } else if kind.is_file() {
            let file = File::open(entry.path())?;
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(file.metadata()?.len());
            tar.append_data(&mut header, &path, file)?;
        }
        // Sockets, pipes and devices are no source.
    }
    Ok(())
}

/// A file whose bytes are summed as they are written.
struct Summed {
    file: File,
    hash: Hash,
}

impl Write for Summed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The rules of a `.dockerignore`: the last that matches decides
/// (docs.docker.com, "Build context", section ".dockerignore files").
#[derive(Debug)]
struct Rules {
    rules: Vec<(GlobMatcher, bool)>,
    has_exceptions: bool,
}

impl Rules {
    fn parse(text: &str, dockerfile: &str) -> Result<Self, String> {
        let mut rules = Vec::new();
        let mut has_exceptions = false;
        let mut add = |pattern: &str, keeps: bool| -> Result<(), String> {
            let glob = GlobBuilder::new(pattern).literal_separator(true).build();
            let glob = glob.map_err(|error| {
                format!(".dockerignore: {pattern:?} is not a pattern: {}", error.kind())
            })?;
            rules.push((glob.compile_matcher(), keeps));
            Ok(())
        };
        add(".git", false)?;
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (pattern, keeps) = match line.strip_prefix('!') {
                Some(pattern) => (pattern.trim(), true),
                None => (line, false),
            };
            let pattern = pattern.trim_start_matches("./").trim_matches('/');
            if pattern.is_empty() || pattern == "." {
                continue;
            }
            has_exceptions |= keeps;
            add(pattern, keeps)?;
        }
        // What the builder itself needs is always sent.
        add(&globset::escape(dockerfile.trim_start_matches("./")), true)?;
        add(".dockerignore", true)?;
        Ok(Self { rules, has_exceptions })
    }

    /// Whether a path is sent. A rule that matches a directory goes for what is below it.
    fn keeps(&self, path: &Path) -> bool {
        let mut keeps = true;
        for (glob, rule) in &self.rules {
            let hits =
                path.ancestors().any(|part| !part.as_os_str().is_empty() && glob.is_match(part));
            if hits {
                keeps = *rule;
            }
        }
        keeps
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::source::put;

    fn listed(context: Context) -> Vec<String> {
        let mut archive = tar::Archive::new(context.file);
        let entries = archive.entries().expect("a tar");
        entries
            .map(|e| e.expect("an entry").path().expect("a path").display().to_string())
            .collect()
    }

    #[test]
    fn what_is_ignored_stays_and_the_rest_is_sent_in_order() {
        let dir = tempfile::tempdir().expect("a directory");
        put(
            dir.path(),
            &[
                ("Dockerfile", "FROM scratch"),
                (".dockerignore", "# built\ntarget\n*.log\n!keep.log\nDockerfile\ndocs/**/*.md\n"),
                (".git/HEAD", "x"),
                ("target/debug/app", "x"),
                ("a.log", "x"),
                ("keep.log", "x"),
                ("docs/a/b.md", "x"),
                ("docs/a/b.txt", "x"),
                ("src/main.rs", "x"),
            ],
        );
        let first = Context::of(dir.path(), ".", "Dockerfile").expect("a context");
        let sum = first.sha256.clone();
        let expected = [
            ".dockerignore",
            "Dockerfile",
            "docs",
            "docs/a",
            "docs/a/b.txt",
            "keep.log",
            "src",
            "src/main.rs",
        ];
        assert_eq!(listed(first), expected);
        // The same files, touched: the same sum. Another byte: another.
        put(dir.path(), &[("src/main.rs", "x"), ("a.log", "y")]);
        assert_eq!(Context::of(dir.path(), ".", "Dockerfile").expect("a context").sha256, sum);
        put(dir.path(), &[("src/main.rs", "z")]);
        assert_ne!(Context::of(dir.path(), ".", "Dockerfile").expect("a context").sha256, sum);
        let trouble = Context::of(dir.path(), ".", "Other").expect_err("no such file");
        assert!(trouble.sentence.starts_with("there is no Other in "), "{}", trouble.sentence);
    }
}
