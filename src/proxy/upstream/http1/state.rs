//! How far an exchange with an instance is.

use crate::proxy::chunked::Decoder;

/// How far the answer is.
#[derive(Debug)]
pub(super) enum State {
    /// Read to its end, or not asked for.
    Idle,
    /// Its head is awaited.
    Waiting,
    /// So many bytes of its body are missing.
    Length(u64),
    /// Its body comes in chunks.
    Chunked(Decoder),
    /// Its body lasts as long as the connection.
    Rest,
    /// Nothing that can be relied on.
    Broken,
}
