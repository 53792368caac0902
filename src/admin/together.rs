//! Deploys and returns of several services that go together.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::api::{AppState, Body, By};
use super::audit;
use super::body;
use super::problem::{Kind, Problem};
use crate::controller::handle::ReturnTogether;
use crate::controller::status::{DeployAccepted, DeployRequest};
use crate::model::id::ServiceName;

/// Services of one group, and what each is deployed with.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct TogetherRequest {
    /// By name.
    pub services: BTreeMap<String, DeployRequest>,
}

/// What was begun.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct TogetherAccepted {
    /// By name.
    pub services: BTreeMap<String, DeployAccepted>,
}

/// Services of one group that return.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ReturnRequest {
    /// Their names.
    pub services: Vec<String>,
    /// Archive no checkpoints, although `checkpoint` is "auto".
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_checkpoint: bool,
}

/// Begins rollouts of services of one group: they take each step together, and go back together.
#[utoipa::path(post, path = "/api/v1/deploy", tag = "rollouts", request_body = TogetherRequest,
    responses((status = 202, body = TogetherAccepted), (status = 404, body = Problem),
        (status = 409, description = "A rollout is under way", body = Problem),
        (status = 422, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn deploy(
    State(state): State<AppState>,
    By(who): By,
    body: Body,
) -> Result<Response, Problem> {
    let asked: TogetherRequest = body::read(&["services"], body)?;
    let requests = asked.services.into_iter().map(|(name, request)| {
        Ok((named(&name)?, DeployRequest { by: Some(who.clone()), ..request }))
    });
    let requests = requests.collect::<Result<BTreeMap<_, _>, Problem>>()?;
    Ok(begun(state.handle.deploy_together(requests).await?))
}

/// Returns services of one group to what each had before: all of them, or none.
#[utoipa::path(post, path = "/api/v1/rollback", tag = "rollouts", request_body = ReturnRequest,
    responses((status = 202, body = TogetherAccepted), (status = 404, body = Problem),
        (status = 409, description = "There is nothing to return to, or it cannot be now", body = Problem),
        (status = 422, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn rollback(
    State(state): State<AppState>,
    body: Body,
) -> Result<Response, Problem> {
    let asked: ReturnRequest = body::read(&["services", "no_checkpoint"], body)?;
    let services = asked.services.iter().map(|name| named(name));
    let services = services.collect::<Result<_, Problem>>()?;
    let back = ReturnTogether { services, checkpoint: !asked.no_checkpoint };
    Ok(begun(state.handle.rollback_together(back).await?))
}

fn named(name: &str) -> Result<ServiceName, Problem> {
    ServiceName::new(name).map_err(|_| {
        Problem::new(Kind::Invalid, format!("{name:?} cannot name a service"))
            .with_field("services")
    })
}

fn begun(accepted: BTreeMap<ServiceName, DeployAccepted>) -> Response {
    let services = accepted.into_iter().map(|(name, one)| (name.to_string(), one)).collect();
    let accepted = TogetherAccepted { services };
    let each = accepted.services.iter();
    let each =
        each.map(|(n, one)| format!("{n} to revision {}, rollout {}", one.revision, one.rollout));
    let message = each.collect::<Vec<_>>().join("; ");
    let outcome: audit::Outcome = Ok(serde_json::json!({ "message": message }));
    (StatusCode::ACCEPTED, Extension(outcome), Json(accepted)).into_response()
}
