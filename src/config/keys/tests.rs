//! The table of keys holds together.

use super::*;

#[test]
fn keys_are_found_by_path() {
    for path in ["listen.http", "service.web.bake", "service.web.probe.path", "tls", "service.web"]
    {
        assert!(find(path).is_some(), "{path}");
    }
    for path in ["listen.htp", "service.web.probe.path.x", "x", ""] {
        assert!(find(path).is_none(), "{path}");
    }
}

#[test]
fn typos_have_a_nearest_key() {
    let near = |typed: &str| nearest(typed, SERVICE.iter().map(|key| key.name));
    for (typed, meant) in [
        ("hosst", "host"),
        ("bake-max", "bake_max"),
        ("Image", "image"),
        ("replica", "replicas"),
        ("environment", "env"),
        ("step", "steps"),
        ("on_inconclusiv", "on_inconclusive"),
    ] {
        assert_eq!(near(typed), Some(meant), "{typed}");
    }
    assert_eq!(near("xyzzy"), None);
}
