//! What stands on stdout and stderr, and how.
//!
//! stdout carries data: a table, or JSON with `-o json`. stderr carries talk. Colours are written
//! always and taken out by anstream where they are not wanted: on a pipe, with `NO_COLOR`, on a dumb
//! terminal. Columns are aligned by spaces, without frames, so that `awk` and `cut` can read them.
//! A reader that goes away (`| head`) is no error.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

/// Good news.
pub const GOOD: Style = AnsiColor::Green.on_default().bold();
/// Bad news.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// Something to look at.
pub const WARNING: Style = AnsiColor::Yellow.on_default().bold();
/// What matters most on a line.
pub const STRONG: Style = Style::new().bold();
/// What matters least.
pub const FAINT: Style = Style::new().dimmed();

/// How data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Writes data to stdout, with a newline at its end.
pub fn data(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Writes data to stdout as it is, colours or none: for files of other programs.
pub fn raw(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Writes a value to stdout as indented JSON.
pub fn json(value: &impl Serialize) -> io::Result<()> {
    data(&serde_json::to_string_pretty(value)?)
}

/// Writes a value to stdout as one line of JSON.
pub fn json_line(value: &impl Serialize) -> io::Result<()> {
    data(&serde_json::to_string(value)?)
}

/// Says something on stderr. If nobody can hear it, that is no error.
pub fn talk(text: &str) {
    let mut out = anstream::stderr().lock();
    let _ = writeln!(out, "{}", text.trim_end_matches('\n'));
}

/// A table of aligned columns below a header.
#[derive(Debug, Clone, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    #[must_use]
    pub fn new(header: &[&str]) -> Self {
        let upper = header.iter().map(|name| name.to_uppercase());
        Self { rows: vec![upper.collect()] }
    }

    /// Adds a row. Cells may have colours; an empty cell is written as `-`, so that every row has as
    /// many words as there are columns.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        let cells = cells.into_iter().map(Into::into);
        let filled = cells.map(|cell| if cell.is_empty() { "-".to_owned() } else { cell });
        self.rows.push(filled.collect());
    }

    /// The text of the table; two spaces between columns, none at the ends of lines.
    #[must_use]
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| visible_width(cell)).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            for (at, cell) in row.iter().enumerate() {
                text.push_str(cell);
                if at + 1 < row.len() {
                    let gap = widths[at] + 2 - visible_width(cell);
                    text.extend(std::iter::repeat_n(' ', gap));
                }
            }
            text.push('\n');
        }
        text
    }
}

/// How many characters are seen: colours are not.
fn visible_width(text: &str) -> usize {
    anstream::adapter::strip_str(text).to_string().chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_whatever_their_colour() {
        let mut table = Table::new(&["service", "phase", "weight"]);
        table.row(["web".to_owned(), format!("{GOOD}baking{GOOD:#}"), "25%".to_owned()]);
        table.row(["a-long-name", "", "100%"]);
        let plain = anstream::adapter::strip_str(&table.render()).to_string();
        let expected = "\
SERVICE      PHASE   WEIGHT
web          baking  25%
a-long-name  -       100%
";
        assert_eq!(plain, expected);
    }
}
