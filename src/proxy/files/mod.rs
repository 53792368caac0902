//! Files of a directory as answers.
//!
//! Own code on the kernel's calls, because the one thing that must not go wrong is left to the kernel:
//! `openat2` with `RESOLVE_BENEATH` opens nothing outside of the directory, whatever a path or a
//! symbolic link says, without a moment between a check and its use. Libraries that join paths and
//! check them have that moment. Links within the directory are followed. Whatever blocks is done on
//! threads of its own; small files come whole with the opening, large ones piece by piece.

mod body;
mod open;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, UNIX_EPOCH};

use http::header::{
    ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderValue,
    LAST_MODIFIED, LOCATION,
};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use httpdate::HttpDate;

#[cfg(test)]
pub use self::body::MOST;
pub use self::body::{FileBody, OpenFiles};
use self::open::{Looked, Opened, look};
use super::body::ResponseBody;
use super::headers::X_REQUEST_ID;
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
            let looked = look_on_a_thread(files, &name, is_directory).await;
            (name, looked)
        }
        None => (String::new(), Ok(Looked::Missing)),
    };
    if let (Ok(Looked::Missing), Missing::File(instead)) = (&looked, &files.missing) {
        name.clone_from(instead);
        looked = look_on_a_thread(files, instead, false).await;
    }
    match looked {
        Ok(Looked::File(opened)) => {
            if is_directory && !name.ends_with(&files.index) {
                name.push_str(&files.index);
            }
            let response = of_file(worker, *opened, &name, head, place);
            Said::Answer(Box::new(with_id(response, id)))
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
        Err(error) => Said::Status(match error.kind() {
            io::ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
            _ => {
                tracing::warn!(root = %files.root.display(), %error, "a file cannot be served");
                StatusCode::SERVICE_UNAVAILABLE
            }
        }),
    }
}

async fn look_on_a_thread(files: &Files, name: &str, is_directory: bool) -> io::Result<Looked> {
    let (root, name) = (files.root.clone(), name.to_owned());
    let index = files.index.clone();
    let looking = tokio::task::spawn_blocking(move || look(&root, &name, &index, is_directory));
    looking.await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn with_id(mut response: Response<ResponseBody>, id: &HeaderValue) -> Response<ResponseBody> {
    response.headers_mut().insert(X_REQUEST_ID, id.clone());
    response
}

fn version(opened: &Opened) -> Version {
    let about = &opened.about;
    let seconds = u64::try_from(about.mtime()).ok();
    let modified = seconds.map(|seconds| HttpDate::from(UNIX_EPOCH + Duration::from_secs(seconds)));
    // A file that is changed twice within a tick of the file system's clock keeps its length, too,
    // rarely enough.
    let tag = format!("\"{:x}-{:x}-{:x}\"", about.mtime(), about.mtime_nsec(), about.len());
    let tag = HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("\"\""));
    Version { length: about.len(), tag, modified }
}

fn of_file(
    worker: &Worker,
    opened: Opened,
    name: &str,
    head: &Parts,
    place: super::places::Place,
) -> Response<ResponseBody> {
    let version = version(&opened);
    let portion = portion(&head.method, &head.headers, &version);
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
    if status.is_success() && head.method == Method::GET && length > 0 {
        *response.body_mut() = body::part(worker, opened, from, length, place);
    }
    response
}

fn insert(headers: &mut http::HeaderMap, name: http::HeaderName, value: String) {
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
