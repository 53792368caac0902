//! What the edge adds to a request: the features of [`crate::price`] that say who a client is, and what
//! becomes of a response.

use crate::price::{Feature, policy};

/// What a browser would take.
const TAKES: &[&str] = &["Accept-Encoding: gzip, deflate, br, zstd"];

/// Each on a single pool, against the same request without it.
pub const FEATURES: [Feature; 6] = [
    Feature {
        listen: "trusted_proxies = [\"127.0.0.1\"]\n",
        fields: &["X-Forwarded-For: 203.0.113.9, 198.51.100.7"],
        ..policy("trusted_proxies, by X-Forwarded-For", "")
    },
    Feature {
        listen: "trusted_proxies = [\"127.0.0.1\"]\nclient_header = \"CF-Connecting-IP\"\n",
        fields: &["CF-Connecting-IP: 203.0.113.9"],
        ..policy("client_header, of one address", "")
    },
    policy("forwarded = true", "forwarded = true\n"),
    // The small body of this figure is not worth it: this is the price of finding that out.
    Feature { fields: TAKES, ..policy("compress, of a small body", "compress = true\n") },
    policy("compress, for who takes none", "compress = true\n"),
    policy(
        "files on another route",
        "[[service.web.route]]\npath = \"/never\"\nfiles = \"/nowhere\"\n",
    ),
];
