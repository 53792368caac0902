//! What is done to a service's requests besides forwarding them, decided without touching anything.
//!
//! ```text
//! configuration ─▶ Spec (plain values) ─▶ Policy (with counters) ─▶ hangs on the routing table
//!                                             │
//!                     request's facts ─▶ Policy::rule ─▶ Rule::decide ─▶ Decision
//! ```
//!
//! A [`policy::Policy`] has one rule for the whole service and one for each of its routes; a route's
//! rule holds what the service's says wherever the route says nothing. Which rule is meant, and what
//! it decides, follows from the request's head, the client's address and the moment: the proxy hands
//! them in and carries out what comes back. Only rate limits and counts of requests in flight
//! remember anything, in memory whose size is fixed.
//!
//! It forwards nothing, reads no file and knows no socket.

pub mod addresses;
pub mod coding;
pub mod facts;
pub mod fields;
pub mod files;
pub mod flight;
pub mod limit;
pub mod matcher;
pub mod path;
pub mod pattern;
pub mod policy;
pub mod rate;
pub mod rules;
pub mod send_file;
pub mod template;
pub mod users;
