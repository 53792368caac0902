//! How QUIC is spoken: what a client may send ahead, how long it may be silent, and how its address is
//! made sure of.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{EndpointConfig, ServerConfig, TransportConfig, VarInt};

use super::steering::Ids;
use crate::proxy::limits::Limits;

/// Flow control: bytes that a client may send ahead on a stream, and in all. Those of HTTP/2 here.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of answers on one connection that may wait for the client to acknowledge them.
const SEND_WINDOW: u64 = 1024 * 1024;
/// Streams for a client's own signals. It needs three (RFC 9114, 6.2), and may grease with more.
const SIGNAL_STREAMS: u32 = 8;
/// Pings that keep paths open and find dead peers, and the silence after which one is dead: those of
/// HTTP/2 here, but below the 30 s after which browsers give a connection up.
const PING_EVERY: Duration = Duration::from_secs(20);
const DEAD_AFTER: Duration = Duration::from_secs(50);
/// Connections of which nothing but the first packet is known, and bytes that are kept for each and for
/// all of them.
const MOST_UNKNOWN: usize = 1024;
const UNKNOWN_BYTES: u64 = 64 * 1024;
const ALL_UNKNOWN_BYTES: u64 = 4 * 1024 * 1024;

/// For a lane: one of so many that share a port.
pub fn endpoint_config(lane: usize, lanes: usize) -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config.cid_generator(move || Box::new(Ids::new(lane, lanes)));
    config
}

/// For all lanes; each connection gets the certificates of its moment.
pub fn server_config(crypto: Arc<QuicServerConfig>, limits: &Limits) -> io::Result<ServerConfig> {
    let idle = DEAD_AFTER.try_into().map_err(io::Error::other)?;
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(limits.streams))
        .max_concurrent_uni_streams(VarInt::from_u32(SIGNAL_STREAMS))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(PING_EVERY))
        .datagram_receive_buffer_size(None);
    let mut config = ServerConfig::with_crypto(crypto);
    config
        .transport_config(Arc::new(transport))
        .max_incoming(MOST_UNKNOWN)
        .incoming_buffer_size(UNKNOWN_BYTES)
        .incoming_buffer_size_total(ALL_UNKNOWN_BYTES);
    Ok(config)
}
