//! Deploys of several services that go together.

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
        let name = ServiceName::new(&name).map_err(|_| {
            Problem::new(Kind::Invalid, format!("{name:?} cannot name a service"))
                .with_field("services")
        })?;
        Ok((name, DeployRequest { by: Some(who.clone()), ..request }))
    });
    let requests = requests.collect::<Result<BTreeMap<_, _>, Problem>>()?;
    let accepted = state.handle.deploy_together(requests).await?;
    let services = accepted.into_iter().map(|(name, one)| (name.to_string(), one)).collect();
    let accepted = TogetherAccepted { services };
    let outcome: audit::Outcome = Ok(serde_json::to_value(&accepted).unwrap_or_default());
    Ok((StatusCode::ACCEPTED, Extension(outcome), Json(accepted)).into_response())
}
