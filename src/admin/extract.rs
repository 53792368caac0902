//! What handlers take out of a request: a service that exists, a query that makes sense, who asks.

use axum::Extension;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;

use super::api::AppState;
use super::body;
use super::caller::{Caller, says};
use super::problem::{Kind, Problem};
use crate::model::id::ServiceName;

/// A service that exists, by its name in the path.
pub(super) struct Named(pub(super) ServiceName);

impl FromRequestParts<AppState> for Named {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let Path(name) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Problem::new(Kind::Malformed, rejection.body_text()))?;
        let services = state.handle.services();
        if services.iter().any(|service| service.service == name)
            && let Ok(name) = ServiceName::new(&name)
        {
            return Ok(Self(name));
        }
        let names: Vec<&str> = services.iter().map(|service| service.service.as_str()).collect();
        Err(Problem::new(Kind::NotFound, no_service(&name, &names)))
    }
}

pub(super) fn no_service(name: &str, names: &[&str]) -> String {
    if names.is_empty() {
        return format!("there is no service {name:?}: none is configured");
    }
    match body::nearest(name, names.iter().copied()) {
        Some(near) => format!("there is no service {name:?}: did you mean {near:?}?"),
        None => match names {
            [only] => format!("there is no service {name:?}: the only one is {only:?}"),
            names => format!("there is no service {name:?}: there are {}", names.join(", ")),
        },
    }
}

/// The query of a request, or what is wrong with it.
pub(super) struct Asked<T>(pub(super) T);

impl<T: serde::de::DeserializeOwned> FromRequestParts<AppState> for Asked<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Problem> {
        Query::try_from_uri(&parts.uri)
            .map(|Query(query)| Self(query))
            .map_err(|rejection| Problem::new(Kind::Malformed, rejection.body_text()))
    }
}

/// Who asks: what they say, and what the kernel knows.
pub(super) fn by(caller: Option<Extension<Caller>>, says: Option<&str>) -> String {
    caller.map_or(Caller::Unknown, |Extension(caller)| caller).sentence(says)
}

/// Who asks for a change.
pub(super) struct By(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for By {
    type Rejection = std::convert::Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let caller = parts.extensions.get::<Caller>().cloned().map(Extension);
        Ok(Self(by(caller, says(&parts.headers).as_deref())))
    }
}
