//! How many files may be open: the daemon takes what it is allowed to take, and instances get what it had.
//!
//! The soft limit is 1,024 on most machines, because of programs from the time of `select`; a proxy needs
//! one for each client and each instance. Whoever knows better raises it to the hard limit by itself, and
//! gives it back to what it starts (so does Go's runtime).

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Tells an heir what the limit was before all.
pub const VARIABLE: &str = "SWITCHBACK_HEIR_FILES";

static BEFORE: OnceLock<Option<u64>> = OnceLock::new();

/// Raises the soft limit to the hard one, and remembers what it was.
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    let inherited = std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok());
    BEFORE.get_or_init(|| inherited.or(limit.current));
    if limit.current == limit.maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        Ok(()) => {
            tracing::debug!(from = limit.current, to = limit.maximum, "more files may be open");
        }
        Err(error) => tracing::warn!(%error, "the limit on open files stays as it is"),
    }
}

/// What the soft limit was before it was raised; `None` when that is not known, or there was none.
pub fn before() -> Option<u64> {
    BEFORE.get().copied().flatten()
}

/// Sets the soft limit of this process, and of what it starts, back to that.
pub(super) fn lower(to: u64) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current > to) {
        // An instance that may open more files than it expects is better than none.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(to), ..limit });
    }
}
