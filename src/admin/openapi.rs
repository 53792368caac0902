//! `/api/openapi.json`: the API described, from the same code that serves it.

use axum::response::Json;
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;

use super::{
    api, audit, events, gates, health, keeping, links, metrics, problem, reading, together,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Switchback",
        description = "Reads are GET, every change is POST. Errors are RFC 9457 problems. A verb that the \
            rollout's phase refuses is answered with 409 and names the phase. No credentials are needed on \
            the Unix socket and, where none is configured, on loopback; elsewhere a bearer token is.",
        license(name = "Apache-2.0 OR MIT", identifier = "Apache-2.0 OR MIT")
    ),
    paths(
        health::healthz,
        health::readyz,
        metrics::metrics,
        openapi,
        api::daemon,
        api::reload,
        reading::services,
        reading::service,
        api::deploy,
        together::deploy,
        together::rollback,
        api::promote,
        api::abort,
        api::pause,
        api::resume,
        api::weight,
        api::maintenance,
        api::rollback,
        gates::confirm,
        gates::freeze,
        gates::unfreeze,
        gates::freeze_all,
        gates::unfreeze_all,
        links::test,
        audit::audit,
        api::rollouts,
        api::rollout,
        api::forecast,
        reading::logs,
        reading::fit,
        events::events,
        keeping::list,
        keeping::create,
        keeping::verify,
        keeping::remove,
        keeping::restore,
        keeping::clean,
        keeping::state,
        keeping::build_plan,
        keeping::build,
        keeping::adopt,
    ),
    components(schemas(problem::Problem))
)]
struct Description;

/// This description.
#[utoipa::path(get, path = "/api/openapi.json", tag = "daemon",
    responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
pub(super) async fn openapi() -> Json<Document> {
    Json(Description::openapi())
}
