//! The audit log: what was done, by whom, from where, and what came of it. Lines of JSON that are
//! only ever added; a file for each month, so that what is too old goes with its file.
//!
//! An entry is written after the deed and is on the disk when [`Audit::write`] returns. A disk that
//! does not take it holds nothing up: that is counted and told.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::metrics;

/// Something that was done.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// When, RFC 3339 with milliseconds.
    pub at: String,
    /// What: a verb.
    pub verb: String,
    /// To which service; absent when to all or none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Who, as the kernel or the proof that was shown knows them.
    pub who: String,
    /// Who, as they say themselves: user and host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub says: Option<String>,
    /// From where: the socket with the process, an address, a link, a signal.
    pub from: String,
    /// `done`, `refused`, `failed`; for the end of a rollout how it ended.
    pub outcome: String,
    /// Why, or what came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The rollout that it began or belonged to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<u64>,
    /// The revision that it was about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<u32>,
    /// The image, command or addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The digest of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The commit that it was built from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// What else was asked for, without secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<serde_json::Value>,
}

/// Which entries are wanted.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Of this service.
    pub service: Option<String>,
    /// With this verb.
    pub verb: Option<String>,
    /// By somebody whose name holds this.
    pub who: Option<String>,
    /// Not before this moment.
    pub since: Option<jiff::Timestamp>,
    /// At most so many, the newest.
    pub limit: usize,
}

impl Query {
    fn takes(&self, entry: &Entry) -> bool {
        let same = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| Some(wanted) == found)
        };
        let named = self.who.as_deref().is_none_or(|who| {
            let says = entry.says.as_deref().unwrap_or_default();
            entry.who.contains(who) || says.contains(who)
        });
        let late = self
            .since
            .is_none_or(|since| entry.at.parse::<jiff::Timestamp>().is_ok_and(|at| at >= since));
        same(&self.service, entry.service.as_deref())
            && same(&self.verb, Some(&entry.verb))
            && named
            && late
    }
}

/// The log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit {
    dir: PathBuf,
    keep: Duration,
    trouble: Arc<Mutex<Option<String>>>,
}

impl Audit {
    /// A log in this directory that goes back so far.
    #[must_use]
    pub fn new(dir: PathBuf, keep: Duration) -> Self {
        Self { dir, keep, trouble: Arc::default() }
    }

    /// Writes an entry, stamped with this moment. What fails is told and counted.
    ///
    /// Cancel safety: dropping it does not keep the entry from being written.
    pub async fn write(&self, mut entry: Entry) {
        let now = jiff::Timestamp::now();
        entry.at = format!("{now:.3}");
        let log = self.clone();
        let written = tokio::task::spawn_blocking(move || log.append(&entry, now)).await;
        let result = written.unwrap_or_else(|error| Err(io::Error::other(error)));
        let said = result.err().map(|error| {
            format!("the audit log in {} cannot be written: {error}", self.dir.display())
        });
        metrics::count(
            &metrics::AUDITED,
            &[("result", if said.is_none() { "written" } else { "lost" })],
        );
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(said) = said.as_ref().filter(|said| trouble.as_ref() != Some(*said)) {
            tracing::error!("{said}");
        }
        *trouble = said;
    }

    /// Why the last entry was not written.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes that are free where the log, and the state beside it, lie.
    #[must_use]
    pub fn free(&self) -> Option<u64> {
        let at = [Some(self.dir.as_path()), self.dir.parent()].into_iter().flatten();
        let found = at.filter_map(|dir| rustix::fs::statvfs(dir).ok()).next()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn append(&self, entry: &Entry, now: jiff::Timestamp) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let path = self.dir.join(format!("{}.jsonl", month(now)));
        let is_new = !path.exists();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        // One write: a line is whole or not there, also with two processes during a handover.
        file.write_all(&line)?;
        file.sync_data()?;
        if is_new {
            File::open(&self.dir)?.sync_all()?;
            self.forget(now)?;
        }
        Ok(())
    }

    /// Removes the months that lie wholly before what is kept.
    fn forget(&self, now: jiff::Timestamp) -> io::Result<()> {
        let keep = jiff::SignedDuration::try_from(self.keep).unwrap_or(jiff::SignedDuration::MAX);
        let Ok(first) = now.checked_sub(keep) else { return Ok(()) };
        let first = month(first);
        for path in self.files()? {
            let is_old =
                path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|m| *m < *first);
            if is_old {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// The files, oldest first.
    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut files: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|ext| ext == "jsonl"))
            .collect();
        files.sort();
        Ok(files)
    }

    /// Entries that a query takes, oldest first. A line that was cut by a full disk is passed over.
    pub fn read(&self, query: &Query) -> io::Result<Vec<Entry>> {
        let mut newest: Vec<Vec<Entry>> = Vec::new();
        let mut count = 0;
        for path in self.files()?.into_iter().rev() {
            if count >= query.limit {
                break;
            }
            let mut found = Vec::new();
            for line in BufReader::new(File::open(path)?).lines() {
                if let Ok(entry) = serde_json::from_str::<Entry>(&line?)
                    && query.takes(&entry)
                {
                    found.push(entry);
                }
            }
            count += found.len();
            newest.push(found);
        }
        let mut all: Vec<Entry> = newest.into_iter().rev().flatten().collect();
        all.drain(..all.len().saturating_sub(query.limit));
        Ok(all)
    }
}

fn month(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(verb: &str, service: &str, who: &str) -> Entry {
        Entry {
            verb: verb.to_owned(),
            service: Some(service.to_owned()),
            who: who.to_owned(),
            from: "here".to_owned(),
            outcome: "done".to_owned(),
            ..Entry::default()
        }
    }

    #[tokio::test]
    async fn entries_are_added_and_found_again() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let log = Audit::new(dir.path().join("audit"), Duration::from_secs(86_400));
        log.write(entry("deploy", "web", "ann")).await;
        log.write(entry("abort", "web", "bob")).await;
        log.write(entry("deploy", "api", "ann")).await;
        let all = log.read(&Query { limit: 10, ..Query::default() }).unwrap();
        let verbs: Vec<&str> = all.iter().map(|one| one.verb.as_str()).collect();
        assert_eq!(verbs, ["deploy", "abort", "deploy"]);
        let of = |query: Query| log.read(&Query { limit: 10, ..query }).unwrap().len();
        assert_eq!(of(Query { service: Some("web".to_owned()), ..Query::default() }), 2);
        assert_eq!(of(Query { verb: Some("deploy".to_owned()), ..Query::default() }), 2);
        assert_eq!(of(Query { who: Some("bo".to_owned()), ..Query::default() }), 1);
        let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
        assert_eq!(of(Query { since: Some(soon), ..Query::default() }), 0);
        let last = log.read(&Query { limit: 1, ..Query::default() }).unwrap();
        assert_eq!(last[0].service.as_deref(), Some("api"));
        let file = log.files().unwrap().remove(0);
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn old_months_go_and_a_cut_line_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let log = Audit::new(dir.path().to_owned(), Duration::from_secs(62 * 86_400));
        fs::write(dir.path().join("2001-01.jsonl"), "{\"verb\":\"old\"}\n").unwrap();
        log.write(entry("deploy", "web", "ann")).await;
        assert!(!dir.path().join("2001-01.jsonl").exists(), "forgotten");
        let file = log.files().unwrap().remove(0);
        let mut cut = OpenOptions::new().append(true).open(file).unwrap();
        cut.write_all(b"{\"verb\":\"dep\n").unwrap();
        log.write(entry("abort", "web", "ann")).await;
        assert_eq!(log.read(&Query { limit: 10, ..Query::default() }).unwrap().len(), 2);
        assert_eq!(log.trouble(), None);
    }

    #[tokio::test]
    async fn a_disk_that_refuses_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let log = Audit::new(file.path().join("audit"), Duration::from_secs(86_400));
        log.write(entry("deploy", "web", "ann")).await;
        assert!(log.trouble().unwrap().contains("cannot be written"));
    }
}
