//! Reads what a container may not do.

use super::raw::Value;
use super::reader::Section;
use crate::model::hardening::{CAPABILITIES, Hardening, LogFiles};

/// What is said of a service's containers, with the defaults for all that is not.
pub(super) fn read_hardening(section: &Section<'_>) -> Hardening {
    let asked = section.each("capabilities", "a capability", |value| match value {
        Value::Text(text) => capability(text),
        _ => capability(""),
    });
    let asked: Vec<String> = asked.into_iter().map(|found| found.value).collect();
    let keeps_all = asked.iter().any(|name| name == "default");
    let tmpfs = section.each("tmpfs", "a path", |value| match value {
        Value::Text(text) if text.starts_with('/') => Ok(text.clone()),
        _ => Err("expected a path in the container such as \"/tmp\"".to_owned()),
    });
    let size = section.size("log_size").value;
    let files = section.integer("log_files").and_then(|found| u32::try_from(found.value).ok());
    Hardening {
        unprivileged: true,
        no_new_privileges: section.switch("no_new_privileges"),
        capabilities: (!keeps_all).then_some(asked),
        read_only: section.switch("read_only"),
        tmpfs: tmpfs.into_iter().map(|found| found.value).collect(),
        log: (size > 0).then(|| LogFiles { bytes: size, files: files.unwrap_or(1) }),
    }
}

/// One that the kernel knows, without its prefix.
fn capability(text: &str) -> Result<String, String> {
    if text == "default" {
        return Ok(text.to_owned());
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if CAPABILITIES.contains(&name) {
        return Ok(name.to_owned());
    }
    Err(match super::keys::nearest(&name.to_ascii_lowercase(), CAPABILITIES.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => {
            "expected a capability such as \"NET_BIND_SERVICE\" (capabilities(7)), or \"default\""
                .to_owned()
        }
    })
}
