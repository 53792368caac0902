//! What a shim's directory holds on disk: the spec it is started with, and the record it keeps.
//!
//! `spec.json` is written once by the daemon before the shim starts; `record.json` is written by the
//! shim, and by the daemon only after the shim is known to be dead. Both are replaced whole, by a
//! rename, so a reader never sees half of one.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::model::instance::{Exit, Ownership};
use crate::model::revision::duration_millis;
use crate::runtime::procfs::Identity;

const SPEC: &str = "spec.json";
const RECORD: &str = "record.json";

/// The name of the variable by which every process of an instance is known; its value is the
/// instance's directory.
pub const MARKER: &str = "SWITCHBACK_INSTANCE";

/// What one instance is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Whose it is.
    pub ownership: Ownership,
    /// The command line, with `{port}` still in it.
    pub command: Vec<String>,
    /// Where it is told to listen.
    pub port: u16,
    /// Environment beyond what is inherited.
    pub env: BTreeMap<String, String>,
    /// What it gets to stop by itself when nobody says how long.
    #[serde(with = "duration_millis")]
    pub stop_grace: Duration,
    /// How long it runs on without a daemon.
    #[serde(with = "duration_millis")]
    pub orphan_grace: Duration,
    /// Bytes of output kept in each of the two log files.
    pub log_bytes: u64,
    /// Files that it may have open; what the shim may where that is not written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
}

impl Spec {
    /// Reads the spec from an instance's directory.
    ///
    /// # Errors
    /// When it is missing or not a spec.
    pub fn read(dir: &Path) -> io::Result<Self> {
        read(&dir.join(SPEC))
    }

    /// Writes the spec into an instance's directory, readable by its owner alone: the environment
    /// may hold secrets.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        write(dir, SPEC, self)
    }
}

/// What became of an instance so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The shim.
    pub shim: Identity,
    /// The instance's first process, which leads its group.
    pub child: Option<Identity>,
    /// How it ended, once it has.
    pub exit: Option<Exit>,
    /// Why it could not be started, if so.
    pub failure: Option<Failure>,
}

/// Why a command could not be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Whether the command is at fault (missing, not executable), rather than the machine.
    pub command: bool,
    /// One sentence.
    pub reason: String,
}

impl Record {
    /// Reads the record from an instance's directory.
    ///
    /// # Errors
    /// When it is missing or not a record.
    pub fn read(dir: &Path) -> io::Result<Self> {
        read(&dir.join(RECORD))
    }

    /// Writes the record into an instance's directory.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        write(dir, RECORD, self)
    }
}

/// The environment entry by which the processes of the instance in `dir` are known.
#[must_use]
pub fn marker(dir: &Path) -> String {
    format!("{MARKER}={}", dir.display())
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Not synced: after a power cut the processes are gone too, and an instance without a readable
/// record counts as ended.
fn write<T: Serialize>(dir: &Path, name: &str, value: &T) -> io::Result<()> {
    let staged = dir.join(format!("{name}.new"));
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    io::Write::write_all(&mut options.open(&staged)?, &serde_json::to_vec(value)?)?;
    fs::rename(staged, dir.join(name))
}
