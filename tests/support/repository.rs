//! A git repository of a story.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An app that needs no base image; `busybox` and `www` stand beside it.
pub const DOCKERFILE: &str = "FROM scratch\n\
    COPY busybox /bin/busybox\n\
    RUN [\"/bin/busybox\", \"--install\", \"/bin\"]\n\
    COPY www /www\n\
    CMD [\"httpd\", \"-f\", \"-p\", \"3000\", \"-h\", \"/www\"]\n";

/// A repository; goes with its directory.
#[derive(Debug)]
pub struct Repository {
    dir: tempfile::TempDir,
}

impl Repository {
    /// An empty one with the branch `main`; none where there is no git, or nothing to make an app of.
    pub fn begin() -> Option<Self> {
        if super::client("git").is_none() || !Path::new("/bin/busybox").exists() {
            return None;
        }
        let this = Self { dir: tempfile::tempdir().unwrap() };
        this.git(&["init", "-q", "-b", "main"]);
        this.git(&["config", "user.email", "a@example.com"]);
        this.git(&["config", "user.name", "A"]);
        Some(this)
    }

    /// Puts an app with these pages into a directory of it.
    pub fn app(&self, dir: &str, pages: &[(&str, &str)]) {
        let within = |name: &str| match dir {
            "" => name.to_owned(),
            dir => format!("{dir}/{name}"),
        };
        self.put(&within("Dockerfile"), DOCKERFILE);
        for (name, text) in pages {
            self.put(&within(&format!("www/{name}")), text);
        }
        fs::copy("/bin/busybox", self.path().join(within("busybox"))).unwrap();
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    pub fn text(&self) -> String {
        self.path().display().to_string()
    }

    pub fn git(&self, words: &[&str]) -> String {
        let output = Command::new("git").arg("-C").arg(self.dir.path()).args(words).output();
        let output = output.unwrap();
        assert!(output.status.success(), "git {words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub fn put(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Puts a program.
    pub fn put_program(&self, name: &str, text: &str) {
        self.put(name, text);
        let path = self.path().join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A", "."]);
        self.git(&["commit", "-q", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }
}
