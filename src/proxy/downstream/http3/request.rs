//! One request of HTTP/3 and its answer.

use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h3::error::{Code, StreamError};
use h3::server::{RequestResolver, RequestStream};
use http::header::{
    CONNECTION, CONTENT_LENGTH, DATE, EXPECT, HeaderMap, HeaderName, HeaderValue, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use http::response::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::connection::Shared;
use super::meter::Meter;
use super::streams::{Handle, Link, Sending, Stopped};
use super::upload::Upload;
use crate::proxy::body::ResponseBody;
use crate::proxy::downstream::outgoing::Outgoing;
use crate::proxy::downstream::upload::{ClientBody, UploadError};
use crate::proxy::downstream::{Busy, Doom};
use crate::proxy::turn::Turn;
use crate::proxy::worker::Worker;
use crate::proxy::{check, handler, logged};
use crate::telemetry::traffic::{Count, Reason};

/// What a client has to say that a request of a kind which has no body has none: QUIC may bring the end
/// later than the head.
const END: Duration = Duration::from_secs(1);
/// Interim answers that may wait for the client; more are left out.
const HINTS: usize = 4;

/// Fields about a connection, which streams do not have (RFC 9114, 4.2).
const TIED: [HeaderName; 5] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Why an answer did not come to its end.
enum Broke {
    /// The client does not want it any more.
    Gone,
    /// The client takes nothing.
    Stalled,
    /// The instance broke off, or the answer cannot be told.
    Upstream,
}

/// Counts a request's panic; the task around it ends, and nothing else.
struct Watch(Rc<Worker>);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.count(Count::Panics);
        }
    }
}

/// Serves a request to its end.
pub async fn serve(
    shared: Rc<Shared>,
    resolver: Box<RequestResolver<Link, Bytes>>,
    handle: Handle,
    busy: Busy,
) {
    let (worker, connection) = (&shared.worker, &shared.connection);
    let _watch = Watch(Rc::clone(worker));
    let Handle { meter, mut stopped } = handle;
    let mut resolving = Box::pin(resolver.resolve_request());
    let resolved = timeout(worker.settings.limits.header_read, &mut resolving).await;
    let (mut request, stream) = match resolved {
        Ok(Ok(resolved)) => resolved,
        Ok(Err(error)) => return unread(&shared, &meter, &error),
        Err(_) => {
            worker.refuse(Reason::HeaderTime, connection.peer);
            return meter.breaks_with(Code::H3_REQUEST_INCOMPLETE);
        }
    };
    drop(resolving);
    meter.breaks_with(Code::H3_INTERNAL_ERROR);
    let (mut sending, receiving) = stream.split();
    let Ok(length) = length(request.headers()) else {
        malformed(&shared, StatusCode::BAD_REQUEST);
        return sending.stop_stream(Code::H3_MESSAGE_ERROR);
    };
    let mut body = Upload::new(receiving, Rc::clone(&meter), length);
    if let Err(error) = look(&mut body, request.method(), length).await {
        match error {
            UploadError::Malformed(_) => malformed(&shared, check::status(Reason::Chunks)),
            _ => shared.gave_up(),
        }
        return sending.stop_stream(Code::H3_MESSAGE_ERROR);
    }
    let (hints, hinted) = mpsc::channel(HINTS);
    if request.headers().contains_key(EXPECT) {
        body.waits_for(hints.clone());
    }
    request.extensions_mut().insert(hints);
    if request.extensions().get::<h3::ext::Protocol>().is_some() {
        // One that nobody speaks here, whatever it is.
        let protocol = hyper::ext::Protocol::from_static("unknown");
        request.extensions_mut().insert(protocol);
    }
    let bodiless = *request.method() == Method::HEAD;
    let request = request.map(|()| match body.is_end_stream() {
        true => ClientBody::Empty,
        false => ClientBody::Http3(Box::new(body)),
    });
    let response = ask(&shared, request, hinted, &mut sending, &meter, &mut stopped).await;
    let Some(response) = response else { return shared.gave_up() };
    if response.extensions().get::<handler::Malformed>().is_some() {
        return sending.stop_stream(Code::H3_MESSAGE_ERROR);
    }
    // Until the client has all of it; the answer itself lets go with its last byte here.
    let more = Busy::more(connection);
    let response = response.map(|body| Outgoing::new(body, busy));
    let answered = answer(worker, response, bodiless, &mut sending, &meter, &mut stopped).await;
    match answered {
        Ok(()) => {
            let _ = timeout(worker.settings.limits.write_stall, stopped).await;
        }
        Err(Broke::Gone) => shared.gave_up(),
        Err(Broke::Stalled) => {
            worker.refuse(Reason::WriteTime, connection.peer);
            sending.stop_stream(Code::H3_REQUEST_CANCELLED);
        }
        Err(Broke::Upstream) => sending.stop_stream(Code::H3_INTERNAL_ERROR),
    }
    drop((more, sending));
    if worker.is_draining() {
        connection.wake();
    }
}

/// Tells of what was no request.
fn malformed(shared: &Shared, status: StatusCode) {
    shared.worker.refuse(Reason::Malformed, shared.connection.peer);
    logged::refused(&shared.worker, &shared.connection, "HTTP/3.0", status);
}

/// A request's head could not be read. The library has said so to the client.
fn unread(shared: &Shared, meter: &Meter, error: &StreamError) {
    if meter.is_flooded() {
        return shared.doom(Doom::Flood);
    }
    match error {
        StreamError::HeaderTooBig { .. } => {
            let status = check::status(Reason::HeaderSize);
            shared.worker.refuse(Reason::HeaderSize, shared.connection.peer);
            logged::refused(&shared.worker, &shared.connection, "HTTP/3.0", status);
        }
        StreamError::StreamError { .. } => malformed(shared, StatusCode::BAD_REQUEST),
        StreamError::RemoteTerminate { .. } => shared.gave_up(),
        // Its connection tells.
        _ => {}
    }
}

/// How long the body is said to be; an error when the head cannot be one of HTTP/3.
fn length(headers: &HeaderMap) -> Result<Option<u64>, ()> {
    let is_tied = TIED.iter().any(|name| headers.contains_key(name));
    let is_te = |te: &HeaderValue| te.as_bytes().eq_ignore_ascii_case(b"trailers");
    if is_tied || !headers.get_all(TE).iter().all(is_te) {
        return Err(());
    }
    let Some(length) = headers.get(CONTENT_LENGTH) else { return Ok(None) };
    let digits = length.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).map(Some).ok_or(())
}

/// Looks whether there is a body. Where that is as good as certain it is waited for: an instance that
/// is sent a GET with a body of unknown length may refuse it.
async fn look(body: &mut Upload, method: &Method, length: Option<u64>) -> Result<(), UploadError> {
    let seen = std::future::poll_fn(|context| Poll::Ready(body.poll_first(context))).await;
    let has_none = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::DELETE);
    match seen {
        Poll::Ready(seen) => seen,
        Poll::Pending if has_none && length.is_none() => {
            let first = std::future::poll_fn(|context| body.poll_first(context));
            timeout(END, first).await.unwrap_or(Ok(()))
        }
        Poll::Pending => Ok(()),
    }
}

/// Has a request handled, and tells the client what comes before the answer. None when the client does
/// not want it any more.
async fn ask(
    shared: &Shared,
    request: Request<ClientBody>,
    mut hinted: mpsc::Receiver<(StatusCode, HeaderMap)>,
    sending: &mut RequestStream<Sending, Bytes>,
    meter: &Meter,
    stopped: &mut Stopped,
) -> Option<Response<ResponseBody>> {
    let worker = &shared.worker;
    let mut handling = Box::pin(handler::handle(worker, &shared.connection, request));
    loop {
        let (status, headers) = tokio::select! {
            biased;
            response = &mut handling => return Some(response),
            Some(hint) = hinted.recv() => hint,
            () = &mut *stopped => return None,
        };
        let mut hint = Response::new(());
        *hint.status_mut() = status;
        *hint.headers_mut() = headers;
        let patience = worker.settings.limits.write_stall;
        // What cannot be told is left out, unless nobody listens.
        if let Err(Broke::Gone) = patiently(meter, patience, sending.send_response(hint)).await {
            return None;
        }
    }
}

async fn answer(
    worker: &Worker,
    response: Response<Outgoing>,
    bodiless: bool,
    sending: &mut RequestStream<Sending, Bytes>,
    meter: &Meter,
    stopped: &mut Stopped,
) -> Result<(), Broke> {
    let patience = worker.settings.limits.write_stall;
    let (mut head, mut body) = response.into_parts();
    let sends = dress(&mut head, body.size_hint().exact(), bodiless, &worker.date());
    patiently(meter, patience, sending.send_response(Response::from_parts(head, ()))).await?;
    if !sends {
        return patiently(meter, patience, sending.finish()).await;
    }
    let mut turn = Turn::default();
    loop {
        let next = std::future::poll_fn(|context| {
            ready!(turn.poll(context));
            Pin::new(&mut body).poll_frame(context)
        });
        let frame = tokio::select! {
            biased;
            frame = next => frame,
            () = &mut *stopped => return Err(Broke::Gone),
        };
        let Some(frame) = frame else { break };
        let Ok(frame) = frame else { return Err(Broke::Upstream) };
        match frame.into_data() {
            Ok(bytes) if bytes.is_empty() => {}
            Ok(bytes) => {
                turn.take(bytes.len());
                patiently(meter, patience, sending.send_data(bytes)).await?;
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    patiently(meter, patience, sending.send_trailers(trailers)).await?;
                }
                break;
            }
        }
    }
    patiently(meter, patience, sending.finish()).await
}

/// Makes a head one of HTTP/3: its framing is that of its body. Whether a body follows.
fn dress(head: &mut Parts, length: Option<u64>, bodiless: bool, date: &[u8]) -> bool {
    for name in &TIED {
        head.headers.remove(name);
    }
    if !head.headers.contains_key(DATE)
        && let Ok(date) = HeaderValue::from_bytes(date)
    {
        head.headers.insert(DATE, date);
    }
    let sends = match head.status {
        StatusCode::NO_CONTENT => {
            head.headers.remove(CONTENT_LENGTH);
            return false;
        }
        status => !bodiless && status != StatusCode::NOT_MODIFIED,
    };
    match length {
        Some(length) if sends => {
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        None if sends => {
            head.headers.remove(CONTENT_LENGTH);
        }
        // An answer of our own to a HEAD: what a GET would get.
        Some(length @ 1..) if bodiless && !head.headers.contains_key(CONTENT_LENGTH) => {
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        _ => {}
    }
    sends
}

/// Waits for something to be sent while the client takes anything at all.
async fn patiently<T>(
    meter: &Meter,
    patience: Duration,
    sending: impl Future<Output = Result<T, StreamError>>,
) -> Result<T, Broke> {
    let mut sending = pin!(sending);
    loop {
        let before = meter.written();
        match timeout(patience, sending.as_mut()).await {
            Ok(Ok(sent)) => return Ok(sent),
            Ok(Err(StreamError::HeaderTooBig { .. })) => return Err(Broke::Upstream),
            Ok(Err(_)) => return Err(Broke::Gone),
            Err(_) if meter.written() > before => {}
            Err(_) => return Err(Broke::Stalled),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(status: u16, fields: &[(&str, &str)]) -> Parts {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        response.body(()).expect("a response").into_parts().0
    }

    #[test]
    fn an_answer_is_framed_by_its_body() {
        let fields = [("content-length", "9"), ("transfer-encoding", "chunked"), ("a", "b")];
        let mut dressed = head(200, &fields);
        assert!(dress(&mut dressed, Some(3), false, b"now"));
        assert_eq!(dressed.headers[CONTENT_LENGTH], "3");
        assert!(!dressed.headers.contains_key(TRANSFER_ENCODING));
        assert_eq!(
            (&dressed.headers[DATE], &dressed.headers["a"]),
            (&"now".parse().expect("a value"), &"b".parse().expect("a value"))
        );
        let mut dressed = head(200, &fields);
        assert!(dress(&mut dressed, None, false, b"now"));
        assert!(!dressed.headers.contains_key(CONTENT_LENGTH));
        for (status, bodiless) in [(200, true), (304, false)] {
            let mut dressed = head(status, &fields);
            assert!(!dress(&mut dressed, Some(0), bodiless, b"now"));
            assert_eq!(dressed.headers[CONTENT_LENGTH], "9");
        }
        let mut dressed = head(200, &[]);
        assert!(!dress(&mut dressed, Some(7), true, b"now"));
        assert_eq!(dressed.headers[CONTENT_LENGTH], "7");
        let mut dressed = head(204, &fields);
        assert!(!dress(&mut dressed, Some(0), false, b"now"));
        assert!(!dressed.headers.contains_key(CONTENT_LENGTH));
    }

    #[test]
    fn a_head_of_another_protocol_is_none() {
        let of = |fields: &[(&str, &str)]| length(&head(200, fields).headers);
        assert_eq!(of(&[("content-length", "12"), ("te", "trailers")]), Ok(Some(12)));
        assert_eq!(of(&[("accept", "*/*")]), Ok(None));
        for bad in [
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip"),
            ("content-length", "+5"),
            ("content-length", "5, 5"),
            ("content-length", ""),
            ("content-length", "99999999999999999999"),
        ] {
            assert_eq!(of(&[bad]), Err(()), "{bad:?}");
        }
    }
}
