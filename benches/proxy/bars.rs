//! What good looks like: the figures that are promised, with their limits.

use crate::callgrind::FIGURE;
use crate::losses::LOST;
use crate::peers::Kind;
use crate::price::{LOOKUP, TOGETHER_PART};
use crate::report::{Report, Spread};
use crate::work::PLAIN;

/// A promise about a figure.
#[derive(Debug)]
pub struct Bar {
    /// In the words of the README.
    pub text: &'static str,
    /// The row that it is about.
    row: &'static str,
    /// Whether it is about our ratio to nginx, or about our own value.
    to_nginx: bool,
    /// The limit.
    pub bar: f64,
    /// What is wanted.
    pub wanted: f64,
    /// What it is counted in.
    pub unit: &'static str,
}

const fn to_nginx(text: &'static str, row: &'static str, bar: f64, wanted: f64) -> Bar {
    Bar { text, row, to_nginx: true, bar, wanted, unit: " × nginx" }
}

const fn own(
    text: &'static str,
    row: &'static str,
    unit: &'static str,
    bar: f64,
    wanted: f64,
) -> Bar {
    Bar { text, row, to_nginx: false, bar, wanted, unit }
}

/// All promises.
pub const BARS: [Bar; 13] = [
    to_nginx("user instructions per request, HTTP/1.1 keep-alive", FIGURE, 1.0, 0.7),
    to_nginx("CPU per request, HTTP/1.1 keep-alive", PLAIN, 1.0, 0.9),
    own("split, stickiness and scorecards over a single pool", TOGETHER_PART, " %", 3.0, 1.0),
    to_nginx("CPU per request, HTTP/2 over TLS 1.3", "HTTP/2 over TLS 1.3", 0.8, 0.6),
    to_nginx("CPU per full TLS 1.3 handshake", "TLS 1.3 handshake", 0.85, 0.7),
    to_nginx("CPU per response of 64 KiB", "64 KiB", 0.6, 0.5),
    to_nginx("CPU per response of 1 MiB", "1 MiB", 0.6, 0.5),
    own("memory per idle connection, HTTP/1.1", "idle connection, HTTP/1.1", " KiB", 4.0, 1.0),
    own(
        "memory per idle connection, HTTP/1.1 over TLS",
        "idle connection, HTTP/1.1 over TLS",
        " KiB",
        12.0,
        4.0,
    ),
    own(
        "p99 within 50 ms, at half load while weights change 20 times a second, against the same without",
        "20 weights a second, p99 within 50 ms",
        " ×",
        1.05,
        1.0,
    ),
    own("looking up one of 10,000 routes, against one of 10", LOOKUP, " ×", 1.3, 1.0),
    own(
        "requests lost over 1,000 changes of weights and 100 of revisions, under load",
        LOST,
        "",
        0.0,
        0.0,
    ),
    own(
        "requests lost while processes roll out",
        "a rollout of processes, requests lost",
        "",
        0.0,
        0.0,
    ),
];

impl Bar {
    /// What this run came to, if it measured that.
    pub fn measured(&self, report: &Report) -> Option<Spread> {
        let series = report.find(self.row)?;
        if self.to_nginx { series.against(Kind::Nginx) } else { series.spread(Kind::Switchback) }
    }
}
