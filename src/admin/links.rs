//! The page behind a link in a message: says what the link does, and does it when asked to.
//!
//! Reading it does nothing, because programs that draw previews read every link. What proves the right
//! to act is the link; nothing else is asked, and nothing else is told. Answers are not cached, and say
//! no other site where they came from.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::api::{Answer, AppState, Body};
use super::body;
use super::caller::Caller;
use super::problem::{Kind, Problem};
use crate::notify::{Claims, Link, LinkRefused};
use crate::telemetry::audit::Entry;
use crate::telemetry::metrics;

/// Where links begin. Whoever has one may come in without a token.
pub(super) const PREFIX: &str = "/links/";

/// Says what a link does.
pub(super) async fn show(State(state): State<AppState>, Path(token): Path<String>) -> Response {
    let notifier = state.notifier.as_ref();
    match notifier.map_or(Err(LinkRefused::Forged), |notifier| notifier.read(&token)) {
        Ok(claims) => {
            let button = format!(
                "<form method=\"post\"><button>{}</button></form>",
                escape(claims.link.label())
            );
            page(StatusCode::OK, &question(&claims), &button)
        }
        Err(refused) => page(status(&refused), &refused.to_string(), ""),
    }
}

/// Does what a link says.
pub(super) async fn act(
    State(state): State<AppState>,
    Path(token): Path<String>,
    caller: Option<axum::Extension<Caller>>,
    headers: HeaderMap,
) -> Response {
    let from = place(caller.map(|caller| caller.0), &headers);
    let Some(notifier) = &state.notifier else {
        let refused = LinkRefused::Forged;
        return page(status(&refused), &refused.to_string(), "");
    };
    // Whoever closes the page does not stop what it began, nor that it is written down.
    let (notifier, audit) = (notifier.clone(), state.audit.clone());
    let work = tokio::spawn(async move {
        let known = notifier.read(&token).ok();
        let (shown, claims, outcome) = match notifier.use_link(&token).await {
            Ok(acted) => match acted.result {
                Ok(sentence) => {
                    ((StatusCode::OK, sentence.clone()), Some(acted.claims), Ok(sentence))
                }
                Err(why) => ((StatusCode::CONFLICT, why.clone()), Some(acted.claims), Err(why)),
            },
            Err(refused) => {
                let why = refused.to_string();
                ((status(&refused), why.clone()), known, Err(why))
            }
        };
        let result = if outcome.is_ok() { "acted" } else { "refused" };
        metrics::count(&metrics::LINKS, &[("result", result)]);
        if let Some(audit) = audit {
            audit.write(entry(claims.as_ref(), from, outcome)).await;
        }
        shown
    });
    let broken = (StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping".to_owned());
    let (status, sentence) = work.await.unwrap_or(broken);
    page(status, &sentence, "")
}

fn entry(claims: Option<&Claims>, from: String, outcome: Result<String, String>) -> Entry {
    let is_done = outcome.is_ok();
    let to = claims.map(|claims| claims.to.clone());
    Entry {
        verb: claims.map_or("link", |claims| claims.link.as_str()).to_owned(),
        service: claims.map(|claims| claims.service.clone()),
        who: to.map_or_else(
            || "somebody with a link that is not valid".to_owned(),
            |to| format!("who has the link sent to {to}"),
        ),
        from,
        outcome: if is_done { "done" } else { "refused" }.to_owned(),
        detail: Some(outcome.unwrap_or_else(|why| why)),
        rollout: claims.map(|claims| claims.rollout.0),
        revision: claims.map(|claims| claims.revision.0),
        ..Entry::default()
    }
}

/// From where, through a proxy before us too; that part anybody could have written.
fn place(caller: Option<Caller>, headers: &HeaderMap) -> String {
    let through = caller.unwrap_or(Caller::Unknown).place();
    let first = headers.get("x-forwarded-for").and_then(|value| value.to_str().ok());
    match first.and_then(|value| value.split(',').next()) {
        Some(first) if first.trim().parse::<std::net::IpAddr>().is_ok() => {
            format!("a link, {} by {through}", first.trim())
        }
        _ => format!("a link, {through}"),
    }
}

fn question(claims: &Claims) -> String {
    let (service, rollout, revision) = (&claims.service, claims.rollout, claims.revision);
    match claims.link {
        Link::Promote => {
            let step = claims.step.map_or_else(String::new, |step| format!(" from step {step}"));
            format!("Let revision {revision} of {service} go on{step}? (rollout {rollout})")
        }
        Link::Rollback => {
            format!("Take revision {revision} of {service} back? (rollout {rollout})")
        }
        Link::Confirm => format!("Does revision {revision} of {service} stay? (rollout {rollout})"),
    }
}

fn status(refused: &LinkRefused) -> StatusCode {
    match refused {
        LinkRefused::Forged => StatusCode::NOT_FOUND,
        LinkRefused::Expired | LinkRefused::Used => StatusCode::GONE,
        LinkRefused::Unsaved(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn page(status: StatusCode, sentence: &str, more: &str) -> Response {
    let body = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><meta name=\"robots\" content=\"noindex\"><title>Switchback\
         </title><style>body{{font:18px/1.5 system-ui,sans-serif;max-width:32em;margin:20vh auto;\
         padding:0 1em}}button{{font:inherit;padding:.5em 1.5em}}</style><p>{}</p>{more}</html>\n",
        escape(sentence)
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; \
             frame-ancestors 'none'; base-uri 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, body).into_response()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Who shall get a test.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(super) struct TestRequest {
    /// One of `[notify]`; all where nothing is said.
    name: Option<String>,
}

/// What came of a test.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Tested {
    /// One of `[notify]`.
    pub name: String,
    /// Why it was not taken; absent when it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Sends a message that says it is a test.
#[utoipa::path(post, path = "/api/v1/notify/test", tag = "daemon", request_body = TestRequest,
    responses((status = 200, body = Vec<Tested>), (status = 404, body = Problem)))]
pub(super) async fn test(State(state): State<AppState>, body: Body) -> Answer<Vec<Tested>> {
    let TestRequest { name } = body::read(&["name"], body)?;
    let notifier = state.notifier.as_ref();
    let notifier = notifier
        .ok_or_else(|| Problem::new(Kind::Unavailable, "this daemon tells nobody anything"))?;
    let tested = notifier.test(name.as_deref()).await;
    let tested = tested.map_err(|why| Problem::new(Kind::NotFound, why))?;
    Ok(Json(tested.into_iter().map(|(name, trouble)| Tested { name, trouble }).collect()))
}
