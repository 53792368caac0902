//! The operator's verbs, one file each.
//!
//! A verb speaks to a daemon through [`client`], says what it has to say on a [`console`] and ends
//! with an [`exit::Exit`]. Verbs decide nothing about rollouts; they ask and tell.

pub mod act;
pub mod client;
pub mod console;
pub mod deploy;
pub mod events;
pub mod exit;
pub mod figures;
pub mod history;
mod live;
pub mod logs;
pub mod reload;
pub mod status;
mod stream;
#[cfg(test)]
mod tests;
pub mod watch;

/// Says what the trouble was, and turns it into an exit.
fn ended(console: &mut console::Console, ended: Result<exit::Exit, client::Trouble>) -> exit::Exit {
    ended.unwrap_or_else(|trouble| {
        let line = console::Line::new().and(console::Look::Bad, "error").plain(": ");
        console.talk(line.plain(&trouble.sentence));
        trouble.exit
    })
}
