//! The output of an instance: captured into two files of bounded size, read back by lines.
//!
//! `output.log` is written until it is full, then becomes `output.log.1`, which replaces the former
//! one: at least the last `log_bytes` and at most twice as much are kept. An app is never blocked or
//! ended by a full disk; what cannot be written is dropped.

use std::fs::{self, File};
use std::io::{self, PipeReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

const CURRENT: &str = "output.log";
const FORMER: &str = "output.log.1";

/// A pipe holds 64 KiB by default (pipe(7)); one read empties it.
const CHUNK: usize = 64 * 1024;

/// From the end of the files, what [`tail`] reads at most: 50 lines of 4 KiB and then some.
const TAIL_BYTES: u64 = 256 * 1024;

/// A longer line is cut when read: it goes into a terminal or a JSON answer.
const LINE_CHARACTERS: usize = 4096;

/// Copies the pipe into the files until its last writer closes it. Blocks; meant for a thread.
pub fn capture(mut pipe: PipeReader, dir: &Path, log_bytes: u64) {
    let mut chunk = vec![0; CHUNK];
    let mut file = None;
    let mut size = 0;
    loop {
        let read = match pipe.read(&mut chunk) {
            Ok(0) => return,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        if size >= log_bytes {
            file = None;
            let _dropped = fs::rename(dir.join(CURRENT), dir.join(FORMER));
        }
        if file.is_none() {
            file = File::create(dir.join(CURRENT)).ok();
            size = 0;
        }
        let Some(open) = &mut file else { continue };
        match open.write_all(chunk.get(..read).unwrap_or_default()) {
            Ok(()) => size += read as u64,
            Err(_) => file = None,
        }
    }
}

/// The last lines of output, oldest first; empty when there is none.
///
/// # Errors
/// When a file is there and cannot be read.
pub fn tail(dir: &Path, lines: usize) -> io::Result<Vec<String>> {
    let current = end_of(&dir.join(CURRENT), TAIL_BYTES)?;
    let room = TAIL_BYTES.saturating_sub(current.len() as u64);
    let mut bytes = end_of(&dir.join(FORMER), room)?;
    bytes.extend_from_slice(&current);
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    let skipped = all.len().saturating_sub(lines);
    Ok(all
        .into_iter()
        .skip(skipped)
        .map(|line| line.chars().take(LINE_CHARACTERS).collect())
        .collect())
}

fn end_of(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(bytes)))?;
    let mut read = Vec::new();
    file.take(bytes).read_to_end(&mut read)?;
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_end_within_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        let path = dir.path().to_owned();
        let thread = std::thread::spawn(move || capture(reader, &path, 4096));
        for number in 0..100_000 {
            writeln!(writer, "line {number}").unwrap();
        }
        drop(writer);
        thread.join().unwrap();

        let lines = tail(dir.path(), 3).unwrap();
        assert_eq!(lines, ["line 99997", "line 99998", "line 99999"]);
        let kept: u64 = [CURRENT, FORMER]
            .iter()
            .map(|name| fs::metadata(dir.path().join(name)).unwrap().len())
            .sum();
        assert!(kept <= 2 * (4096 + CHUNK as u64), "{kept} bytes kept");
    }

    #[test]
    fn no_output_is_no_lines() {
        let dir = tempfile::tempdir().unwrap();
        assert!(tail(dir.path(), 50).unwrap().is_empty());
    }
}
