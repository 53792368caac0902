//! Writes down every change that is asked for, and answers what was written.
//!
//! A layer around all endpoints: who asked, what, and what came of it. What takes time and is answered
//! with lines is written down when it has ended. Secrets of a body are not: only fields that are known
//! to be none.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Extensions, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::oneshot;
use utoipa::IntoParams;

use super::api::{Answer, AppState, Asked};
use super::caller::{Caller, says};
use super::problem::{Kind, Problem};
use crate::model::id::RolloutId;
use crate::telemetry::audit::{Audit, Entry, Query};

/// The most bytes of a body that are looked at; longer ones are sources of images.
const LOOKED_AT: usize = 64 * 1024;
/// Entries that are shown when nobody says how many, and at most.
const SHOWN: usize = 50;
const MOST_SHOWN: usize = 100_000;
/// Fields of bodies that are written down. `env` is none of them: it holds passwords.
const FIELDS: [&str; 22] = [
    "image",
    "tag",
    "command",
    "endpoints",
    "steps",
    "bake",
    "override_freeze",
    "no_checkpoint",
    "full",
    "canary",
    "on",
    "queue",
    "to",
    "reason",
    "until",
    "note",
    "checkpoint",
    "restore_test",
    "container",
    "yes",
    "dry_run",
    "name",
];

/// What came of a change, in the extensions of its answer: what was answered, or why it was not done.
pub(super) type Outcome = Result<Value, String>;

/// What will come of it, where it takes time. Behind a lock, because extensions can be cloned.
#[derive(Clone)]
pub(super) struct Later(std::sync::Arc<std::sync::Mutex<Option<oneshot::Receiver<Outcome>>>>);

impl Later {
    /// With the end at which it is told.
    pub(super) fn new() -> (oneshot::Sender<Outcome>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(std::sync::Arc::new(std::sync::Mutex::new(Some(receiver)))))
    }

    fn take(&self) -> Option<oneshot::Receiver<Outcome>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }
}

/// Writes down a change. Reads pass by.
pub(super) async fn layer(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let Some(audit) = state.audit.clone().filter(|_| request.method() == Method::POST) else {
        return next.run(request).await;
    };
    let Some((verb, service)) = deed(path) else { return next.run(request).await };
    let caller = request.extensions().get().cloned().unwrap_or(Caller::Unknown);
    let (parts, body) = request.into_parts();
    let said = says(&parts.headers);
    let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|l| l.to_str().ok());
    let short = length.and_then(|l| l.parse::<usize>().ok()).is_some_and(|l| l <= LOOKED_AT);
    let (body, asked) = if short {
        match axum::body::to_bytes(body, LOOKED_AT).await {
            Ok(bytes) => (Body::from(bytes.clone()), fields(&bytes)),
            Err(_) => (Body::empty(), None),
        }
    } else {
        (body, None)
    };
    let entry = Entry {
        verb,
        service,
        who: caller.who(),
        says: said.or_else(|| text(asked.as_ref()?, "by")),
        from: caller.place(),
        asked: asked.map(|mut asked| {
            asked.remove("by");
            Value::Object(asked)
        }),
        ..Entry::default()
    };
    let mut answer = next.run(Request::from_parts(parts, body)).await;
    if let Some(ends) = answer.extensions_mut().remove::<Later>().and_then(|later| later.take()) {
        tokio::spawn(async move {
            let outcome = ends.await.unwrap_or_else(|_| Err("it broke off".to_owned()));
            write(&audit, &state, entry, Some(outcome)).await;
        });
        return answer;
    }
    let outcome = outcome_of(answer.extensions());
    let refused = !answer.status().is_success();
    let outcome = outcome.or_else(|| refused.then(|| Err(answer.status().to_string())));
    write(&audit, &state, entry, outcome).await;
    answer
}

fn outcome_of(extensions: &Extensions) -> Option<Outcome> {
    extensions.get::<Outcome>().cloned()
}

async fn write(audit: &Audit, state: &AppState, mut entry: Entry, outcome: Option<Outcome>) {
    "done".clone_into(&mut entry.outcome);
    match outcome {
        Some(Err(why)) => {
            "refused".clone_into(&mut entry.outcome);
            entry.detail = Some(why);
        }
        Some(Ok(answer)) => {
            entry.rollout = answer.get("rollout").and_then(Value::as_u64);
            let revision = answer.get("revision").and_then(Value::as_u64);
            entry.revision = revision.and_then(|revision| u32::try_from(revision).ok());
            entry.detail = answer.get("message").and_then(Value::as_str).map(str::to_owned);
        }
        None => {}
    }
    if let Some(rollout) = entry.rollout
        && let Ok(record) = state.handle.rollout(RolloutId(rollout)).await
    {
        entry.image = Some(record.image);
        entry.digest = record.digest;
        entry.commit = record.origin.and_then(|origin| origin.commit);
    }
    audit.write(entry).await;
}

/// The verb and the service of a path; none where a link is used, which writes by itself.
fn deed(path: &str) -> Option<(String, Option<String>)> {
    let rest = path.strip_prefix("/api/v1/")?.trim_end_matches('/');
    let parts: Vec<&str> = rest.split('/').collect();
    let verb = |verb: &str| match verb {
        "checkpoints" => "checkpoint".to_owned(),
        verb => verb.to_owned(),
    };
    match parts.as_slice() {
        ["services", service, name] => Some((verb(name), Some((*service).to_owned()))),
        ["checkpoints", what] => Some((format!("checkpoint {what}"), None)),
        ["notify", what] => Some((format!("notify {what}"), None)),
        [name] => Some((verb(name), None)),
        _ => None,
    }
}

/// What of a body is written down.
fn fields(body: &Bytes) -> Option<Map<String, Value>> {
    let Ok(Value::Object(mut body)) = serde_json::from_slice(body) else { return None };
    body.retain(|name, value| {
        let said = !matches!(value, Value::Null | Value::Bool(false));
        said && (FIELDS.contains(&name.as_str()) || name == "by")
    });
    (!body.is_empty()).then_some(body)
}

fn text(fields: &Map<String, Value>, name: &str) -> Option<String> {
    fields.get(name)?.as_str().map(str::to_owned)
}

/// Which entries.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AuditQuery {
    /// Of this service.
    service: Option<String>,
    /// With this verb.
    verb: Option<String>,
    /// By somebody whose name holds this.
    by: Option<String>,
    /// Not before: a moment (RFC 3339) or a time before now (`12h`).
    since: Option<String>,
    /// The newest, 50 where nothing is said.
    limit: Option<usize>,
}

/// The audit log, oldest first.
#[utoipa::path(get, path = "/api/v1/audit", tag = "daemon", params(AuditQuery),
    responses((status = 200, body = Vec<Object>), (status = 422, body = Problem),
        (status = 503, body = Problem)))]
pub(super) async fn audit(
    State(state): State<AppState>,
    Asked(query): Asked<AuditQuery>,
) -> Answer<Vec<Entry>> {
    let log =
        state.audit.clone().ok_or_else(|| Problem::new(Kind::Unavailable, "nothing is audited"))?;
    let since = query.since.as_deref().map(moment).transpose()?;
    let limit = query.limit.unwrap_or(SHOWN).min(MOST_SHOWN);
    let query = Query { service: query.service, verb: query.verb, who: query.by, since, limit };
    let read = tokio::task::spawn_blocking(move || log.read(&query)).await;
    let failed = |why: String| {
        Problem::new(Kind::Unavailable, format!("the audit log cannot be read: {why}"))
    };
    let entries = read.map_err(|error| failed(error.to_string()))?;
    Ok(Json(entries.map_err(|error| failed(error.to_string()))?))
}

/// A moment, or a time before now.
pub(super) fn moment(written: &str) -> Result<jiff::Timestamp, Problem> {
    let at = written.parse::<jiff::Timestamp>().ok().or_else(|| {
        let span: jiff::SignedDuration = written.parse().ok()?;
        jiff::Timestamp::now().checked_sub(span).ok()
    });
    at.ok_or_else(|| {
        let detail = format!(
            "`since` {written:?} is neither a moment such as 2026-12-01T08:00:00Z nor a time before \
             now such as 12h"
        );
        Problem::new(Kind::Invalid, detail).with_field("since")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_deeds() {
        let of = |path: &str| deed(path).map(|(verb, service)| (verb, service.unwrap_or_default()));
        let said = |verb: &str, service: &str| Some((verb.to_owned(), service.to_owned()));
        assert_eq!(of("/api/v1/services/web/deploy"), said("deploy", "web"));
        assert_eq!(of("/api/v1/services/web/checkpoints"), said("checkpoint", "web"));
        assert_eq!(of("/api/v1/checkpoints/remove"), said("checkpoint remove", ""));
        assert_eq!(of("/api/v1/reload"), said("reload", ""));
        assert_eq!(of("/links/a.b"), None);
    }

    #[test]
    fn secrets_are_not_written_down() {
        let body = Bytes::from(r#"{"image":"web:2","env":{"PASSWORD":"x"},"full":false}"#);
        let kept = fields(&body).unwrap();
        assert_eq!(Value::Object(kept), serde_json::json!({ "image": "web:2" }));
    }
}
