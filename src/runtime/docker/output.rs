//! What a container has written.

use bollard::Docker;
use bollard::query_parameters::LogsOptions;
use futures_util::StreamExt;
use jiff::Timestamp;

use super::DockerRuntime;
use super::client::{ANSWER, Client, Trouble};
use crate::runtime::{RuntimeError, Written};

/// Bytes of output that are kept at most, the last ones: 50 lines of 16 KiB, the engine's own unit.
const LOG_BYTES: usize = 1024 * 1024;
/// The same where somebody asks for more than a glance.
const ALL_BYTES: usize = 8 * 1024 * 1024;

/// A longer line is cut: it goes into a terminal or a JSON answer.
const LINE_CHARACTERS: usize = 4096;

impl DockerRuntime {
    /// The last lines of a container's output; none of one that is gone.
    pub(super) async fn tail(&self, id: &str, lines: usize) -> Result<Vec<String>, RuntimeError> {
        tail(&self.client, id, lines).await
    }

    /// The last lines and when each was written; none of a container that is gone.
    pub(super) async fn written_by(
        &self,
        id: &str,
        lines: usize,
        since: Option<Timestamp>,
    ) -> Result<Vec<Written>, RuntimeError> {
        let options = LogsOptions {
            stdout: true,
            stderr: true,
            timestamps: true,
            // Whole seconds; what lies within the first is looked at below.
            since: since.and_then(|since| i32::try_from(since.as_second()).ok()).unwrap_or(0),
            tail: lines.to_string(),
            ..LogsOptions::default()
        };
        let mut written = read_lines(&read(&self.client, id, options, ALL_BYTES).await?);
        if let Some(since) = since {
            written.retain(|line| line.at.is_none_or(|at| at >= since));
        }
        Ok(written)
    }
}

/// The last lines of a container's output; none of one that is gone.
pub(super) async fn tail(
    client: &Client,
    id: &str,
    lines: usize,
) -> Result<Vec<String>, RuntimeError> {
    let options = LogsOptions {
        stdout: true,
        stderr: true,
        tail: lines.to_string(),
        ..LogsOptions::default()
    };
    let frames = read(client, id, options, LOG_BYTES).await?;
    let bytes: Vec<u8> = frames.into_iter().flatten().collect();
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().map(cut).collect())
}

/// The frames of a container's output, the last of them.
async fn read(
    client: &Client,
    id: &str,
    options: LogsOptions,
    most: usize,
) -> Result<Vec<Vec<u8>>, RuntimeError> {
    let name = id.to_owned();
    let read = |docker: Docker| async move {
        let (mut frames, mut bytes) = (std::collections::VecDeque::new(), 0);
        let mut output = std::pin::pin!(docker.logs(&name, Some(options)));
        while let Some(part) = output.next().await {
            let frame = part?.into_bytes().to_vec();
            bytes += frame.len();
            frames.push_back(frame);
            while bytes > most
                && frames.len() > 1
                && let Some(first) = frames.pop_front()
            {
                bytes -= first.len();
            }
        }
        Ok(frames.into())
    };
    match client.call("reading a container's output", ANSWER, read).await {
        Ok(frames) => Ok(frames),
        Err(Trouble::Refused { status: 404, .. }) => Ok(Vec::new()),
        Err(trouble) => Err(trouble.into()),
    }
}

fn cut(line: &str) -> String {
    line.chars().take(LINE_CHARACTERS).collect()
}

/// Frames with times before each line. A line of more than 16 KiB comes in several frames, each with a
/// time of its own before it.
fn read_lines(frames: &[Vec<u8>]) -> Vec<Written> {
    let mut lines: Vec<Written> = Vec::new();
    let mut begins = true;
    for frame in frames {
        let text = String::from_utf8_lossy(frame);
        for (nth, piece) in text.split_inclusive('\n').enumerate() {
            let timed = piece.split_once(' ').and_then(|(at, rest)| Some((at.parse().ok()?, rest)));
            let (at, rest) = match timed {
                Some((at, rest)) if begins || nth == 0 => (Some(at), rest),
                _ => (None, piece),
            };
            let ends = rest.ends_with('\n');
            let rest = rest.trim_end_matches(['\n', '\r']);
            match lines.last_mut().filter(|_| !begins) {
                Some(line) => line.text.push_str(rest),
                None => lines.push(Written { at, text: rest.to_owned() }),
            }
            begins = ends;
        }
    }
    for line in &mut lines {
        if line.text.len() > LINE_CHARACTERS {
            line.text = cut(&line.text);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_its_time_and_long_ones_come_together() {
        let frames = [
            "2026-11-21T10:00:00.000000001Z good morning\n",
            "2026-11-21T10:00:01Z a lo",
            "2026-11-21T10:00:01Z ng one\n",
            "2026-11-21T10:00:02Z two\r\n2026-11-21T10:00:03Z lines\n",
            "no time\n",
        ]
        .map(|frame| frame.as_bytes().to_vec());
        let read = read_lines(&frames);
        let texts: Vec<&str> = read.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, ["good morning", "a long one", "two", "lines", "no time"]);
        let seconds: Vec<_> =
            read.iter().map(|line| line.at.map(|at| at.as_second() % 60)).collect();
        assert_eq!(seconds, [Some(0), Some(1), Some(2), Some(3), None]);
    }
}
