//! A line to a real engine that can be cut, and that can fall silent.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;

const OPEN: u8 = 0;
const SILENT: u8 = 1;
const CUT: u8 = 2;

/// The line. Its threads end with the test process.
#[derive(Debug)]
pub struct Line {
    home: TempDir,
    state: Arc<AtomicU8>,
    open: Arc<Mutex<Vec<UnixStream>>>,
}

impl Line {
    /// A line to an engine at a Unix socket; none when the engine is elsewhere.
    pub fn to(url: &str) -> Option<Self> {
        let engine = PathBuf::from(url.strip_prefix("unix://")?);
        let home = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(home.path().join("docker.sock")).unwrap();
        let line = Self { home, state: Arc::default(), open: Arc::default() };
        let (state, open) = (Arc::clone(&line.state), Arc::clone(&line.open));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                if state.load(Ordering::Relaxed) == CUT {
                    continue;
                }
                let Ok(there) = UnixStream::connect(&engine) else { continue };
                let mut all = open.lock().unwrap();
                all.extend([stream.try_clone().unwrap(), there.try_clone().unwrap()]);
                for (from, to) in
                    [(stream.try_clone().unwrap(), there.try_clone().unwrap()), (there, stream)]
                {
                    let state = Arc::clone(&state);
                    std::thread::spawn(move || carry(from, to, &state));
                }
            }
        });
        Some(line)
    }

    /// In the words of `DOCKER_HOST`.
    pub fn url(&self) -> String {
        format!("unix://{}", self.home.path().join("docker.sock").display())
    }

    /// Breaks every connection, and every further one.
    pub fn cut(&self) {
        self.state.store(CUT, Ordering::Relaxed);
        for stream in self.open.lock().unwrap().drain(..) {
            let _gone = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Carries nothing any more, and breaks nothing.
    pub fn fall_silent(&self) {
        self.state.store(SILENT, Ordering::Relaxed);
    }

    /// Is as it was.
    pub fn mend(&self) {
        self.state.store(OPEN, Ordering::Relaxed);
    }
}

fn carry(mut from: UnixStream, mut to: UnixStream, state: &AtomicU8) {
    let mut bytes = [0; 16 * 1024];
    loop {
        let count = from.read(&mut bytes).unwrap_or(0);
        while state.load(Ordering::Relaxed) == SILENT {
            std::thread::sleep(Duration::from_millis(20));
        }
        if count == 0 || to.write_all(&bytes[..count]).is_err() {
            let _gone = to.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}
