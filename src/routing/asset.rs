//! Which paths are fingerprinted assets: files whose name holds a hash of their content.
//!
//! A page of one revision names assets that only that revision has. While two revisions serve, the
//! page may come from one and its assets be asked of the other, which answers 404. A name with a
//! hash in it means one content for ever, so it may be answered by whoever has it.

/// Which paths are assets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Assets {
    /// None: a 404 is a 404.
    Off,
    /// What looks fingerprinted.
    #[default]
    Auto,
    /// What begins with one of these.
    Below(Vec<String>),
}

/// Extensions of what build tools fingerprint.
const EXTENSIONS: [&str; 24] = [
    "js", "mjs", "cjs", "css", "map", "json", "wasm", "png", "jpg", "jpeg", "gif", "svg", "webp",
    "avif", "ico", "woff", "woff2", "ttf", "otf", "eot", "mp4", "webm", "mp3", "txt",
];

/// The shortest hash that build tools write: Vite, esbuild and Rollup have 8 characters, webpack 20,
/// Django 12, Sprockets 64.
const SHORTEST: usize = 8;

impl Assets {
    /// Whether a path is an asset.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        match self {
            Self::Off => false,
            Self::Auto => is_fingerprinted(path),
            Self::Below(prefixes) => prefixes.iter().any(|prefix| path.starts_with(prefix)),
        }
    }
}

/// Whether the last segment of a path is the name of a file with a hash in it.
fn is_fingerprinted(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let Some((stem, extension)) = name.rsplit_once('.') else { return false };
    if !EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension)) {
        return false;
    }
    // `-` and `_` also stand inside of hashes in base64url, where a part of eight is rarely lost.
    stem.split(['.', '-', '_', '~']).any(is_hash)
}

/// Hexadecimal or base62 of enough characters: with digits among letters, or with both cases mixed
/// beyond what a name in camel case has.
fn is_hash(part: &str) -> bool {
    if part.len() < SHORTEST || !part.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return false;
    }
    let digits = part.bytes().filter(u8::is_ascii_digit).count();
    let upper = part.bytes().filter(u8::is_ascii_uppercase).count();
    let lower = part.bytes().filter(u8::is_ascii_lowercase).count();
    digits > 0 || (upper >= 2 && lower >= 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_a_hash_are_assets() {
        for path in [
            "/assets/index-DiwrgTda.js",
            "/assets/index-4f2a9c1b.css",
            "/static/js/main.3f2a1b9c4d5e6f708192.chunk.js",
            "/static/base.27e20196a850.css",
            "/assets/application-2fb2b5f9d47a6b3c1e8d0a9f7c6b5e4d3c2b1a0f9e8d7c6b5a493827160f5e4d.css",
            "/_next/static/chunks/webpack-5a1f4c3b2d1e0f9a.js",
            "/fonts/inter.a1b2c3d4.woff2",
            "/assets/logo-B1x9Kq0z.SVG",
        ] {
            assert!(Assets::Auto.covers(path), "{path}");
        }
    }

    #[test]
    fn other_names_are_not() {
        for path in [
            "/",
            "/api/orders/3f2a1b9c4d5e",
            "/favicon.ico",
            "/js/bootstrap.bundle.min.js",
            "/js/jquery-3.7.1.min.js",
            "/js/slideshow-controller.js",
            "/a1b2c3d4e5f6.html",
            "/assets/3f2a1b9c/",
            "/logo.png",
        ] {
            assert!(!Assets::Auto.covers(path), "{path}");
        }
        assert!(!Assets::Off.covers("/assets/index-DiwrgTda.js"));
    }

    #[test]
    fn prefixes_replace_the_guess() {
        let below = Assets::Below(vec!["/static/".to_owned()]);
        assert!(below.covers("/static/logo.png"));
        assert!(!below.covers("/assets/index-DiwrgTda.js"));
    }
}
