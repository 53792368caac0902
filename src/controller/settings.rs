//! Questions that the controller asks of a service's configuration.

use crate::config::Service;
use crate::config::image::Image;
use crate::model::revision::Source;
use crate::routing::table::{HostPattern, Route};

/// Whether what is configured can be launched without being told a version: a command, addresses,
/// or an image with a tag or digest.
#[must_use]
pub fn names_a_version(config: &Service) -> bool {
    match &config.template.source {
        Source::Command(_) | Source::Endpoints(_) => true,
        Source::Image(image) => {
            Image::parse(image).is_ok_and(|image| image.tag.is_some() || image.digest.is_some())
        }
    }
}

/// A service's routes for people: `app.example.com/api`.
#[must_use]
pub fn route_texts(config: &Service) -> Vec<String> {
    let text = |route: &Route| {
        let host = match &route.host {
            HostPattern::Any => "*".to_owned(),
            HostPattern::Exact(host) => host.clone(),
            HostPattern::Below(host) => format!("*.{host}"),
        };
        let path = route.path.trim_end_matches('/');
        format!("{host}{path}")
    };
    config.routes.iter().map(text).collect()
}
