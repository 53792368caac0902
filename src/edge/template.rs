//! Text with places for what a request says: `https://{host}{uri}`.
//!
//! A brace that encloses none of the known words is a brace, so that JSON in a header needs no care;
//! a lone lower-case word that is not known is refused, because it was meant to be one.

use std::fmt;

use super::facts::Facts;

/// Text, with places to be filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Place(Place),
}

/// What can be filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Client,
    Host,
    Method,
    Path,
    Query,
    Uri,
    Scheme,
    RequestId,
    User,
}

const PLACES: [(&str, Place); 9] = [
    ("client", Place::Client),
    ("host", Place::Host),
    ("method", Place::Method),
    ("path", Place::Path),
    ("query", Place::Query),
    ("uri", Place::Uri),
    ("scheme", Place::Scheme),
    ("request_id", Place::RequestId),
    ("user", Place::User),
];

impl Template {
    /// Reads a template. The error says which word is not known, and which are.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            plain.push_str(&rest[..at]);
            rest = &rest[at..];
            let word = rest[1..].split('}').next().filter(|word| rest[1..].len() > word.len());
            let known = word.and_then(|word| PLACES.iter().find(|(name, _)| *name == word));
            match (word, known) {
                (Some(word), Some((_, place))) => {
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(Part::Place(*place));
                    rest = &rest[word.len() + 2..];
                }
                (Some(word), None)
                    if !word.is_empty()
                        && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') =>
                {
                    let names: Vec<&str> = PLACES.iter().map(|(name, _)| *name).collect();
                    return Err(format!(
                        "{{{word}}} is not known; there are {{{}}}",
                        names.join("}, {")
                    ));
                }
                _ => {
                    plain.push('{');
                    rest = &rest[1..];
                }
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self { parts })
    }

    /// The text, if it has no places.
    #[must_use]
    pub fn fixed(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text for a request. Control bytes, which a header could not carry, are left out.
    #[must_use]
    pub fn fill(&self, facts: &Facts<'_>) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Place(Place::Client) => {
                    text.push_str(&facts.client.to_canonical().to_string());
                }
                Part::Place(Place::Host) => text.push_str(facts.host),
                Part::Place(Place::Method) => text.push_str(facts.method.as_str()),
                Part::Place(Place::Path) => text.push_str(facts.uri.path()),
                Part::Place(Place::Query) => text.push_str(facts.uri.query().unwrap_or("")),
                Part::Place(Place::Uri) => text.push_str(facts.path_and_query()),
                Part::Place(Place::Scheme) => text.push_str(facts.scheme()),
                Part::Place(Place::RequestId) => {
                    text.push_str(facts.request_id.to_str().unwrap_or(""));
                }
                Part::Place(Place::User) => text.push_str(facts.user.unwrap_or("")),
            }
        }
        text.retain(|c| !c.is_control());
        text
    }

    /// The text for a request as a place to redirect to. A target on this host stays on this host:
    /// a path that begins with two slashes would be another host's name.
    #[must_use]
    pub fn location(&self, facts: &Facts<'_>) -> String {
        let filled = self.fill(facts);
        let elsewhere = match self.parts.first() {
            Some(Part::Text(text)) => text.starts_with("//") || !text.starts_with('/'),
            Some(Part::Place(place)) => !matches!(place, Place::Path | Place::Uri),
            None => false,
        };
        if elsewhere {
            return filled;
        }
        format!("/{}", filled.trim_start_matches(['/', '\\']))
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Text(text) => f.write_str(text)?,
                Part::Place(place) => {
                    let name = PLACES.iter().find(|(_, other)| other == place);
                    write!(f, "{{{}}}", name.map_or("", |(name, _)| name))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::facts;
    use super::*;

    fn fill(template: &str, request: &str) -> String {
        let template = Template::parse(template).expect("a template");
        template.fill(&facts(request))
    }

    #[test]
    fn places_are_filled() {
        for (template, filled) in [
            ("https://{host}{uri}", "https://a.example:81/x/y?z=1"),
            ("{scheme}://new.example{path}?{query}", "http://new.example/x/y?z=1"),
            ("{client} {method} {request_id} [{user}]", "203.0.113.7 GET id-1 []"),
            ("{\"group\":\"csp\",\"x\":{}}", "{\"group\":\"csp\",\"x\":{}}"),
            ("a{", "a{"),
            ("", ""),
        ] {
            assert_eq!(fill(template, "a.example:81/x/y?z=1"), filled);
            assert_eq!(Template::parse(template).expect("one").to_string(), template);
        }
        let said = Template::parse("{hots}").expect_err("a slip");
        assert!(said.contains("{hots} is not known") && said.contains("{host}"), "{said}");
    }

    #[test]
    fn a_redirect_on_this_host_stays_there() {
        for (template, request, location) in [
            ("{path}/", "a//evil.example", "/evil.example/"),
            ("{uri}", "a//evil.example/", "/evil.example/"),
            ("/{query}", "a/?/evil.example", "/evil.example"),
            ("/x{path}", "a//evil", "/x//evil"),
            ("https://b{path}", "a//c", "https://b//c"),
        ] {
            let template = Template::parse(template).expect("a template");
            assert_eq!(template.location(&facts(request)), location);
        }
    }
}
