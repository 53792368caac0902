//! A file in place of the answer of the app that names it.

use std::pin::Pin;
use std::rc::Rc;

use bytes::Buf as _;
use http::header::{HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body::Body;

use super::open::Looked;
use super::{cannot, find, of_file};
use crate::edge::files::{Files, Missing};
use crate::edge::send_file::{Named, SendFile, TOLD, Wish, take_over};
use crate::proxy::body::ResponseBody;
use crate::proxy::headers::X_REQUEST_ID;
use crate::proxy::page::{Format, page};
use crate::proxy::worker::Worker;

/// Bytes of an app's own body that are read so that its connection can be used again.
const READ_PAST: usize = 64 * 1024;

/// A request whose answer may name a file.
#[derive(Debug)]
pub struct Asked {
    wish: Wish,
    format: Format,
}

impl Asked {
    /// With this head.
    pub fn of(head: &http::request::Parts) -> Box<Self> {
        let wish = Wish::of(&head.method, &head.headers);
        Box::new(Self { wish, format: Format::of(&head.headers) })
    }

    /// What a client says of how its app names files is not for the app.
    pub fn forward(headers: &mut HeaderMap) {
        for name in TOLD {
            headers.remove(name);
        }
    }

    /// The file that an app's answer names, in its place; or a page of ours in this format, where there is
    /// none. What names none stays as it is.
    ///
    /// Cancel safety: may be dropped at any time.
    pub async fn answer(
        &self,
        worker: &Rc<Worker>,
        places: &SendFile,
        mut response: Response<ResponseBody>,
    ) -> (Response<ResponseBody>, Option<Format>) {
        let named = places.take(response.headers_mut());
        let Some(named) = named.filter(|_| response.status().is_success()) else {
            return (response, None);
        };
        let (mut head, body) = response.into_parts();
        if !body.is_end_stream() {
            tokio::task::spawn_local(read_past(body));
        }
        match self.file(worker, named).await {
            Ok(file) => {
                let (about, body) = file.into_parts();
                head.status = about.status;
                take_over(&mut head.headers, &about.headers);
                (Response::from_parts(head, body), None)
            }
            Err(status) => {
                let unknown = HeaderValue::from_static("-");
                let id = head.headers.remove(X_REQUEST_ID).unwrap_or(unknown);
                (page(status, self.format, id), Some(self.format))
            }
        }
    }

    async fn file(
        &self,
        worker: &Worker,
        named: Named<'_>,
    ) -> Result<Response<ResponseBody>, StatusCode> {
        let (root, name) = match named {
            Named::File(root, name) => (root, name),
            Named::Missing => return Err(StatusCode::NOT_FOUND),
            Named::Elsewhere(name) => {
                if worker.files.may_tell(worker.clock.now()) {
                    tracing::warn!(%name, "an app names a file that is in no directory of `send_file`");
                }
                return Err(StatusCode::BAD_GATEWAY);
            }
        };
        let Some(place) = worker.files.enter(worker.clock.now()) else {
            return Err(StatusCode::SERVICE_UNAVAILABLE);
        };
        // Nothing stands for a directory: the app means a file.
        let root = root.to_owned();
        let files = Files { root, index: String::new(), missing: Missing::NotFound };
        let sent = match find(&worker.files, &worker.clock, &files, &name, false).await {
            Ok(Looked::File(opened)) => {
                let Wish { method, headers } = &self.wish;
                of_file(worker, *opened, &name, (method, headers), place).await
            }
            Ok(_) => return Err(StatusCode::NOT_FOUND),
            Err(error) => Err(error),
        };
        sent.map_err(|error| cannot(worker, &files, &error))
    }
}

/// Reads what an app says besides, so that its connection can be used again. Who says much is not heard to
/// the end.
async fn read_past(mut body: ResponseBody) {
    let mut left = READ_PAST;
    loop {
        let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let Some(Ok(frame)) = frame else { return };
        let bytes = frame.into_data().map_or(0, |data| data.remaining());
        match left.checked_sub(bytes) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
