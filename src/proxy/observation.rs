//! What a request says about the side that answered it: which row it is, and on whose scorecard.
//!
//! Statuses are judged by the service's rule, or by that of the exception which its path falls under.
//! A gRPC answer says how it went in its trailers: its status is taken as the HTTP status that stands
//! for it (google.rpc.Code), so that one rule holds for both. With `5xx` the errors are UNKNOWN,
//! DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE and DATA_LOSS, those that the OpenTelemetry
//! conventions blame a server for; the others are the client's, and count as rejected. gRPC that ends
//! without a status is an error, as it is for its client. gRPC-Web has its trailers at the end of its body,
//! which is followed there ([`grpc_web`]); where that does not say it, the HTTP status counts, because its
//! clients differ in what they make of that.
//!
//! [`grpc_web`]: super::grpc_web

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName};
use http::response::Parts;
use http::uri::PathAndQuery;

use super::grpc_web::{Follower, Said};
use super::route::Route;
use crate::analysis::scorecard::{Row, Whose};
use crate::model::weight::Side;
use crate::routing::endpoint::EndpointId;
use crate::routing::table::SideEntry;

/// Where gRPC says how it went.
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// What gRPC without a status is taken as.
const NO_STATUS: u16 = 500;

/// Spreads numbers over 32 bits (2^32 over the golden ratio): a request that no client is known of counts
/// as a client of its own.
const SCATTERS: u32 = 0x9E37_79B9;

/// What a response's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A body that ends.
    Plain,
    /// One whose trailers say how it went.
    Grpc,
    /// One whose last message says how it went.
    GrpcWeb,
    /// An event stream or a tunnel: nobody waits for its end.
    Endless,
}

impl Kind {
    /// What the fields of a response say. Looks one of them up.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let Some(kind) = headers.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes) else {
            return Self::Plain;
        };
        if kind.starts_with(b"text/event-stream") {
            return Self::Endless;
        }
        match kind.strip_prefix(b"application/grpc") {
            Some([] | [b'+' | b';' | b' ', ..]) => Self::Grpc,
            Some(_) if Follower::of(kind).is_some() => Self::GrpcWeb,
            _ => Self::Plain,
        }
    }
}

/// What is known of a request that may become an observation.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Which exception of the service its path falls under.
    pub exception: Option<u16>,
    /// The hash of what keeps its client on a side.
    pub session: Option<u32>,
    /// Its path, during a rollout.
    pub path: Option<PathAndQuery>,
}

/// What an observation is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The side.
    pub side: Side,
    /// The part of stable that the canary is compared with.
    pub is_fresh: bool,
}

/// What is to be written on which scorecard.
#[derive(Debug)]
pub struct Observation {
    route: Route,
    part: Part,
    worker: usize,
    subject: Subject,
    /// Known from the response's headers on.
    answer: Option<(Row, u64)>,
    /// Its trailers will say how it went.
    awaits_status: bool,
    /// Finds them in its body.
    follower: Option<Box<Follower>>,
}

impl Observation {
    /// Of a side, to be written to the shard of `worker`.
    pub fn new(route: Route, part: Part, worker: usize, subject: Subject) -> Self {
        Self { route, part, worker, subject, answer: None, awaits_status: false, follower: None }
    }

    fn row(&self, status: u16) -> Row {
        let settings = &self.route.service().settings;
        // A newer table may have left the exception's rule out.
        let rule = settings.rule(self.subject.exception).unwrap_or(&settings.errors);
        if rule.is_error(status) {
            Row::Failure
        } else if (400..500).contains(&status) {
            Row::Rejected
        } else {
            Row::Success
        }
    }

    /// The head of the response came, `micros` after the request.
    pub fn answered(&mut self, head: &Parts, kind: Kind, micros: u64) {
        let mut row = self.row(head.status.as_u16());
        if matches!(kind, Kind::Grpc | Kind::GrpcWeb) && head.status.is_success() {
            match head.headers.get(GRPC_STATUS) {
                Some(status) => row = self.row(http_status(status.as_bytes())),
                None if kind == Kind::Grpc => self.awaits_status = true,
                // What is compressed as a whole cannot be followed.
                None if head.headers.contains_key(CONTENT_ENCODING) => {}
                None => {
                    let kind = head.headers.get(CONTENT_TYPE);
                    self.follower =
                        kind.and_then(|kind| Follower::of(kind.as_bytes())).map(Box::new);
                }
            }
        }
        self.answer = Some((row, micros));
    }

    /// Whether its body is to be followed.
    pub fn follows(&self) -> bool {
        self.follower.is_some()
    }

    /// The next bytes of the body.
    pub fn read(&mut self, bytes: &[u8]) {
        let (Some(follower), Some((_, micros))) = (&mut self.follower, self.answer) else { return };
        follower.read(bytes);
        match follower.said() {
            Said::Nothing => return,
            Said::Unreadable => {}
            Said::Status(status) => {
                let status = http_status(status);
                self.answer = Some((self.row(status), micros));
            }
        }
        self.follower = None;
    }

    /// The trailers came.
    pub fn trailers(&mut self, trailers: &HeaderMap) {
        if let (true, Some(status), Some((_, micros))) =
            (self.awaits_status, trailers.get(GRPC_STATUS), self.answer)
        {
            self.awaits_status = false;
            self.answer = Some((self.row(http_status(status.as_bytes())), micros));
        }
    }

    /// The body ended as it should, at this endpoint.
    pub fn end(self, endpoint: Option<EndpointId>) {
        let Some((mut row, micros)) = self.answer else { return };
        if self.awaits_status {
            row = self.row(NO_STATUS);
        }
        self.record_of(endpoint, row, micros);
        self.record(row, micros);
    }

    /// The body goes on.
    pub fn end_early(self, endpoint: Option<EndpointId>) {
        if let Some((row, micros)) = self.answer {
            self.record_of(endpoint, row, micros);
            self.record(row, micros);
        }
    }

    /// Counts it on its instance's own scorecard too, where instances are compared.
    fn record_of(&self, endpoint: Option<EndpointId>, row: Row, micros: u64) {
        let Some(side) = self.side().filter(|side| side.instances.is_some()) else { return };
        if let Some(card) = endpoint.and_then(|endpoint| side.instance(endpoint)) {
            card.record(self.worker, row, micros);
        }
    }

    fn side(&self) -> Option<&SideEntry> {
        let Part { side, is_fresh } = self.part;
        self.route.service().part(side, is_fresh)
    }

    /// The upstream failed, at this age.
    pub fn fault(self, age: u64) {
        let micros = self.answer.map_or(age, |(_, micros)| micros);
        self.record(Row::Fault, micros);
    }

    /// The client went away, at this age.
    pub fn abandon(self, age: u64) {
        match self.answer {
            Some((row @ Row::Failure, micros)) => self.record(row, micros),
            _ => self.record(Row::Abandoned, age),
        }
    }

    fn record(self, row: Row, micros: u64) {
        let Some(side) = self.side() else { return };
        side.scorecard.note_client(
            self.worker,
            self.subject.session.unwrap_or_else(|| (micros as u32).wrapping_mul(SCATTERS)),
        );
        if row.is_error() {
            let path = self.subject.path.as_ref().map(PathAndQuery::path);
            let whose = Whose { session: self.subject.session, path };
            side.scorecard.record_error(self.worker, row, micros, whose);
        } else {
            side.scorecard.record(self.worker, row, micros);
        }
    }
}

/// The HTTP status that stands for a gRPC status (google.rpc.Code); that of UNKNOWN for what is none.
fn http_status(status: &[u8]) -> u16 {
    match status {
        b"0" => 200,
        b"1" => 499,
        b"3" | b"9" | b"11" => 400,
        b"4" => 504,
        b"5" => 404,
        b"6" | b"10" => 409,
        b"7" => 403,
        b"8" => 429,
        b"12" => 501,
        b"14" => 503,
        b"16" => 401,
        _ => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn bodies_are_told_apart() {
        let kind = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            Kind::of(&headers)
        };
        assert_eq!(kind("application/grpc"), Kind::Grpc);
        assert_eq!(kind("application/grpc+proto"), Kind::Grpc);
        assert_eq!(kind("application/grpc-web+proto"), Kind::GrpcWeb);
        assert_eq!(kind("application/grpc-web-text"), Kind::GrpcWeb);
        assert_eq!(kind("application/grpcurl"), Kind::Plain);
        assert_eq!(kind("text/event-stream; charset=utf-8"), Kind::Endless);
        assert_eq!(kind("text/html"), Kind::Plain);
        assert_eq!(Kind::of(&HeaderMap::new()), Kind::Plain);
    }

    #[test]
    fn servers_are_blamed_for_what_is_theirs() {
        // OpenTelemetry semantic conventions, RPC spans: the codes that are errors of a server.
        let servers = ["2", "4", "12", "13", "14", "15"];
        for code in 0..=16 {
            let code = code.to_string();
            let is_error = (500..600).contains(&http_status(code.as_bytes()));
            assert_eq!(is_error, servers.contains(&code.as_str()), "{code}");
        }
        assert_eq!(http_status(b"99"), 500);
        assert_eq!(http_status(b""), 500);
    }
}
