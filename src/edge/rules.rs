//! What is done to requests: the plain values of a service or of one of its routes.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::addresses::AddressSet;
use super::coding::Coding;
use super::fields::Edits;
use super::files::{Files, Missing};
use super::matcher::Matcher;
use super::path::Rewrite;
use super::rate::{AtOnce, Rate};
use super::send_file::SendFile;
use super::template::Template;
use super::users::Users;
use crate::model::id::ServiceName;

/// What a service's policy says, as plain values.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Spec {
    /// For requests that no route takes.
    pub base: Rules,
    /// Asked in order; the first that takes a request decides.
    pub routes: Vec<RouteSpec>,
}

impl Spec {
    /// Whether there is nothing to do but to forward. Sending cleartext to https is no policy: it is
    /// known without one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let rest = Rules { to_https: false, ..self.base.clone() };
        self.routes.is_empty() && rest == Rules::default()
    }

    /// Whether its routes take every request and none of them asks an instance of the service: it needs
    /// none.
    #[must_use]
    pub fn answers_alone(&self) -> bool {
        self.routes.iter().any(|route| route.matcher.takes_every_path())
            && self.routes.iter().all(RouteSpec::answers_alone)
    }
}

/// A route of a service.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RouteSpec {
    /// Which requests.
    pub matcher: Matcher,
    /// What is done to them: what the route says, and for the rest what its service says.
    pub rules: Rules,
    /// Whether the limits are the route's own; it counts with its service otherwise.
    pub own_limits: bool,
    /// The service whose instances answer instead of its own.
    pub leads_to: Option<ServiceName>,
}

impl RouteSpec {
    /// Whether no instance of its own service is asked.
    fn answers_alone(&self) -> bool {
        self.leads_to.is_some()
            || match &self.rules.act {
                Act::Forward => false,
                Act::Files(files) => files.missing != Missing::App,
                Act::Redirect { .. } | Act::Respond { .. } => true,
            }
    }
}

/// What is done to requests.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rules {
    /// Who may come.
    pub access: Access,
    /// Whether cleartext requests are sent to https.
    pub to_https: bool,
    /// The one host that is not sent to another.
    pub canonical_host: Option<String>,
    /// How much may come.
    pub limits: Limits,
    /// Who must show to be one of them.
    pub users: Option<Arc<Users>>,
    /// Who is asked before.
    pub forward_auth: Option<Arc<ForwardAuth>>,
    /// What becomes of those that may.
    pub act: Act,
    /// How their path is changed on its way.
    pub rewrite: Rewrite,
    /// Changes to their header.
    pub request: Edits,
    /// Changes to the header of their response.
    pub response: Edits,
    /// Whether browsers are told what they should on every page.
    pub security_headers: bool,
    /// `Strict-Transport-Security`, on encrypted connections.
    pub hsts: Option<HeaderValue>,
    /// Times that differ from the service's.
    pub times: Times,
    /// Pages in place of the proxy's own.
    pub pages: Vec<Page>,
    /// How responses may be compressed, the coding preferred first; not at all when empty.
    pub compress: Vec<Coding>,
    /// Directories whose files the app may answer with by naming them.
    pub send_file: SendFile,
}

/// Who may come.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Access {
    /// Only these, if given.
    pub allow: Option<AddressSet>,
    /// Not these.
    pub deny: AddressSet,
    /// Only by these methods, if any is given.
    pub methods: Vec<Method>,
    /// Only with a certificate.
    pub certificate: bool,
}

impl Access {
    /// Whether a client may come.
    #[must_use]
    pub fn admits(&self, client: IpAddr) -> bool {
        self.allow.as_ref().is_none_or(|allowed| allowed.contains(client))
            && !self.deny.contains(client)
    }
}

/// How much may come.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Limits {
    /// Over time; all must hold.
    pub rates: Vec<Rate>,
    /// At once; all must hold.
    pub at_once: Vec<AtOnce>,
    /// Whom they do not count.
    pub exempt: AddressSet,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Act {
    /// It goes to an instance.
    #[default]
    Forward,
    /// It is sent elsewhere.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: StatusCode,
        /// Where to.
        to: Template,
    },
    /// It gets a file.
    Files(Arc<Files>),
    /// It is answered here.
    Respond {
        /// With this status.
        status: StatusCode,
        /// And this body and its type; a page of ours otherwise.
        body: Option<(Bytes, HeaderValue)>,
    },
}

/// Times of a route; what is not given is the service's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// To establish a connection to an instance.
    pub connect: Option<Duration>,
    /// To the header of the response.
    pub response: Option<Duration>,
    /// Without a byte in either direction.
    pub idle: Option<Duration>,
    /// Further endpoints that are tried.
    pub retries: Option<u32>,
}

/// A server that is asked whether a request may go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardAuth {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it is called in `Host`.
    pub authority: String,
    /// Path and query of the question.
    pub path: String,
    /// Fields of its answer that the request goes on with, in place of the client's.
    pub headers: Vec<HeaderName>,
}

/// A service is being worked on: its visitors are kept from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Maintenance {
    /// How long each of them waits for its end before being told.
    pub queue: Duration,
    /// How many of them wait on each worker at a time; more are told at once.
    pub most: u32,
}

/// A page in place of one of the proxy's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The first and the last status that it is for.
    pub statuses: (u16, u16),
    /// What it says.
    pub body: Bytes,
    /// `Content-Type`
    pub kind: HeaderValue,
}
