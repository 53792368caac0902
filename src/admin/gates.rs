//! What a person says apart from a rollout's own course: freezes and confirmations.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;

use super::api::{Answer, AppState, Body, Named};
use super::body;
use super::problem::{Kind, Problem};
use crate::controller::handle::Say;
use crate::controller::status::ServiceStatus;

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

/// Says that the last promotion stands, where `confirm_within` asks for it.
#[utoipa::path(post, path = "/api/v1/services/{service}/confirm", tag = "rollouts",
    params(("service" = String, Path, description = "Its name")),
    request_body = ByRequest,
    responses((status = 200, body = ServiceStatus), (status = 404, body = Problem),
        (status = 409, description = "Nothing waits to be confirmed", body = Problem)))]
pub(super) async fn confirm(
    State(state): State<AppState>,
    Named(name): Named,
    body: Body,
) -> Answer<ServiceStatus> {
    let ByRequest { by } = body::read(&["by"], body)?;
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
    body: Body,
) -> Answer<ServiceStatus> {
    let FreezeRequest { reason, until, by } = body::read(&["reason", "until", "by"], body)?;
    let Some(reason) = reason.filter(|reason| !reason.trim().is_empty()) else {
        let detail = "`reason` is missing: say why nobody may deploy";
        return Err(Problem::new(Kind::Invalid, detail.to_owned()).with_field("reason"));
    };
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
    body: Body,
) -> Answer<ServiceStatus> {
    let ByRequest { by } = body::read(&["by"], body)?;
    Ok(Json(state.handle.say(name, Say::Unfreeze { by }).await?))
}
