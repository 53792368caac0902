//! Is the canary worse?
//!
//! Counting ([`histogram`], [`scorecard`]) is shared with the data plane, which only adds; everything
//! else is a pure function of what was counted. Knows nothing of rollouts, routes or runtimes, and
//! never acts: it only says what it knows.

pub mod criteria;
pub mod grammar;
pub mod histogram;
pub mod judge;
pub mod scorecard;
pub mod verdict;
