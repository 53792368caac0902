//! What a client may ask of the proxy, and how long it may take over it.
//!
//! Plain numbers with their sources. Nothing here enforces them. Deadlines are watched by the
//! worker's tick, so each may be exceeded by up to a second.

use std::time::Duration;

/// Limits on clients. The defaults are those of a proxy at the internet's edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in a header section, request line included. 32 KiB is nginx's `4 × 8k`.
    pub header_bytes: usize,
    /// Bytes in one header field, name and value. 8 KiB is one line of nginx.
    pub line_bytes: usize,
    /// Whether names with an underscore are taken. nginx drops them too: many servers make one name of
    /// `X_Forwarded_For` and `X-Forwarded-For`.
    pub underscores: bool,
    /// Header fields in a request, cookie crumbs of HTTP/2 included. 100 is what Envoy and hyper allow.
    pub headers: usize,
    /// Bytes in a request target. 8 KiB is one line of nginx.
    pub target_bytes: usize,
    /// From accept to the end of the TLS handshake, and from accept to knowing the protocol.
    pub handshake: Duration,
    /// From the first byte of a request's head to its last.
    pub header_read: Duration,
    /// How long a connection may idle between requests. 75 s is nginx's `keepalive_timeout`.
    pub keep_alive: Duration,
    /// Requests on one HTTP/1.1 connection before it is closed. 1,000 is nginx's `keepalive_requests`.
    pub requests_http1: u32,
    /// Requests on one HTTP/2 connection before it is closed.
    pub requests_http2: u32,
    /// How long a request body may pause when the upstream waits for it.
    pub body_stall: Duration,
    /// Bytes per second that a request body must have after some seconds of grace; 0 is any. 240 is
    /// Kestrel's `MinRequestBodyDataRate`.
    pub body_rate: u64,
    /// How long a client may take no byte of a response that waits for it. 60 s is nginx's `send_timeout`.
    pub write_stall: Duration,
    /// Concurrent streams on one HTTP/2 connection. 100 is what RFC 9113 recommends at least.
    pub streams: u32,
    /// Connections at a time, over all workers. 10,000 is Envoy's per listener at the edge.
    pub connections: usize,
    /// Connections at a time from one address, or one IPv6 network of 64 bits, over all workers; 0 is
    /// any number: behind a load balancer all come from one.
    pub connections_per_address: u32,
    /// Age at which a connection is asked to end, less up to a tenth. nginx's `keepalive_time`.
    pub max_age: Duration,
    /// Bytes of memory that the process may use; `None` is what the machine or the container has.
    pub memory: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 32 * 1024,
            line_bytes: 8 * 1024,
            underscores: false,
            headers: 100,
            target_bytes: 8 * 1024,
            handshake: Duration::from_secs(10),
            header_read: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            requests_http1: 1_000,
            requests_http2: 10_000,
            body_stall: Duration::from_secs(30),
            body_rate: 240,
            write_stall: Duration::from_secs(60),
            streams: 100,
            connections: 10_000,
            connections_per_address: 0,
            max_age: Duration::from_secs(3600),
            memory: None,
        }
    }
}
