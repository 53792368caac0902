//! Answers that take time: lines of JSON that tell how far it is, and at last what came of it.
//!
//! ```text
//! {"progress":{"what":"pulling web:v2","done":1048576,"of":4194304}}
//! {"done":{…}}        or        {"problem":{…}}
//! ```
//!
//! An empty line every few seconds tells that the daemon lives. Invariant: what was begun goes on when
//! whoever asked goes away.

use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;

use super::audit::Later;
use super::problem::Problem;
use crate::model::progress::Listener;

/// The media type of such an answer (github.com/ndjson/ndjson-spec).
const LINES: &str = "application/x-ndjson";
/// How often a line is sent at least.
const ALIVE: Duration = Duration::from_secs(5);
/// Lines that may wait for a slow reader; further progress is left out.
const WAITING: usize = 256;

/// Whether lines are asked for.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains(LINES))
}

/// Answers with lines.
pub(super) fn lines<T, F>(work: impl FnOnce(Listener) -> F) -> Response
where
    T: Serialize,
    F: Future<Output = Result<T, Problem>> + Send + 'static,
{
    let (told, hears) = mpsc::channel::<String>(WAITING);
    let progress = told.clone();
    let work = work(Listener::new(move |now| {
        // A reader that is slow or gone misses this one.
        let _ = progress.try_send(json!({ "progress": now }).to_string());
    }));
    let (ends, later) = Later::new();
    tokio::spawn(async move {
        let (last, outcome) = match work.await {
            Ok(done) => {
                let done = json!({ "done": done });
                (done.clone(), Ok(done.get("done").cloned().unwrap_or_default()))
            }
            Err(problem) => {
                let why = problem.detail.clone();
                (json!({ "problem": problem }), Err(why))
            }
        };
        // Nobody may want to know.
        let _ = ends.send(outcome);
        // Nobody may be there to hear it.
        let _ = told.send(last.to_string()).await;
    });
    let lines = stream::unfold(hears, |mut hears| async move {
        let line = match tokio::time::timeout(ALIVE, hears.recv()).await {
            Ok(Some(line)) => line,
            Ok(None) => return None,
            Err(_) => String::new(),
        };
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(line + "\n")), hears))
    });
    ([(header::CONTENT_TYPE, LINES)], Extension(later), Body::from_stream(lines)).into_response()
}
