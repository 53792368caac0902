//! What the edge adds to a request: the features of [`crate::price`] that say who a client is, and what
//! becomes of a response.

use crate::price::{Feature, policy};

/// What a browser would take.
const TAKES: &[&str] = &["Accept-Encoding: gzip, deflate, br, zstd"];

/// Each on a single pool, against the same request without it.
pub const FEATURES: [Feature; 4] = [
    policy("forwarded = true", "forwarded = true\n"),
    // The small body of this figure is not worth it: this is the price of finding that out.
    Feature { fields: TAKES, ..policy("compress, of a small body", "compress = true\n") },
    policy("compress, for who takes none", "compress = true\n"),
    policy(
        "files on another route",
        "[[service.web.route]]\npath = \"/never\"\nfiles = \"/nowhere\"\n",
    ),
];
