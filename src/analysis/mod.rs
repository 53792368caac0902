//! Is the canary worse?
//!
//! Counting ([`histogram`], [`scorecard`]) is shared with the data plane, which only adds; everything
//! else is a pure function of what was counted. Knows nothing of rollouts, routes or runtimes, and
//! never acts: it only says what it knows.
//!
//! ```text
//! sample ─▶ reading ─┬▶ rates (errors, 4xx) ─┐
//!                    ├▶ ordinal (latency) ───┼▶ evidence against ─▶ Fail at 1/α
//!                    ├▶ limits ──────────────┘
//!                    ├▶ promotion ─────────────▶ shown to be good enough ─▶ Pass
//!                    ├▶ breaker ───────────────▶ Fail at once
//!                    └▶ share, recent ─────────▶ hold
//! ```

pub mod baseline;
pub mod bernoulli;
pub mod breaker;
pub mod checks;
pub mod clients;
pub mod criteria;
pub mod effect;
mod enough;
pub mod forecast;
pub mod grammar;
pub mod histogram;
pub mod instances;
pub mod interval;
pub mod judge;
pub mod limits;
pub mod memory;
pub mod mirror;
#[cfg(test)]
mod mishaps;
pub mod mixture;
pub mod normal;
pub mod ordinal;
pub mod promotion;
pub mod rates;
pub mod reading;
pub mod recent;
pub mod replay;
pub mod scorecard;
pub mod sessions;
pub mod share;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod stories;
pub mod troubled;
pub mod verdict;
pub mod wording;
