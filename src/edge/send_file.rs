//! Files that an app sends by naming them: it decides who may have one, and the proxy sends it.
//!
//! The app names it in a field of its answer, `X-Accel-Redirect` as with nginx or `X-Sendfile` as with
//! Apache and lighttpd; what the name begins with says in which directory it lies. That nothing outside of
//! that directory is opened is seen to by the kernel, as for every file.

use std::path::{Path, PathBuf};

use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE, TRAILER,
    TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::files::decoded;

/// Names a file by a path with escapes.
const X_ACCEL_REDIRECT: HeaderName = HeaderName::from_static("x-accel-redirect");
/// Names a file by a path as it is.
const X_SENDFILE: HeaderName = HeaderName::from_static("x-sendfile");

/// By these fields of a request apps are told that they may name files, and how. A client's own word about
/// that does not go on.
pub const TOLD: [HeaderName; 2] =
    [HeaderName::from_static("x-sendfile-type"), HeaderName::from_static("x-accel-mapping")];

/// What says of a body how it is written or which version it is: it does not hold for a file in its place.
const OF_THE_BODY: [HeaderName; 12] = [
    ACCEPT_RANGES,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    ETAG,
    LAST_MODIFIED,
    TRAILER,
    TRANSFER_ENCODING,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("repr-digest"),
];

/// What decides how much of a file a client gets.
const WISHES: [HeaderName; 6] =
    [IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE];

/// Directories whose files an app may name, by what their names begin with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SendFile {
    /// The longest first.
    places: Vec<(String, PathBuf)>,
}

/// Which file an app names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named<'a> {
    /// This one, below that directory.
    File(&'a Path, String),
    /// None that there can be.
    Missing,
    /// This one, in no directory that was configured.
    Elsewhere(String),
}

/// What a client asked for that holds for a file, too.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    /// GET or HEAD, whatever the app was asked by: a file is what its answer says.
    pub method: Method,
    /// Its conditions and its range.
    pub headers: HeaderMap,
}

impl Wish {
    /// What a request asks for.
    #[must_use]
    pub fn of(method: &Method, headers: &HeaderMap) -> Self {
        let mut wished = HeaderMap::new();
        // RFC 9110, 13.1 and 14.2: they are about what is read.
        let reads = matches!(*method, Method::GET | Method::HEAD);
        for name in WISHES.iter().filter(|_| reads) {
            for value in headers.get_all(name) {
                wished.append(name.clone(), value.clone());
            }
        }
        let method = if *method == Method::HEAD { Method::HEAD } else { Method::GET };
        Self { method, headers: wished }
    }
}

impl SendFile {
    /// Of paths without a slash at their end, and their directories.
    #[must_use]
    pub fn new(places: impl IntoIterator<Item = (String, PathBuf)>) -> Self {
        let mut places: Vec<_> = places
            .into_iter()
            // Names are compared as they are meant.
            .map(|(prefix, root)| (decoded(&prefix).unwrap_or(prefix), root))
            .map(|(prefix, root)| (prefix.trim_end_matches('/').to_owned(), root))
            .collect();
        places.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        Self { places }
    }

    /// Whether an app may name none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Takes the name of a file out of an answer. No client is told it.
    #[must_use]
    pub fn take(&self, headers: &mut HeaderMap) -> Option<Named<'_>> {
        let by_url = headers.remove(&X_ACCEL_REDIRECT);
        let by_path = headers.remove(&X_SENDFILE);
        let text = |value: &HeaderValue| std::str::from_utf8(value.as_bytes()).map(str::to_owned);
        let name = match (by_url, by_path) {
            (Some(url), _) => {
                let url = text(&url).unwrap_or_default();
                decoded(url.split(['?', '#']).next().unwrap_or_default())
            }
            (None, Some(path)) => text(&path).ok(),
            (None, None) => return None,
        };
        Some(name.map_or(Named::Missing, |name| self.find(&name)))
    }

    fn find(&self, name: &str) -> Named<'_> {
        let found = self.places.iter().find_map(|(prefix, root)| {
            let rest = name.strip_prefix(prefix.as_str())?;
            rest.starts_with('/').then_some((rest, root))
        });
        let Some((rest, root)) = found else { return Named::Elsewhere(name.to_owned()) };
        let parts: Vec<&str> = rest.split('/').filter(|part| !part.is_empty()).collect();
        let is_sound = |part: &&str| !matches!(*part, "." | "..") && !part.contains('\0');
        if parts.is_empty() || rest.ends_with('/') || !parts.iter().all(is_sound) {
            return Named::Missing;
        }
        Named::File(root, parts.join("/"))
    }
}

/// Makes an app's header that of the file which it named. What the app says besides, of who may keep it and
/// under which name, stays; its type, too, if it says one.
pub fn take_over(app: &mut HeaderMap, file: &HeaderMap) {
    for name in OF_THE_BODY {
        app.remove(name);
    }
    let has_type = file.contains_key(CONTENT_TYPE);
    if !has_type {
        // Nothing of the file is sent.
        app.remove(CONTENT_TYPE);
    }
    for (name, value) in file {
        if *name != CONTENT_TYPE || !app.contains_key(CONTENT_TYPE) {
            app.insert(name.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> SendFile {
        SendFile::new([
            ("/protected".to_owned(), "/srv/files".into()),
            ("/protected/big".to_owned(), "/mnt/big".into()),
            ("/with%20space".to_owned(), "/srv/spaced".into()),
            ("/app/storage/".to_owned(), "/srv/storage".into()),
        ])
    }

    fn named(fields: &[(&'static str, &str)]) -> Option<(String, String)> {
        let places = places();
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        let named = places.take(&mut headers);
        assert!(headers.is_empty(), "it stays here: {headers:?}");
        named.map(|named| match named {
            Named::File(root, name) => (root.display().to_string(), name),
            Named::Missing => ("missing".to_owned(), String::new()),
            Named::Elsewhere(name) => ("elsewhere".to_owned(), name),
        })
    }

    #[test]
    fn names_lie_where_they_begin() {
        for (said, root, name) in [
            ("/protected/a.pdf", "/srv/files", "a.pdf"),
            ("/protected//sub/./a", "missing", ""),
            ("/protected//sub///a", "/srv/files", "sub/a"),
            ("/protected/big/a", "/mnt/big", "a"),
            ("/protected/bigger/a", "/srv/files", "bigger/a"),
            ("/protected/a%20b%c3%a9.pdf?x=/..", "/srv/files", "a bé.pdf"),
            ("/protected/caf\u{e9}", "/srv/files", "café"),
            ("/with%20space/a", "/srv/spaced", "a"),
            ("/app/storage/ab/cd/abcd", "/srv/storage", "ab/cd/abcd"),
            ("/protected/.hidden", "/srv/files", ".hidden"),
            // Nothing that leads elsewhere, however it is written.
            ("/protected/../etc/passwd", "missing", ""),
            ("/protected/%2e%2e/etc/passwd", "missing", ""),
            ("/protected/..%2fetc%2fpasswd", "missing", ""),
            ("/protected/a%00.pdf", "missing", ""),
            ("/protected/%zz", "missing", ""),
            ("/protected/%ff", "missing", ""),
            ("/protected/sub/", "missing", ""),
            ("/protected/", "missing", ""),
            ("/protected", "elsewhere", "/protected"),
            ("/protectedness/a", "elsewhere", "/protectedness/a"),
            ("/etc/passwd", "elsewhere", "/etc/passwd"),
            ("protected/a", "elsewhere", "protected/a"),
            ("@named", "elsewhere", "@named"),
            ("", "elsewhere", ""),
        ] {
            let found = named(&[("x-accel-redirect", said)]).expect("a name");
            assert_eq!((found.0.as_str(), found.1.as_str()), (root, name), "{said}");
        }
    }

    #[test]
    fn a_path_is_taken_as_it_is() {
        let found = named(&[("x-sendfile", "/app/storage/50%25 off?.pdf")]).expect("a name");
        assert_eq!((found.0.as_str(), found.1.as_str()), ("/srv/storage", "50%25 off?.pdf"));
        assert_eq!(named(&[("x-sendfile", "/app/storage/../x")]).expect("a name").0, "missing");
        // Both: the one that is nginx's. Twice: the first; neither is told anybody.
        let both = [("x-sendfile", "/etc/passwd"), ("x-accel-redirect", "/protected/a")];
        assert_eq!(named(&both).expect("a name").1, "a");
        let twice = [("x-accel-redirect", "/protected/a"), ("x-accel-redirect", "/protected/b")];
        assert_eq!(named(&twice).expect("a name").1, "a");
        assert_eq!(named(&[]), None);
    }

    #[test]
    fn everything_may_be_named_from_one_directory() {
        let places = SendFile::new([("/".to_owned(), "/srv".into())]);
        assert_eq!(places.find("/a/b"), Named::File(Path::new("/srv"), "a/b".to_owned()));
        assert_eq!(places.find("/"), Named::Missing);
        assert_eq!(places.find("a"), Named::Elsewhere("a".to_owned()));
    }

    #[test]
    fn only_what_holds_for_the_file_stays() {
        let map = |fields: &[(&'static str, &'static str)]| -> HeaderMap {
            let field = |(name, value): &(&'static str, &'static str)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            };
            fields.iter().map(field).collect()
        };
        let app = || {
            map(&[
                ("content-type", "text/html"),
                ("content-length", "0"),
                ("content-encoding", "gzip"),
                ("etag", "\"app\""),
                ("content-disposition", "attachment"),
                ("set-cookie", "a=1"),
                ("cache-control", "private"),
                ("expires", "0"),
                ("x-content-type-options", "nosniff"),
            ])
        };
        let mut sent = app();
        let file = map(&[("content-type", "a/b"), ("content-length", "9"), ("etag", "\"f\"")]);
        take_over(&mut sent, &file);
        let mut expected = app();
        expected.remove("content-encoding");
        expected.insert("content-length", HeaderValue::from_static("9"));
        expected.insert("etag", HeaderValue::from_static("\"f\""));
        assert_eq!(sent, expected);
        let mut typeless = map(&[("content-length", "0")]);
        take_over(&mut typeless, &map(&[("content-type", "a/b"), ("content-length", "9")]));
        assert_eq!(typeless["content-type"], "a/b");
        // Not modified: nothing is said about what is not sent.
        let mut same = app();
        take_over(&mut same, &map(&[("etag", "\"f\"")]));
        assert!(!same.contains_key("content-type") && !same.contains_key("content-length"));
    }

    #[test]
    fn conditions_are_those_of_who_reads() {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::from_static("bytes=0-1"));
        headers.insert("cookie", HeaderValue::from_static("a=1"));
        let wish = Wish::of(&Method::HEAD, &headers);
        assert_eq!((wish.method, wish.headers.len()), (Method::HEAD, 1));
        let wish = Wish::of(&Method::POST, &headers);
        assert_eq!((wish.method, wish.headers.len()), (Method::GET, 0));
    }
}
