//! Reads a configuration of nginx and writes ours.
//!
//! ```text
//!  text ─ syntax ─▶ directives ─ convert ─▶ sheet ─▶ TOML, and what could not be carried over
//! ```
//!
//! What nginx does by a directive and we do by ourselves is left out in silence; what has a key here is
//! written under it, if this version has that key; everything else is named with its line. Nothing is
//! looked up: files that are included are read by whoever asks.

mod answers;
mod convert;
mod expression;
mod guard;
mod location;
mod passes;
mod routes;
mod server;
mod sheet;
mod syntax;

#[cfg(test)]
mod tests;

pub use syntax::SyntaxError;

/// What became of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Our configuration, as TOML.
    pub toml: String,
    /// What was not carried over, in sentences that begin with the line.
    pub left: Vec<String>,
}

/// Converts a configuration.
pub fn import(text: &str) -> Result<Imported, SyntaxError> {
    let directives = syntax::parse(text)?;
    let mut sheet = sheet::Sheet::default();
    convert::all(&directives, &mut sheet);
    Ok(sheet.finish())
}
