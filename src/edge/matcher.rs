//! Which requests of a service a route takes.

use http::{HeaderMap, Method};

use super::facts::Facts;
use super::path::is_below;
use super::pattern::Pattern;

/// What a request must be to belong to a route. Each list that is not empty must have one that fits;
/// header and query conditions must all hold.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Matcher {
    /// Hosts, in lower case and without ports; `.example.com` stands for any name below.
    pub hosts: Vec<String>,
    /// Paths.
    pub paths: Vec<PathMatch>,
    /// Methods.
    pub methods: Vec<Method>,
    /// Header fields, each with patterns of which one must fit.
    pub headers: Vec<(http::HeaderName, Vec<Pattern>)>,
    /// Parameters of the query, each with patterns of which one must fit.
    pub query: Vec<(String, Vec<Pattern>)>,
}

/// Which paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// This one and all below it.
    Prefix(String),
    /// This one alone.
    Exact(String),
    /// Those of this pattern.
    Pattern(Pattern),
}

impl PathMatch {
    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Prefix(prefix) => is_below(path, prefix),
            Self::Exact(exact) => path == exact,
            Self::Pattern(pattern) => pattern.matches(path.as_bytes()),
        }
    }
}

impl Matcher {
    /// Whether every request fits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether every request fits, because the prefix of all paths is the only condition.
    #[must_use]
    pub fn takes_every_path(&self) -> bool {
        let is_all = |path: &PathMatch| matches!(path, PathMatch::Prefix(prefix) if prefix == "/");
        let rest = Self { paths: Vec::new(), ..self.clone() };
        rest.is_empty() && self.paths.iter().any(is_all)
    }

    /// Whether a request fits; its path is as it is compared ([`super::path::normal`]).
    #[must_use]
    pub fn matches(&self, facts: &Facts<'_>, path: &str, headers: &HeaderMap) -> bool {
        (self.methods.is_empty() || self.methods.contains(facts.method))
            && (self.paths.is_empty() || self.paths.iter().any(|wanted| wanted.matches(path)))
            && (self.hosts.is_empty() || self.has_host(facts.name()))
            && self.headers.iter().all(|(name, patterns)| {
                let fits = |value: &http::HeaderValue| {
                    patterns.iter().any(|pattern| pattern.matches(value.as_bytes()))
                };
                headers.get_all(name).iter().any(fits)
            })
            && self.query.iter().all(|(name, patterns)| {
                let fits =
                    |value: &str| patterns.iter().any(|pattern| pattern.matches(value.as_bytes()));
                parameters(facts.uri.query()).any(|(found, value)| found == name && fits(value))
            })
    }

    fn has_host(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.hosts.iter().any(|wanted| match wanted.strip_prefix('.') {
            Some(_) => host.len() > wanted.len() && host.ends_with(wanted.as_str()),
            None => host == *wanted,
        })
    }
}

/// The parameters of a query, as they were written.
fn parameters(query: Option<&str>) -> impl Iterator<Item = (&str, &str)> {
    query.unwrap_or("").split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

#[cfg(test)]
mod tests {
    use super::super::facts::facts;
    use super::super::path::normal;
    use super::*;
    use http::HeaderValue;

    fn is_taken(matcher: &Matcher, request: &str, fields: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let facts = facts(request);
        matcher.matches(&facts, &normal(facts.uri.path()), &headers)
    }

    #[test]
    fn everything_that_is_asked_must_hold() {
        assert!(Matcher::default().is_empty() && is_taken(&Matcher::default(), "a/", &[]));
        let matcher = Matcher {
            hosts: vec!["a.example".into(), ".b.example".into()],
            paths: vec![PathMatch::Prefix("/api".into()), PathMatch::Exact("/x".into())],
            methods: vec![Method::GET],
            headers: vec![(
                http::header::USER_AGENT,
                vec![Pattern::any_case("*curl*"), Pattern::any_case("wget*")],
            )],
            query: vec![("v".into(), vec![Pattern::exact_case("2")])],
        };
        let curl = [("user-agent", "Curl/8")];
        assert!(is_taken(&matcher, "a.example/api/y?u=1&v=2", &curl));
        assert!(is_taken(&matcher, "A.Example.:80/x?v=2", &[("user-agent", "Wget/1")]));
        assert!(is_taken(&matcher, "z.b.example//api?v=2", &curl));
        for (request, fields) in [
            ("b.example/api?v=2", &curl[..]),
            ("c.example/api?v=2", &curl[..]),
            ("a.example/apis?v=2", &curl[..]),
            ("a.example/x/?v=2", &curl[..]),
            ("a.example/api?v=3", &curl[..]),
            ("a.example/api", &curl[..]),
            ("a.example/api?v=2", &[("user-agent", "firefox")][..]),
            ("a.example/api?v=2", &[][..]),
        ] {
            assert!(!is_taken(&matcher, request, fields), "{request}");
        }
        let php = Matcher {
            paths: vec![PathMatch::Pattern(Pattern::exact_case("*.php"))],
            ..Matcher::default()
        };
        assert!(is_taken(&php, "a/x.php?y", &[]) && is_taken(&php, "a/x%2ephp", &[]));
        assert!(!is_taken(&php, "a/x?y=.php", &[]));
    }
}
