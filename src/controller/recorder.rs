//! Writes down what a rollout is judged by, a line per poll, so that it can be judged again.
//!
//! `recordings/SERVICE/ROLLOUT.jsonl` in the state directory; the format is that of
//! [`crate::analysis::replay`]. A rollout never waits for it and is never the worse for it: lines go
//! through a bounded channel to a task of their own, and where they cannot be written (a full disk, one
//! that is too slow) the recording ends and says so. A file with a hole would be judged differently.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::analysis::replay::{Ending, Opening, Record};
use crate::model::moment::Moment;
use crate::model::weight::Weight;

/// Lines that may wait for the disk: ten seconds of polls, ten times over.
const QUEUE: usize = 1_000;
/// The most that one recording takes: about an hour at 1,000 requests a second, days at a few.
const MOST_BYTES: u64 = 64 << 20;
/// Recordings that are kept of a service; the oldest goes first.
const KEPT: usize = 20;

/// A recording under way.
#[derive(Debug)]
pub struct Recorder {
    lines: mpsc::Sender<String>,
    trouble: Arc<Mutex<Option<String>>>,
    /// Milliseconds that make a moment of this process a time since the Unix epoch: moments of two
    /// processes do not compare.
    base: u64,
    /// What the next record says of the step that it begins.
    begins: Option<(Moment, bool, Weight)>,
}

impl Recorder {
    /// Begins a recording in a service's directory, or goes on with it after a restart.
    #[must_use]
    pub fn begin(
        tasks: &TaskTracker,
        dir: PathBuf,
        opening: &Opening,
        resumed: bool,
        base: u64,
    ) -> Self {
        let (lines, waiting) = mpsc::channel(QUEUE);
        let trouble = Arc::<Mutex<Option<String>>>::default();
        let told = Arc::clone(&trouble);
        let (number, first) = (opening.rollout, line(opening));
        tasks.spawn(async move {
            if let Err(error) = write(dir, number, first, resumed, waiting).await {
                *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
            }
        });
        Self { lines, trouble, base, begins: None }
    }

    /// A step begins with the next record, or the daemon goes on at one.
    pub fn begin_epoch(&mut self, now: Moment, resumed: bool, compared: Weight) {
        self.begins = Some((now, resumed, compared));
    }

    /// Writes a record, whose moment is one of this process.
    pub fn record(&mut self, record: &Record) {
        let mut record = Record { at: self.base + record.at, ..record.clone() };
        if let Some((began, resumed, compared)) = self.begins.take() {
            record.began = Some(self.base + began.0);
            record.resumed = resumed;
            record.compared = (compared != record.weight.complement()).then_some(compared);
        }
        self.write(line(&record));
    }

    /// Writes the last line.
    pub fn end(self, ending: &Ending) {
        self.write(line(ending));
    }

    fn write(&self, line: String) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.lines.try_send(line) {
            let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
            trouble.get_or_insert_with(|| "the disk is too slow for it".to_owned());
        }
    }

    /// Why nothing is written any more.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn line(entry: &impl serde::Serialize) -> String {
    // Numbers and words: there is nothing in it that JSON could not say.
    let mut line = serde_json::to_string(entry).unwrap_or_default();
    line.push('\n');
    line
}

async fn write(
    dir: PathBuf,
    rollout: u64,
    first: String,
    resumed: bool,
    mut lines: mpsc::Receiver<String>,
) -> std::io::Result<()> {
    tokio::fs::create_dir_all(&dir).await?;
    retain(&dir).await?;
    let file = dir.join(format!("{rollout}.jsonl"));
    let exists = resumed && tokio::fs::try_exists(&file).await?;
    let mut options = tokio::fs::OpenOptions::new();
    options.create(true).append(exists).write(true).truncate(!exists);
    let mut file = options.open(file).await?;
    let mut written = file.metadata().await?.len();
    if exists {
        // The former process may have ended within a line.
        file.write_all(b"\n").await?;
    } else {
        file.write_all(first.as_bytes()).await?;
    }
    let mut batch = Vec::new();
    while lines.recv_many(&mut batch, QUEUE).await > 0 {
        let bytes = batch.concat();
        batch.clear();
        written += bytes.len() as u64;
        if written > MOST_BYTES {
            return Err(std::io::Error::other(format!(
                "the recording has {} MiB, which is the most",
                MOST_BYTES >> 20
            )));
        }
        file.write_all(bytes.as_bytes()).await?;
        file.flush().await?;
    }
    Ok(())
}

/// Removes the oldest recordings, so that there is room for one more.
async fn retain(dir: &std::path::Path) -> std::io::Result<()> {
    let mut entries = tokio::fs::read_dir(dir).await?;
    let mut numbers = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".jsonl"));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    let surplus = (numbers.len() + 1).saturating_sub(KEPT);
    for number in &numbers[..surplus] {
        tokio::fs::remove_file(dir.join(format!("{number}.jsonl"))).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::criteria::Criteria;
    use crate::analysis::replay::{Counts, Entry, VERSION};

    fn opening(rollout: u64) -> Opening {
        Opening {
            recording: VERSION,
            service: "web".to_owned(),
            rollout,
            criteria: Criteria::default(),
            attempt: 0,
            history: Counts::new(),
        }
    }

    fn record(at: u64) -> Record {
        Record {
            at,
            epoch: 1,
            began: None,
            resumed: false,
            weight: Weight::from_percent(5.0).unwrap_or_default(),
            compared: None,
            stable: Counts::new(),
            canary: Counts::new(),
            instances: Vec::new(),
            clients: None,
        }
    }

    async fn settled(tasks: TaskTracker) {
        tasks.close();
        tasks.wait().await;
    }

    #[tokio::test]
    async fn what_is_recorded_can_be_read_also_after_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        for resumed in [false, true] {
            let tasks = TaskTracker::new();
            let mut recorder =
                Recorder::begin(&tasks, dir.path().join("web"), &opening(3), resumed, 1_000);
            recorder.begin_epoch(Moment(5), resumed, Weight::from_percent(20.0).expect("a weight"));
            recorder.record(&record(10));
            recorder.record(&record(110));
            if resumed {
                recorder.end(&Ending { ended: "promoted".to_owned(), sentence: None });
            } else {
                drop(recorder);
            }
            settled(tasks).await;
        }
        let text = std::fs::read_to_string(dir.path().join("web/3.jsonl")).expect("a file");
        let lines = text.lines().filter(|line| !line.is_empty());
        let entries: Vec<Entry> =
            lines.map(|line| serde_json::from_str(line).expect("an entry")).collect();
        assert_eq!(entries.len(), 6, "{text}");
        assert!(matches!(&entries[0], Entry::Opening(opening) if opening.rollout == 3));
        let records: Vec<&Record> = entries
            .iter()
            .filter_map(|entry| match entry {
                Entry::Record(record) => Some(record),
                _ => None,
            })
            .collect();
        assert_eq!(
            (records[0].at, records[0].began, records[0].resumed),
            (1_010, Some(1_005), false)
        );
        assert!(records[0].compared.is_some());
        assert_eq!((records[1].began, records[2].resumed), (None, true));
    }

    #[tokio::test]
    async fn only_the_newest_are_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        for rollout in 1..=30 {
            let tasks = TaskTracker::new();
            drop(Recorder::begin(&tasks, dir.path().into(), &opening(rollout), false, 0));
            settled(tasks).await;
        }
        let mut kept: Vec<u64> = std::fs::read_dir(dir.path())
            .expect("a directory")
            .filter_map(|entry| entry.ok()?.path().file_stem()?.to_str()?.parse().ok())
            .collect();
        kept.sort_unstable();
        assert_eq!(kept, (11..=30).collect::<Vec<u64>>());
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_said_and_hurts_nobody() {
        let dir = tempfile::tempdir().expect("a directory");
        let tasks = TaskTracker::new();
        std::fs::write(dir.path().join("web"), "no directory").expect("a file");
        let mut recorder = Recorder::begin(&tasks, dir.path().join("web"), &opening(1), false, 0);
        settled(tasks).await;
        recorder.record(&record(10));
        assert!(recorder.trouble().is_some());
    }
}
