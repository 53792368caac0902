//! What a deploy changes: the template of a service becomes the spec of a revision.

use std::net::SocketAddr;

use super::Service;
use super::image::Image;
use crate::model::revision::{RevisionSpec, Source};

/// What an operator wants to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// What stands in the file.
    None,
    /// The image of the file under this tag.
    Tag(String),
    /// This image.
    Image(String),
    /// This command.
    Command(Vec<String>),
    /// These addresses.
    Endpoints(Vec<SocketAddr>),
}

impl Service {
    /// The spec of a revision with this change. The error is one sentence.
    pub fn revision(&self, change: Change) -> Result<RevisionSpec, String> {
        let mut spec = self.template.clone();
        match change {
            Change::None => return Ok(spec),
            Change::Tag(tag) => match &spec.source {
                Source::Image(image) => {
                    spec.source = Source::Image(Image::parse(image)?.with_tag(&tag)?.to_string());
                }
                Source::Command(_) | Source::Endpoints(_) => {
                    return Err(format!(
                        "{} has no image whose tag could be {tag:?}: deploy with --image, --command or --endpoints",
                        self.name
                    ));
                }
            },
            Change::Image(image) => {
                Image::parse(&image)?;
                spec.source = Source::Image(image);
                if spec.port == 0 {
                    return Err(format!(
                        "an image needs a port: write `port` in [service.{}], the port on which its app listens",
                        self.name
                    ));
                }
            }
            Change::Command(words) => {
                if words.is_empty() {
                    return Err("the command is empty".to_owned());
                }
                if words.iter().any(|word| word.contains("{port}")) {
                    spec.port = 0;
                } else if spec.port == 0 {
                    return Err(
                        "the command does not say on which port to listen: put {port} where the program takes it"
                            .to_owned(),
                    );
                }
                spec.source = Source::Command(words);
            }
            Change::Endpoints(addresses) => {
                if addresses.is_empty() {
                    return Err("there is no address".to_owned());
                }
                spec.source = Source::Endpoints(addresses);
            }
        }
        Ok(spec)
    }
}
