//! A source, looked at with the `git` of this machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cli::exit::Exit;
use crate::cli::trouble::Trouble;
use crate::model::revision::Origin;

/// Branches that are named when one does not exist.
const NAMED: usize = 10;

/// Files to build from, and where they come from.
#[derive(Debug)]
pub(super) struct Tree {
    /// The directory.
    pub(super) root: PathBuf,
    /// Where it comes from.
    pub(super) origin: Origin,
    /// Whether the work tree that it was taken from has what no commit has.
    pub(super) leaves_out: bool,
    /// The repository's own directory, if it is one.
    repository: Option<PathBuf>,
    /// A directory of ours, that goes with this.
    _own: Option<Own>,
}

/// A directory that is removed in the end.
#[derive(Debug)]
struct Own(PathBuf);

impl Own {
    fn new() -> Result<Self, Trouble> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (pid, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(format!("switchback-source-{pid}-{count}"));
        let mut made = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut made, 0o700);
        made.create(&path)
            .map_err(|error| wrong(format!("cannot make {}: {error}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // What cannot be removed is in the directory for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Tree {
    /// Files that differ from those of a commit; none when the commit is not there.
    pub(super) fn changed_since(&self, commit: &str) -> Option<Vec<String>> {
        let repository = self.repository.as_ref()?;
        let mut files = names(&run(repository, &["diff", "--name-only", "-z", commit, "--"]).ok()?);
        let untracked = ["ls-files", "--others", "--exclude-standard", "-z"];
        files.extend(names(&run(repository, &untracked).unwrap_or_default()));
        Some(files)
    }
}

fn names(listed: &str) -> Vec<String> {
    listed.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// A directory as it is, with what is not committed.
pub(super) fn work_tree(dir: &Path) -> Result<Tree, Trouble> {
    let root = dir.canonicalize();
    let root = root.map_err(|error| wrong(format!("cannot read {}: {error}", dir.display())))?;
    if !root.is_dir() {
        return Err(wrong(format!("{} is not a directory", dir.display())));
    }
    let Ok(top) = run(&root, &["rev-parse", "--show-toplevel"]) else {
        return Ok(Tree {
            root,
            origin: Origin::default(),
            leaves_out: false,
            repository: None,
            _own: None,
        });
    };
    let repository = PathBuf::from(top.trim_end_matches('\n'));
    let commit = run(&root, &["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]).ok();
    let branch = run(&root, &["symbolic-ref", "--quiet", "--short", "HEAD"]).ok();
    let status = run(&root, &["status", "--porcelain"])?;
    let line = |text: String| text.trim().to_owned();
    let origin = Origin {
        commit: commit.map(line),
        reference: branch.map(line),
        repository: Some(repository.display().to_string()),
        dirty: !status.trim().is_empty(),
    };
    Ok(Tree { root, origin, leaves_out: false, repository: Some(repository), _own: None })
}

/// A branch, tag or commit of a repository, in a directory of its own.
pub(super) fn checked_out(url: &str, reference: Option<&str>) -> Result<Tree, Trouble> {
    if let Some(dash) = [Some(url), reference].into_iter().flatten().find(|t| t.starts_with('-')) {
        return Err(Trouble::new(
            Exit::Usage,
            format!("{dash:?} is no repository and no reference"),
        ));
    }
    let own = Own::new()?;
    let root = own.0.join("tree");
    let to = root.display().to_string();
    run(&own.0, &["clone", "--quiet", "--no-checkout", "--", &from(url), &to])
        .map_err(|trouble| wrong(format!("cannot clone {}: {}", shown(url), trouble.sentence)))?;
    let candidates = match reference {
        None => vec!["HEAD".to_owned()],
        Some(name) => ["refs/remotes/origin/", "refs/tags/", ""]
            .iter()
            .map(|space| format!("{space}{name}"))
            .collect(),
    };
    let resolve = |name: &String| {
        let commit = format!("{name}^{{commit}}");
        run(&root, &["rev-parse", "--verify", "--quiet", &commit]).ok()
    };
    let Some(commit) = candidates.iter().find_map(resolve) else {
        let name = reference.unwrap_or("HEAD");
        let format = "--format=%(refname:lstrip=3)";
        let branches = run(&root, &["for-each-ref", format, "refs/remotes/origin"]);
        let branches: Vec<String> = branches
            .unwrap_or_default()
            .lines()
            .filter(|branch| *branch != "HEAD")
            .take(NAMED)
            .map(str::to_owned)
            .collect();
        return Err(wrong(format!(
            "there is no branch, tag or commit {name:?} in {}; its branches: {}",
            shown(url),
            branches.join(", ")
        )));
    };
    let commit = commit.trim().to_owned();
    run(&root, &["checkout", "--quiet", "--detach", &commit])?;
    let origin = Origin {
        commit: Some(commit),
        reference: reference.map(str::to_owned),
        repository: Some(shown(url)),
        dirty: false,
    };
    // One elsewhere, or without a work tree, has nothing to say here.
    let status = Path::new(url).is_dir().then(|| run(Path::new(url), &["status", "--porcelain"]));
    let leaves_out = status.and_then(Result::ok).is_some_and(|text| !text.trim().is_empty());
    Ok(Tree { repository: Some(root.clone()), root, origin, leaves_out, _own: Some(own) })
}

/// A path of this machine from the root on, because the clone is made elsewhere.
fn from(url: &str) -> String {
    let path = Path::new(url);
    let absolute = path.exists().then(|| path.canonicalize().ok()).flatten();
    absolute.map_or_else(|| url.to_owned(), |path| path.display().to_string())
}

/// A URL without the credentials that may be in it.
fn shown(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            let host = authority.rsplit('@').next().unwrap_or(authority);
            format!("{scheme}://{host}/{path}")
        }
        None => url.to_owned(),
    }
}

/// Runs git in a directory; what it prints, or what it complains of.
pub(super) fn run(dir: &Path, words: &[&str]) -> Result<String, Trouble> {
    let mut git = Command::new("git");
    git.arg("-C").arg(dir).args(words);
    // Nobody is there to type a password into the middle of a deploy.
    git.env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C");
    let output = git.output().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            wrong("there is no `git` on this machine: install it".to_owned())
        }
        _ => wrong(format!("git does not start: {error}")),
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("git failed");
    Err(wrong(last.trim().to_owned()))
}

fn wrong(sentence: String) -> Trouble {
    Trouble::new(Exit::Error, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::source::{put, repository};

    #[test]
    fn a_branch_a_tag_and_a_commit_are_checked_out() {
        let dir = repository(&[("a", "1")]);
        let commit = run(dir.path(), &["rev-parse", "HEAD"]).expect("git").trim().to_owned();
        run(dir.path(), &["tag", "v1"]).expect("git");
        run(dir.path(), &["checkout", "-q", "-b", "dev"]).expect("git");
        put(dir.path(), &[("a", "2")]);
        run(dir.path(), &["commit", "-q", "-am", "second"]).expect("git");
        let url = dir.path().display().to_string();
        let read = |reference: &str| {
            let tree = checked_out(&url, Some(reference)).expect(reference);
            let text = std::fs::read_to_string(tree.root.join("a")).expect("a file");
            (text, tree.origin.commit.clone().expect("a commit"))
        };
        for name in ["v1", "main", &commit] {
            assert_eq!(read(name), ("1".to_owned(), commit.clone()), "{name}");
        }
        assert_eq!(read("dev").0, "2");
        let trouble = checked_out(&url, Some("nowhere")).expect_err("no such branch");
        assert!(trouble.sentence.contains("there is no branch, tag or commit \"nowhere\" in"));
        assert!(trouble.sentence.ends_with("its branches: dev, main"), "{}", trouble.sentence);
        let trouble = checked_out("/not/there", None).expect_err("no such repository");
        assert!(trouble.sentence.starts_with("cannot clone /not/there: "), "{}", trouble.sentence);
        assert!(checked_out("--upload-pack=touch /tmp/x", None).is_err());
    }

    #[test]
    fn credentials_are_not_kept() {
        assert_eq!(shown("https://me:secret@example.com/a/b.git"), "https://example.com/a/b.git");
        assert_eq!(shown("git@example.com:a/b.git"), "git@example.com:a/b.git");
        assert_eq!(shown("ssh://git@example.com/a"), "ssh://example.com/a");
    }
}
