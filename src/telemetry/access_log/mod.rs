//! The access log: a line per request, written by a thread of its own.
//!
//! Workers gather lines and hand them over some at a time, through a queue of bounded length. When
//! whoever takes them falls behind, lines are dropped and counted; a worker never waits. The file is
//! rotated by a library: [`rolling_file`], because it goes on writing when it cannot rotate, and
//! survives a file that somebody else moved away.

pub mod line;

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rolling_file::{BasicRollingFileAppender, RollingConditionBasic};

use self::line::{Clock, Format, Hidden, Record};
use super::traffic::Traffic;

/// Lines are handed over when they are so many bytes, or at the next tick.
const BATCH: usize = 32 * 1024;
/// Batches that may wait for the thread: 8 MiB in all.
const QUEUE: usize = 256;
/// How long one look at the system's clock is good for, which somebody may set meanwhile.
const ANCHORED: Duration = Duration::from_secs(1);
/// From one complaint about a disk to the next.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// What is written where.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where to.
    pub to: Destination,
    /// How lines look.
    pub format: Format,
    /// Fields that are left out.
    pub hidden: Hidden,
    /// The share of requests that is logged, of 2^32; those with a status of 500 and above always are.
    pub sample: u32,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file.
    File {
        /// Its path.
        path: PathBuf,
        /// It is rotated when it would be larger than this; 0 is never.
        size: u64,
        /// It is rotated with the hour or the day.
        every: Every,
        /// How many former files are kept, as `NAME.1`, the newest, and so on.
        keep: usize,
    },
}

/// How often a file is rotated by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Every {
    /// Not by time.
    #[default]
    Never,
    /// With the hour.
    Hour,
    /// With the day, local time.
    Day,
}

/// What goes to the thread.
#[derive(Debug)]
enum Message {
    Lines { bytes: Vec<u8>, count: u32 },
    Reopen,
}

/// A handle of the log.
#[derive(Debug, Clone)]
pub struct AccessLog {
    settings: Arc<Settings>,
    thread: SyncSender<Message>,
    traffic: Arc<Traffic>,
}

impl AccessLog {
    /// Opens the log and starts its thread, which ends with the last handle.
    pub fn start(settings: Settings, traffic: Arc<Traffic>) -> io::Result<(Self, JoinHandle<()>)> {
        let sink = Sink::open(&settings.to)?;
        let (thread, lines) = sync_channel(QUEUE);
        let log = Self { settings: Arc::new(settings), thread, traffic: Arc::clone(&traffic) };
        let to = log.settings.to.clone();
        let run = move || write_all(&lines, sink, &to, &traffic);
        let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(run)?;
        Ok((log, thread))
    }

    /// Opens the file anew, because somebody moved it away; whether there is a file, and the queue
    /// has room for the wish.
    pub fn reopen(&self) -> bool {
        self.settings.to != Destination::Stdout && self.thread.try_send(Message::Reopen).is_ok()
    }

    /// Lines of one worker.
    #[must_use]
    pub fn lines(&self) -> Lines {
        Lines {
            log: self.clone(),
            bytes: RefCell::default(),
            count: Cell::new(0),
            clock: RefCell::default(),
            anchor: Cell::default(),
        }
    }
}

/// Lines of one worker, before they are handed over.
#[derive(Debug)]
pub struct Lines {
    log: AccessLog,
    bytes: RefCell<Vec<u8>>,
    count: Cell<u32>,
    clock: RefCell<Clock>,
    /// A moment by both clocks.
    anchor: Cell<Option<(Instant, i64)>>,
}

impl Lines {
    /// When something was, in milliseconds since the Unix epoch. The system's clock is asked about
    /// once a second.
    pub fn moment(&self, at: Instant) -> i64 {
        let since = |anchor: Instant| at.saturating_duration_since(anchor);
        let known = self.anchor.get().filter(|(anchor, _)| since(*anchor) < ANCHORED);
        let (anchor, then) = known.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            (at, i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
        });
        self.anchor.set(Some((anchor, then)));
        then.saturating_add(i64::try_from(since(anchor).as_millis()).unwrap_or(0))
    }

    /// Writes about a request. `chance` decides whether it is one of those that are logged.
    pub fn write(&self, record: &Record<'_>, chance: u32) {
        let settings = &self.log.settings;
        if chance > settings.sample && record.status < 500 {
            return;
        }
        let mut bytes = self.bytes.borrow_mut();
        let mut clock = self.clock.borrow_mut();
        line::write(&mut bytes, record, settings.format, settings.hidden, &mut clock);
        self.count.set(self.count.get() + 1);
        if bytes.len() >= BATCH {
            drop(bytes);
            self.hand_over();
        }
    }

    /// Hands over what was gathered.
    pub fn hand_over(&self) {
        let count = self.count.replace(0);
        if count == 0 {
            return;
        }
        let room = Vec::with_capacity(BATCH + BATCH / 4);
        let bytes = self.bytes.replace(room);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.log.thread.try_send(Message::Lines { bytes, count })
        {
            self.log.traffic.lose_lines(count);
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.hand_over();
    }
}

enum Sink {
    Stdout(io::Stdout),
    File(Box<BasicRollingFileAppender>),
}

impl Sink {
    fn open(to: &Destination) -> io::Result<Self> {
        let Destination::File { path, size, every, keep } = to else {
            return Ok(Self::Stdout(io::stdout()));
        };
        if let Some(directory) = path.parent().filter(|directory| *directory != Path::new("")) {
            std::fs::create_dir_all(directory)?;
        }
        let mut condition = RollingConditionBasic::new();
        if *size > 0 {
            condition = condition.max_size(*size);
        }
        condition = match every {
            Every::Never => condition,
            Every::Hour => condition.hourly(),
            Every::Day => condition.daily(),
        };
        Ok(Self::File(Box::new(BasicRollingFileAppender::new(path, condition, *keep)?)))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout(out) => out.write_all(bytes).and_then(|()| out.flush()),
            Self::File(file) => file.write_all(bytes).and_then(|()| file.flush()),
        }
    }
}

fn write_all(lines: &Receiver<Message>, mut sink: Sink, to: &Destination, traffic: &Traffic) {
    let mut complained: Option<Instant> = None;
    while let Ok(message) = lines.recv() {
        let done = match message {
            Message::Lines { bytes, count } => sink.write(&bytes).inspect_err(|_| {
                traffic.lose_lines(count);
            }),
            Message::Reopen => Sink::open(to).map(|opened| sink = opened),
        };
        if let Err(error) = done
            && complained.is_none_or(|last| last.elapsed() >= COMPLAIN_EVERY)
        {
            complained = Some(Instant::now());
            tracing::warn!(%error, "the access log cannot be written; lines are dropped and counted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::line::Record;
    use super::*;

    fn record(path: &str) -> Record<'_> {
        Record {
            at: 0,
            client: [127, 0, 0, 1].into(),
            user: None,
            method: "GET",
            scheme: "http",
            host: b"a",
            path,
            query: None,
            protocol: "HTTP/1.1",
            status: 200,
            bytes: 0,
            duration: Duration::ZERO,
            header: Duration::ZERO,
            is_complete: true,
            service: None,
            served: None,
            request_id: b"-",
            referer: None,
            user_agent: None,
        }
    }

    fn settings(path: &Path, size: u64) -> Settings {
        let to = Destination::File { path: path.to_owned(), size, every: Every::Day, keep: 2 };
        Settings { to, format: Format::Combined, hidden: Hidden::default(), sample: u32::MAX }
    }

    #[test]
    fn lines_reach_the_file_which_is_rotated_and_reopened() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("logs/access.log");
        let traffic = Arc::new(Traffic::new(1));
        let (log, thread) =
            AccessLog::start(settings(&path, 1_000), Arc::clone(&traffic)).expect("a log");
        let lines = log.lines();
        for n in 0..100 {
            lines.write(&record(&format!("/{n}")), 0);
            lines.hand_over();
        }
        // Somebody else moves the file away, as logrotate does.
        let moved = directory.path().join("moved");
        while std::fs::rename(&path, &moved).is_err() {
            std::thread::yield_now();
        }
        assert!(log.reopen());
        lines.write(&record("/after"), 0);
        drop((lines, log));
        thread.join().expect("no panic");
        let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        assert!(read(&path).contains("/after"));
        let beside: Vec<String> = std::fs::read_dir(path.parent().expect("a directory"))
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        assert!(beside.contains(&"access.log.1".to_owned()), "{beside:?}");
        assert!(beside.len() <= 3, "two former files and the present one: {beside:?}");
        assert_eq!(traffic.lost_lines(), 0);
    }

    #[test]
    fn a_log_that_cannot_keep_up_loses_lines_and_says_how_many() {
        let traffic = Arc::new(Traffic::new(1));
        let (thread, lines) = sync_channel(1);
        let settings = Arc::new(settings(Path::new("x"), 0));
        let log = AccessLog { settings, thread, traffic: Arc::clone(&traffic) };
        let worker = log.lines();
        for _ in 0..5 {
            worker.write(&record("/"), 0);
            worker.write(&record("/"), 0);
            worker.hand_over();
        }
        assert_eq!(traffic.lost_lines(), 8);
        let Ok(Message::Lines { count, .. }) = lines.recv() else { panic!("the first batch") };
        assert_eq!(count, 2);
    }

    #[test]
    fn moments_are_those_of_the_systems_clock() {
        let directory = tempfile::tempdir().expect("a directory");
        let traffic = Arc::new(Traffic::new(1));
        let settings = settings(&directory.path().join("log"), 0);
        let (log, _thread) = AccessLog::start(settings, traffic).expect("a log");
        let lines = log.lines();
        let (first, before) = (Instant::now(), SystemTime::now());
        let at = lines.moment(first);
        assert_eq!(lines.moment(first + Duration::from_millis(999)), at + 999);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("later").as_millis();
        let before = before.duration_since(UNIX_EPOCH).expect("later").as_millis();
        assert!((before..=now).contains(&(at as u128)), "{before} {at} {now}");
        // Asked anew: by the first look it would be a second later than it is.
        let anew = lines.moment(first + ANCHORED);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("later").as_millis();
        assert!((at as u128..=now).contains(&(anew as u128)), "{at} {anew} {now}");
    }

    #[test]
    fn a_sample_has_all_errors() {
        let traffic = Arc::new(Traffic::new(1));
        let (thread, _lines) = sync_channel(1);
        let half = Settings { sample: u32::MAX / 2, ..settings(Path::new("x"), 0) };
        let log = AccessLog { settings: Arc::new(half), thread, traffic };
        let worker = log.lines();
        worker.write(&record("/"), u32::MAX / 2 + 1);
        assert_eq!(worker.count.get(), 0);
        worker.write(&record("/"), u32::MAX / 2);
        worker.write(&Record { status: 503, ..record("/") }, u32::MAX);
        assert_eq!(worker.count.get(), 2);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_an_error_at_the_start() {
        let settings = settings(Path::new("/proc/nowhere/access.log"), 0);
        assert!(AccessLog::start(settings, Arc::new(Traffic::new(1))).is_err());
    }
}
