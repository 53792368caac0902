//! Copies of requests for a canary that has no visitors yet.
//!
//! A copy is asked for while the visitor's request is on its way, and sent when stable has answered it:
//! by a task of its own, over connections of its own, with nothing that the visitor waits for. Its answer
//! is read and thrown away; what it was, and how long it took, is compared with stable's. It is no
//! observation of the split.
//!
//! Only what changes nothing is copied: GET and HEAD, without a body, to be upgraded to nothing, from
//! visitors and not from testers. A copy says that it is one.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::Method;
use http::header::{CONTENT_ENCODING, HeaderName, HeaderValue};
use http::response::Response;
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;

use super::answer;
use super::attempt::{Arrived, attempt};
use super::body::{RequestBody, ResponseBody};
use super::choice::Choice;
use super::error::{BodyError, Failure, Fault};
use super::exchange::{Exchange, Patience};
use super::forward::Answer;
use super::observation::{Kind, Subject};
use super::ongoing::Ongoing;
use super::parcel::Parcel;
use super::route::Route;
use super::worker::Worker;
use crate::analysis::mirror::{Answered, Bodies};
use crate::analysis::scorecard::Row;
use crate::model::mirror::MirrorSpec;
use crate::model::weight::Side;
use crate::routing::mirror::{BODY, Mirror, Permit};

const MARK: HeaderName = HeaderName::from_static(MirrorSpec::HEADER);
/// Bytes of an answer that are read before the rest is taken to be as good: a copy is no download.
const READ: usize = 1 << 20;
/// How long they are read, and how long stable's is waited for.
const READ_FOR: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });

/// A copy that waits for stable's answer.
#[derive(Debug)]
pub struct Copied {
    parcel: Box<Parcel>,
    route: Route,
    permit: Permit,
    exception: Option<u16>,
}

/// A copy whose twin stable has answered.
#[derive(Debug)]
pub struct Twin {
    copied: Box<Copied>,
    stable: Answered,
    /// Stable's body, where bodies are compared and this one can be.
    body: Option<Bytes>,
}

/// A copy of a request on its way to stable, if this is one of those that are copied.
#[cold]
pub fn copy(
    worker: &Worker,
    route: &Route,
    choice: &Choice,
    parcel: &Parcel,
    subject: &Subject,
) -> Option<Box<Copied>> {
    let service = route.service();
    let mirror = service.mirror.as_ref()?;
    if !matches!(parcel.head.method, Method::GET | Method::HEAD)
        || !matches!(parcel.body, RequestBody::Empty)
        || service.canary.is_none()
        || choice.side(service) != Side::Stable
    {
        return None;
    }
    let permit = mirror.admit(worker.random(), Instant::now())?;
    let mut parcel = Box::new(parcel.copy()?);
    parcel.head.headers.insert(MARK, HeaderValue::from_static("1"));
    let exception = subject.exception;
    Some(Box::new(Copied { parcel, route: route.clone(), permit, exception }))
}

/// How an answer with this status counts, for the path that was asked for.
fn row(route: &Route, exception: Option<u16>, status: u16) -> Row {
    let settings = &route.service().settings;
    if settings.rule(exception).unwrap_or(&settings.errors).is_error(status) {
        Row::Failure
    } else if (400..500).contains(&status) {
        Row::Rejected
    } else {
        Row::Success
    }
}

/// Stable has answered a request with a copy.
pub fn answered(exchange: &Exchange, got: &Answer) -> Option<Box<Twin>> {
    let copied = exchange.copied.take()?;
    // What came from the other side after all is compared with nothing.
    if got.side != Side::Stable {
        return None;
    }
    let row = row(&copied.route, copied.exception, got.head.status.as_u16());
    let stable = Answered { row, micros: exchange.age() };
    Some(Box::new(Twin { copied, stable, body: None }))
}

/// Stable has failed a request with a copy. Whose fault it was decides whether that says anything.
pub fn failed(worker: &Rc<Worker>, exchange: &Exchange, failure: &Failure) {
    let Some(copied) = exchange.copied.take() else { return };
    if failure.fault() == Fault::Upstream {
        let stable = Answered { row: Row::Fault, micros: exchange.age() };
        send(worker, Box::new(Twin { copied, stable, body: None }));
    }
}

/// Sends the copy, at once or, where bodies are compared, when the visitor has stable's.
#[cold]
pub fn follow(
    worker: &Rc<Worker>,
    response: Response<ResponseBody>,
    mut twin: Box<Twin>,
) -> Response<ResponseBody> {
    let is_compared = twin.copied.permit.mirror().mask.is_some()
        && twin.copied.parcel.head.method == Method::GET
        && twin.stable.row == Row::Success
        && Kind::of(response.headers()) == Kind::Plain
        && !response.headers().contains_key(CONTENT_ENCODING);
    if is_compared {
        match response.body() {
            ResponseBody::Empty => twin.body = Some(Bytes::new()),
            ResponseBody::Full(bytes) if bytes.len() <= BODY => twin.body = Some(bytes.clone()),
            ResponseBody::Stream(_) => {
                let twin = Rc::new(RefCell::new(Some(twin)));
                send_late(worker, &twin);
                let worker = Rc::clone(worker);
                let compared =
                    |body| Compared { body, worker, kept: Vec::new(), room: Some(BODY), twin };
                return response.map(|body| ResponseBody::Compared(Box::new(compared(body))));
            }
            _ => {}
        }
    }
    send(worker, twin);
    response
}

/// A response's body that is kept as it passes, to be compared.
#[derive(Debug)]
pub struct Compared {
    body: ResponseBody,
    worker: Rc<Worker>,
    kept: Vec<Bytes>,
    /// Bytes that may still be kept; `None` when that was too little, or the body broke off.
    room: Option<usize>,
    /// `None` once the copy was sent.
    twin: Rc<RefCell<Option<Box<Twin>>>>,
}

impl Compared {
    /// The body.
    pub fn body(&self) -> &ResponseBody {
        &self.body
    }

    /// The next piece of the body.
    pub fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(room), Some(bytes)) = (self.room, frame.data_ref()) {
                    self.room = room.checked_sub(bytes.len());
                    self.kept.push(bytes.clone());
                    if self.room.is_none() {
                        self.end();
                    }
                }
            }
            Poll::Ready(Some(Err(_))) => self.room = None,
            Poll::Ready(None) => self.end(),
            Poll::Pending => {}
        }
        polled
    }

    fn end(&mut self) {
        let Some(mut twin) = self.twin.take() else { return };
        let kept = std::mem::take(&mut self.kept);
        if self.room.is_some() && self.body.is_end_stream() {
            twin.body = Some(kept.concat().into());
        }
        send(&self.worker, twin);
    }
}

impl Drop for Compared {
    fn drop(&mut self) {
        // A body whose announced length was sent is dropped without being asked for its end.
        self.end();
    }
}

/// Sends a copy when its twin takes too long, without comparing bodies: a visitor who reads slowly keeps
/// one of few places.
fn send_late(worker: &Rc<Worker>, twin: &Rc<RefCell<Option<Box<Twin>>>>) {
    let (worker, twin) = (Rc::clone(worker), Rc::downgrade(twin));
    tokio::task::spawn_local(async move {
        tokio::time::sleep(READ_FOR).await;
        if let Some(twin) = twin.upgrade().and_then(|twin| twin.take()) {
            send(&worker, twin);
        }
    });
}

/// Sends a copy in a task of its own, which nobody waits for.
fn send(worker: &Rc<Worker>, twin: Box<Twin>) {
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move { ask(&worker, *twin).await });
}

/// Has the canary answer a copy, and counts it with stable's answer, unless how it went was not the
/// instance's doing.
async fn ask(worker: &Rc<Worker>, twin: Twin) {
    let Twin { copied, stable, body: wanted } = twin;
    let Copied { parcel, route, permit, exception } = *copied;
    let Some(canary) = &route.service().canary else { return };
    // Where none of its instances is healthy, the probes have said so.
    let Some(claim) = canary.pool.claim(worker.random(), &[]) else { return };
    let patience = route.patience(&worker.settings.limits);
    // What is overdue counts as failed, and is waited for no longer.
    let patience = Patience { response: patience.overdue, ..patience };
    let (clock, nobody) = (worker.clock.clone(), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let exchange = Exchange::new(clock, patience, Instant::now(), Weak::new(), nobody);
    let ongoing = Ongoing::new(worker, exchange);
    let exchange = Rc::clone(ongoing.exchange());
    let mirror = permit.mirror();
    let record = |row, micros, bodies| {
        let answers = [stable, Answered { row, micros }];
        mirror.record(worker.index, answers, bodies, Instant::now());
    };
    let Arrived { head, incoming, held, .. } =
        match attempt(worker, &route, claim, parcel, &exchange).await {
            Ok(arrived) => arrived,
            Err(failed) => {
                if failed.failure.fault() == Fault::Upstream {
                    record(Row::Fault, exchange.age(), Bodies::Unknown);
                }
                return;
            }
        };
    let (mut row, micros) = (row(&route, exception, head.status.as_u16()), exchange.age());
    let is_compared = row == Row::Success && !head.headers.contains_key(CONTENT_ENCODING);
    let wanted = wanted.filter(|_| is_compared);
    if Kind::of(&head.headers) == Kind::Endless {
        record(row, micros, Bodies::Unknown);
        return;
    }
    let body = answer::body(worker, incoming, held, ongoing);
    let read = tokio::time::timeout(READ_FOR, read(body, wanted.is_some())).await;
    let mut bodies = Bodies::Unknown;
    match read {
        // As good as it was, by now.
        Err(_) | Ok(Read::Long) => {}
        Ok(Read::Whole(got)) => {
            if let Some(wanted) = wanted {
                bodies = compare(permit.mirror(), wanted, got).await;
            }
        }
        Ok(Read::Broken) => row = Row::Fault,
        Ok(Read::Cut) => return,
    }
    record(row, micros, bodies);
}

/// What was read of a body.
enum Read {
    /// All of it.
    Whole(Bytes),
    /// As much as is read of one.
    Long,
    /// The instance broke it off.
    Broken,
    /// We did.
    Cut,
}

/// Reads a body, and keeps it if it is to be compared.
async fn read(mut body: ResponseBody, keeps: bool) -> Read {
    let (mut kept, mut length) = (BytesMut::new(), 0);
    let most = if keeps { BODY } else { READ };
    while let Some(frame) = body.frame().await {
        let bytes = match frame {
            Ok(frame) => frame.into_data().unwrap_or_default(),
            Err(BodyError::Cut) => return Read::Cut,
            Err(_) => return Read::Broken,
        };
        length += bytes.len();
        if length > most {
            return Read::Long;
        }
        if keeps {
            kept.extend_from_slice(&bytes);
        }
    }
    Read::Whole(kept.freeze())
}

/// Compares two bodies, on a thread that no visitor waits for: a regular expression may take a while.
async fn compare(mirror: &Arc<Mirror>, wanted: Bytes, got: Bytes) -> Bodies {
    let mirror = Arc::clone(mirror);
    let same = tokio::task::spawn_blocking(move || {
        mirror.mask.as_ref().map(|mask| mask.hash(&wanted) == mask.hash(&got))
    });
    match same.await {
        Ok(Some(true)) => Bodies::Same,
        Ok(Some(false)) => Bodies::Different,
        Ok(None) | Err(_) => Bodies::Unknown,
    }
}
