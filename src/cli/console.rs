//! Where a verb says things: data on stdout, talk and progress on stderr, and a block of lines at the
//! bottom of a terminal that is drawn again and again.
//!
//! Decides from the surroundings whether there is colour, Unicode and a terminal; knows nothing of
//! what is said. Invariants: text from elsewhere (sentences, log lines, names) reaches a terminal
//! without control characters; a drawn line never wraps, so the block can be taken back; a reader
//! that went away ([`Console::is_closed`]) is no error.

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};

/// How a piece of text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Look {
    /// As it is.
    #[default]
    Plain,
    /// A heading, a name.
    Strong,
    /// Beside the point.
    Faint,
    /// Well.
    Good,
    /// Ill.
    Bad,
    /// To be watched.
    Unsure,
}

impl Look {
    fn style(self) -> Style {
        let colour = |colour: AnsiColor| Style::new().fg_color(Some(colour.into()));
        match self {
            Self::Plain => Style::new(),
            Self::Strong => Style::new().bold(),
            Self::Faint => Style::new().dimmed(),
            Self::Good => colour(AnsiColor::Green),
            Self::Bad => colour(AnsiColor::Red).bold(),
            Self::Unsure => colour(AnsiColor::Yellow),
        }
    }
}

/// A line of text in pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line(Vec<(Look, String)>);

impl Line {
    /// An empty line.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a piece, [`clean`]ed.
    #[must_use]
    pub fn and(mut self, look: Look, text: &str) -> Self {
        self.0.push((look, clean(text)));
        self
    }

    /// Adds a plain piece.
    #[must_use]
    pub fn plain(self, text: &str) -> Self {
        self.and(Look::Plain, text)
    }

    /// Adds spaces up to a column, at least one.
    #[must_use]
    pub fn pad_to(self, column: usize) -> Self {
        let spaces = column.saturating_sub(self.width()).max(1);
        self.plain(&" ".repeat(spaces))
    }

    /// How many columns it takes, a character being one.
    #[must_use]
    pub fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| text.chars().count()).sum()
    }

    fn write(&self, out: &mut dyn Write, colour: bool, width: usize) -> io::Result<()> {
        let mut room = width;
        for (look, text) in &self.0 {
            let shown: String = text.chars().take(room).collect();
            room -= shown.chars().count();
            let style = if colour { look.style() } else { Style::new() };
            write!(out, "{style}{shown}{style:#}")?;
        }
        Ok(())
    }
}

impl From<&str> for Line {
    fn from(text: &str) -> Self {
        Self::new().plain(text)
    }
}

impl From<String> for Line {
    fn from(text: String) -> Self {
        Self::new().plain(&text)
    }
}

/// Text without control characters and escape sequences: what an app wrote must not steer the
/// operator's terminal.
#[must_use]
pub fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' && chars.next_if_eq(&'[').is_some() {
            // ECMA-48 5.4: a control sequence ends with a byte of 0x40 to 0x7E.
            while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
        } else {
            clean.push(if c.is_control() { ' ' } else { c });
        }
    }
    clean
}

/// The signs that lines are made of.
#[derive(Debug, Clone, Copy)]
pub struct Signs {
    /// Done, healthy, passed.
    pub good: &'static str,
    /// Failed.
    pub bad: &'static str,
    /// Not known yet.
    pub unsure: &'static str,
    /// Under way.
    pub now: &'static str,
    /// Said by the way.
    pub note: &'static str,
    /// The part of a bar that is full.
    pub full: &'static str,
    /// The part of a bar that is empty.
    pub empty: &'static str,
    /// From one to the next.
    pub arrow: &'static str,
    /// A branch with another below.
    pub branch: &'static str,
    /// The last branch.
    pub last: &'static str,
    /// The trunk beside a branch's twigs.
    pub trunk: &'static str,
    /// Nothing to show.
    pub none: &'static str,
}

const UNICODE: Signs = Signs {
    good: "✔",
    bad: "✖",
    unsure: "◌",
    now: "▸",
    note: "·",
    full: "━",
    empty: "─",
    arrow: "→",
    branch: "├─ ",
    last: "└─ ",
    trunk: "│  ",
    none: "–",
};

const ASCII: Signs = Signs {
    good: "+",
    bad: "x",
    unsure: "?",
    now: ">",
    note: "-",
    full: "=",
    empty: ".",
    arrow: "->",
    branch: "|- ",
    last: "`- ",
    trunk: "|  ",
    none: "-",
};

/// The width that is taken where a terminal does not tell its own.
const USUAL: (usize, usize) = (80, 24);

/// Where a verb says things.
pub struct Console {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    colour_out: bool,
    colour_err: bool,
    live: bool,
    signs: Signs,
    size: fn() -> (usize, usize),
    drawn: usize,
    closed: bool,
}

impl Console {
    /// Stdout and stderr. `colour` is what a person asked for; else `NO_COLOR`, `CLICOLOR_FORCE` and
    /// the terminal decide.
    #[must_use]
    pub fn standard(colour: Option<bool>) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let asked = colour.or_else(|| {
            if set("NO_COLOR") {
                Some(false)
            } else {
                (set("CLICOLOR_FORCE") && std::env::var_os("CLICOLOR_FORCE") != Some("0".into()))
                    .then_some(true)
            }
        });
        let (out, err) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            colour_out: asked.unwrap_or(out && !dumb),
            colour_err: asked.unwrap_or(err && !dumb),
            live: out && err && !dumb,
            signs: if speaks_unicode() { UNICODE } else { ASCII },
            size: terminal_size,
            drawn: 0,
            closed: false,
        }
    }

    /// A console that writes elsewhere: plain, 80 columns wide, and not a terminal unless `live`.
    #[must_use]
    pub fn over(out: Box<dyn Write + Send>, err: Box<dyn Write + Send>, live: bool) -> Self {
        Self {
            out,
            err,
            colour_out: false,
            colour_err: false,
            live,
            signs: UNICODE,
            size: || USUAL,
            drawn: 0,
            closed: false,
        }
    }

    /// Without Unicode.
    #[must_use]
    pub fn ascii(mut self) -> Self {
        self.signs = ASCII;
        self
    }

    /// Whether there is a terminal on which a block can be drawn again and again.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Whether it cannot show Unicode.
    #[must_use]
    pub fn is_ascii(&self) -> bool {
        self.signs.arrow.is_ascii()
    }

    /// The signs that this console can show.
    #[must_use]
    pub fn signs(&self) -> Signs {
        self.signs
    }

    /// How many columns there are.
    #[must_use]
    pub fn width(&self) -> usize {
        self.size().0
    }

    /// How many columns and rows there are.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.size)()
    }

    /// Whether the reader of stdout has gone away, so that there is nobody to tell.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Says a line of data, on stdout.
    pub fn data(&mut self, line: impl Into<Line>) {
        self.clear();
        let line = line.into();
        let said = line.write(&mut self.out, self.colour_out, usize::MAX);
        let said = said.and_then(|()| writeln!(self.out)).and_then(|()| self.out.flush());
        self.closed |= said.is_err();
    }

    /// Says a value as one line of JSON, on stdout.
    pub fn json(&mut self, value: &impl serde::Serialize) {
        self.clear();
        let said = serde_json::to_writer(&mut self.out, value).map_err(io::Error::from);
        let said = said.and_then(|()| writeln!(self.out)).and_then(|()| self.out.flush());
        self.closed |= said.is_err();
    }

    /// Talks, on stderr. Nobody listening is no error.
    pub fn talk(&mut self, line: impl Into<Line>) {
        self.clear();
        let said = line.into().write(&mut self.err, self.colour_err, usize::MAX);
        let _ = said.and_then(|()| writeln!(self.err));
    }

    /// Draws a block at the bottom, in place of the one before. Only for a live console.
    pub fn draw(&mut self, lines: &[Line]) {
        let (width, height) = (self.size)();
        // One row stays for the cursor; more lines than rows could not be taken back.
        let shown = &lines[..lines.len().min(height.saturating_sub(1))];
        let mut block = Vec::new();
        let drawn = self.take_back(&mut block).and_then(|()| {
            for line in shown {
                line.write(&mut block, self.colour_err, width)?;
                writeln!(block)?;
            }
            Ok(())
        });
        // In one write, so that it does not flicker.
        let _ = drawn.and_then(|()| self.err.write_all(&block)).and_then(|()| self.err.flush());
        self.drawn = shown.len();
    }

    /// Draws the whole screen anew, from its first row on, whatever size it had before. Only for a
    /// live console that has the screen to itself.
    pub fn paint(&mut self, lines: &[Line]) {
        let (width, height) = self.size();
        // ECMA-48: home. Each row is erased before it is written: after its last column a terminal
        // would erase that one too.
        let mut block = b"\x1b[H".to_vec();
        let painted = lines.iter().take(height).enumerate().try_for_each(|(n, line)| {
            block.extend(if n == 0 { &b"\x1b[2K"[..] } else { b"\r\n\x1b[2K" });
            line.write(&mut block, self.colour_err, width)
        });
        if lines.len() < height {
            block.extend(b"\r\n\x1b[J");
        }
        let _ = painted.and_then(|()| self.err.write_all(&block)).and_then(|()| self.err.flush());
    }

    /// Takes the block back.
    pub fn clear(&mut self) {
        let mut back = Vec::new();
        let taken = self.take_back(&mut back);
        let _ = taken.and_then(|()| self.err.write_all(&back)).and_then(|()| self.err.flush());
        self.drawn = 0;
    }

    fn take_back(&self, out: &mut Vec<u8>) -> io::Result<()> {
        match self.drawn {
            0 => Ok(()),
            // ECMA-48: cursor up, column 1, erase to the end of the screen.
            rows => write!(out, "\x1b[{rows}A\r\x1b[J"),
        }
    }
}

fn terminal_size() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(io::stderr()).ok();
    size.filter(|size| size.ws_col > 0 && size.ws_row > 1)
        .map_or(USUAL, |size| (usize::from(size.ws_col), usize::from(size.ws_row)))
}

/// Whether the locale speaks UTF-8, by POSIX's order of precedence.
fn speaks_unicode() -> bool {
    let set = |name: &&str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(set).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// Rows as aligned columns, two spaces apart, without borders; `right` tells which columns are
/// numbers. The last column is not padded.
#[must_use]
pub fn columns(rows: &[Vec<(Look, String)>], right: &[bool], indent: usize) -> Vec<Line> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|(_, t)| clean(t).chars().count()).max()
    };
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or(0)).collect();
    rows.iter()
        .map(|row| {
            let mut line = Line::new().plain(&" ".repeat(indent));
            for (column, (look, text)) in row.iter().enumerate() {
                let spaces = " ".repeat(widths[column].saturating_sub(clean(text).chars().count()));
                let is_last = column + 1 == row.len();
                line = if right.get(column) == Some(&true) {
                    line.plain(&spaces).and(*look, text)
                } else if is_last {
                    line.and(*look, text)
                } else {
                    line.and(*look, text).plain(&spaces)
                };
                if !is_last {
                    line = line.plain("  ");
                }
            }
            line
        })
        .collect()
}
