//! The API over real sockets, spoken to in raw HTTP.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;

use super::fake::{Fake, driver};
use super::{AdminError, Settings, serve};
use crate::controller::handle::Refused;
use crate::telemetry::traffic::Traffic;

/// Long enough for a machine under load; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// A problem's status, last word of its type, and detail.
    fn problem(&self) -> (u64, String, String) {
        assert!(self.head.contains("content-type: application/problem+json"), "{}", self.head);
        let json = self.json();
        let text = |name: &str| json[name].as_str().expect(name).to_owned();
        assert_eq!(json["status"], self.status);
        assert!(!text("title").is_empty());
        let kind = text("type").rsplit(':').next().expect("a word").to_owned();
        (json["status"].as_u64().expect("a number"), kind, text("detail"))
    }
}

async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Reply {
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    tokio::time::timeout(PATIENCE, read).await.expect("an answer").expect("read");
    let text = String::from_utf8(bytes).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    Reply { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
}

impl Fake {
    async fn unix(&self) -> UnixStream {
        UnixStream::connect(&self.socket).await.expect("the socket")
    }

    async fn get(&self, path: &str) -> Reply {
        converse(self.unix().await, &request("GET", path, "Host: x\r\n", "")).await
    }

    async fn post(&self, path: &str, body: &str) -> Reply {
        converse(self.unix().await, &request("POST", path, "Host: x\r\n", body)).await
    }

    async fn tcp(&self, method: &str, path: &str, headers: &str) -> Reply {
        let address = self.admin.listen().expect("an address");
        let stream = TcpStream::connect(address).await.expect("connected");
        converse(stream, &request(method, path, headers, "")).await
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.levers.asked.lock().expect("unpoisoned"))
    }

    fn refuse(&self, refused: Refused) {
        *self.levers.refuse.lock().expect("unpoisoned") = Some(refused);
    }
}

#[tokio::test]
async fn what_is_read() {
    let fake = Fake::start().await;
    let services = fake.get("/api/v1/services").await;
    assert_eq!(services.status, 200);
    assert_eq!(services.json().as_array().map(Vec::len), Some(2));
    let web = fake.get("/api/v1/services/web").await.json();
    assert_eq!(web["phase"], "baking");
    assert_eq!(web["weights"], json!({"stable": 75.0, "canary": 25.0}));
    assert_eq!(web["canary"]["instances"][0]["address"], "172.17.0.2:3000");
    assert_eq!(web["verdict"]["checks"][0]["result"], "pass");
    assert_eq!(fake.get("/api/v1/daemon").await.json()["version"], "0.1.0");
    assert_eq!(fake.get("/api/v1/services/web/rollouts").await.json()[0]["rollout"], 12);
    assert_eq!(fake.get("/api/v1/rollouts/12").await.json()["service"], "web");
    let logs = fake.get("/api/v1/services/web/logs?revision=4&lines=1").await.json();
    assert_eq!(logs[0]["instance"], "web-4-1");
    assert_eq!(logs[0]["lines"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn what_is_changed() {
    let fake = Fake::start().await;
    let web = |verb: &str| format!("/api/v1/services/web/{verb}");
    let body = r#"{"image": "ghcr.io/acme/web:v4", "steps": "10% 100%", "bake": "5s"}"#;
    let deployed = fake.post(&web("deploy"), body).await;
    assert_eq!(
        (deployed.status, deployed.json()),
        (202, json!({"rollout": 12, "revision": 4, "strategy": "canary"}))
    );
    assert!(deployed.head.contains("location: /api/v1/rollouts/12"), "{}", deployed.head);
    assert_eq!(fake.post(&web("promote"), "").await.json()["step"], 3);
    assert_eq!(fake.post(&web("promote"), r#"{"full": true}"#).await.json()["phase"], "promoting");
    assert_eq!(fake.post(&web("abort"), "{}").await.json()["phase"], "rolling_back");
    assert_eq!(fake.post(&web("pause"), "").await.json()["phase"], "paused");
    assert_eq!(fake.post(&web("resume"), "").await.json()["phase"], "baking");
    let weight = fake.post(&web("weight"), r#"{"canary": 12.5}"#).await.json();
    assert_eq!(weight["weights"], json!({"stable": 87.5, "canary": 12.5}));
    assert_eq!(fake.post(&web("rollback"), "").await.status, 202);
    assert_eq!(fake.post(&web("rollback"), r#"{"to": 3}"#).await.status, 202);
    let reloaded = fake.post("/api/v1/reload", "").await.json();
    assert_eq!(reloaded["message"], "configuration read again: web changed");
    let expected = [
        r#"deploy web {"image":"ghcr.io/acme/web:v4","steps":"10% 100%","bake":"5s"}"#,
        "Promote { full: false } web",
        "Promote { full: true } web",
        "Abort web",
        "Pause web",
        "Resume web",
        "Weight(Weight(1250)) web",
        "rollback web None",
        "rollback web Some(RevisionId(3))",
    ];
    assert_eq!(fake.asked(), expected);
}

#[tokio::test]
async fn what_cannot_be_found_or_read_says_why() {
    let fake = Fake::start().await;
    let get = async |path: &str| fake.get(path).await.problem();
    let (status, kind, detail) = get("/api/v1/services/wbe").await;
    assert_eq!((status, kind.as_str()), (404, "not-found"));
    assert_eq!(detail, r#"there is no service "wbe": did you mean "web"?"#);
    assert!(get("/api/v1/services/zzz").await.2.ends_with("there are web, api"));
    assert_eq!(get("/api/v1/rollouts/99").await.2, "there is no rollout 99");
    assert!(get("/api/v1/rollouts/x").await.2.contains("have numbers"));
    assert_eq!(get("/nothing").await.0, 404);
    assert_eq!(get("/api/v1/nothing").await.0, 404);
    assert_eq!(get("/api/v1/services/web/logs?line=3").await.0, 400);
    assert_eq!(get("/api/v1/events?after=x").await.0, 400);

    let post = async |verb: &str, body: &str| {
        let reply = fake.post(&format!("/api/v1/services/web/{verb}"), body).await;
        let (status, _, detail) = reply.problem();
        (status, detail, reply.json()["field"].as_str().unwrap_or_default().to_owned())
    };
    let said = post("deploy", r#"{"imgae": "x"}"#).await;
    assert_eq!(said, (422, "`imgae` is not known: did you mean `image`?".into(), "imgae".into()));
    let (status, detail, field) = post("deploy", r#"{"steps": 5}"#).await;
    assert_eq!((status, field.as_str()), (422, "steps"));
    assert_eq!(detail, "`steps`: invalid type: integer `5`, expected a string");
    let (status, detail, _) = post("deploy", r#"{"image": "x", "tag": "y"}"#).await;
    assert_eq!(status, 422);
    assert!(detail.starts_with("`image` and `tag` cannot both"), "{detail}");
    assert_eq!(post("deploy", "{").await.0, 400);
    assert_eq!(post("deploy", "[]").await.1, "the body must be a JSON object: {…}");
    assert_eq!(post("deploy", &" ".repeat(64 * 1024 + 1)).await.0, 413);
    assert_eq!(
        post("abort", r#"{"x": 1}"#).await.1,
        "`x` is not known: nothing is said in this body"
    );
    assert_eq!(post("weight", "").await.1, "`canary` is missing: send {\"canary\": 12.5}");
    assert_eq!(
        post("weight", r#"{"canary": 101}"#).await.1,
        "`canary`: 101% is not between 0% and 100%"
    );
    assert_eq!(post("weight", r#"{"canary": 0.001}"#).await.0, 422);
    assert_eq!(post("weight", r#"{"canary": "5"}"#).await.2, "canary");
    assert!(fake.asked().is_empty());
}

#[tokio::test]
async fn reads_are_get_and_changes_are_post() {
    let fake = Fake::start().await;
    let get = fake.get("/api/v1/services/web/abort").await;
    assert_eq!(get.problem().0, 405);
    assert!(get.head.contains("\r\nallow: post"), "{}", get.head);
    let post = fake.post("/api/v1/services", "").await;
    assert_eq!(post.problem().2, "/api/v1/services is read with GET, not with POST");
    assert!(post.head.contains("\r\nallow: get,head"), "{}", post.head);
    assert!(fake.asked().is_empty());
}

#[tokio::test]
async fn what_is_refused_has_the_status_of_its_cause() {
    let fake = Fake::start().await;
    let phase = "baking".to_owned();
    let sentence = "a rollout is under way: wait, or `switchback abort web`".to_owned();
    fake.refuse(Refused::Conflict { sentence: sentence.clone(), phase });
    let reply = fake.post("/api/v1/services/web/deploy", "").await;
    assert_eq!(reply.problem(), (409, "conflict".to_owned(), sentence));
    assert_eq!(reply.json()["phase"], "baking");
    fake.refuse(Refused::Invalid("no".into()));
    assert_eq!(fake.post("/api/v1/services/web/pause", "").await.problem().0, 422);
    fake.refuse(Refused::Unavailable("no".into()));
    assert_eq!(fake.post("/api/v1/reload", "").await.problem().0, 503);
    fake.refuse(Refused::NotFound("no".into()));
    assert_eq!(fake.post("/api/v1/services/web/rollback", r#"{"to": 1}"#).await.problem().0, 404);
}

#[tokio::test]
async fn health_and_readiness() {
    let fake = Fake::start().await;
    assert_eq!(fake.get("/healthz").await.body, "ok\n");
    assert_eq!(fake.get("/readyz").await.status, 200);
    fake.levers.set(|services| {
        services[0].canary.as_mut().expect("a canary").instances[0].healthy = false;
    });
    let unready = fake.get("/readyz").await;
    assert_eq!(unready.status, 503);
    assert_eq!(unready.body, "web: no healthy instance of the canary revision 4\n");
    fake.levers.set(|services| {
        services[0].weights.canary = 0.0;
        services[1].stable = None;
    });
    assert_eq!(fake.get("/readyz").await.status, 200);
    fake.levers.set_daemon(|daemon| daemon.stopping = true);
    assert_eq!(fake.get("/readyz").await.body, "the daemon is stopping\n");
    assert_eq!(fake.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn over_tcp_a_token_or_this_machine() {
    let fake = Fake::start().await;
    let port = fake.admin.listen().expect("an address").port();
    let here = format!("Host: 127.0.0.1:{port}\r\n");
    let services = "/api/v1/services";
    let pause = "/api/v1/services/web/pause";
    assert_eq!(fake.tcp("GET", services, &here).await.status, 200);
    assert_eq!(fake.tcp("POST", pause, &here).await.status, 200);
    assert_eq!(
        fake.tcp("POST", pause, &format!("{here}Origin: http://127.0.0.1:{port}\r\n")).await.status,
        200
    );
    assert_eq!(fake.asked().len(), 2);
    let rebound = "Host: evil.example\r\n";
    assert_eq!(fake.tcp("GET", services, rebound).await.problem().0, 403);
    for foreign in [
        "Origin: https://evil.example",
        "Origin: null",
        "Origin: http://localhost:1",
        "Sec-Fetch-Site: cross-site",
    ] {
        let reply = fake.tcp("POST", pause, &format!("{here}{foreign}\r\n")).await;
        assert_eq!(reply.problem().0, 403, "{foreign}");
    }
    assert!(fake.asked().is_empty());
    assert_eq!(fake.tcp("GET", "/healthz", rebound).await.status, 200);

    let fake = Fake::with_token(Some("s3cret")).await;
    let bare = fake.tcp("GET", services, "Host: x\r\n").await;
    assert_eq!(bare.problem().0, 401);
    assert!(bare.head.contains("www-authenticate: bearer"));
    let shown = |token: &str| format!("Host: x\r\nAuthorization: Bearer {token}\r\n");
    assert_eq!(fake.tcp("GET", services, &shown("s3cret")).await.status, 200);
    assert_eq!(fake.tcp("GET", services, &shown("s3creT")).await.problem().0, 401);
    assert_eq!(fake.tcp("GET", "/readyz", "Host: x\r\n").await.status, 200);
    assert_eq!(fake.get(services).await.status, 200);
}

#[tokio::test]
async fn sockets_are_neither_stolen_nor_left() {
    let fake = Fake::start().await;
    let mode = std::fs::metadata(&fake.socket).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let start = async |socket: &std::path::Path, listen, token: Option<&str>| {
        let (_, handle) = driver();
        let token = token.map(str::to_owned);
        let settings = Settings {
            notifier: None,
            audit: None,
            socket: Some(socket.to_owned()),
            listen,
            token,
            rare: None,
            archivist: None,
        };
        serve(
            handle,
            settings,
            Arc::new(Traffic::new(1)),
            CancellationToken::new(),
            super::Held::default(),
        )
        .await
    };
    let error = start(&fake.socket, Vec::new(), None).await.expect_err("in use");
    assert!(error.to_string().starts_with("another daemon answers on /"), "{error}");
    let directory = tempfile::tempdir().expect("a directory");
    let stale = directory.path().join("deep/admin.sock");
    std::fs::create_dir_all(stale.parent().expect("deep")).expect("made");
    drop(std::os::unix::net::UnixListener::bind(&stale).expect("bound"));
    let admin = start(&stale, Vec::new(), None).await.expect("a stale socket is replaced");
    UnixStream::connect(&stale).await.expect("it answers");
    drop(admin);
    let file = directory.path().join("file");
    std::fs::write(&file, "").expect("written");
    assert!(matches!(start(&file, Vec::new(), None).await, Err(AdminError::NotASocket(_))));
    let everywhere = vec![([127, 0, 0, 1], 0).into(), ([0, 0, 0, 0], 0).into()];
    let error = start(&stale, everywhere.clone(), None).await.expect_err("no token");
    assert!(error.to_string().contains("without a token"), "{error}");
    assert!(start(&stale, everywhere.clone(), Some(" ")).await.is_err());

    let path = fake.socket.clone();
    assert!(path.exists());
    fake.stop().await;
    assert!(!path.exists());
}

/// A stream of events, read as text.
struct Listening(UnixStream, String);

impl Listening {
    async fn to(fake: &Fake, path: &str, headers: &str) -> Self {
        let mut stream = fake.unix().await;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut listening = Self(stream, String::new());
        listening.until("text/event-stream").await;
        listening
    }

    async fn until(&mut self, text: &str) {
        let mut bytes = [0; 4096];
        while !self.1.contains(text) {
            let read = tokio::time::timeout(PATIENCE, self.0.read(&mut bytes)).await;
            let count =
                read.unwrap_or_else(|_| panic!("{text:?} not in {:?}", self.1)).expect("read");
            assert!(count > 0, "{text:?} not in {:?}", self.1);
            self.1.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }

    /// The ids, in order.
    fn ids(&self) -> Vec<u64> {
        self.1.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect()
    }
}

#[tokio::test]
async fn events_resume_and_tell_what_was_missed() {
    let fake = Fake::start().await;
    for n in 1..=5 {
        fake.levers.happen("note", None, &format!("number {n}"));
    }
    let mut new = Listening::to(&fake, "/api/v1/events", "").await;
    let mut all = Listening::to(&fake, "/api/v1/events?after=0", "").await;
    let mut resumed = Listening::to(&fake, "/api/v1/events", "Last-Event-ID: 3\r\n").await;
    let mut other = Listening::to(&fake, "/api/v1/events?after=0&service=api", "").await;
    let mut ahead = Listening::to(&fake, "/api/v1/events", "Last-Event-ID: 900\r\n").await;
    ahead.until("number 5").await;
    fake.levers.happen("phase", Some(("baking", 5.0)), "number 6");
    for stream in [&mut new, &mut all, &mut resumed, &mut ahead] {
        stream.until("number 6").await;
    }
    assert_eq!(new.ids(), [6]);
    assert_eq!(all.ids(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(resumed.ids(), [4, 5, 6]);
    assert_eq!(ahead.ids(), [1, 2, 3, 4, 5, 6]);
    assert!(ahead.1.contains("event: restarted\n"), "{}", ahead.1);
    assert!(new.1.contains(r#""phase":"baking","weight":5.0"#), "{}", new.1);

    fake.levers.forget(4);
    let mut late =
        Listening::to(&fake, "/api/v1/events?follow=false", "Last-Event-ID: 2\r\n").await;
    late.until("number 6").await;
    assert!(late.1.contains("event: lagged\ndata: {\"missed\":2}"), "{}", late.1);

    // Everything ends with the daemon, also a stream that heard nothing.
    assert!(other.ids().is_empty());
    fake.stop().await;
    other.until("\r\n0\r\n\r\n").await;
}

#[tokio::test]
async fn a_slow_listener_misses_nothing_that_is_remembered() {
    let fake = Fake::start().await;
    let mut slow = Listening::to(&fake, "/api/v1/events?after=0", "").await;
    // Four times the broadcast's memory, at once.
    for n in 1..=64 {
        fake.levers.happen("note", None, &format!("number {n}."));
    }
    slow.until("number 64.").await;
    assert_eq!(slow.ids(), (1..=64).collect::<Vec<u64>>());
}

#[tokio::test]
async fn metrics_are_a_page_that_prometheus_reads() {
    let fake = Fake::start().await;
    let reply = fake.get("/metrics").await;
    assert!(reply.head.contains("content-type: text/plain; version=0.0.4"), "{}", reply.head);
    let web = r#"service="web",revision="4",side="canary""#;
    for line in [
        format!("switchback_requests_total{{{web},outcome=\"success\"}} 3"),
        format!("switchback_request_duration_seconds_bucket{{{web},le=\"0.001024\"}} 1"),
        format!("switchback_request_duration_seconds_bucket{{{web},le=\"+Inf\"}} 4"),
        format!("switchback_request_duration_seconds_count{{{web}}} 4"),
        format!("switchback_delivered_share_ratio{{{web}}} 0.252"),
        format!("switchback_requests_in_flight{{{web}}} 4"),
        r#"switchback_rollout_weight_ratio{service="web",side="canary"} 0.25"#.to_owned(),
        r#"switchback_rollout_phase{service="web",phase="baking"} 1"#.to_owned(),
        r#"switchback_rollout_check{service="web",check="p95",result="inconclusive"} 1"#.to_owned(),
        "switchback_connections_accepted_total 1".to_owned(),
        "switchback_docker_up 1".to_owned(),
        "switchback_build_info{version=\"0.1.0\"} 1".to_owned(),
    ] {
        assert!(reply.body.lines().any(|found| found == line), "{line}\nnot in\n{}", reply.body);
    }
    let mut seen = std::collections::BTreeSet::new();
    for line in reply.body.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(seen.insert(series), "twice: {line}");
        let name = series.split('{').next().expect("a name");
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let opened = |name: &str| reply.body.contains(&format!("# TYPE {name} "));
        assert!(opened(name) || family.is_some_and(opened), "{line}");
    }
    promtool(&reply.body).await;
}

async fn promtool(page: &str) {
    let mut command = tokio::process::Command::new("promtool");
    command.args(["check", "metrics"]).stdin(std::process::Stdio::piped());
    let Ok(mut child) = command.stderr(std::process::Stdio::piped()).spawn() else {
        eprintln!("promtool is not on PATH: the page was not shown to it");
        return;
    };
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(page.as_bytes()).await.expect("written");
    drop(stdin);
    let output = child.wait_with_output().await.expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn every_endpoint_is_described() {
    let fake = Fake::start().await;
    let document = fake.get("/api/openapi.json").await.json();
    let paths = document["paths"].as_object().expect("paths");
    for (path, operations) in paths {
        let path = path.replace("{service}", "web").replace("{id}", "12");
        for method in operations.as_object().expect("operations").keys() {
            let path = if path.ends_with("/events") {
                format!("{path}?follow=false")
            } else {
                path.clone()
            };
            let body = match path.rsplit('/').next() {
                Some("weight") => r#"{"canary": 1}"#,
                Some("maintenance") => r#"{"on": true, "queue": "30s"}"#,
                Some("freeze") => r#"{"reason": "a fair"}"#,
                _ => "",
            };
            let reply = match method.as_str() {
                "get" => fake.get(&path).await,
                "post" => fake.post(&path, body).await,
                other => panic!("{other} {path}"),
            };
            // The fake keeps nothing: that, or what is missing in the body, is said.
            let keeps = ["/checkpoints", "/restore", "/build", "/adopt", "/clean", "/notify/test"];
            let is_keeping = keeps.iter().any(|part| path.contains(part));
            let expected: &[u16] = match path.as_str() {
                // By then its service is no longer frozen, and that is said.
                "/api/v1/unfreeze" => &[409],
                _ if is_keeping => &[400, 422, 503],
                _ => &[200, 202],
            };
            assert!(expected.contains(&reply.status), "{method} {path}: {}", reply.status);
        }
    }
    assert_eq!(paths.len(), 40, "a path was added or lost: {:?}", paths.keys());
}
