//! Endpoints by which people look: services, what they take of the machine, what they have written.

use axum::extract::State;
use axum::response::Json;
use serde::Deserialize;
use utoipa::IntoParams;

use super::api::{Answer, AppState, Asked, ForecastQuery, Named};
use super::audit;
use super::extract::no_service;
use super::problem::{Kind, Problem};
use crate::controller::handle::{Output, fill};
use crate::controller::status::{FitStatus, InstanceLogs, ServiceStatus};
use crate::model::id::RevisionId;

/// The lines of output that are shown when nobody says how many: two screens.
const LOG_LINES: usize = 100;
/// The most lines of output per instance: a runtime reads them into memory.
const MAX_LOG_LINES: usize = 10_000;

/// How much is asked.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct UsageQuery {
    /// Measure what instances take of processors and memory, which takes a moment.
    #[serde(default)]
    usage: bool,
}

/// All services.
#[utoipa::path(get, path = "/api/v1/services", tag = "services", params(UsageQuery),
    responses((status = 200, body = Vec<ServiceStatus>)))]
pub(super) async fn services(
    State(state): State<AppState>,
    Asked(UsageQuery { usage }): Asked<UsageQuery>,
) -> Answer<Vec<ServiceStatus>> {
    let measured = if usage { state.handle.measure(None).await } else { Vec::new() };
    let mut services = state.handle.services().to_vec();
    fill(&mut services, measured);
    Ok(Json(services))
}

/// One service.
#[utoipa::path(get, path = "/api/v1/services/{service}", tag = "services",
    params(("service" = String, Path, description = "Its name"), UsageQuery),
    responses((status = 200, body = ServiceStatus), (status = 404, body = Problem)))]
pub(super) async fn service(
    State(state): State<AppState>,
    Named(name): Named,
    Asked(UsageQuery { usage }): Asked<UsageQuery>,
) -> Answer<ServiceStatus> {
    let measured = if usage { state.handle.measure(Some(name.clone())).await } else { Vec::new() };
    let service = state.handle.service(name.as_str());
    let gone = || Problem::new(Kind::NotFound, no_service(name.as_str(), &[]));
    let mut service = service.ok_or_else(gone)?;
    fill(std::slice::from_mut(&mut service), measured);
    Ok(Json(service))
}

/// Which output, and how much of it.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct LogsQuery {
    /// The revision; the stable one where nothing is said.
    revision: Option<u32>,
    /// Every revision that has instances.
    #[serde(default)]
    all: bool,
    /// Lines per instance, 100 where nothing is said, at most 10,000.
    lines: Option<usize>,
    /// Not before: a moment (RFC 3339) or a time before now (`12h`).
    since: Option<String>,
    /// With the moment of each line.
    #[serde(default)]
    times: bool,
}

/// The last output of a revision's instances.
#[utoipa::path(get, path = "/api/v1/services/{service}/logs", tag = "services",
    params(("service" = String, Path, description = "Its name"), LogsQuery),
    responses((status = 200, body = Vec<InstanceLogs>), (status = 404, body = Problem),
        (status = 422, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn logs(
    State(state): State<AppState>,
    Named(name): Named,
    Asked(query): Asked<LogsQuery>,
) -> Answer<Vec<InstanceLogs>> {
    let LogsQuery { revision, all, lines, since, times } = query;
    let wanted = Output {
        revision: revision.map(RevisionId),
        all,
        lines: lines.unwrap_or(LOG_LINES).min(MAX_LOG_LINES),
        since: since.as_deref().map(audit::moment).transpose()?,
        times,
    };
    Ok(Json(state.handle.logs(name, wanted).await?))
}

/// Whether a deploy would fit on the machine now: of what is configured, or of another image. Looks, and
/// does nothing.
#[utoipa::path(get, path = "/api/v1/services/{service}/fit", tag = "rollouts",
    params(("service" = String, Path, description = "Its name"), ForecastQuery),
    responses((status = 200, body = FitStatus), (status = 404, body = Problem),
        (status = 422, body = Problem)))]
pub(super) async fn fit(
    State(state): State<AppState>,
    Named(name): Named,
    Asked(query): Asked<ForecastQuery>,
) -> Answer<FitStatus> {
    Ok(Json(state.handle.fits(name, query.into()).await?))
}
