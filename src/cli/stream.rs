//! Reads server-sent events (WHATWG HTML, 9.2), as far as the admin API sends them.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;

use serde::Deserialize;
use serde_json::Value;

use super::exit::Exit;
use super::trouble::Trouble;
use crate::controller::status::EventRecord;
use crate::model::progress::Progress;

/// A stream that is silent for so long is dead: the daemon says something every 15 s.
const SILENT_FOR: Duration = Duration::from_secs(45);
/// The longest event in bytes; a sentence has hundreds.
const LONGEST: usize = 1024 * 1024;

/// The longest line of an answer that takes time: a report of what is kept has kilobytes.
const LONGEST_LINE: usize = 4 * 1024 * 1024;

/// Reads lines of JSON that tell how far something is, up to what came of it.
pub(super) async fn to_the_last(
    mut body: Incoming,
    place: &str,
    hears: &mut (dyn FnMut(Progress) + Send),
) -> Result<Value, Trouble> {
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Line {
        Progress(Progress),
        Done(Value),
        Problem { status: u16, detail: String },
    }
    let lost = || {
        let sentence = format!("the connection to {place} is lost; what was begun may go on there");
        Trouble::new(Exit::Unreachable, sentence)
    };
    let mut buffer: Vec<u8> = Vec::new();
    loop {
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(Line::Progress(now)) => hears(now),
                Ok(Line::Done(value)) => return Ok(value),
                Ok(Line::Problem { status, detail }) => {
                    return Err(Trouble {
                        exit: Exit::Error,
                        sentence: detail,
                        status: Some(status),
                    });
                }
                // An empty line, or what later versions may say.
                Err(_) => {}
            }
        }
        let frame = tokio::time::timeout(SILENT_FOR, body.frame()).await;
        match frame.map_err(|_| lost())? {
            Some(Ok(frame)) if buffer.len() < LONGEST_LINE => {
                buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
            }
            _ => return Err(lost()),
        }
    }
}

/// What a stream tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// Something happened.
    Event(Box<EventRecord>),
    /// So many events are not remembered any more.
    Missed(u64),
    /// The daemon started anew; what it remembers of before is gone.
    Restarted,
}

/// A stream of events.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    buffer: Vec<u8>,
    place: String,
}

impl Events {
    pub(super) fn new(body: Incoming, place: String) -> Self {
        Self { body, buffer: Vec::new(), place }
    }

    /// The next thing told; `None` at the end of the stream.
    ///
    /// Cancel safety: what was received is kept.
    pub async fn next(&mut self) -> Result<Option<Told>, Trouble> {
        loop {
            while let Some(block) = self.take_block() {
                if let Some(told) = parse(&block) {
                    return Ok(Some(told));
                }
            }
            let frame = tokio::time::timeout(SILENT_FOR, self.body.frame()).await;
            match frame.map_err(|_| self.lost())? {
                None => return Ok(None),
                Some(Err(_)) => return Err(self.lost()),
                Some(Ok(frame)) => {
                    self.buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
                    if self.buffer.len() > LONGEST {
                        return Err(self.lost());
                    }
                }
            }
        }
    }

    /// Takes the text up to the next empty line.
    fn take_block(&mut self) -> Option<String> {
        let end = self.buffer.windows(2).position(|pair| pair == b"\n\n")?;
        let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
        Some(String::from_utf8_lossy(&block).into_owned())
    }

    fn lost(&self) -> Trouble {
        Trouble::new(Exit::Unreachable, format!("the connection to {} is lost", self.place))
    }
}

fn parse(block: &str) -> Option<Told> {
    let (mut kind, mut data) = ("", String::new());
    for line in block.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => kind = value,
            "data" => data.push_str(value),
            // Comments, `id` (the record has it too) and what later versions may say.
            _ => {}
        }
    }
    match kind {
        "restarted" => Some(Told::Restarted),
        "lagged" => {
            let value: Value = serde_json::from_str(&data).ok()?;
            Some(Told::Missed(value["missed"].as_u64()?))
        }
        "" => serde_json::from_str(&data).ok().map(|event| Told::Event(Box::new(event))),
        _ => None,
    }
}
