//! Where certificates come from: files, which are read again when they change; a certificate
//! authority that speaks ACME; a CA of this machine, for names that no authority signs.
//!
//! The [`keeper`] is a task that owns them all and hands the proxy a new set when one changed. What
//! was had from an authority is in the store, shared by all workers and there again after a restart.
//! Whatever fails, what serves goes on serving, is tried again with growing pauses, and is told in
//! the status. Here nothing is known of requests, and nothing of rollouts.
//!
//! ```text
//!  files ──────────▶┐                           ┌─▶ proxy::tls (names, proofs)
//!  store ──────────▶┤ keeper ── order ── CA ────┤
//!  configuration ──▶┘    └───── local CA        └─▶ store, status
//! ```

mod account;
mod ask;
mod files;
mod hook;
mod jobs;
pub mod keeper;
mod local;
mod managed;
mod names;
mod order;
mod schedule;

#[cfg(test)]
mod tests;

pub use files::loose;
