//! Why a verb that speaks to a daemon could not do what it was asked.

use super::console::{Console, Line, Look};
use super::exit::Exit;

/// What went wrong, and how the verb ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// How the verb ends.
    pub exit: Exit,
    /// What happened and what to change.
    pub sentence: String,
    /// The status that the daemon answered, when it did.
    pub status: Option<u16>,
}

impl Trouble {
    /// Trouble of a kind.
    #[must_use]
    pub fn new(exit: Exit, sentence: impl Into<String>) -> Self {
        Self { exit, sentence: sentence.into(), status: None }
    }
}

/// Says what the trouble was, if there was any, and turns it into an exit.
pub(super) fn ended(console: &mut Console, ended: Result<Exit, Trouble>) -> Exit {
    ended.unwrap_or_else(|trouble| {
        let line = Line::new().and(Look::Bad, "error").plain(": ");
        let mut said = trouble.sentence.lines();
        console.talk(line.plain(said.next().unwrap_or_default()));
        // What somebody else wrote, such as the last lines of a build, stays as it was written.
        said.for_each(|rest| console.talk(Line::from(rest)));
        trouble.exit
    })
}
