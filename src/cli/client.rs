//! Speaks to a daemon's admin API, over its Unix socket or over TCP.
//!
//! A connection per request: a verb asks a few times and ends. Does not speak TLS; a daemon elsewhere
//! is reached through a tunnel (`ssh -L`). Every request has a deadline.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::exit::Exit;
use super::query::pairs;
use super::stream::{self, Events};
use super::trouble::Trouble;
use crate::admin::Tested;
use crate::controller::archivist::BuildPlan;
use crate::controller::status::{
    DaemonStatus, DeployAccepted, DeployRequest, FitStatus, InstanceLogs, RolloutRecord,
    ServiceStatus, StepForecast,
};
use crate::model::id::ServiceName;
use crate::model::progress::Progress;
use crate::model::weight::Weight;
use crate::telemetry::audit::Entry;

/// Where a daemon answers that was told nothing else.
pub const DEFAULT_HOST: &str = "unix:///run/switchback/admin.sock";
/// A connection to a socket on this machine takes no time; one through a tunnel takes round trips.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// What the daemon publishes is answered at once; the rest is a busy machine.
const READ_WITHIN: Duration = Duration::from_secs(30);
/// A deploy is answered when the image is there; the daemon itself gives up after 300 s.
const CHANGE_WITHIN: Duration = Duration::from_secs(310);
/// What takes time tells every few seconds that it lives; that is watched instead.
const FOREVER: Duration = Duration::MAX;
/// The longest answer that is read: some thousand rollouts with their events.
const LONGEST_ANSWER: usize = 64 * 1024 * 1024;

/// The body of a request.
pub type Sent = BoxBody<Bytes, std::io::Error>;

#[derive(Debug, Clone)]
enum Place {
    Unix(PathBuf),
    Tcp(String),
}

/// A daemon, by where it answers.
#[derive(Debug, Clone)]
pub struct Client {
    place: Place,
    token: Option<String>,
}

/// The part of a problem that a person is told.
#[derive(Deserialize)]
struct Problem {
    detail: String,
}

/// What a change answers where there is nothing else to say.
#[derive(Deserialize)]
struct Done {
    message: String,
}

impl Client {
    /// A daemon at `unix:///path` or `http://host:port`, and the token that it asks for.
    pub fn new(host: &str, token: Option<String>) -> Result<Self, Trouble> {
        let usage = |sentence: String| Trouble::new(Exit::Usage, sentence);
        let host = host.trim();
        let place = if let Some(path) = host.strip_prefix("unix://") {
            Place::Unix(path.into())
        } else if host.starts_with('/') {
            Place::Unix(host.into())
        } else if let Some(rest) =
            host.strip_prefix("http://").or_else(|| host.strip_prefix("tcp://"))
        {
            let authority = rest.trim_end_matches('/');
            let parsed: Result<http::uri::Authority, _> = authority.parse();
            if parsed.is_err() || authority.contains('@') {
                return Err(usage(format!(
                    "{host:?} is not an address such as http://127.0.0.1:9900"
                )));
            }
            let has_port = parsed.is_ok_and(|parsed| parsed.port_u16().is_some());
            Place::Tcp(if has_port { authority.to_owned() } else { format!("{authority}:9900") })
        } else if host.starts_with("https://") {
            return Err(usage(
                "the admin API does not speak TLS: open a tunnel (`ssh -L 9900:127.0.0.1:9900 HOST`) \
                 and use http://127.0.0.1:9900"
                    .to_owned(),
            ));
        } else {
            return Err(usage(format!(
                "{host:?} is not a daemon's place: write unix:///run/switchback/admin.sock or http://127.0.0.1:9900"
            )));
        };
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        Ok(Self { place, token })
    }

    /// Where the daemon is, as a person writes it.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.place {
            Place::Unix(path) => format!("unix://{}", path.display()),
            Place::Tcp(authority) => format!("http://{authority}"),
        }
    }

    /// The daemon as a whole.
    pub async fn daemon(&self) -> Result<DaemonStatus, Trouble> {
        self.get("/api/v1/daemon").await
    }

    /// All services.
    pub async fn services(&self) -> Result<Vec<ServiceStatus>, Trouble> {
        self.get("/api/v1/services").await
    }

    /// One service, by its name; the only one there is where no name is given.
    pub async fn service(&self, name: Option<&str>) -> Result<ServiceStatus, Trouble> {
        if let Some(name) = name {
            let parsed = ServiceName::new(name)
                .map_err(|error| Trouble::new(Exit::Usage, error.to_string()))?;
            return self.get(&format!("/api/v1/services/{parsed}")).await;
        }
        let mut services = self.services().await?;
        match (services.pop(), services.is_empty()) {
            (None, _) => Err(Trouble::new(
                Exit::Error,
                "no service is configured: add a [service.NAME] to the configuration, then `switchback reload`",
            )),
            (Some(only), true) => Ok(only),
            (Some(last), false) => {
                let names: Vec<&str> = services.iter().map(|s| s.service.as_str()).collect();
                let names = format!("{} and {}", names.join(", "), last.service);
                Err(Trouble::new(Exit::Usage, format!("which service? There are {names}")))
            }
        }
    }

    /// Begins a rollout.
    pub async fn deploy(
        &self,
        service: &str,
        request: &DeployRequest,
    ) -> Result<DeployAccepted, Trouble> {
        self.post(&format!("/api/v1/services/{service}/deploy"), request).await
    }

    /// Begins a rollout, and tells how far its preparation is.
    pub async fn deploy_telling(
        &self,
        service: &str,
        request: &DeployRequest,
        hears: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<DeployAccepted, Trouble> {
        self.work(&format!("/api/v1/services/{service}/deploy"), request, hears).await
    }

    /// Asks for a change that takes time, and tells how far it is.
    pub async fn work<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        hears: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<T, Trouble> {
        let body = serde_json::to_vec(body)
            .map_err(|error| Trouble::new(Exit::Error, error.to_string()))?;
        let whole = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed();
        self.work_on(path, "application/json", whole, hears).await
    }

    /// The same with a body of any kind.
    pub async fn work_on<T: DeserializeOwned>(
        &self,
        path: &str,
        kind: &str,
        body: Sent,
        hears: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<T, Trouble> {
        let answer = self.send(Method::POST, path, (kind, body), FOREVER).await?;
        let answer = self.accepted(answer).await?;
        let last = stream::to_the_last(answer.into_body(), &self.place(), hears).await?;
        serde_json::from_value(last).map_err(|error| self.not_understood(&error))
    }

    /// Goes back to the former revision, or to a kept one.
    pub async fn rollback(
        &self,
        service: &str,
        to: Option<u32>,
        no_checkpoint: bool,
        hears: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<DeployAccepted, Trouble> {
        let mut body = serde_json::json!({ "no_checkpoint": no_checkpoint });
        if let Some(to) = to {
            body["to"] = to.into();
        }
        self.work(&format!("/api/v1/services/{service}/rollback"), &body, hears).await
    }

    /// `promote`, `abort`, `pause` or `resume`, with what is to be said.
    pub async fn command(
        &self,
        service: &str,
        verb: &str,
        body: &impl Serialize,
    ) -> Result<ServiceStatus, Trouble> {
        self.post(&format!("/api/v1/services/{service}/{verb}"), body).await
    }

    /// Gives the canary a weight.
    pub async fn weight(&self, service: &str, weight: Weight) -> Result<ServiceStatus, Trouble> {
        self.command(service, "weight", &serde_json::json!({ "canary": weight.percent() })).await
    }

    /// What it takes to make a service's image.
    pub async fn build_plan(&self, service: &str) -> Result<BuildPlan, Trouble> {
        self.get(&format!("/api/v1/services/{service}/build")).await
    }

    /// The daemon's own state.
    pub async fn state(&self) -> Result<serde_json::Value, Trouble> {
        self.get("/api/v1/state").await
    }

    /// Checkpoints, newest first, of one service or of all.
    pub async fn checkpoints(&self, service: Option<&str>) -> Result<serde_json::Value, Trouble> {
        let query = service.map_or_else(String::new, |service| format!("?service={service}"));
        self.get(&format!("/api/v1/checkpoints{query}")).await
    }

    /// Removes a checkpoint; says what that freed.
    pub async fn remove_checkpoint(&self, id: &str) -> Result<String, Trouble> {
        let body = serde_json::json!({ "checkpoint": id });
        let done: Done = self.post("/api/v1/checkpoints/remove", &body).await?;
        Ok(done.message)
    }

    /// Past rollouts of a service, newest first.
    pub async fn history(&self, service: &str) -> Result<Vec<RolloutRecord>, Trouble> {
        self.get(&format!("/api/v1/services/{service}/rollouts")).await
    }

    /// One rollout.
    pub async fn rollout(&self, id: u64) -> Result<RolloutRecord, Trouble> {
        self.get(&format!("/api/v1/rollouts/{id}")).await
    }

    /// What each step of a rollout would take now.
    pub async fn forecast(
        &self,
        service: &str,
        request: &DeployRequest,
    ) -> Result<Vec<StepForecast>, Trouble> {
        self.get(&format!("/api/v1/services/{service}/forecast?{}", planned(request))).await
    }

    /// Whether it would fit on the machine.
    pub async fn fits(&self, service: &str, request: &DeployRequest) -> Result<FitStatus, Trouble> {
        self.get(&format!("/api/v1/services/{service}/fit?{}", planned(request))).await
    }

    /// The last output of a revision's instances.
    pub async fn logs(
        &self,
        service: &str,
        query: &[(&str, String)],
    ) -> Result<Vec<InstanceLogs>, Trouble> {
        self.get(&format!("/api/v1/services/{service}/logs?{}", pairs(query))).await
    }

    /// All services, or the one named, with what their instances take of the machine.
    pub async fn measured(&self, name: Option<&str>) -> Result<Vec<ServiceStatus>, Trouble> {
        match name {
            Some(name) => Ok(vec![self.get(&format!("/api/v1/services/{name}?usage=true")).await?]),
            None => self.get("/api/v1/services?usage=true").await,
        }
    }

    /// Freezes or unfreezes all services; says what was done.
    pub async fn for_all(&self, verb: &str, body: &impl Serialize) -> Result<String, Trouble> {
        let done: Done = self.post(&format!("/api/v1/{verb}"), body).await?;
        Ok(done.message)
    }

    /// Entries of the audit log, oldest first.
    pub async fn audit(&self, query: &[(&str, String)]) -> Result<Vec<Entry>, Trouble> {
        self.get(&format!("/api/v1/audit?{}", pairs(query))).await
    }

    /// Sends those who are told what happens a test.
    pub async fn notify_test(&self, name: Option<&str>) -> Result<Vec<Tested>, Trouble> {
        self.post("/api/v1/notify/test", &serde_json::json!({ "name": name })).await
    }

    /// Reads the configuration again; answers what changed.
    pub async fn reload(&self) -> Result<String, Trouble> {
        let done: Done = self.post("/api/v1/reload", &serde_json::json!({})).await?;
        Ok(done.message)
    }

    /// Events after an id, and all that follow unless `follow` is false. `query` narrows them.
    pub async fn events(
        &self,
        after: Option<u64>,
        query: &[(&str, String)],
        follow: bool,
    ) -> Result<Events, Trouble> {
        let mut path = format!("/api/v1/events?follow={follow}");
        for (name, value) in query {
            path.push_str(&format!("&{name}={value}"));
        }
        if let Some(after) = after {
            path.push_str(&format!("&after={after}"));
        }
        let nothing = ("", Full::default().map_err(|never| match never {}).boxed());
        let response = self.send(Method::GET, &path, nothing, READ_WITHIN).await?;
        let response = self.accepted(response).await?;
        Ok(Events::new(response.into_body(), self.place()))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Trouble> {
        self.ask(Method::GET, path, Bytes::new(), READ_WITHIN).await
    }

    /// Asks for a change.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Trouble> {
        let body = serde_json::to_vec(body)
            .map_err(|error| Trouble::new(Exit::Error, error.to_string()))?;
        self.ask(Method::POST, path, body.into(), CHANGE_WITHIN).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        within: Duration,
    ) -> Result<T, Trouble> {
        let kind = if body.is_empty() { "" } else { "application/json" };
        let body = Full::new(body).map_err(|never| match never {}).boxed();
        let response = self.send(method, path, (kind, body), within).await?;
        let response = self.accepted(response).await?;
        let bytes = self.collect(response.into_body()).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.not_understood(&error))
    }

    fn not_understood(&self, error: &serde_json::Error) -> Trouble {
        let place = self.place();
        Trouble::new(
            Exit::Error,
            format!(
                "what {place} answers cannot be read ({error}): are the daemon and this \
                 `switchback` of the same version?"
            ),
        )
    }

    /// Turns an answer that is an error into trouble.
    async fn accepted(&self, response: Response<Incoming>) -> Result<Response<Incoming>, Trouble> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let bytes = self.collect(response.into_body()).await?;
        let sentence = match serde_json::from_slice(&bytes) {
            Ok(Problem { detail }) => detail,
            Err(_) => format!("{} answers {status}: is that a Switchback daemon?", self.place()),
        };
        let sentence = match status {
            StatusCode::UNAUTHORIZED => format!("{sentence} (SWITCHBACK_TOKEN)"),
            _ => sentence,
        };
        Err(Trouble { exit: Exit::Error, sentence, status: Some(status.as_u16()) })
    }

    async fn collect(&self, body: Incoming) -> Result<Bytes, Trouble> {
        let collected =
            tokio::time::timeout(READ_WITHIN, Limited::new(body, LONGEST_ANSWER).collect());
        match collected.await {
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(error)) => Err(self.unreachable(&format!("the answer broke off: {error}"))),
            Err(_) => Err(self.unreachable("the answer does not end")),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        (kind, body): (&str, Sent),
        within: Duration,
    ) -> Result<Response<Incoming>, Trouble> {
        let connect = async {
            Ok(match &self.place {
                Place::Unix(path) => Either::Unix(UnixStream::connect(path).await?),
                Place::Tcp(authority) => Either::Tcp(TcpStream::connect(authority).await?),
            })
        };
        let connected = tokio::time::timeout(CONNECT_WITHIN, connect).await;
        let stream = connected
            .map_err(|_| self.unreachable("nothing answers"))?
            .map_err(|error| self.not_connected(&error))?;
        let host = match &self.place {
            Place::Unix(_) => "localhost",
            Place::Tcp(authority) => authority,
        };
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(by) = super::gates::whoami().filter(|by| !by.contains(char::is_control)) {
            request = request.header("switchback-by", by);
        }
        if within == FOREVER {
            request = request.header(header::ACCEPT, "application/x-ndjson");
        }
        if !kind.is_empty() {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        let request = request.body(body).map_err(|_| {
            Trouble::new(Exit::Usage, "the token has characters that cannot be sent in a header")
        })?;
        let asked = async {
            match stream {
                Either::Unix(stream) => exchange(stream, request).await,
                Either::Tcp(stream) => exchange(stream, request).await,
            }
        };
        match tokio::time::timeout(within, asked).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.unreachable(&format!("the connection broke: {error}"))),
            Err(_) => Err(self.unreachable(&format!("no answer within {} s", within.as_secs()))),
        }
    }

    fn not_connected(&self, error: &std::io::Error) -> Trouble {
        if error.kind() == std::io::ErrorKind::PermissionDenied {
            let help = "use sudo, or join the group that owns the socket";
            let why = format!("may not open {}: {help}", self.place());
            return Trouble::new(Exit::Unreachable, why);
        }
        self.unreachable(match error.kind() {
            std::io::ErrorKind::NotFound => "no such socket",
            std::io::ErrorKind::ConnectionRefused => "connection refused",
            _ => return self.unreachable(&error.to_string()),
        })
    }

    fn unreachable(&self, why: &str) -> Trouble {
        let help = "is `switchback run` up? If it is elsewhere, say where with SWITCHBACK_HOST";
        let why = format!("no daemon at {} ({why}): {help}", self.place());
        Trouble::new(Exit::Unreachable, why)
    }
}

/// How a deploy is to go, as a query.
fn planned(request: &DeployRequest) -> String {
    let DeployRequest { steps, strategy, image, tag, .. } = request;
    let given = [("steps", steps), ("strategy", strategy), ("image", image), ("tag", tag)];
    let given = given.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
    pairs(&given.collect::<Vec<_>>())
}

enum Either {
    Unix(UnixStream),
    Tcp(TcpStream),
}

async fn exchange<S>(stream: S, request: Request<Sent>) -> hyper::Result<Response<Incoming>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the response's body, or when the process does.
    tokio::spawn(connection);
    sender.send_request(request).await
}
