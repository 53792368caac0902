//! What a container may not do, in the engine's words.

use std::collections::HashMap;

use bollard::Docker;
use bollard::models::{ContainerInspectResponse, HostConfig, HostConfigLogConfig, ImageConfig};

use super::DockerRuntime;
use super::client::ANSWER;
use crate::model::hardening::NOBODY;
use crate::model::revision::RevisionSpec;

/// Adds what is forbidden. What a container was told that the revision was adopted from stays as it is.
pub fn harden(spec: &RevisionSpec, mut host: HostConfig) -> HostConfig {
    let container = &spec.container;
    if container.adopted.is_some() {
        return host;
    }
    let hardening = &container.hardening;
    if hardening.no_new_privileges {
        host.security_opt = Some(vec!["no-new-privileges:true".to_owned()]);
    }
    if let Some(kept) = &hardening.capabilities {
        host.cap_drop = Some(vec!["ALL".to_owned()]);
        host.cap_add = (!kept.is_empty()).then(|| kept.clone());
    }
    if hardening.read_only {
        host.readonly_rootfs = Some(true);
        let is_mounted = |path: &str| targets(spec).any(|target| target == path);
        let places = hardening.tmpfs.iter().map(|text| text.split_once(':').unwrap_or((text, "")));
        let places = places.filter(|(path, _)| !is_mounted(path));
        let places: HashMap<String, String> =
            places.map(|(path, options)| (path.to_owned(), writable(options, spec))).collect();
        host.tmpfs = (!places.is_empty()).then_some(places);
    }
    if let Some(log) = hardening.log {
        let options = [
            ("max-size".to_owned(), log.bytes.to_string()),
            ("max-file".to_owned(), log.files.to_string()),
        ];
        host.log_config = Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(options.into()),
        });
    }
    host
}

/// Anybody may write there, as to /tmp. An engine may give it the mode of the directory that it covers
/// all the same (runc before 1.2), which in a small image is root's alone: so it belongs to who runs, as
/// far as that is known by number.
fn writable(options: &str, spec: &RevisionSpec) -> String {
    let mut all: Vec<String> =
        options.split(',').filter(|o| !o.is_empty()).map(str::to_owned).collect();
    let says = |all: &[String], name: &str| all.iter().any(|option| option.starts_with(name));
    if !says(&all, "mode=") {
        all.push("mode=1777".to_owned());
    }
    let user = spec.container.user.as_deref().unwrap_or_default();
    let (uid, gid) = user.split_once(':').unwrap_or((user, ""));
    for (name, id) in [("uid=", uid), ("gid=", gid)] {
        if !says(&all, name) && id.parse::<u32>().is_ok_and(|id| id != 0) {
            all.push(format!("{name}{id}"));
        }
    }
    all.join(",")
}

/// Where volumes are mounted.
fn targets(spec: &RevisionSpec) -> impl Iterator<Item = &str> {
    let volumes = spec.container.volumes.iter();
    volumes.filter_map(|volume| volume.split(':').nth(1)).map(|path| path.trim_end_matches('/'))
}

/// Whether anything that outlives a container is written by it: what is there may be root's.
fn writes_volumes(spec: &RevisionSpec, image: &ImageConfig) -> bool {
    let is_written = |volume: &String| {
        let options = volume.split(':').nth(2).unwrap_or("");
        !options.split(',').any(|option| option == "ro")
    };
    spec.container.volumes.iter().any(is_written)
        || image.volumes.as_ref().is_some_and(|volumes| !volumes.is_empty())
}

/// The user in place of root, where nobody has said anything and it harms nothing.
fn user_for(spec: &RevisionSpec, image: &ImageConfig) -> Option<String> {
    let named = image.user.as_deref().unwrap_or_default();
    let is_root = matches!(named.split(':').next(), Some("" | "0" | "root"));
    let wanted = spec.container.hardening.unprivileged
        && spec.container.user.is_none()
        && spec.container.adopted.is_none();
    (wanted && is_root && !writes_volumes(spec, image)).then(|| NOBODY.to_owned())
}

impl DockerRuntime {
    /// The revision, with the user that it is to run as.
    pub(super) async fn with_user(&self, mut spec: RevisionSpec) -> RevisionSpec {
        let Some(id) = spec.container.image_id.clone() else { return spec };
        if !spec.container.hardening.unprivileged || spec.container.user.is_some() {
            return spec;
        }
        let look = |docker: Docker| async move { docker.inspect_image(&id).await };
        // Where the engine does not say, the launch will.
        if let Ok(found) = self.client.call("looking at an image", ANSWER, look).await
            && let Some(user) = user_for(&spec, &found.config.unwrap_or_default())
        {
            spec.container.user = Some(user);
        }
        spec
    }
}

/// What is forbidden, as far as an app may run into it.
#[derive(Debug, Clone, Copy)]
struct Forbidden {
    writing: bool,
    root: bool,
    powers: bool,
}

/// What an instance that could not start may have met, if its output says so.
pub fn hint(spec: &RevisionSpec, lines: &[String]) -> Option<&'static str> {
    let hardening = &spec.container.hardening;
    let is_nobody = spec.container.user.as_deref() == Some(NOBODY);
    let forbidden = Forbidden {
        writing: hardening.read_only,
        root: hardening.unprivileged && is_nobody,
        powers: hardening.capabilities.is_some(),
    };
    met(forbidden, lines)
}

/// The same of one that runs, and is not healthy.
pub fn hint_of(found: &ContainerInspectResponse, lines: &[String]) -> Option<&'static str> {
    let host = found.host_config.as_ref()?;
    let user = found.config.as_ref().and_then(|config| config.user.as_deref());
    let dropped = host.cap_drop.iter().flatten();
    let forbidden = Forbidden {
        writing: host.readonly_rootfs == Some(true),
        root: user == Some(NOBODY),
        powers: dropped.into_iter().any(|name| name == "ALL"),
    };
    met(forbidden, lines)
}

fn met(forbidden: Forbidden, lines: &[String]) -> Option<&'static str> {
    let says = |text: &str| lines.iter().any(|line| line.contains(text));
    if forbidden.writing && says("Read-only file system") {
        return Some(
            "its root file system cannot be written: name the place in `tmpfs` or `volumes`, or write \
             read_only = false",
        );
    }
    if forbidden.root && says("ermission denied") {
        return Some(
            "it runs as nobody in place of root: name its `user`, or write user = \"0\" for root",
        );
    }
    if forbidden.powers && says("peration not permitted") {
        return Some("root's powers are taken from it: name what it needs in `capabilities`");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hardening::Hardening;

    fn spec(volumes: &[&str]) -> RevisionSpec {
        let mut spec: RevisionSpec = serde_json::from_str(
            r#"{"source": {"image": "web"}, "replicas": 1, "port": 3000, "env": {},
                "protocol": "http1", "stop_grace": 1000,
                "probe": {"kind": "tcp", "interval": 1000, "timeout": 1000, "rise": 1, "fall": 1,
                          "deadline": 1000}}"#,
        )
        .expect("a revision");
        spec.container.volumes = volumes.iter().map(ToString::to_string).collect();
        spec.container.hardening = Hardening {
            unprivileged: true,
            no_new_privileges: true,
            capabilities: Some(vec!["NET_BIND_SERVICE".to_owned()]),
            read_only: true,
            tmpfs: vec!["/tmp:exec".to_owned(), "/run".to_owned()],
            log: None,
        };
        spec
    }

    #[test]
    fn root_becomes_nobody_where_nothing_is_lost_by_it() {
        let image = |user: &str| ImageConfig { user: Some(user.to_owned()), ..Default::default() };
        let nobody = Some(NOBODY.to_owned());
        for root in ["", "0", "root", "0:0"] {
            assert_eq!(user_for(&spec(&[]), &image(root)), nobody, "{root:?}");
        }
        assert_eq!(user_for(&spec(&["/etc/x:/x:ro"]), &image("")), nobody);
        assert_eq!(user_for(&spec(&["data:/data"]), &image("")), None, "it may be root's");
        assert_eq!(user_for(&spec(&[]), &image("app")), None, "the image knows");
        let declared = ImageConfig {
            volumes: Some(vec!["/data".to_owned()].into_iter().collect()),
            ..image("")
        };
        assert_eq!(user_for(&spec(&[]), &declared), None);
        let mut said = spec(&[]);
        said.container.user = Some("0".to_owned());
        assert_eq!(user_for(&said, &image("")), None, "somebody said so");
    }

    #[test]
    fn what_is_mounted_is_not_covered() {
        let host = harden(&spec(&["scratch:/tmp"]), HostConfig::default());
        let tmpfs = host.tmpfs.expect("a place to write");
        assert_eq!(tmpfs.keys().collect::<Vec<_>>(), ["/run"]);
        assert_eq!(host.cap_add, Some(vec!["NET_BIND_SERVICE".to_owned()]));
        let mut off = spec(&[]);
        off.container.hardening = Hardening::default();
        assert_eq!(harden(&off, HostConfig::default()), HostConfig::default());
    }

    #[test]
    fn who_runs_may_write_where_nothing_lasts() {
        let of = |user: Option<&str>, options: &str| {
            let mut spec = spec(&[]);
            spec.container.user = user.map(str::to_owned);
            writable(options, &spec)
        };
        assert_eq!(of(None, ""), "mode=1777");
        assert_eq!(of(Some("0"), "exec"), "exec,mode=1777");
        assert_eq!(of(Some(NOBODY), ""), "mode=1777,uid=65534,gid=65534");
        assert_eq!(of(Some("app"), "size=8m,mode=700"), "size=8m,mode=700");
        assert_eq!(of(Some("1000"), "uid=1"), "uid=1,mode=1777");
    }

    #[test]
    fn what_is_in_its_way_is_said() {
        let says = |line: &str| hint(&spec(&[]), &[line.to_owned()]);
        assert!(says("open /var/x: Read-only file system").is_some_and(|h| h.contains("tmpfs")));
        assert!(says("chown: Operation not permitted").is_some_and(|h| h.contains("capabilities")));
        assert_eq!(says("cannot reach the database"), None);
    }
}
