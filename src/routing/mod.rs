//! Where does this request go?
//!
//! An immutable [`table`] answers, and [`live`] is the one place where it is swapped. Pools and
//! endpoints outlive tables: a new weight is a new table over the same pools, so health, in-flight
//! counts and drains survive the swap. No sockets here, no clock, no async; atomics and the one
//! `ArcSwap` are shared memory.

pub mod asset;
pub mod budget;
pub mod endpoint;
pub mod index;
pub mod live;
pub mod mirror;
pub mod pool;
pub mod retries;
pub mod settings;
pub mod split;
pub mod table;
