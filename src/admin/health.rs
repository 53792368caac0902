//! `/healthz` and `/readyz`: whether the process lives, and whether traffic should be sent to it.
//!
//! Ready means: not stopping, and every service that was ever deployed has a healthy instance on
//! each side that has weight. A service that was never deployed has nothing to be ready for, and one
//! service without instances makes the whole host unready: a balancer's other hosts may do better.
//! Both answer without a token, so what they say is kept short.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::api::AppState;
use crate::controller::status::ServiceStatus;

/// The process answers.
#[utoipa::path(get, path = "/healthz", tag = "health",
    responses((status = 200, description = "The process answers", body = String)))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether traffic should be sent here.
#[utoipa::path(get, path = "/readyz", tag = "health", responses(
    (status = 200, description = "Every deployed service can be served", body = String),
    (status = 503, description = "Stopping, or a service has no healthy instance; a line per reason", body = String)))]
pub(super) async fn readyz(State(state): State<AppState>) -> Response {
    let mut reasons = Vec::new();
    if state.handle.daemon().stopping || state.shutdown.is_cancelled() {
        reasons.push("the daemon is stopping".to_owned());
    }
    reasons.extend(state.handle.services().iter().filter_map(ServiceStatus::unserved));
    let (status, body) = if reasons.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n")
    };
    (status, [(header::CACHE_CONTROL, "no-store")], body).into_response()
}
