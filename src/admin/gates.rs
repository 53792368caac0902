//! What a person says apart from a rollout's own course: freezes and confirmations.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;

use super::api::{Answer, AppState, Body, By, Done, Named};
use super::body;
use super::problem::{Kind, Problem};
use crate::controller::handle::Say;
use crate::controller::status::ServiceStatus;
use crate::model::id::ServiceName;

/// Who says it.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(super) struct ByRequest {
    /// Who and from where, for the record.
    by: Option<String>,
}

/// For how long no deploy may begin, and why.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(super) struct FreezeRequest {
    /// Why.
    reason: Option<String>,
    /// A moment (RFC 3339) or a time from now (`12h`); for good when absent.
    until: Option<String>,
    /// Who and from where, for the record.
    by: Option<String>,
}

/// Lets no deploy of any service begin. Answers how many that are.
#[utoipa::path(post, path = "/api/v1/freeze", tag = "services", request_body = FreezeRequest,
    responses((status = 200, body = Done), (status = 422, body = Problem)))]
pub(super) async fn freeze_all(
    State(state): State<AppState>,
    By(who): By,
    body: Body,
) -> Answer<Done> {
    let FreezeRequest { reason, until, by: _ } = body::read(&["reason", "until", "by"], body)?;
    let reason = needed(reason)?;
    let all = |name| Say::Freeze { reason: reason.clone(), until: until.clone(), by: name };
    let count = say_all(&state, |_| true, || all(Some(who.clone()))).await?;
    let message = match count {
        1 => "1 service is frozen: no deploy begins".to_owned(),
        count => format!("{count} services are frozen: no deploy begins"),
    };
    Ok(Json(Done { message }))
}

/// Lets deploys of all services begin again.
#[utoipa::path(post, path = "/api/v1/unfreeze", tag = "services", request_body = ByRequest,
    responses((status = 200, body = Done), (status = 409, body = Problem)))]
pub(super) async fn unfreeze_all(
    State(state): State<AppState>,
    By(who): By,
    body: Body,
) -> Answer<Done> {
    let ByRequest { by: _ } = body::read(&["by"], body)?;
    let frozen = |service: &ServiceStatus| service.freeze.is_some();
    let count = say_all(&state, frozen, || Say::Unfreeze { by: Some(who.clone()) }).await?;
    if count == 0 {
        return Err(Problem::new(Kind::Conflict, "no service is frozen"));
    }
    let services = if count == 1 { "service" } else { "services" };
    Ok(Json(Done { message: format!("deploys of {count} {services} are allowed again") }))
}

async fn say_all(
    state: &AppState,
    of: impl Fn(&ServiceStatus) -> bool,
    say: impl Fn() -> Say,
) -> Result<usize, Problem> {
    let mut count = 0;
    for service in state.handle.services().iter().filter(|service| of(service)) {
        let Ok(name) = ServiceName::new(&service.service) else { continue };
        state.handle.say(name, say()).await?;
        count += 1;
    }
    Ok(count)
}

fn needed(reason: Option<String>) -> Result<String, Problem> {
    reason.filter(|reason| !reason.trim().is_empty()).ok_or_else(|| {
        let detail = "`reason` is missing: say why nobody may deploy";
        Problem::new(Kind::Invalid, detail).with_field("reason")
    })
}

/// Says that the last promotion stands, where `confirm_within` asks for it.
#[utoipa::path(post, path = "/api/v1/services/{service}/confirm", tag = "rollouts",
    params(("service" = String, Path, description = "Its name")),
    request_body = ByRequest,
    responses((status = 200, body = ServiceStatus), (status = 404, body = Problem),
        (status = 409, description = "Nothing waits to be confirmed", body = Problem)))]
pub(super) async fn confirm(
    State(state): State<AppState>,
    Named(name): Named,
    By(who): By,
    body: Body,
) -> Answer<ServiceStatus> {
    let ByRequest { by } = body::read(&["by"], body)?;
    let by = Some(by.unwrap_or(who));
    Ok(Json(state.handle.say(name, Say::Confirm { by }).await?))
}

/// Lets no deploy begin. Rollouts under way go on, and a rollback is always possible.
#[utoipa::path(post, path = "/api/v1/services/{service}/freeze", tag = "services",
    params(("service" = String, Path, description = "Its name")),
    request_body = FreezeRequest,
    responses((status = 200, body = ServiceStatus), (status = 404, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn freeze(
    State(state): State<AppState>,
    Named(name): Named,
    By(who): By,
    body: Body,
) -> Answer<ServiceStatus> {
    let FreezeRequest { reason, until, by } = body::read(&["reason", "until", "by"], body)?;
    let (reason, by) = (needed(reason)?, Some(by.unwrap_or(who)));
    Ok(Json(state.handle.say(name, Say::Freeze { reason, until, by }).await?))
}

/// Lets deploys begin again.
#[utoipa::path(post, path = "/api/v1/services/{service}/unfreeze", tag = "services",
    params(("service" = String, Path, description = "Its name")),
    request_body = ByRequest,
    responses((status = 200, body = ServiceStatus), (status = 404, body = Problem),
        (status = 409, description = "It is not frozen", body = Problem)))]
pub(super) async fn unfreeze(
    State(state): State<AppState>,
    Named(name): Named,
    By(who): By,
    body: Body,
) -> Answer<ServiceStatus> {
    let ByRequest { by } = body::read(&["by"], body)?;
    let by = Some(by.unwrap_or(who));
    Ok(Json(state.handle.say(name, Say::Unfreeze { by }).await?))
}
