//! Services from the labels of containers that we did not launch.
//!
//! Labels say what a file would say: they are written as one and read by the same code, so that they
//! mean the same and are refused in the same words. Containers with the same name of a service (or the
//! same host and path, when none is said) are its instances; those of one image are one revision.
//!
//! Whoever may start containers may deploy by them, and no more: a host of the file is the file's, a host
//! that one project has is that project's, and what was there first stays.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;

use super::keys::nearest;
use super::{Input, Service, parse};
use crate::model::id::ServiceName;
use crate::model::labelled::Labelled;
use crate::routing::table::{HostPattern, Route};

/// What the labels begin with.
const PREFIX: &str = "switchback.";
/// What Compose says a container belongs to.
const PROJECT: &str = "com.docker.compose.project";
/// What may follow.
const KNOWN: [&str; 11] = [
    "host",
    "port",
    "path",
    "health",
    "steps",
    "bake",
    "bake_max",
    "on_inconclusive",
    "abort",
    "service",
    "protocol",
];

/// A service that labels describe.
#[derive(Debug, Clone, PartialEq)]
pub struct Described {
    /// As if it stood in the file; its endpoints are those of the oldest revision.
    pub service: Service,
    /// Its revisions, oldest first.
    pub groups: Vec<Group>,
    /// The project that began it, if it has one.
    pub project: Option<String>,
}

/// Containers of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The image itself.
    pub image_id: String,
    /// As it was named.
    pub image: String,
    /// Where its containers are reached.
    pub addresses: BTreeSet<SocketAddr>,
}

/// What labels say, and what is wrong with them, in sentences. The containers come oldest first. What was
/// described `before` keeps what it has.
#[must_use]
pub fn read(
    containers: &[Labelled],
    configured: &[Service],
    before: &[Described],
) -> (Vec<Described>, Vec<String>) {
    let mut notes = Vec::new();
    let mut by_service: Vec<(String, Vec<&Labelled>)> = Vec::new();
    for container in containers {
        unknown(container, &mut notes);
        match name_of(container) {
            Ok(name) => match by_service.iter_mut().find(|(known, _)| *known == name) {
                Some((_, all)) => all.push(container),
                None => by_service.push((name, vec![container])),
            },
            Err(note) => notes.push(note),
        }
    }
    // By age otherwise: that of each one's oldest container.
    by_service.sort_by_key(|(name, _)| {
        let known = before.iter().position(|one| one.service.name.as_str() == name);
        known.unwrap_or(before.len())
    });
    let mut described: Vec<Described> = Vec::new();
    for (name, containers) in by_service {
        let one = describe(&name, &containers, &mut notes)
            .and_then(|one| clash(&one, configured, &described).map_or(Ok(one), Err));
        match one {
            Ok(one) => described.push(one),
            Err(note) => {
                let names: Vec<&str> = containers.iter().map(|one| one.name.as_str()).collect();
                notes.push(format!("labels of {}: {note}", names.join(", ")));
            }
        }
    }
    (described, notes)
}

fn label<'a>(container: &'a Labelled, name: &str) -> Option<&'a str> {
    container.labels.get(&format!("{PREFIX}{name}")).map(|text| text.trim())
}

fn unknown(container: &Labelled, notes: &mut Vec<String>) {
    for name in container.labels.keys().filter_map(|name| name.strip_prefix(PREFIX)) {
        if !KNOWN.contains(&name) {
            let near = match nearest(name, KNOWN.into_iter()) {
                Some(near) => format!("did you mean {PREFIX}{near}?"),
                None => format!("known are {PREFIX}{}", KNOWN.join(&format!(", {PREFIX}"))),
            };
            notes.push(format!(
                "container {}: the label {PREFIX}{name} says nothing: {near}",
                container.name
            ));
        }
    }
}

/// The name of a container's service: as it says, or after its host and path.
fn name_of(container: &Labelled) -> Result<String, String> {
    let text = match label(container, "service") {
        Some(name) => name.to_owned(),
        None => {
            let host = label(container, "host").unwrap_or_default();
            let first = host.split(',').next().unwrap_or_default();
            let text = format!("{first}{}", label(container, "path").unwrap_or_default());
            let plain =
                |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
            let text: String = text.chars().map(plain).collect();
            let parts: Vec<&str> = text.split('-').filter(|part| !part.is_empty()).collect();
            if parts.is_empty() { "any".to_owned() } else { parts.join("-") }
        }
    };
    ServiceName::new(&text).map(|name| name.to_string()).map_err(|_| {
        format!(
            "container {}: {text:?} cannot name a service: say {PREFIX}service with 1 to 63 of a-z, \
             0-9 and '-'",
            container.name
        )
    })
}

/// A service of containers, oldest first. The newest one's labels hold for all, but for those that say
/// what leads to them: with those, a new one could take away what an old one is for.
fn describe(
    name: &str,
    containers: &[&Labelled],
    notes: &mut Vec<String>,
) -> Result<Described, String> {
    let newest = containers.last().ok_or("there is no container")?;
    let oldest = containers.first().ok_or("there is no container")?;
    for container in containers {
        if ["host", "path"].iter().any(|key| label(container, key) != label(oldest, key)) {
            notes.push(format!(
                "container {}: another {PREFIX}host or {PREFIX}path than {}, of the same service, has: \
                 what that says holds until it is gone",
                container.name, oldest.name
            ));
        }
    }
    let mut groups: Vec<Group> = Vec::new();
    for container in containers {
        let port = label(container, "port").ok_or(format!(
            "{PREFIX}port is missing: the port on which the app in the container listens"
        ))?;
        let port: u16 =
            port.parse().ok().filter(|port| *port > 0).ok_or(format!(
                "{PREFIX}port is {port:?}, which is no port: expected 1 to 65535"
            ))?;
        let ip = container
            .address
            .ok_or(format!("{} has no address: it has joined no network", container.name))?;
        let address = SocketAddr::new(ip, port);
        match groups.iter_mut().find(|group| group.image_id == container.image_id) {
            Some(group) => {
                group.addresses.insert(address);
            }
            None => groups.push(Group {
                image_id: container.image_id.clone(),
                image: container.image.clone(),
                addresses: BTreeSet::from([address]),
            }),
        }
    }
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let list = |text: &str| {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        format!("[{}]", parts.map(quoted).collect::<Vec<_>>().join(", "))
    };
    let addresses: Vec<String> =
        groups[0].addresses.iter().map(|address| quoted(&address.to_string())).collect();
    let mut text = format!("[service.{name}]\nendpoints = [{}]\n", addresses.join(", "));
    for (key, many) in [
        ("host", true),
        ("path", true),
        ("steps", false),
        ("bake", false),
        ("bake_max", false),
        ("on_inconclusive", false),
        ("abort", false),
        ("protocol", false),
    ] {
        if let Some(value) = label(if many { oldest } else { newest }, key) {
            let value = if many { list(value) } else { quoted(value) };
            text.push_str(&format!("{key} = {value}\n"));
        }
    }
    if let Some(path) = label(newest, "health") {
        text.push_str(&format!("probe = {{ path = {} }}\n", quoted(path)));
    }
    let variables = BTreeMap::new();
    let input = Input {
        name: Path::new("labels"),
        text: &text,
        variables: &variables,
        flags: &[],
        read: &|_| Err("labels name no files".to_owned()),
    };
    let parsed = parse(&input).map_err(|problems| {
        let said: Vec<String> =
            problems.findings().into_iter().map(|finding| finding.message).collect();
        said.join("; ")
    })?;
    let service = parsed.config.services.into_iter().next().ok_or("there is no service")?;
    Ok(Described { service, groups, project: oldest.labels.get(PROJECT).cloned() })
}

/// Why a service cannot be beside others: those of the file, and others of labels.
fn clash(one: &Described, configured: &[Service], described: &[Described]) -> Option<String> {
    let beside = described.iter().map(|other| (&other.service, Some(&other.project)));
    for (other, project) in configured.iter().map(|other| (other, None)).chain(beside) {
        let name = &other.name;
        if *name == one.service.name {
            return Some(format!("a service {name} is there already: say another {PREFIX}service"));
        }
        for route in &one.service.routes {
            if other.routes.contains(route) {
                return Some(format!("requests for {route} lead to {name} already"));
            }
            // Whose a host is, whose are all its paths: one of them could be the login.
            let is_same_host = |other: &&Route| other.host == route.host;
            if route.host == HostPattern::Any || !other.routes.iter().any(|o| is_same_host(&o)) {
                continue;
            }
            match project {
                None => {
                    return Some(format!(
                        "the host of {route} is that of {name} in the file, and so are its paths: \
                         write it there"
                    ));
                }
                Some(project) if *project != one.project => {
                    return Some(format!(
                        "the host of {route} is that of {name}, of another project, and so are its paths"
                    ));
                }
                Some(_) => {}
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str, image: &str, last: u8, labels: &[(&str, &str)]) -> Labelled {
        Labelled {
            id: name.to_owned(),
            name: name.to_owned(),
            image: image.to_owned(),
            image_id: format!("sha256:{image}"),
            created: i64::from(last),
            labels: labels
                .iter()
                .map(|(name, value)| (format!("{PREFIX}{name}"), (*value).to_owned()))
                .collect(),
            address: Some([172, 18, 0, last].into()),
        }
    }

    const WEB: &[(&str, &str)] = &[
        ("host", "shop.example.com, www.shop.example.com"),
        ("port", "3000"),
        ("health", "/up"),
        ("steps", "10% 100%"),
        ("bake", "1m"),
        ("abort", "errors > 2%"),
    ];

    #[test]
    fn labels_make_a_service_and_images_its_revisions() {
        let newer: Vec<_> = WEB
            .iter()
            .copied()
            .map(|(k, v)| if k == "bake" { (k, "2m") } else { (k, v) })
            .collect();
        let all = [
            container("a-web-1", "web:1", 2, WEB),
            container("a-web-2", "web:1", 3, WEB),
            container("b-web-1", "web:2", 4, &newer),
        ];
        let (described, notes) = read(&all, &[], &[]);
        assert_eq!(notes, Vec::<String>::new());
        let [shop] = described.as_slice() else { panic!("one service: {described:?}") };
        assert_eq!(shop.service.name.as_str(), "shop-example-com");
        assert_eq!(shop.service.routes.len(), 2);
        assert_eq!(shop.service.plan.steps.to_string(), "10% 100%");
        assert_eq!(shop.service.plan.bake.as_secs(), 120, "the newest one's word");
        let addresses: Vec<Vec<String>> = shop
            .groups
            .iter()
            .map(|group| group.addresses.iter().map(ToString::to_string).collect())
            .collect();
        assert_eq!(
            addresses,
            [vec!["172.18.0.2:3000", "172.18.0.3:3000"], vec!["172.18.0.4:3000"]]
        );
        assert_eq!(shop.service.template.source.to_string(), "172.18.0.2:3000, 172.18.0.3:3000");
    }

    #[test]
    fn what_is_wrong_with_labels_is_said_and_hurts_nobody_else() {
        let mut homeless = container("homeless", "x", 9, &[("host", "h"), ("port", "1")]);
        homeless.address = None;
        let all = [
            container("good", "web:1", 1, &[("host", "good"), ("port", "80"), ("helth", "/")]),
            container("portless", "x", 2, &[("host", "p")]),
            container("many", "x", 3, &[("host", "m"), ("port", "99999")]),
            container("bad", "x", 4, &[("host", "b"), ("port", "1"), ("steps", "5%")]),
            container("named", "x", 5, &[("host", "n"), ("port", "1"), ("service", "No Name")]),
            container("twin", "x", 6, &[("host", "good"), ("port", "1"), ("service", "twin")]),
            homeless,
        ];
        let (described, notes) = read(&all, &[], &[]);
        assert_eq!(described.len(), 1, "{notes:?}");
        let has = |words: &[&str]| {
            let found = notes.iter().any(|note| words.iter().all(|word| note.contains(word)));
            assert!(found, "{words:?} in {notes:#?}");
        };
        has(&["good", "switchback.helth", "did you mean switchback.health?"]);
        has(&["portless", "switchback.port is missing"]);
        has(&["many", "99999"]);
        has(&["bad", "the last step must be 100%"]);
        has(&["named", "No Name"]);
        has(&["twin", "lead to good already"]);
        has(&["homeless", "no network"]);
        assert_eq!(notes.len(), 7);
        // The file comes first.
        let configured: Vec<Service> = described.into_iter().map(|one| one.service).collect();
        let (none, notes) = read(&all[..1], &configured, &[]);
        assert!(none.is_empty() && notes.iter().any(|note| note.contains("is there already")));
    }

    /// Whoever may start a container may deploy by it, and not take what others have.
    #[test]
    fn a_host_stays_with_whose_it_is() {
        let of = |mut container: Labelled, project: &str| {
            container.labels.insert(PROJECT.to_owned(), project.to_owned());
            container
        };
        let labels = |host: &'static str, path: &'static str, service: &'static str| {
            let mut labels = vec![("host", host), ("port", "80"), ("service", service)];
            if !path.is_empty() {
                labels.push(("path", path));
            }
            labels
        };
        let shop =
            of(container("shop-1", "shop:1", 1, &labels("shop.example", "", "shop")), "shop");
        let names = |described: &[Described]| -> Vec<String> {
            described.iter().map(|one| one.service.name.to_string()).collect()
        };
        // By a name that comes first in the alphabet, by a path of the host, by the same host twice.
        for (path, service) in [("", "aaa"), ("/login", "aaa"), ("/login", "zzz")] {
            let evil = container("evil", "evil:1", 2, &labels("shop.example", path, service));
            let all = [shop.clone(), of(evil, "evil")];
            let (described, notes) = read(&all, &[], &[]);
            assert_eq!(names(&described), ["shop"], "{path} {service}");
            assert!(notes.iter().any(|note| note.contains("labels of evil: ")), "{notes:?}");
            // Also when the shop's container was made anew, and is the younger one.
            let mut newer = shop.clone();
            newer.created = 9;
            let (again, _) = read(&[all[1].clone(), newer], &[], &described);
            assert_eq!(names(&again), ["shop"], "{path} {service}");
            // Nor is the file's host a label's.
            let file = vec![described[0].service.clone()];
            let (none, notes) = read(&all[1..], &file, &[]);
            assert_eq!(names(&none), Vec::<String>::new(), "{notes:?}");
        }
        // Within a project a host has many services.
        let api = of(container("api", "api:1", 2, &labels("shop.example", "/api", "api")), "shop");
        let (described, notes) = read(&[shop.clone(), api], &[], &[]);
        assert_eq!((names(&described), notes), (vec!["shop".into(), "api".into()], vec![]));
        // A revision says how it is released, and not what it is for.
        let mut more = labels("evil.example", "", "shop");
        more.push(("bake", "2m"));
        let (described, notes) = read(&[shop, container("two", "shop:2", 3, &more)], &[], &[]);
        let [one] = described.as_slice() else { panic!("{notes:?}") };
        assert_eq!((one.groups.len(), one.service.plan.bake.as_secs()), (2, 120));
        assert_eq!(one.service.routes[0].to_string(), "shop.example");
        assert!(notes[0].contains("until it is gone"), "{notes:?}");
    }
}
