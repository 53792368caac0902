//! Files of a directory as answers.
//!
//! Own code on the kernel's calls, because the one thing that must not go wrong is left to the kernel:
//! `openat2` with `RESOLVE_BENEATH` opens nothing outside of the directory, whatever a path or a
//! symbolic link says, without a moment between a check and its use. Libraries that join paths and
//! check them have that moment. Links within the directory are followed. What the kernel has in memory is
//! looked up and read by the worker itself, in calls that never wait (`cached`); the rest is done by
//! threads that may. What is small is read before it is announced, the rest piece by piece.

mod body;
mod cached;
mod open;
mod sent;
#[cfg(test)]
mod tests;

use std::io;
use std::time::{Duration, UNIX_EPOCH};

use http::header::{
    ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap,
    HeaderValue, LAST_MODIFIED, LOCATION,
};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use httpdate::HttpDate;

#[cfg(test)]
pub use self::body::MOST;
pub use self::body::{FileBody, OpenFiles};
use self::open::{Looked, Opened, Way, look};
pub use self::sent::Asked;
use super::body::ResponseBody;
use super::clock::Clock;
use super::headers::X_REQUEST_ID;
use super::places::Place;
use super::worker::Worker;
use crate::edge::files::{Files, Missing, Portion, Version, as_directory, meant, portion};

/// What a directory says to a request.
#[derive(Debug)]
pub enum Said {
    /// An answer.
    Answer(Box<Response<ResponseBody>>),
    /// Nothing: the app is to be asked.
    AskApp,
    /// Nothing but this status.
    Status(StatusCode),
}

/// Answers a request for a path with a file.
///
/// Cancel safety: may be dropped at any time.
pub async fn answer(
    worker: &Worker,
    files: &Files,
    path: &str,
    head: &Parts,
    id: &HeaderValue,
) -> Said {
    if !matches!(head.method, Method::GET | Method::HEAD) {
        if files.missing == Missing::App {
            return Said::AskApp;
        }
        let mut response = Response::new(ResponseBody::Empty);
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Said::Answer(Box::new(response));
    }
    let Some(place) = worker.files.enter(worker.clock.now()) else {
        return Said::Status(StatusCode::SERVICE_UNAVAILABLE);
    };
    let is_directory = path.ends_with('/');
    let (mut name, mut looked) = match meant(path) {
        Some(name) => {
            let looked = find(&worker.files, &worker.clock, files, &name, is_directory).await;
            (name, looked)
        }
        None => (String::new(), Ok(Looked::Missing)),
    };
    if let (Ok(Looked::Missing), Missing::File(instead)) = (&looked, &files.missing) {
        name.clone_from(instead);
        looked = find(&worker.files, &worker.clock, files, instead, false).await;
    }
    match looked {
        Ok(Looked::File(opened)) => {
            if is_directory && !name.ends_with(&files.index) {
                name.push_str(&files.index);
            }
            match of_file(worker, *opened, &name, (&head.method, &head.headers), place).await {
                Ok(response) => Said::Answer(Box::new(with_id(response, id))),
                Err(error) => Said::Status(cannot(worker, files, &error)),
            }
        }
        Ok(Looked::Directory) => {
            let mut response = Response::new(ResponseBody::Empty);
            *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
            let mut to = as_directory(head.uri.path());
            if let Some(query) = head.uri.query() {
                to.push('?');
                to.push_str(query);
            }
            match HeaderValue::try_from(to) {
                Ok(to) => response.headers_mut().insert(LOCATION, to),
                Err(_) => return Said::Status(StatusCode::NOT_FOUND),
            };
            Said::Answer(Box::new(with_id(response, id)))
        }
        Ok(Looked::Missing) if files.missing == Missing::App => Said::AskApp,
        Ok(Looked::Missing) => Said::Status(StatusCode::NOT_FOUND),
        Err(error) => Said::Status(cannot(worker, files, &error)),
    }
}

/// The status for a file that is there and cannot be had.
fn cannot(worker: &Worker, files: &Files, error: &io::Error) -> StatusCode {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return StatusCode::FORBIDDEN;
    }
    if worker.files.may_tell(worker.clock.now()) {
        tracing::warn!(root = %files.root.display(), %error, "a file cannot be served");
    }
    StatusCode::SERVICE_UNAVAILABLE
}

/// Looks for a name: first in what the kernel has in memory, then wherever it is.
///
/// Cancel safety: may be dropped at any time.
async fn find(
    open: &OpenFiles,
    clock: &Clock,
    files: &Files,
    name: &str,
    is_directory: bool,
) -> io::Result<Looked> {
    let cached = open.cached();
    if cached.knows() {
        match look(&files.root, name, &files.index, is_directory, Way::Cached(cached)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            looked => return looked,
        }
    }
    let (root, name) = (files.root.clone(), name.to_owned());
    let index = files.index.clone();
    let looking =
        tokio::task::spawn_blocking(move || look(&root, &name, &index, is_directory, Way::Waiting));
    let looked = looking.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    if let Ok(Looked::File(opened)) = &looked
        && let Some(device) = opened.local
    {
        cached.learn(device, clock.now());
    }
    looked
}

fn with_id(mut response: Response<ResponseBody>, id: &HeaderValue) -> Response<ResponseBody> {
    response.headers_mut().insert(X_REQUEST_ID, id.clone());
    response
}

fn version(opened: &Opened) -> Version {
    let about = &opened.about;
    let (seconds, part) = about.modified;
    let since = u64::try_from(seconds).ok();
    let modified = since.map(|since| HttpDate::from(UNIX_EPOCH + Duration::from_secs(since)));
    // A file that is changed twice within a tick of the file system's clock keeps its length, too,
    // rarely enough.
    let tag = format!("\"{seconds:x}-{part:x}-{:x}\"", about.length);
    let tag = HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("\"\""));
    Version { length: about.length, tag, modified }
}

async fn of_file(
    worker: &Worker,
    opened: Opened,
    name: &str,
    (method, wished): (&Method, &HeaderMap),
    place: Place,
) -> io::Result<Response<ResponseBody>> {
    let version = version(&opened);
    let portion = portion(method, wished, &version);
    let mut response = Response::new(ResponseBody::Empty);
    let headers = response.headers_mut();
    headers.insert(ETAG, version.tag.clone());
    if let Some(modified) = version.modified
        && let Ok(modified) = HeaderValue::try_from(modified.to_string())
    {
        headers.insert(LAST_MODIFIED, modified);
    }
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let (status, from, length) = match portion {
        Portion::Whole => (StatusCode::OK, 0, version.length),
        Portion::Part(first, last) => {
            let range = format!("bytes {first}-{last}/{}", version.length);
            insert(headers, CONTENT_RANGE, range);
            (StatusCode::PARTIAL_CONTENT, first, last - first + 1)
        }
        Portion::Same => (StatusCode::NOT_MODIFIED, 0, 0),
        Portion::Other => (StatusCode::PRECONDITION_FAILED, 0, 0),
        Portion::Beyond => {
            insert(headers, CONTENT_RANGE, format!("bytes */{}", version.length));
            (StatusCode::RANGE_NOT_SATISFIABLE, 0, 0)
        }
    };
    if status.is_success() {
        headers.insert(CONTENT_TYPE, kind(name));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    *response.status_mut() = status;
    if status.is_success() && *method == Method::GET && length > 0 {
        let (files, clock) = (&worker.files, &worker.clock);
        *response.body_mut() = body::part(files, clock, opened, (from, length), place).await?;
    }
    Ok(response)
}

fn insert(headers: &mut HeaderMap, name: http::HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

/// The type of a file, by its name. Text is UTF-8, as everything is by now.
fn kind(name: &str) -> HeaderValue {
    let unknown = || HeaderValue::from_static("application/octet-stream");
    let Some(kind) = mime_guess::from_path(name).first_raw() else { return unknown() };
    let is_text = kind.starts_with("text/") || kind == "application/javascript";
    let kind = if is_text { format!("{kind}; charset=utf-8") } else { kind.to_owned() };
    HeaderValue::try_from(kind).unwrap_or_else(|_| unknown())
}
