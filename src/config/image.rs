//! Container image references: `[registry/]name[:tag][@digest]`.
//!
//! Only their parts are known here; whether there is such an image is the engine's to say.

use std::fmt;

/// An image reference in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Registry and name.
    pub name: String,
    /// The tag, when one is written.
    pub tag: Option<String>,
    /// The digest, when one is written: `sha256:…`.
    pub digest: Option<String>,
}

impl Image {
    /// Parses a reference by the grammar of the distribution project
    /// (github.com/distribution/reference). The error says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            return Err("an image has no scheme: \"registry.example.com/acme/web\"".to_owned());
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            // A colon before a slash is the port of the registry.
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) && !registry_only(name) {
            return Err(format!(
                "the name of an image is lower case: \"{}\"",
                name.to_ascii_lowercase()
            ));
        }
        let part_ok = |part: &str| {
            part.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b':'))
        };
        if name.len() > 255 || !name.split('/').all(part_ok) {
            return Err(
                "expected an image such as \"ghcr.io/acme/web\" or \"ghcr.io/acme/web:v2\""
                    .to_owned(),
            );
        }
        if let Some(tag) = tag {
            check_tag(tag)?;
        }
        if digest.is_some_and(|digest| !digest_ok(digest)) {
            return Err("a digest is \"sha256:\" and 64 hexadecimal digits".to_owned());
        }
        Ok(Self {
            name: name.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// The same image under another tag, without a digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, String> {
        check_tag(tag)?;
        Ok(Self { name: self.name.clone(), tag: Some(tag.to_owned()), digest: None })
    }
}

/// Capitals are fine in the registry's host name.
fn registry_only(name: &str) -> bool {
    name.split_once('/').is_some_and(|(_, path)| !path.bytes().any(|b| b.is_ascii_uppercase()))
}

fn check_tag(tag: &str) -> Result<(), String> {
    let first = tag.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    let rest = tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if first && rest && tag.len() <= 128 {
        Ok(())
    } else {
        Err(format!("{tag:?} is not a tag: 1 to 128 letters, digits, '_', '.' or '-'"))
    }
}

fn digest_ok(digest: &str) -> bool {
    digest
        .strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_come_apart_and_together() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, name, tag) in [
            ("web", "web", None),
            ("ghcr.io/acme/web", "ghcr.io/acme/web", None),
            ("ghcr.io/acme/web:v2", "ghcr.io/acme/web", Some("v2")),
            ("localhost:5000/web", "localhost:5000/web", None),
            ("localhost:5000/web:1.0", "localhost:5000/web", Some("1.0")),
            (&format!("web:v1@{digest}"), "web", Some("v1")),
            ("Registry.example.com/web", "Registry.example.com/web", None),
        ] {
            let image = Image::parse(text).expect(text);
            assert_eq!((image.name.as_str(), image.tag.as_deref()), (name, tag));
            assert_eq!(image.to_string(), text);
        }
        let pinned = Image::parse(&format!("web:v1@{digest}")).expect("an image");
        assert_eq!(pinned.with_tag("v2").expect("a tag").to_string(), "web:v2");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, words) in [
            ("https://ghcr.io/acme/web", "no scheme"),
            ("Web", "lower case: \"web\""),
            ("", "expected an image"),
            ("acme//web", "expected an image"),
            ("web:", "not a tag"),
            ("web:a b", "not a tag"),
            ("web@sha256:12", "a digest is"),
        ] {
            let said = Image::parse(text).expect_err(text);
            assert!(said.contains(words), "{text}: {said}");
        }
    }
}
