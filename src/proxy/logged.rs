//! What the access log is told of a request: gathered on its way, written when the last byte of its
//! response is gone, or when a tunnel ends.

use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HOST, HeaderValue, REFERER, USER_AGENT};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::{Body, Frame};

use super::body::ResponseBody;
use super::downstream::Downstream;
use super::error::BodyError;
use super::forward::Answer;
use super::headers::X_REQUEST_ID;
use super::route::Route;
use super::worker::Worker;
use crate::model::id::{InstanceId, RevisionId};
use crate::model::weight::Side;
use crate::telemetry::access_log::line::{Record, Served};

/// What nginx writes of a client that went away before it was answered.
fn gone() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
}

/// What is known of a request so far.
#[derive(Debug)]
pub struct Entry {
    worker: Rc<Worker>,
    arrived: Instant,
    at: i64,
    client: IpAddr,
    secure: bool,
    method: Method,
    uri: Uri,
    version: Version,
    host: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    route: Option<Route>,
    served: Option<(RevisionId, Side, InstanceId)>,
    request_id: Option<HeaderValue>,
    user: Option<String>,
    status: StatusCode,
    header: Duration,
    bytes: u64,
    is_complete: bool,
    /// The response's body, whose end is awaited. What hyper took counts as sent.
    body: ResponseBody,
    broke: bool,
}

impl Entry {
    /// A request has come. `None` when there is no log.
    pub fn begin<B>(
        worker: &Rc<Worker>,
        connection: &Downstream,
        request: &Request<B>,
    ) -> Option<Box<Self>> {
        let lines = worker.lines.as_ref()?;
        let field = |name| request.headers().get(name).cloned();
        let arrived = Instant::now();
        Some(Box::new(Self {
            worker: Rc::clone(worker),
            arrived,
            at: lines.moment(arrived),
            client: connection.peer.ip(),
            secure: connection.secure,
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            host: field(HOST),
            referer: field(REFERER),
            user_agent: field(USER_AGENT),
            route: None,
            served: None,
            request_id: None,
            user: None,
            status: gone(),
            header: Duration::ZERO,
            bytes: 0,
            is_complete: false,
            body: ResponseBody::Empty,
            broke: false,
        }))
    }

    /// When it came.
    pub fn arrived(&self) -> Instant {
        self.arrived
    }

    /// It is for this service, of this client.
    pub fn routed(&mut self, route: &Route, client: IpAddr) {
        self.client = client;
        self.route = Some(route.clone());
    }

    /// Its client has shown to be somebody.
    pub fn user(&mut self, user: Option<&str>) {
        self.user = user.map(str::to_owned);
    }

    /// An instance answered.
    pub fn served(&mut self, answer: &Answer) {
        let endpoint = answer.held.claim.endpoint();
        self.served = Some((answer.revision, answer.side, endpoint.instance.clone()));
    }

    /// The response begins; the line is written with its last byte, or with the end of the tunnel
    /// that it opens.
    pub fn respond(
        mut self: Box<Self>,
        connection: &Downstream,
        response: Response<ResponseBody>,
    ) -> Response<ResponseBody> {
        self.status = response.status();
        self.header = self.arrived.elapsed();
        self.request_id = response.headers().get(X_REQUEST_ID).cloned();
        self.is_complete = true;
        if let Some(tunnel) = connection.tunnel.borrow_mut().as_mut() {
            tunnel.entry = Some(self);
            return response;
        }
        response.map(|body| {
            self.body = body;
            ResponseBody::Logged(self)
        })
    }

    /// The response's body.
    pub fn body(&self) -> &ResponseBody {
        &self.body
    }

    /// The next piece of the response's body.
    pub fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.bytes += frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
            }
            Poll::Ready(Some(Err(_))) => self.broke = true,
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }

    fn write(&self) {
        let Some(lines) = &self.worker.lines else { return };
        let served = self.served.as_ref().map(|(revision, side, instance)| Served {
            revision: revision.0,
            side: match side {
                Side::Stable => "stable",
                Side::Canary => "canary",
            },
            instance: instance.short(),
        });
        let authority = self.uri.authority().map(|authority| authority.as_str().as_bytes());
        let record = Record {
            at: self.at,
            client: self.client,
            user: self.user.as_deref(),
            method: self.method.as_str(),
            scheme: if self.secure { "https" } else { "http" },
            host: authority.or(bytes_of(self.host.as_ref())).unwrap_or_default(),
            path: self.uri.path(),
            query: self.uri.query(),
            protocol: match self.version {
                Version::HTTP_3 => "HTTP/3.0",
                Version::HTTP_2 => "HTTP/2.0",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
            status: self.status.as_u16(),
            bytes: self.bytes,
            duration: self.arrived.elapsed(),
            header: self.header,
            // hyper drops a body whose announced length was sent without asking for its end.
            is_complete: self.is_complete && !self.broke && self.body.is_end_stream(),
            service: self.route.as_ref().map(|route| route.service().name.as_str()),
            served,
            request_id: bytes_of(self.request_id.as_ref()).unwrap_or(b"-"),
            referer: bytes_of(self.referer.as_ref()),
            user_agent: bytes_of(self.user_agent.as_ref()),
        };
        // The upper half: the lower bits choose sides elsewhere.
        lines.write(&record, (self.worker.random() >> 32) as u32);
    }
}

/// A line about what was no request, so that nobody who counts requests misses one: of what it asked,
/// nothing is sure enough to be written.
pub fn refused(
    worker: &Worker,
    connection: &Downstream,
    protocol: &'static str,
    status: StatusCode,
) {
    let Some(lines) = &worker.lines else { return };
    let record = Record {
        at: lines.moment(Instant::now()),
        client: connection.peer.ip(),
        user: None,
        method: "-",
        scheme: if connection.secure { "https" } else { "http" },
        host: b"",
        path: "-",
        query: None,
        protocol,
        status: status.as_u16(),
        bytes: 0,
        duration: Duration::ZERO,
        header: Duration::ZERO,
        is_complete: true,
        service: None,
        served: None,
        request_id: b"-",
        referer: None,
        user_agent: None,
    };
    lines.write(&record, (worker.random() >> 32) as u32);
}

fn bytes_of(value: Option<&HeaderValue>) -> Option<&[u8]> {
    value.map(HeaderValue::as_bytes)
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.write();
    }
}
