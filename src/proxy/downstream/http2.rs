//! HTTP/2 with a client: hyper speaks it; here are its limits, the drain, and the end.
//!
//! Interim answers (103) of instances end here: hyper's server takes one response per request and has no
//! way to send another before it, although the library below it has (`h2`'s `send_informational`). RFC
//! 9110, 15.2 lets a proxy leave them out for clients that it cannot tell them.

use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::outgoing::Outgoing;
use super::stream::Io;
use super::upload::ClientBody;
use super::{Busy, Doom, Downstream};
use crate::proxy::handler;
use crate::proxy::upstream::http2::Local;
use crate::proxy::worker::Worker;
use crate::telemetry::traffic::Reason;

/// HTTP/2 flow control: bytes a client may send ahead on a stream, and in all. Envoy's at the edge.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of a stream's response that may wait for its client.
const SEND_BUFFER: usize = 64 * 1024;
/// HTTP/2 pings that find dead peers: every 30 s, answered within 20 s.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Streams that we may reset for a client's errors before it is sent away (CVE-2025-8671).
const LOCAL_RESETS: usize = 500;

/// Serves a connection to its end.
pub async fn serve(worker: &Rc<Worker>, connection: &Rc<Downstream>, io: TokioIo<Io>) {
    let (sharer, shared) = (Rc::clone(worker), Rc::clone(connection));
    let service = service_fn(move |request| {
        let (worker, connection) = (Rc::clone(&sharer), Rc::clone(&shared));
        let busy = Busy::new(&connection);
        // Boxed: on its way into a task of its own it is moved many times.
        Box::pin(async move {
            let request = request.map(ClientBody::Http2);
            let response = if connection.is_overworked(worker.settings.limits.streams) {
                connection.doom.set(Some(Doom::Flood));
                connection.wake();
                handler::turn_away()
            } else {
                handler::handle(&worker, &connection, request).await
            };
            if response.extensions().get::<handler::Malformed>().is_some() {
                // RFC 9113, 8.1.1.
                return Err(h2::Error::from(h2::Reason::PROTOCOL_ERROR));
            }
            Ok(response.map(|body| Outgoing::new(body, busy)))
        })
    });
    let limits = &worker.settings.limits;
    let http = http2::Builder::new(Local)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .enable_connect_protocol()
        .max_local_error_reset_streams(LOCAL_RESETS)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(io, service);
    let mut http = std::pin::pin!(http);
    let mut told = false;
    let doom = std::future::poll_fn(|context| {
        match connection.doom.take() {
            // A second time: the client does not hang up although it was told to.
            Some(Doom::Idle) if told => return Poll::Ready(None),
            Some(doom @ (Doom::Stalled | Doom::Head | Doom::Flood | Doom::Malformed)) => {
                return Poll::Ready(Some(doom));
            }
            Some(Doom::Idle) => {
                told = true;
                http.as_mut().graceful_shutdown();
            }
            None => {}
        }
        if (worker.is_draining() || connection.is_last()) && !told {
            told = true;
            http.as_mut().graceful_shutdown();
        }
        connection.park(context);
        http.as_mut().poll(context).map(|_| connection.doom.take())
    })
    .await;
    match doom {
        Some(Doom::Head) => worker.refuse(Reason::HeaderTime, connection.peer),
        Some(Doom::Stalled) => worker.refuse(Reason::WriteTime, connection.peer),
        Some(Doom::Flood) => worker.refuse(Reason::Flood, connection.peer),
        Some(Doom::Malformed) => worker.refuse(Reason::Malformed, connection.peer),
        Some(Doom::Idle) | None => {}
    }
}
