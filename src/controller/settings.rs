//! What the controller is told of a service by the configuration.

use crate::model::id::ServiceName;
use crate::model::revision::{RevisionSpec, Source};
use crate::rollout::plan::Plan;
use crate::routing::settings::ServiceSettings;
use crate::routing::table::{HostPattern, Route};

/// A service as configured.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceConfig {
    /// Its name.
    pub name: ServiceName,
    /// Which requests are its own.
    pub routes: Vec<Route>,
    /// How its requests are treated.
    pub settings: ServiceSettings,
    /// What a revision runs unless a deploy says otherwise.
    pub template: RevisionSpec,
    /// How rollouts are carried out.
    pub plan: Plan,
}

impl ServiceConfig {
    /// Whether what is configured can be launched without being told a version: a command,
    /// addresses, or an image with a tag or digest.
    #[must_use]
    pub fn names_a_version(&self) -> bool {
        match &self.template.source {
            Source::Command(_) | Source::Endpoints(_) => true,
            Source::Image(image) => has_tag(image),
        }
    }

    /// Its routes for people: `app.example.com/api`.
    #[must_use]
    pub fn route_texts(&self) -> Vec<String> {
        let text = |route: &Route| {
            let host = match &route.host {
                HostPattern::Any => "*".to_owned(),
                HostPattern::Exact(host) => host.clone(),
                HostPattern::Below(host) => format!("*.{host}"),
            };
            let path = route.path.trim_end_matches('/');
            format!("{host}{path}")
        };
        self.routes.iter().map(text).collect()
    }
}

/// Whether an image reference has a tag or a digest. A colon before the last slash is a port.
#[must_use]
pub fn has_tag(image: &str) -> bool {
    image.rsplit('/').next().is_some_and(|last| last.contains(':') || last.contains('@'))
}

/// An image reference with another tag.
#[must_use]
pub fn with_tag(image: &str, tag: &str) -> String {
    let (path, last) = image.rsplit_once('/').map_or(("", image), |(path, last)| (path, last));
    let name = last.split(['@', ':']).next().unwrap_or(last);
    let slash = if path.is_empty() { "" } else { "/" };
    format!("{path}{slash}{name}:{tag}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_told_from_ports() {
        assert!(has_tag("web:v1") && has_tag("r:5000/a/web:v1") && has_tag("web@sha256:00"));
        assert!(!has_tag("web") && !has_tag("r:5000/web"));
        assert_eq!(with_tag("r:5000/a/web", "v2"), "r:5000/a/web:v2");
        assert_eq!(with_tag("web:v1", "v2"), "web:v2");
        assert_eq!(with_tag("a/web@sha256:00", "v2"), "a/web:v2");
    }
}
