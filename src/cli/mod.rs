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
pub mod run;
pub mod status;
mod stream;
#[cfg(test)]
mod tests;
pub mod trouble;
pub mod watch;
