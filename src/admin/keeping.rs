//! Endpoints for what is kept: checkpoints, and what nobody needs any more.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Json, Response};
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::api::{AppState, Asked, Body, Done, Named};
use super::body;
use super::problem::{Kind, Problem};
use super::work;
use crate::controller::archivist::{
    ArchiveTrouble, Archivist, BuildPlan, BuiltImage, Clean, Contents, Tested,
};
use crate::controller::handle::Refused;
use crate::controller::status::DeployAccepted;
use crate::model::id::ServiceName;
use crate::model::progress::Listener;

impl From<ArchiveTrouble> for Problem {
    fn from(trouble: ArchiveTrouble) -> Self {
        Refused::from(trouble).into()
    }
}

fn archivist(state: &AppState) -> Result<Archivist, Problem> {
    let none = || Problem::new(Kind::Unavailable, "this daemon keeps no checkpoints");
    state.archivist.clone().ok_or_else(none)
}

/// Answers with lines where they are asked for, and at the end otherwise.
async fn answered<T, F>(
    headers: &HeaderMap,
    does: impl FnOnce(Listener) -> F,
) -> Result<Response, Problem>
where
    T: Serialize,
    F: Future<Output = Result<T, Problem>> + Send + 'static,
{
    if work::is_wanted(headers) {
        return Ok(work::lines(does));
    }
    Ok(Json(does(Listener::default()).await?).into_response())
}

/// Whose checkpoints.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// The service; all where nothing is said.
    service: Option<String>,
}

/// Checkpoints, newest first.
#[utoipa::path(get, path = "/api/v1/checkpoints", tag = "checkpoints", params(ListQuery),
    responses((status = 200, body = Vec<Object>), (status = 503, body = Problem)))]
pub(super) async fn list(
    State(state): State<AppState>,
    Asked(query): Asked<ListQuery>,
) -> Result<Response, Problem> {
    let service = query.service.as_deref().map(ServiceName::new).transpose();
    let service = service.map_err(|error| Problem::new(Kind::Invalid, error.to_string()))?;
    Ok(Json(archivist(&state)?.list(service).await?).into_response())
}

/// What to write beside a checkpoint.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(super) struct CreateRequest {
    /// Why it is made.
    note: Option<String>,
}

/// Archives a checkpoint of what serves. Lines tell how far it is, where they are asked for.
#[utoipa::path(post, path = "/api/v1/services/{service}/checkpoints", tag = "checkpoints",
    params(("service" = String, Path, description = "Its name")), request_body = CreateRequest,
    responses((status = 200, body = Object), (status = 404, body = Problem),
        (status = 409, description = "One is being made", body = Problem),
        (status = 422, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn create(
    State(state): State<AppState>,
    Named(name): Named,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let CreateRequest { note } = body::read(&["note"], body)?;
    let archivist = archivist(&state)?;
    answered(&headers, |told| async move {
        let note = note.unwrap_or_default();
        Ok(archivist.create_of(&state.handle, &name, &note, &told).await?)
    })
    .await
}

/// Which checkpoint.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(super) struct WhichRequest {
    /// Its id, or the absolute path of an archive on the daemon's machine.
    checkpoint: String,
    /// To bring it up on the side too, and to throw that away.
    restore_test: bool,
}

fn which(body: Body, fields: &[&str]) -> Result<WhichRequest, Problem> {
    let request: WhichRequest = body::read(fields, body)?;
    if request.checkpoint.is_empty() {
        let detail = "`checkpoint` is missing: send {\"checkpoint\": \"ID\"}";
        return Err(Problem::new(Kind::Invalid, detail).with_field("checkpoint"));
    }
    Ok(request)
}

/// What a check found.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum Checked {
    Whole(Contents),
    Tested(Tested),
}

/// Reads all of a checkpoint and checks it; with `restore_test` it is brought up on the side too.
#[utoipa::path(post, path = "/api/v1/checkpoints/verify", tag = "checkpoints",
    request_body = WhichRequest,
    responses((status = 200, body = Checked), (status = 404, body = Problem),
        (status = 422, description = "It is damaged", body = Problem)))]
pub(super) async fn verify(
    State(state): State<AppState>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let WhichRequest { checkpoint, restore_test } = which(body, &["checkpoint", "restore_test"])?;
    let archivist = archivist(&state)?;
    answered(&headers, |told| async move {
        Ok(if restore_test {
            Checked::Tested(archivist.restore_test(&state.handle, &checkpoint, &told).await?)
        } else {
            Checked::Whole(archivist.verify(&checkpoint, &told).await?)
        })
    })
    .await
}

/// Removes a checkpoint.
#[utoipa::path(post, path = "/api/v1/checkpoints/remove", tag = "checkpoints",
    request_body = WhichRequest,
    responses((status = 200, body = Done), (status = 404, body = Problem)))]
pub(super) async fn remove(
    State(state): State<AppState>,
    body: Body,
) -> Result<Json<Done>, Problem> {
    let WhichRequest { checkpoint, .. } = which(body, &["checkpoint"])?;
    let bytes = archivist(&state)?.remove(&checkpoint).await?;
    let freed = match bytes {
        0..1_000_000 => format!("{} kB", bytes.div_ceil(1_000)),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    };
    Ok(Json(Done { message: format!("{checkpoint} removed, {freed} freed") }))
}

/// Checks a checkpoint, archives what serves now, and deploys what the checkpoint has.
#[utoipa::path(post, path = "/api/v1/services/{service}/restore", tag = "checkpoints",
    params(("service" = String, Path, description = "Its name")), request_body = WhichRequest,
    responses((status = 200, body = DeployAccepted), (status = 404, body = Problem),
        (status = 409, description = "A rollout is under way", body = Problem),
        (status = 422, description = "It is damaged, or of another service", body = Problem)))]
pub(super) async fn restore(
    State(state): State<AppState>,
    Named(name): Named,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let WhichRequest { checkpoint, .. } = which(body, &["checkpoint"])?;
    let archivist = archivist(&state)?;
    answered(&headers, |told| async move {
        Ok(Box::pin(archivist.restore(&state.handle, &name, &checkpoint, &told)).await?)
    })
    .await
}

/// Whether to free it.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(super) struct CleanRequest {
    /// Free it; else only show what would be freed.
    yes: bool,
}

/// Shows what is ours and nobody needs any more, or frees it.
#[utoipa::path(post, path = "/api/v1/clean", tag = "checkpoints", request_body = CleanRequest,
    responses((status = 200, body = Clean), (status = 503, body = Problem)))]
pub(super) async fn clean(
    State(state): State<AppState>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let CleanRequest { yes } = body::read(&["yes"], body)?;
    let archivist = archivist(&state)?;
    answered(&headers, |_| async move { Ok(archivist.clean(&state.handle, yes).await?) }).await
}

/// The daemon's own state: services, revisions with their environments, past rollouts. Has secrets.
#[utoipa::path(get, path = "/api/v1/state", tag = "daemon",
    responses((status = 200, body = Object), (status = 503, body = Problem)))]
pub(super) async fn state(State(state): State<AppState>) -> Result<Response, Problem> {
    Ok(Json(state.handle.export().await?).into_response())
}

/// What it takes to make a service's image from source.
#[utoipa::path(get, path = "/api/v1/services/{service}/build", tag = "rollouts",
    params(("service" = String, Path, description = "Its name")),
    responses((status = 200, body = BuildPlan), (status = 404, body = Problem),
        (status = 422, description = "It runs no image", body = Problem)))]
pub(super) async fn build_plan(
    State(state): State<AppState>,
    Named(name): Named,
) -> Result<Json<BuildPlan>, Problem> {
    Ok(Json(archivist(&state)?.build_plan(&state.handle, &name).await?))
}

/// What is built.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct BuildQuery {
    /// The tag that the image gets.
    tag: String,
    /// The commit that it is built from.
    commit: Option<String>,
}

/// Builds a service's image. The body is the context: a tar. Lines tell what the builder says, where
/// they are asked for.
#[utoipa::path(post, path = "/api/v1/services/{service}/build", tag = "rollouts",
    params(("service" = String, Path, description = "Its name"), BuildQuery),
    request_body(content = Vec<u8>, content_type = "application/x-tar"),
    responses((status = 200, body = BuiltImage), (status = 404, body = Problem),
        (status = 422, description = "The build failed", body = Problem)))]
pub(super) async fn build(
    State(state): State<AppState>,
    Named(name): Named,
    Asked(query): Asked<BuildQuery>,
    headers: HeaderMap,
    body: axum::body::Body,
) -> Result<Response, Problem> {
    let archivist = archivist(&state)?;
    let context = body.into_data_stream().map_err(std::io::Error::other);
    answered(&headers, |told| async move {
        let BuildQuery { tag, commit } = query;
        let context = Box::pin(context);
        Ok(archivist.build(&state.handle, &name, (tag, commit), context, &told).await?)
    })
    .await
}

/// Which container.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(super) struct AdoptRequest {
    /// Its name or id.
    container: String,
}

/// Takes over a container that somebody else runs: another one like it becomes stable.
#[utoipa::path(post, path = "/api/v1/services/{service}/adopt", tag = "rollouts",
    params(("service" = String, Path, description = "Its name")), request_body = AdoptRequest,
    responses((status = 200, body = DeployAccepted), (status = 404, body = Problem),
        (status = 409, description = "A rollout is under way", body = Problem),
        (status = 422, description = "There is none, or it does not run", body = Problem)))]
pub(super) async fn adopt(
    State(state): State<AppState>,
    Named(name): Named,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let AdoptRequest { container } = body::read(&["container"], body)?;
    if container.is_empty() {
        let detail = "`container` is missing: send {\"container\": \"NAME\"}";
        return Err(Problem::new(Kind::Invalid, detail).with_field("container"));
    }
    let archivist = archivist(&state)?;
    answered(&headers, |told| async move {
        Ok(archivist.adopt(&state.handle, &name, &container, &told).await?)
    })
    .await
}
