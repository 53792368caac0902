//! What makes a connection fit for another request than the one that it was asked for.

use bytes::BytesMut;
use http::header::HeaderMap;

use super::{Connection, ROOM};
use crate::proxy::chunked::Piece;
use crate::proxy::clock::Tick;

impl Connection {
    /// Takes a map that is not needed any more, for its room.
    pub fn recycle(&mut self, mut spare: HeaderMap) {
        spare.clear();
        self.spare = spare;
    }

    /// Reads what is left of an answer that nobody wants, if all of it is here already. Says whether
    /// the connection can be used again.
    pub fn skip_body(&mut self) -> bool {
        while matches!(self.take_piece(), Ok(Piece::Data(_) | Piece::Trailers(_))) {}
        self.is_ready()
    }

    /// It idles from now on.
    pub fn rest(&mut self, now: Tick) {
        self.idle_since = now;
        self.used = true;
        if std::mem::take(&mut self.grown) || self.out.capacity() > ROOM {
            self.give_buffers_back();
        }
    }

    /// It was not used for a while: it keeps nothing but its socket.
    pub fn give_buffers_back(&mut self) {
        self.read = BytesMut::new();
        self.out = Vec::new();
        self.spare = HeaderMap::new();
    }
}
