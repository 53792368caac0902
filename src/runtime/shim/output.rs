//! The output of an instance: captured into two files of bounded size, read back by lines.
//!
//! `output.log` is written until it is full, then becomes `output.log.1`, which replaces the former
//! one: at least the last `log_bytes` and at most twice as much are kept. An app is never blocked or
//! ended by a full disk; what cannot be written is dropped. Beside each file lies another one that says
//! when what was written: `output.at`, a line per piece with its place in the file and the moment.

use std::fs::{self, File};
use std::io::{self, PipeReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use jiff::Timestamp;

use crate::runtime::Written;

const CURRENT: &str = "output.log";
const FORMER: &str = "output.log.1";
/// When that was written.
const CURRENT_AT: &str = "output.at";
const FORMER_AT: &str = "output.at.1";

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
    let mut times = None;
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
            let _dropped = fs::rename(dir.join(CURRENT_AT), dir.join(FORMER_AT));
        }
        if file.is_none() {
            file = File::create(dir.join(CURRENT)).ok();
            times = File::create(dir.join(CURRENT_AT)).ok();
            size = 0;
        }
        if let Some(open) = &mut times {
            // Without it a line has no time, and is there all the same.
            let at = Timestamp::now().as_microsecond();
            if writeln!(open, "{size} {at}").is_err() {
                times = None;
            }
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

/// The last lines and when each began, of all that is kept; only those since a moment.
///
/// # Errors
/// When a file is there and cannot be read.
pub fn written(dir: &Path, lines: usize, since: Option<Timestamp>) -> io::Result<Vec<Written>> {
    let mut all: Vec<Written> = Vec::new();
    // Whether the last line goes on in the next file.
    let mut open = false;
    for (log, at) in [(FORMER, FORMER_AT), (CURRENT, CURRENT_AT)] {
        let bytes = end_of(&dir.join(log), u64::MAX)?;
        let times = times(&fs::read_to_string(dir.join(at)).unwrap_or_default());
        let mut place = 0;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = String::from_utf8_lossy(line);
            let text = text.trim_end_matches(['\n', '\r']);
            match all.last_mut().filter(|_| open) {
                Some(last) => last.text.push_str(text),
                None => {
                    let after = times.partition_point(|(at, _)| *at <= place);
                    let at = after.checked_sub(1).and_then(|n| Some(times.get(n)?.1));
                    all.push(Written { at, text: text.to_owned() });
                }
            }
            open = !line.ends_with(b"\n");
            place += line.len() as u64;
        }
    }
    if let Some(since) = since {
        all.retain(|line| line.at.is_none_or(|at| at >= since));
    }
    all.drain(..all.len().saturating_sub(lines));
    for line in &mut all {
        if line.text.len() > LINE_CHARACTERS {
            line.text = line.text.chars().take(LINE_CHARACTERS).collect();
        }
    }
    Ok(all)
}

/// Where in a file what was written at which moment begins.
fn times(text: &str) -> Vec<(u64, Timestamp)> {
    let entry = |line: &str| {
        let (place, at) = line.split_once(' ')?;
        Some((place.parse().ok()?, Timestamp::from_microsecond(at.parse().ok()?).ok()?))
    };
    text.lines().map_while(entry).collect()
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
    fn lines_have_their_times() {
        let dir = tempfile::tempdir().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        let path = dir.path().to_owned();
        let thread = std::thread::spawn(move || capture(reader, &path, 64));
        let begun = Timestamp::now();
        let mut between = Vec::new();
        for number in 0..6 {
            writeln!(writer, "line {number} {}", "x".repeat(30)).unwrap();
            let wanted = format!("line {number} ");
            while !written(dir.path(), 1, None).unwrap().iter().any(|l| l.text.starts_with(&wanted))
            {
                std::thread::yield_now();
            }
            between.push(Timestamp::now());
        }
        drop(writer);
        thread.join().unwrap();
        let kept = written(dir.path(), 100, None).unwrap();
        assert!((2..6).contains(&kept.len()), "some were rotated away: {kept:?}");
        let times: Vec<Timestamp> = kept.iter().map(|line| line.at.unwrap()).collect();
        assert!(times.is_sorted() && times[0] >= begun, "{kept:?}");
        let last = written(dir.path(), 100, Some(between[4])).unwrap();
        let [only] = &last[..] else { panic!("{last:?}") };
        assert!(only.text.starts_with("line 5 "), "{last:?}");
        assert_eq!(written(dir.path(), 1, None).unwrap(), last);
        // Of a shim of before, nobody knows when.
        for times in [FORMER_AT, CURRENT_AT] {
            let _absent = fs::remove_file(dir.path().join(times));
        }
        assert!(written(dir.path(), 1, Some(between[5])).unwrap()[0].at.is_none());
    }

    #[test]
    fn no_output_is_no_lines() {
        let dir = tempfile::tempdir().unwrap();
        assert!(tail(dir.path(), 50).unwrap().is_empty());
    }
}
