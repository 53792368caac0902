//! Finds keys: by path, and by what was typed instead of them.

use super::Shape::Named;
use super::{Key, TOP};

/// Finds a key by its path, `listen.http` or `service.web.probe.path`; names of services are taken
/// as they come.
#[must_use]
pub fn find(path: &str) -> Option<&'static Key> {
    let mut keys = TOP;
    let mut parts = path.split('.');
    loop {
        let name = parts.next()?;
        let key = keys.iter().find(|key| key.name == name)?;
        if let Named(_) = key.shape
            && parts.next().is_none()
        {
            return Some(key);
        }
        let rest = parts.clone().next().is_some();
        match key.shape.keys() {
            _ if !rest => return Some(key),
            Some(inner) => keys = inner,
            None => return None,
        }
    }
}

/// The nearest of some names to what was typed, if any is near enough to be meant.
#[must_use]
pub fn nearest<'a>(typed: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_ascii_lowercase().replace('-', "_");
    let likeness = |name: &str| {
        let name = name.to_ascii_lowercase();
        // 0.8 is the usual border at which `hosst` is near `host` and `foo` is near nothing; one
        // slip of the finger is near however short the name.
        let likeness = strsim::jaro_winkler(&typed, &name);
        let slip = name.len() > 2 && strsim::damerau_levenshtein(&typed, &name) == 1;
        if slip { likeness.max(0.9) } else { likeness }
    };
    names
        .map(|name| (likeness(name), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
