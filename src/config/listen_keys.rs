//! The keys of `[listen]`; see [`super::keys`].

use super::keys::Key;
use super::keys::Shape::{Address, Choice, Duration, Integer, Size, Switch, Text, TextOrList};
use super::keys::key;

/// `[listen]`. The limits are those of the design's edge checklist, beside which the values of
/// nginx, HAProxy and Envoy stand.
pub const LISTEN: &[Key] = &[
    key(
        "http",
        Address,
        r#""0.0.0.0:80""#,
        "Address for cleartext HTTP/1.1 and HTTP/2, a list of them, or \"off\".",
    ),
    key(
        "https",
        Address,
        r#""0.0.0.0:443""#,
        "Address for TLS, a list of them, or \"off\". Opened only when there is a certificate.",
    ),
    key(
        "http3",
        Switch,
        "false",
        "HTTP/3 on the UDP ports of `https`, and visitors are told of it. Only in a binary built with `--features http3`.",
    ),
    key("workers", Integer(0, 1024), "0", "Threads of the data plane; 0 is one per core."),
    key(
        "trusted_proxies",
        TextOrList,
        "[]",
        "Networks whose X-Forwarded-* headers are believed; from others they are replaced. Also \"private\", \"loopback\", \"cloudflare\", \"file:NAME\".",
    ),
    key(
        "client_header",
        Text,
        r#""X-Forwarded-For""#,
        "Which header of theirs says who the client is: also \"Forwarded\", or one with a single address such as \"CF-Connecting-IP\". No other is believed.",
    ),
    key(
        "proxy_protocol",
        TextOrList,
        r#""off""#,
        "Addresses of `http`, `https` and [tcp] on which each connection begins with a PROXY protocol header (v1 or v2) of a trusted proxy; others are sent away there. \"all\" is all of them.",
    ),
    key(
        "handshake_timeout",
        Duration,
        r#""10s""#,
        "From accepting a connection to the end of the TLS handshake.",
    ),
    key("header_timeout", Duration, r#""10s""#, "For the whole header of a request."),
    key("body_timeout", Duration, r#""30s""#, "Between two reads of a request's body."),
    key("write_timeout", Duration, r#""60s""#, "Without progress while a response is written."),
    key("keep_alive", Duration, r#""75s""#, "How long an idle connection is kept."),
    key(
        "keep_alive_requests",
        Integer(1, 1_000_000),
        "1000",
        "Requests on one connection before it is closed; ten times as many with HTTP/2 and HTTP/3.",
    ),
    key(
        "max_headers",
        Integer(1, 10_000),
        "100",
        "Header fields of one request; more are answered 431.",
    ),
    key(
        "max_header_size",
        Size,
        r#""32KiB""#,
        "Bytes of one request's header; more are answered 431.",
    ),
    key(
        "max_target",
        Size,
        r#""8KiB""#,
        "Bytes of a request's path and query; more are answered 414.",
    ),
    key(
        "max_streams",
        Integer(1, 10_000),
        "100",
        "Requests at a time on one connection of HTTP/2 or HTTP/3.",
    ),
    key(
        "max_header_line",
        Size,
        r#""8KiB""#,
        "Bytes of one header field, name and value; more are answered 431.",
    ),
    key(
        "header_underscores",
        Choice(&["drop", "keep"]),
        r#""drop""#,
        "What becomes of header fields with an underscore in their name; some apps take X_Forwarded_For for X-Forwarded-For.",
    ),
    key(
        "body_rate",
        Integer(0, 1_000_000_000),
        "240",
        "Bytes per second that a request's body must have after 5 seconds of grace; 0 is any.",
    ),
    key(
        "max_connections",
        Integer(1, 10_000_000),
        "10000",
        "Connections from visitors at a time; more are closed at once.",
    ),
    key(
        "max_connections_per_address",
        Integer(0, 10_000_000),
        "0",
        "Connections at a time from one address, or one IPv6 network of 64 bits; 0 is any number.",
    ),
    key(
        "connections_exempt",
        TextOrList,
        "[]",
        "Networks that `max_connections_per_address` does not count, beside the trusted proxies.",
    ),
    key(
        "max_age",
        Duration,
        r#""1h""#,
        "Age at which a connection is asked to end, less up to a tenth so that not all end together.",
    ),
    key(
        "memory",
        Size,
        "0",
        "Memory that we may use; at 85% idle connections are closed and time limits on clients halved, at 95% requests are answered 503. 0 is what the machine or the container has.",
    ),
    key(
        "buffer_disk",
        Size,
        r#""1GiB""#,
        "Bytes in the state directory for request bodies that `buffer_requests` reads in advance; when they are taken, bodies go on as they come.",
    ),
];
