//! The endpoints: what is read with GET and changed with POST.
//!
//! Each handler reads what the driver published or asks it one thing; the driver decides.

use std::sync::Arc;

use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, ToSchema};

use super::body;
use super::caller::{Caller, says};
use super::extract::by;
pub(super) use super::extract::{Asked, By, Named};
use super::guard::{self, Guard};
use super::problem::{Kind, Problem};
use super::{
    audit, events, gates, health, keeping, links, metrics, openapi, reading, together, work,
};
use crate::controller::archivist::Archivist;
use crate::controller::handle::{Handle, ReturnTo};
use crate::controller::status::{
    DaemonStatus, DeployAccepted, DeployRequest, MaintenanceRequest, RolloutRecord, ServiceStatus,
    StepForecast,
};
use crate::model::id::{RevisionId, RolloutId, ServiceName};
use crate::model::progress::Listener;
use crate::model::weight::Weight;
use crate::notify::Notifier;
use crate::rollout::command::Command;
use crate::telemetry::audit::Audit;
use crate::telemetry::metrics::Rare;
use crate::telemetry::traffic::Traffic;

/// What handlers share. Every route and layer has it, and is cloned for each request.
pub(super) type AppState = Arc<Shared>;

/// What stands behind the endpoints.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) handle: Handle,
    pub(super) archivist: Option<Archivist>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) rare: Option<Rare>,
    pub(super) notifier: Option<Notifier>,
    pub(super) audit: Option<Audit>,
    pub(super) shutdown: CancellationToken,
}

pub(super) type Body = Result<Bytes, BytesRejection>;
pub(super) type Answer<T> = Result<Json<T>, Problem>;

/// All endpoints behind a guard.
pub(super) fn router(state: AppState, guard: Guard) -> Router {
    let service = Router::new()
        .route("/", get(reading::service))
        .route("/deploy", post(deploy))
        .route("/promote", post(promote))
        .route("/abort", post(abort))
        .route("/pause", post(pause))
        .route("/resume", post(resume))
        .route("/weight", post(weight))
        .route("/maintenance", post(maintenance))
        .route("/rollback", post(rollback))
        .route("/confirm", post(gates::confirm))
        .route("/freeze", post(gates::freeze))
        .route("/unfreeze", post(gates::unfreeze))
        .route("/checkpoints", post(keeping::create))
        .route("/restore", post(keeping::restore))
        .route("/adopt", post(keeping::adopt))
        .route("/build", get(keeping::build_plan).post(keeping::build))
        .route("/rollouts", get(rollouts))
        .route("/forecast", get(forecast))
        .route("/fit", get(reading::fit))
        .route("/logs", get(reading::logs));
    let api = Router::new()
        .route("/daemon", get(daemon))
        .route("/reload", post(reload))
        .route("/services", get(reading::services))
        .route("/deploy", post(together::deploy))
        .route("/rollback", post(together::rollback))
        .nest("/services/{service}", service)
        .route("/rollouts/{id}", get(rollout))
        .route("/checkpoints", get(keeping::list))
        .route("/checkpoints/verify", post(keeping::verify))
        .route("/checkpoints/remove", post(keeping::remove))
        .route("/clean", post(keeping::clean))
        .route("/state", get(keeping::state))
        .route("/freeze", post(gates::freeze_all))
        .route("/unfreeze", post(gates::unfreeze_all))
        .route("/notify/test", post(links::test))
        .route("/audit", get(audit::audit))
        .route("/events", get(events::events));
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
        .route("/api/openapi.json", get(openapi::openapi))
        .nest("/api/v1", api)
        .route("/links/{token}", get(links::show).post(links::act))
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(state.clone(), audit::layer))
        .layer(DefaultBodyLimit::max(body::LIMIT))
        .layer(middleware::from_fn_with_state(guard, guard::layer))
        .with_state(state)
}

async fn nothing_here(uri: Uri) -> Problem {
    let path = uri.path();
    Problem::new(
        Kind::NotFound,
        format!("there is nothing at {path}: /api/openapi.json lists what there is"),
    )
}

/// The router adds `Allow`.
async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let path = uri.path();
    let instead = if method == Method::POST { "is read with GET" } else { "is changed with POST" };
    Problem::new(Kind::Method, format!("{path} {instead}, not with {method}"))
}

/// The daemon as a whole.
#[utoipa::path(get, path = "/api/v1/daemon", tag = "daemon",
    responses((status = 200, body = DaemonStatus)))]
pub(super) async fn daemon(State(state): State<AppState>) -> Json<DaemonStatus> {
    let mut daemon = DaemonStatus::clone(&state.handle.daemon());
    daemon.notify = state.notifier.as_ref().map(Notifier::status).unwrap_or_default();
    daemon.disk_free = state.audit.as_ref().and_then(Audit::free);
    let audit = state.audit.as_ref().and_then(Audit::trouble);
    daemon.notes.extend(audit);
    Json(daemon)
}

/// What a change answers where there is nothing else to say.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Done {
    /// What was done, in one sentence.
    pub message: String,
}

/// Reads the configuration again. A bad file changes nothing.
#[utoipa::path(post, path = "/api/v1/reload", tag = "daemon", responses(
    (status = 200, body = Done), (status = 422, description = "The file is bad", body = Problem)))]
pub(super) async fn reload(State(state): State<AppState>) -> Answer<Done> {
    Ok(Json(Done { message: state.handle.reload().await? }))
}

/// Begins a rollout. With `Accept: application/x-ndjson` the answer is 200 and lines of JSON that tell
/// how far the preparation is; the last one has `done` or `problem`. At most one of `image`, `tag`, `command` and `endpoints`; none runs the service
/// as configured.
#[utoipa::path(post, path = "/api/v1/services/{service}/deploy", tag = "rollouts",
    params(("service" = String, Path, description = "Its name")),
    request_body = DeployRequest,
    responses((status = 202, body = DeployAccepted), (status = 404, body = Problem),
        (status = 409, description = "A rollout is under way", body = Problem),
        (status = 422, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn deploy(
    State(state): State<AppState>,
    Named(name): Named,
    caller: Option<Extension<Caller>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    const FIELDS: [&str; 12] = [
        "image",
        "tag",
        "command",
        "endpoints",
        "env",
        "origin",
        "no_checkpoint",
        "steps",
        "bake",
        "by",
        "override_freeze",
        "strategy",
    ];
    let mut request: DeployRequest = body::read(&FIELDS, body)?;
    // What the kernel knows of who asks stands beside what they say.
    request.by = Some(by(caller, request.by.as_deref().or(says(&headers).as_deref())));
    let sources = [
        ("image", request.image.is_some()),
        ("tag", request.tag.is_some()),
        ("command", request.command.is_some()),
        ("endpoints", request.endpoints.is_some()),
    ];
    let given: Vec<&str> = sources.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
    if let [first, second, ..] = given.as_slice() {
        let detail =
            format!("`{first}` and `{second}` cannot both say what runs: give one of them");
        return Err(Problem::new(Kind::Invalid, detail).with_field(second));
    }
    if work::is_wanted(&headers) {
        return Ok(work::lines(|told| async move {
            Ok(state.handle.deploy_telling(name, request, told).await?)
        }));
    }
    Ok(accepted(state.handle.deploy(name, request).await?))
}

fn accepted(accepted: DeployAccepted) -> Response {
    let mut headers = HeaderMap::new();
    if let Ok(location) = HeaderValue::try_from(format!("/api/v1/rollouts/{}", accepted.rollout)) {
        headers.insert(header::LOCATION, location);
    }
    let outcome: audit::Outcome =
        Ok(serde_json::json!({ "rollout": accepted.rollout, "revision": accepted.revision }));
    (StatusCode::ACCEPTED, headers, Extension(outcome), Json(accepted)).into_response()
}

async fn command(
    state: AppState,
    name: ServiceName,
    By(by): By,
    command: Command,
) -> Answer<ServiceStatus> {
    Ok(Json(state.handle.command_by(name, command, Some(by)).await?))
}

/// A body in which nothing can be said.
#[derive(Debug, Deserialize)]
struct Nothing {}

/// How far to promote.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(super) struct PromoteRequest {
    /// Skip all steps that are left; else only the one under way.
    full: bool,
}

/// Skips the step under way, or all that is left.
#[utoipa::path(post, path = "/api/v1/services/{service}/promote", tag = "rollouts",
    params(("service" = String, Path, description = "Its name")),
    request_body = PromoteRequest,
    responses((status = 200, body = ServiceStatus), (status = 404, body = Problem),
        (status = 409, description = "Not in this phase", body = Problem)))]
pub(super) async fn promote(
    State(state): State<AppState>,
    Named(name): Named,
    by: By,
    body: Body,
) -> Answer<ServiceStatus> {
    let PromoteRequest { full } = body::read(&["full"], body)?;
    command(state, name, by, Command::Promote { full }).await
}

/// Takes the canary back.
#[utoipa::path(post, path = "/api/v1/services/{service}/abort", tag = "rollouts",
    params(("service" = String, Path, description = "Its name")),
    responses((status = 200, body = ServiceStatus), (status = 404, body = Problem),
        (status = 409, description = "Not in this phase", body = Problem)))]
pub(super) async fn abort(
    State(state): State<AppState>,
    Named(name): Named,
    by: By,
    body: Body,
) -> Answer<ServiceStatus> {
    let Nothing {} = body::read(&[], body)?;
    command(state, name, by, Command::Abort).await
}

/// Stays at the weight that the canary has.
#[utoipa::path(post, path = "/api/v1/services/{service}/pause", tag = "rollouts",
    params(("service" = String, Path, description = "Its name")),
    responses((status = 200, body = ServiceStatus), (status = 404, body = Problem),
        (status = 409, description = "Not in this phase", body = Problem)))]
pub(super) async fn pause(
    State(state): State<AppState>,
    Named(name): Named,
    by: By,
    body: Body,
) -> Answer<ServiceStatus> {
    let Nothing {} = body::read(&[], body)?;
    command(state, name, by, Command::Pause).await
}

/// Goes on after a pause.
#[utoipa::path(post, path = "/api/v1/services/{service}/resume", tag = "rollouts",
    params(("service" = String, Path, description = "Its name")),
    responses((status = 200, body = ServiceStatus), (status = 404, body = Problem),
        (status = 409, description = "Not in this phase", body = Problem)))]
pub(super) async fn resume(
    State(state): State<AppState>,
    Named(name): Named,
    by: By,
    body: Body,
) -> Answer<ServiceStatus> {
    let Nothing {} = body::read(&[], body)?;
    command(state, name, by, Command::Resume).await
}

/// A weight set by hand.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(super) struct WeightRequest {
    /// The canary's share in percent, 0 to 100, in steps of 0.01.
    #[schema(value_type = f64, minimum = 0, maximum = 100)]
    canary: Option<f64>,
}

/// Gives the canary a weight by hand, and stays there.
#[utoipa::path(post, path = "/api/v1/services/{service}/weight", tag = "rollouts",
    params(("service" = String, Path, description = "Its name")),
    request_body = WeightRequest,
    responses((status = 200, body = ServiceStatus), (status = 404, body = Problem),
        (status = 409, description = "Not in this phase", body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn weight(
    State(state): State<AppState>,
    Named(name): Named,
    by: By,
    body: Body,
) -> Answer<ServiceStatus> {
    let WeightRequest { canary } = body::read(&["canary"], body)?;
    let invalid = |detail: String| Problem::new(Kind::Invalid, detail).with_field("canary");
    let percent =
        canary.ok_or_else(|| invalid("`canary` is missing: send {\"canary\": 12.5}".to_owned()))?;
    let weight =
        Weight::from_percent(percent).map_err(|error| invalid(format!("`canary`: {error}")))?;
    command(state, name, by, Command::Weight(weight)).await
}

/// Keeps visitors from a service, or lets them in again.
#[utoipa::path(post, path = "/api/v1/services/{service}/maintenance", tag = "services",
    params(("service" = String, Path, description = "Its name")),
    request_body = MaintenanceRequest,
    responses((status = 200, body = ServiceStatus), (status = 404, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn maintenance(
    State(state): State<AppState>,
    Named(name): Named,
    body: Body,
) -> Answer<ServiceStatus> {
    let request: MaintenanceRequest = body::read(&["on", "queue"], body)?;
    Ok(Json(state.handle.maintain(name, request).await?))
}

/// Where to go back to.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(super) struct RollbackRequest {
    /// The revision; the former one where nothing is said.
    to: Option<u32>,
    /// Archive no checkpoint, although the service's `checkpoint` is "auto".
    no_checkpoint: bool,
}

/// Goes back to the former revision, or to a kept one. A rollout like any other, but direct.
#[utoipa::path(post, path = "/api/v1/services/{service}/rollback", tag = "rollouts",
    params(("service" = String, Path, description = "Its name")),
    request_body = RollbackRequest,
    responses((status = 202, body = DeployAccepted), (status = 404, body = Problem),
        (status = 409, description = "A rollout is under way", body = Problem),
        (status = 503, body = Problem)))]
pub(super) async fn rollback(
    State(state): State<AppState>,
    Named(name): Named,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let request = body::read(&["to", "no_checkpoint"], body)?;
    let RollbackRequest { to, no_checkpoint } = request;
    let (revision, checkpoint) = (to.map(RevisionId), !no_checkpoint);
    let to = move |told| ReturnTo { revision, checkpoint, told };
    if work::is_wanted(&headers) {
        return Ok(work::lines(|told| async move {
            Ok(state.handle.rollback_telling(name, to(told)).await?)
        }));
    }
    Ok(accepted(state.handle.rollback_telling(name, to(Listener::default())).await?))
}

/// Past rollouts of a service and the one under way, newest first.
#[utoipa::path(get, path = "/api/v1/services/{service}/rollouts", tag = "rollouts",
    params(("service" = String, Path, description = "Its name")),
    responses((status = 200, body = Vec<RolloutRecord>), (status = 404, body = Problem)))]
pub(super) async fn rollouts(
    State(state): State<AppState>,
    Named(name): Named,
) -> Answer<Vec<RolloutRecord>> {
    Ok(Json(state.handle.history(name).await?))
}

/// One rollout, with what happened in it.
#[utoipa::path(get, path = "/api/v1/rollouts/{id}", tag = "rollouts",
    params(("id" = u64, Path, description = "Its number")),
    responses((status = 200, body = RolloutRecord), (status = 404, body = Problem)))]
pub(super) async fn rollout(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Answer<RolloutRecord> {
    let number = id.parse().map_err(|_| {
        Problem::new(Kind::NotFound, format!("there is no rollout {id:?}: rollouts have numbers"))
    })?;
    Ok(Json(state.handle.rollout(RolloutId(number)).await?))
}

/// Which rollout is asked about.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ForecastQuery {
    /// Other steps than those configured, as text.
    pub(super) steps: Option<String>,
    /// Another strategy than the one configured.
    pub(super) strategy: Option<String>,
    /// Another image than the one configured.
    pub(super) image: Option<String>,
    /// Another tag of the one configured.
    pub(super) tag: Option<String>,
}

impl From<ForecastQuery> for DeployRequest {
    fn from(query: ForecastQuery) -> Self {
        let ForecastQuery { steps, strategy, image, tag } = query;
        Self { steps, strategy, image, tag, ..Self::default() }
    }
}

/// What each step of a rollout would take now: canary requests, seconds, and what would be caught.
#[utoipa::path(get, path = "/api/v1/services/{service}/forecast", tag = "rollouts",
    params(("service" = String, Path, description = "Its name"), ForecastQuery),
    responses((status = 200, body = Vec<StepForecast>), (status = 404, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn forecast(
    State(state): State<AppState>,
    Named(name): Named,
    Asked(query): Asked<ForecastQuery>,
) -> Answer<Vec<StepForecast>> {
    Ok(Json(state.handle.forecast(name, query.into()).await?))
}
