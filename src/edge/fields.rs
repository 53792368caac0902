//! Changes to header fields.

use http::header::{Entry, HeaderMap, HeaderName, HeaderValue};

use super::facts::Facts;
use super::template::Template;

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub enum Edit {
    /// In place of whatever is there.
    Set(HeaderName, Content),
    /// Only where nothing is there.
    Default(HeaderName, Content),
    /// Beside what is there.
    Add(HeaderName, Content),
    /// Nothing is left.
    Remove(HeaderName),
}

/// What a field is given.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Always the same.
    Fixed(HeaderValue),
    /// Made for each request. What comes out empty sets nothing.
    Made(Template),
}

impl Content {
    /// Reads a value, which may have places to fill in.
    pub fn parse(text: &str) -> Result<Self, String> {
        let template = Template::parse(text)?;
        match template.fixed() {
            Some(text) => HeaderValue::from_str(text)
                .map(Self::Fixed)
                .map_err(|_| "a header's value is one line of visible characters".to_owned()),
            None => Ok(Self::Made(template)),
        }
    }

    fn value(&self, facts: Option<&Facts<'_>>) -> Option<HeaderValue> {
        match self {
            Self::Fixed(value) => Some(value.clone()),
            Self::Made(template) => {
                let text = template.fill(facts?);
                HeaderValue::from_str(&text).ok().filter(|value| !value.is_empty())
            }
        }
    }
}

/// Changes, carried out in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Edits(Vec<Edit>);

impl Edits {
    /// These changes.
    #[must_use]
    pub fn new(edits: Vec<Edit>) -> Self {
        Self(edits)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all of them are the same for every request: then they need no facts.
    #[must_use]
    pub fn are_fixed(&self) -> bool {
        self.0.iter().all(|edit| match edit {
            Edit::Set(_, content) | Edit::Default(_, content) | Edit::Add(_, content) => {
                matches!(content, Content::Fixed(_))
            }
            Edit::Remove(_) => true,
        })
    }

    /// These and then others.
    #[must_use]
    pub fn then(&self, others: Self) -> Self {
        Self(self.0.iter().cloned().chain(others.0).collect())
    }

    /// Carries them out. What is made of a request sets nothing without facts about it.
    pub fn apply(&self, headers: &mut HeaderMap, facts: Option<&Facts<'_>>) {
        for edit in &self.0 {
            match edit {
                Edit::Set(name, content) => match content.value(facts) {
                    Some(value) => {
                        headers.insert(name.clone(), value);
                    }
                    // An empty value must not leave a client's own in its place.
                    None => {
                        headers.remove(name);
                    }
                },
                Edit::Default(name, content) => {
                    if let Entry::Vacant(vacant) = headers.entry(name.clone())
                        && let Some(value) = content.value(facts)
                    {
                        vacant.insert(value);
                    }
                }
                Edit::Add(name, content) => {
                    if let Some(value) = content.value(facts) {
                        headers.append(name.clone(), value);
                    }
                }
                Edit::Remove(name) => {
                    headers.remove(name);
                }
            }
        }
    }
}

/// What browsers should be told on every page, where the application does not say it itself:
/// the headers that OWASP's secure headers project and Mozilla's observatory ask of any site and
/// that break none, and what a server gives away about itself.
#[must_use]
pub fn security() -> Vec<Edit> {
    let default = |name: &'static str, value: &'static str| {
        Edit::Default(
            HeaderName::from_static(name),
            Content::Fixed(HeaderValue::from_static(value)),
        )
    };
    vec![
        default("x-content-type-options", "nosniff"),
        default("x-frame-options", "SAMEORIGIN"),
        default("referrer-policy", "strict-origin-when-cross-origin"),
        default("cross-origin-opener-policy", "same-origin-allow-popups"),
        Edit::Remove(http::header::SERVER),
        Edit::Remove(HeaderName::from_static("x-powered-by")),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::facts::facts;
    use super::*;

    fn name(text: &str) -> HeaderName {
        text.parse().expect("a name")
    }

    fn content(text: &str) -> Content {
        Content::parse(text).expect("a value")
    }

    #[test]
    fn fields_are_set_added_and_removed_in_order() {
        let mut headers = HeaderMap::new();
        headers.append("server", HeaderValue::from_static("app"));
        headers.append("a", HeaderValue::from_static("1"));
        headers.append("a", HeaderValue::from_static("2"));
        let edits = Edits::new(vec![
            Edit::Set(name("a"), content("3")),
            Edit::Add(name("a"), content("{client}")),
            Edit::Default(name("a"), content("no")),
            Edit::Default(name("b"), content("yes")),
            Edit::Set(name("user"), content("{user}")),
        ])
        .then(Edits::new(security()));
        headers.append("user", HeaderValue::from_static("forged"));
        assert!(!edits.are_fixed() && Edits::new(security()).are_fixed());
        edits.apply(&mut headers, Some(&facts("a/")));
        let all: Vec<_> = headers.get_all("a").iter().collect();
        assert_eq!(all, ["3", "203.0.113.7"]);
        assert_eq!(headers["b"], "yes");
        assert!(headers.get("server").is_none());
        assert!(headers.get("user").is_none(), "nobody is no user, and a client cannot say one");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert!(Content::parse("a\nb").is_err());
    }
}
