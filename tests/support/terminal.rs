//! A terminal with a program in it: keys go in, and the screen is read as a person sees it.

use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, SlavePty, native_pty_system};
use rustix::process::{Pid, Signal, kill_process};
use vt100::Parser;

use super::daemon::PATIENCE;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// The terminal.
pub struct Terminal {
    screen: Arc<Mutex<Parser>>,
    child: Box<dyn Child + Send + Sync>,
    keys: Box<dyn Write + Send>,
    master: Box<dyn MasterPty + Send>,
    /// Held, so that the terminal's modes can be read after the program.
    slave: Option<Box<dyn SlavePty + Send>>,
    reader: Option<JoinHandle<()>>,
    before: String,
}

fn size(columns: u16, rows: u16) -> PtySize {
    PtySize { rows, cols: columns, pixel_width: 0, pixel_height: 0 }
}

fn some(n: u16) -> NonZeroU16 {
    NonZeroU16::new(n).unwrap()
}

impl Terminal {
    /// A terminal of this size, with this program and its variables.
    pub fn begin(command: &Command, columns: u16, rows: u16) -> Self {
        let pair = native_pty_system().openpty(size(columns, rows)).unwrap();
        let mut run = CommandBuilder::new(command.get_program());
        run.args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => run.env(name, value),
                None => run.env_remove(name),
            }
        }
        run.env("TERM", "xterm-256color");
        run.env("LC_ALL", "C.UTF-8");
        let before = format!("{:?}", pair.master.get_termios().unwrap());
        let screen = Arc::new(Mutex::new(Parser::new(some(rows), some(columns), 0)));
        let (mut output, shown) = (pair.master.try_clone_reader().unwrap(), Arc::clone(&screen));
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap().process(&bytes[..count]);
            }
        });
        let child = pair.slave.spawn_command(run).unwrap();
        let keys = pair.master.take_writer().unwrap();
        let (slave, reader) = (Some(pair.slave), Some(reader));
        Self { screen, child, keys, master: pair.master, slave, reader, before }
    }

    /// What is on the screen, line by line.
    pub fn lines(&self) -> Vec<String> {
        self.text().lines().map(str::to_owned).collect()
    }

    /// What is on the screen.
    pub fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    /// The first line with this in it; nothing where there is none.
    pub fn line(&self, part: &str) -> String {
        self.lines().into_iter().find(|line| line.contains(part)).unwrap_or_default()
    }

    /// Whether the whole screen is taken, and the cursor hidden.
    pub fn is_taken(&self) -> (bool, bool) {
        let parser = self.screen.lock().unwrap();
        (parser.screen().alternate_screen(), parser.screen().hide_cursor())
    }

    /// Waits for this on the screen.
    pub fn shows(&self, part: &str) {
        self.until(part, |text| text.contains(part));
    }

    /// Waits until this is on the screen no more.
    pub fn hides(&self, part: &str) {
        self.until(&format!("without {part:?}"), |text| !text.contains(part));
    }

    /// Waits for a screen.
    pub fn until(&self, what: &str, is: impl Fn(&str) -> bool) {
        let begun = Instant::now();
        while !is(&self.text()) {
            assert!(begun.elapsed() < PATIENCE, "never on the screen: {what}\n{}", self.text());
            std::thread::sleep(LOOK);
        }
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// Makes it so large.
    pub fn resize(&self, columns: u16, rows: u16) {
        self.screen.lock().unwrap().set_size(some(rows), some(columns));
        self.master.resize(size(columns, rows)).unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.process_id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Waits for the program's end: its exit code. The terminal is then as it was before it.
    pub fn ended(mut self) -> (u32, String) {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end:\n{}", self.text());
            std::thread::sleep(LOOK);
        };
        let after = format!("{:?}", self.master.get_termios().unwrap());
        assert_eq!(self.before, after, "the terminal's modes");
        // With nobody left who could write, what was written comes to its end.
        drop(self.slave.take());
        self.reader.take().unwrap().join().unwrap();
        assert_eq!(self.is_taken(), (false, false), "it kept the screen:\n{}", self.text());
        (status.exit_code(), self.text())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _gone = self.child.kill();
            let _gone = self.child.wait();
        }
    }
}
