//! Errors as RFC 9457 `application/problem+json`.
//!
//! Invariant: a detail is a sentence for a person that says what to change; the type is for programs
//! and is stable.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::controller::handle::Refused;

/// An error, as the API answers it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Problem {
    /// What kind: `urn:switchback:problem:` and a word.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The kind in words.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What happened and what to change, in one sentence.
    pub detail: String,
    /// The phase that refused it, for status 409.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The field of the body that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// The kinds of problem: status, word and title.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// The request cannot be read.
    Malformed,
    /// No token, or a wrong one.
    Unauthorized,
    /// From another site.
    Forbidden,
    /// Nothing of this name.
    NotFound,
    /// Not with this method.
    Method,
    /// Not in this phase.
    Conflict,
    /// The body is too long.
    TooLarge,
    /// It can be read and makes no sense.
    Invalid,
    /// It cannot be done now.
    Unavailable,
}

impl Kind {
    fn facts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Malformed => (
                StatusCode::BAD_REQUEST,
                "urn:switchback:problem:malformed",
                "The request cannot be read",
            ),
            Self::Unauthorized => (
                StatusCode::UNAUTHORIZED,
                "urn:switchback:problem:unauthorized",
                "A token is needed",
            ),
            Self::Forbidden => {
                (StatusCode::FORBIDDEN, "urn:switchback:problem:forbidden", "Not from here")
            }
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "urn:switchback:problem:not-found",
                "There is no such thing",
            ),
            Self::Method => (
                StatusCode::METHOD_NOT_ALLOWED,
                "urn:switchback:problem:method",
                "Not with this method",
            ),
            Self::Conflict => {
                (StatusCode::CONFLICT, "urn:switchback:problem:conflict", "Not in this phase")
            }
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "urn:switchback:problem:too-large",
                "The body is too long",
            ),
            Self::Invalid => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "urn:switchback:problem:invalid",
                "The request makes no sense",
            ),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "urn:switchback:problem:unavailable",
                "It cannot be done now",
            ),
        }
    }
}

impl Problem {
    /// A problem of a kind.
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let (status, kind, title) = kind.facts();
        Self {
            kind,
            title,
            status: status.as_u16(),
            detail: detail.into(),
            phase: None,
            field: None,
        }
    }

    /// Names the field that is wrong.
    pub(super) fn with_field(mut self, field: &str) -> Self {
        self.field = Some(field.to_owned());
        self
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotFound(sentence) => Self::new(Kind::NotFound, sentence),
            Refused::Conflict { sentence, phase } => {
                Self { phase: Some(phase), ..Self::new(Kind::Conflict, sentence) }
            }
            Refused::Invalid(sentence) => Self::new(Kind::Invalid, sentence),
            Refused::Unavailable(sentence) => Self::new(Kind::Unavailable, sentence),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Six fields of text serialise always.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        let outcome: super::audit::Outcome = Err(self.detail);
        response.extensions_mut().insert(outcome);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"switchback\""),
            );
        }
        response
    }
}
