//! How an HTTP/2 client behaves, by its frames: a gauge beside the library that speaks the protocol.
//! It only counts and never changes a byte. No input or output here.
//!
//! The library bounds some floods by itself: resets of streams that nobody has accepted yet
//! (CVE-2023-44487), resets that a client provokes (CVE-2025-8671), CONTINUATION without end
//! (CVE-2024-27316), DATA of next to nothing (CVE-2019-9518). It answers each PING and SETTINGS and has
//! no deadline for a header block. What is allowed per second is what Sōzu allows; flow control and
//! pings to measure it are allowed in proportion to what was sent to the client besides.

use crate::proxy::clock::{Tick, ticks};
use std::time::Duration;

/// What every HTTP/2 connection begins with.
const PREFACE: u64 = 24;
const HEADER: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// Kinds of frames that are told apart; all others are one.
const KINDS: usize = 11;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// The setting that says how much may be sent on a stream, and the most it can be.
const INITIAL_WINDOW: u16 = 4;
const WIDEST_WINDOW: u32 = (1 << 31) - 1;

/// Frames of a kind that a client may send in a second.
const MOST: [u32; KINDS] = {
    let mut most = [u32::MAX; KINDS];
    // Empty ones that end nothing; others are not counted.
    most[DATA as usize] = 100;
    most[PRIORITY as usize] = 100;
    most[RST_STREAM as usize] = 100;
    most[SETTINGS as usize] = 50;
    most[PING as usize] = 100;
    most[WINDOW_UPDATE as usize] = 1_000;
    most[CONTINUATION as usize] = 20;
    most[KINDS - 1] = 100;
    most
};
/// Bytes sent to the client that allow it one more PING or WINDOW_UPDATE.
const BYTES_PER_UPDATE: u64 = 1024;
/// RST_STREAM frames in the life of a connection. Sōzu's.
const MOST_RESETS: u32 = 10_000;

/// Why a client is sent away; the numbers are those of RFC 9113, 7. The library says of each broken
/// frame that it broke the protocol; which rule it broke is known only here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// A window that no stream can have.
    Window = 3,
    /// A frame on a stream that the client has ended.
    Closed = 5,
    /// A frame whose length its kind does not allow.
    FrameSize = 6,
    /// Too many frames of a kind.
    Flood = 11,
}

impl Wrong {
    /// GOAWAY for this reason (RFC 9113, 6.8); no stream is said to be served.
    pub fn goaway(self) -> [u8; 17] {
        [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, self as u8]
    }
}

/// Where the frames of one direction begin.
#[derive(Debug, Default)]
struct Frames {
    /// Bytes until the next frame begins.
    skip: u64,
    header: [u8; HEADER],
    have: usize,
}

impl Frames {
    /// The next frame's length, kind, flags and stream.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<(u32, u8, u8, u32)> {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
        *bytes = &bytes[skipped..];
        self.skip -= skipped as u64;
        if bytes.is_empty() {
            return None;
        }
        let (now, later) = bytes.split_at((HEADER - self.have).min(bytes.len()));
        self.header[self.have..self.have + now.len()].copy_from_slice(now);
        (self.have, *bytes) = (self.have + now.len(), later);
        if self.have < HEADER {
            return None;
        }
        self.have = 0;
        let [a, b, c, kind, flags, stream @ ..] = self.header;
        let length = u32::from_be_bytes([0, a, b, c]);
        self.skip = u64::from(length);
        Some((length, kind, flags, u32::from_be_bytes(stream) & (u32::MAX >> 1)))
    }

    fn is_between(&self) -> bool {
        self.skip == 0 && self.have == 0
    }
}

/// How a client behaves.
#[derive(Debug)]
pub struct Gauge {
    came: Frames,
    went: Frames,
    /// A header block has begun and not ended.
    in_block: bool,
    /// The frame that is coming belongs to a header block, or is not known yet.
    in_head: bool,
    /// Since when something is incomplete that must be complete soon.
    since: Option<Tick>,
    window: Tick,
    counts: [u32; KINDS],
    resets: u32,
    sent: u64,
    in_settings: bool,
    setting: [u8; 6],
    setting_has: usize,
    /// The highest stream that was opened, and those on which the client has not ended.
    last: u32,
    sending: Vec<u32>,
    /// Those on which it ended last.
    ended: [u32; ENDED],
    ends: usize,
}

/// Streams on which a client has not ended: ten times those that it may have open, because it need not
/// end those that we have reset.
const MOST_SENDING: usize = 1_000;

/// Streams of which it is remembered that the client ended them.
const ENDED: usize = 16;

/// What RFC 9113, 6 says about the lengths of frames.
fn check_length(length: u32, kind: u8, flags: u8) -> Result<(), Wrong> {
    let good = match kind {
        PRIORITY => length == 5,
        RST_STREAM | WINDOW_UPDATE => length == 4,
        SETTINGS if flags & ACK != 0 => length == 0,
        SETTINGS => length.is_multiple_of(6),
        PING => length == 8,
        _ => true,
    };
    if good { Ok(()) } else { Err(Wrong::FrameSize) }
}

impl Gauge {
    /// A connection that has said nothing yet.
    pub fn new(now: Tick) -> Self {
        Self {
            came: Frames { skip: PREFACE, ..Frames::default() },
            went: Frames::default(),
            in_block: false,
            in_head: true,
            since: Some(now),
            window: now,
            counts: [0; KINDS],
            resets: 0,
            sent: 0,
            in_settings: false,
            setting: [0; 6],
            setting_has: 0,
            last: 0,
            sending: Vec::new(),
            ended: [0; ENDED],
            ends: 0,
        }
    }

    /// Looks at bytes that came.
    pub fn came(&mut self, mut bytes: &[u8], now: Tick) -> Result<(), Wrong> {
        if now.saturating_sub(self.window) >= ticks(Duration::from_secs(1)) {
            (self.window, self.counts, self.sent) = (now, [0; KINDS], 0);
        }
        loop {
            if self.in_settings {
                let here = usize::try_from(self.came.skip).unwrap_or(usize::MAX).min(bytes.len());
                self.settings(&bytes[..here])?;
            }
            let Some((length, kind, flags, stream)) = self.came.next(&mut bytes) else { break };
            check_length(length, kind, flags)?;
            self.count(length, kind, flags)?;
            self.follow(kind, flags, stream)?;
            (self.in_settings, self.setting_has) = (kind == SETTINGS, 0);
            if matches!(kind, HEADERS | CONTINUATION) {
                self.in_block = flags & END_HEADERS == 0;
            }
            self.in_head = matches!(kind, HEADERS | CONTINUATION);
        }
        let incomplete =
            self.in_block || self.came.have > 0 || (self.came.skip > 0 && self.in_head);
        if !incomplete {
            self.since = None;
        } else if self.since.is_none() {
            self.since = Some(now);
        }
        Ok(())
    }

    /// Looks at the payload of SETTINGS, of which each setting has six bytes (RFC 9113, 6.5.1).
    fn settings(&mut self, payload: &[u8]) -> Result<(), Wrong> {
        for byte in payload {
            self.setting[self.setting_has] = *byte;
            self.setting_has += 1;
            if self.setting_has == self.setting.len() {
                self.setting_has = 0;
                let [a, b, c, d, e, f] = self.setting;
                let value = u32::from_be_bytes([c, d, e, f]);
                if u16::from_be_bytes([a, b]) == INITIAL_WINDOW && value > WIDEST_WINDOW {
                    return Err(Wrong::Window);
                }
            }
        }
        Ok(())
    }

    /// Follows which streams the client may still send on. What it sends on one that it ended or reset
    /// itself, it cannot have sent before it knew (RFC 9113, 5.1); what we reset, it may not know of.
    fn follow(&mut self, kind: u8, flags: u8, stream: u32) -> Result<(), Wrong> {
        if self.in_block && kind != CONTINUATION {
            // The library ends the connection for this.
            return Ok(());
        }
        let ends = flags & END_STREAM != 0;
        let place = self.sending.iter().position(|open| *open == stream);
        match (kind, place) {
            (HEADERS, None) if stream > self.last => {
                self.last = stream;
                if ends {
                    self.ended(stream);
                } else {
                    self.sending.push(stream);
                    if self.sending.len() > MOST_SENDING {
                        return Err(Wrong::Flood);
                    }
                }
            }
            // Of stream 0, and of streams that were never opened, the library knows best.
            (HEADERS | DATA, None) if stream != 0 && self.ended.contains(&stream) => {
                return Err(Wrong::Closed);
            }
            (HEADERS | DATA, Some(place)) if ends => {
                self.sending.swap_remove(place);
                self.ended(stream);
            }
            (RST_STREAM, Some(place)) => {
                self.sending.swap_remove(place);
                self.ended(stream);
            }
            _ => {}
        }
        Ok(())
    }

    fn ended(&mut self, stream: u32) {
        self.ended[self.ends % ENDED] = stream;
        self.ends = self.ends.wrapping_add(1);
    }

    fn count(&mut self, length: u32, kind: u8, flags: u8) -> Result<(), Wrong> {
        let counts = match kind {
            DATA => length == 0 && flags & END_STREAM == 0,
            PING | SETTINGS => flags & ACK == 0,
            _ => true,
        };
        if !counts {
            return Ok(());
        }
        if kind == RST_STREAM {
            self.resets += 1;
        }
        let place = usize::from(kind).min(KINDS - 1);
        self.counts[place] += 1;
        let earned = match kind {
            PING | WINDOW_UPDATE => u32::try_from(self.sent / BYTES_PER_UPDATE).unwrap_or(u32::MAX),
            _ => 0,
        };
        if self.counts[place] > MOST[place].saturating_add(earned) || self.resets > MOST_RESETS {
            return Err(Wrong::Flood);
        }
        Ok(())
    }

    /// Looks at bytes that went.
    pub fn went(&mut self, mut bytes: &[u8]) {
        self.sent += bytes.len() as u64;
        while self.went.next(&mut bytes).is_some() {}
    }

    /// Whether a frame of our own can be sent behind what went.
    pub fn is_between(&self) -> bool {
        self.went.is_between()
    }

    /// Since when a header block, or a frame that may begin one, is incomplete.
    pub fn incomplete_since(&self) -> Option<Tick> {
        self.since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![0, (length >> 8) as u8, length as u8, kind, flags, 0, 0, 0, 1];
        frame.resize(HEADER + length, 0);
        frame
    }

    fn begun() -> Gauge {
        let mut gauge = Gauge::new(0);
        gauge.came(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0).expect("calm");
        gauge.came(&frame(SETTINGS, 0, 6), 0).expect("calm");
        gauge
    }

    fn sent_until_flood(kind: u8, flags: u8, length: usize) -> usize {
        let mut gauge = begun();
        let frame = frame(kind, flags, length);
        if kind == DATA && flags & END_STREAM == 0 {
            gauge.came(&self::frame(HEADERS, END_HEADERS, 0), 0).expect("calm");
        }
        (0..100_000).position(|_| gauge.came(&frame, 0).is_err()).unwrap_or(usize::MAX)
    }

    #[test]
    fn floods_of_each_kind_are_noticed() {
        assert_eq!(sent_until_flood(PING, 0, 8), 100);
        assert_eq!(sent_until_flood(SETTINGS, 0, 0), 49);
        assert_eq!(sent_until_flood(RST_STREAM, 0, 4), 100);
        assert_eq!(sent_until_flood(PRIORITY, 0, 5), 100);
        assert_eq!(sent_until_flood(WINDOW_UPDATE, 0, 4), 1_000);
        assert_eq!(sent_until_flood(CONTINUATION, 0, 0), 20);
        assert_eq!(sent_until_flood(DATA, 0, 0), 100);
        assert_eq!(sent_until_flood(0xfe, 0, 1), 100);
        // Not floods: bodies, and answers to what we asked.
        for (kind, flags, length) in [(DATA, 0, 1), (PING, ACK, 8), (SETTINGS, ACK, 0)] {
            assert_eq!(sent_until_flood(kind, flags, length), usize::MAX, "{kind}");
        }
    }

    #[test]
    fn a_second_later_it_begins_anew_but_for_resets() {
        let mut gauge = begun();
        let reset = frame(RST_STREAM, 0, 4);
        let mut sent = 0;
        while gauge.came(&reset, sent / 100 * 11 + 11).is_ok() {
            sent += 1;
            assert!(sent <= 10_000);
        }
        assert_eq!(sent, 10_000);
    }

    #[test]
    fn who_is_sent_much_may_update_much() {
        let mut gauge = begun();
        gauge.went(&frame(DATA, 0, 60_000).repeat(100));
        let update = frame(WINDOW_UPDATE, 0, 4);
        for _ in 0..6_000 {
            gauge.came(&update, 0).expect("calm");
        }
    }

    #[test]
    fn what_is_incomplete_is_known_however_it_arrives() {
        let mut gauge = Gauge::new(3);
        assert_eq!(gauge.incomplete_since(), Some(3));
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(SETTINGS, 0, 6));
        for byte in &bytes {
            gauge.came(&[*byte], 4).expect("calm");
        }
        assert_eq!(gauge.incomplete_since(), None);
        gauge.came(&frame(HEADERS, 0, 10), 5).expect("calm");
        assert_eq!(gauge.incomplete_since(), Some(5));
        gauge.came(&frame(CONTINUATION, 0, 10), 6).expect("calm");
        assert_eq!(gauge.incomplete_since(), Some(5));
        gauge.came(&frame(CONTINUATION, END_HEADERS, 10), 7).expect("calm");
        assert_eq!(gauge.incomplete_since(), None);
        // The stream is open: its headers did not end it.
        let data = frame(DATA, 0, 100);
        gauge.came(&data[..50], 8).expect("calm");
        assert_eq!(gauge.incomplete_since(), None);
        gauge.came(&data[50..], 9).expect("calm");
        let mut headers = frame(HEADERS, 5, 100);
        headers[8] = 3;
        gauge.came(&headers[..20], 10).expect("calm");
        assert_eq!(gauge.incomplete_since(), Some(10));
        gauge.came(&headers[20..], 11).expect("calm");
        gauge.came(&[0, 0], 12).expect("calm");
        assert_eq!(gauge.incomplete_since(), Some(12));
    }

    #[test]
    fn stream_0_has_not_ended() {
        for kind in [HEADERS, DATA] {
            let mut frame = frame(kind, END_HEADERS, 1);
            frame[8] = 0;
            assert_eq!(begun().came(&frame, 0), Ok(()), "the library says PROTOCOL_ERROR: {kind}");
        }
    }

    #[test]
    fn lengths_and_windows_are_named_for_what_they_are() {
        for (kind, flags, length) in [
            (PRIORITY, 0, 4),
            (RST_STREAM, 0, 3),
            (SETTINGS, 0, 3),
            (SETTINGS, ACK, 6),
            (PING, 0, 7),
            (WINDOW_UPDATE, 0, 5),
        ] {
            let wrong = begun().came(&frame(kind, flags, length), 0);
            assert_eq!(wrong, Err(Wrong::FrameSize), "{kind}");
        }
        let mut settings = frame(SETTINGS, 0, 0);
        settings[2] = 12;
        settings.extend([0, 3, 0xff, 0xff, 0xff, 0xff, 0, 4, 0x80, 0, 0, 0]);
        for step in 1..settings.len() {
            let mut gauge = begun();
            let wrong = settings.chunks(step).find_map(|piece| gauge.came(piece, 0).err());
            assert_eq!(wrong, Some(Wrong::Window), "by {step}");
        }
        assert_eq!(Wrong::Flood.goaway()[16], 11);
    }

    #[test]
    fn what_is_ended_stays_ended() {
        let on = |kind, flags, stream: u8| {
            let mut frame = frame(kind, flags, if kind == RST_STREAM { 4 } else { 1 });
            frame[8] = stream;
            frame
        };
        let end = END_STREAM | END_HEADERS;
        let told = |frames: &[Vec<u8>]| {
            let mut gauge = begun();
            frames.iter().find_map(|frame| gauge.came(frame, 0).err())
        };
        for good in [
            vec![on(HEADERS, end, 1), on(HEADERS, end, 3), on(WINDOW_UPDATE, 0, 1)],
            vec![on(HEADERS, END_HEADERS, 1), on(DATA, 0, 1), on(HEADERS, end, 1)],
            vec![on(HEADERS, END_HEADERS, 5), on(HEADERS, end, 7), on(DATA, 1, 5)],
            vec![on(HEADERS, end, 1), on(RST_STREAM, 0, 1), on(PRIORITY, 0, 1)],
        ] {
            // Their lengths are not what is looked at here.
            let wrong = told(&good).filter(|wrong| *wrong != Wrong::FrameSize);
            assert_eq!(wrong, None);
        }
        for bad in [
            vec![on(HEADERS, end, 1), on(DATA, 0, 1)],
            vec![on(HEADERS, end, 1), on(HEADERS, end, 1)],
            vec![on(HEADERS, END_HEADERS, 1), on(DATA, 1, 1), on(DATA, 0, 1)],
            vec![on(HEADERS, END_HEADERS, 1), on(RST_STREAM, 0, 1), on(HEADERS, end, 1)],
        ] {
            assert_eq!(told(&bad), Some(Wrong::Closed));
        }
    }

    #[test]
    fn our_own_frames_are_followed() {
        let mut gauge = begun();
        assert!(gauge.is_between());
        let data = frame(DATA, 0, 300);
        gauge.went(&data[..5]);
        assert!(!gauge.is_between());
        gauge.went(&data[5..40]);
        assert!(!gauge.is_between());
        gauge.went(&data[40..]);
        assert!(gauge.is_between());
    }
}
