//! How far something is, as it is drawn: a bar that moves on a terminal, a line for each thing on a
//! pipe, an object for each piece of news with `-o json`.

use serde_json::json;

use super::console::{Console, Line, Look};
use super::figures;
use crate::model::progress::Progress;

/// Columns of a bar.
const WIDTH: usize = 30;

/// Draws progress, and takes the bar back at the end.
pub struct Bar<'a> {
    console: &'a mut Console,
    json: bool,
    what: String,
}

impl<'a> Bar<'a> {
    /// Nothing drawn yet.
    pub fn new(console: &'a mut Console, json: bool) -> Self {
        Self { console, json, what: String::new() }
    }

    /// Shows how far it is.
    pub fn show(&mut self, now: &Progress) {
        if self.json {
            self.console.json(&json!({ "kind": "progress", "progress": now }));
            return;
        }
        let is_new = self.what != now.what;
        self.what.clone_from(&now.what);
        if let Some(line) = &now.line {
            self.console.talk(Line::new().and(Look::Faint, line));
        } else if self.console.is_live() {
            let line = self.bar(now);
            self.console.draw(&[line]);
        } else if is_new {
            self.console.talk(now.what.as_str());
        }
    }

    fn bar(&self, now: &Progress) -> Line {
        let signs = self.console.signs();
        let line = Line::new().plain(&now.what);
        match (now.done, now.of.filter(|of| *of > 0)) {
            (Some(done), Some(of)) => {
                let share = done as f64 / of as f64;
                let full = ((share * WIDTH as f64).round() as usize).min(WIDTH);
                line.plain("  ")
                    .and(Look::Good, &signs.full.repeat(full))
                    .and(Look::Faint, &signs.empty.repeat(WIDTH - full))
                    .plain(&format!("  {} of {}", figures::bytes(done), figures::bytes(of)))
            }
            (Some(done), None) => line.plain(&format!("  {}", figures::bytes(done))),
            (None, _) => line.plain(" …"),
        }
    }
}

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        self.console.clear();
    }
}
