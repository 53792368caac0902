//! What no table can know alone: routes that collide, addresses that are taken twice.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::Config;
use super::problem::{Place, Problem};
use super::reader::Section;
use super::service::Read;
use crate::model::id::ServiceName;
use crate::routing::table::Route;

/// Checks the whole.
pub(super) fn check(config: &Config, top: &Section<'_>, services: &[Read]) {
    routes(top, services);
    leads(top, services);
    addresses(config, top);
    if services.is_empty() && top.lacks("service") {
        let problem =
            Problem::warning(None, "no service is configured: every request will be answered 404");
        top.report.add(
            problem.help("add a table such as [service.web]; `switchback init` writes an example"),
        );
    }
}

fn leads(top: &Section<'_>, services: &[Read]) {
    let names: Vec<&str> = services.iter().map(|read| read.service.name.as_str()).collect();
    for (name, place) in services.iter().flat_map(|read| &read.leads) {
        if !names.contains(&name.as_str()) {
            top.report.add(super::policy::unknown_service(name, place, &names));
        }
    }
}

fn routes(top: &Section<'_>, services: &[Read]) {
    let mut seen: HashMap<&Route, (&ServiceName, &Place)> = HashMap::new();
    for read in services {
        let name = &read.service.name;
        for (route, place) in read.service.routes.iter().zip(&read.route_places) {
            let Some((owner, there)) = seen.get(route) else {
                seen.insert(route, (name, place));
                continue;
            };
            let what = route.to_string();
            let problem = if *owner == name {
                Problem::error(place.clone(), format!("{what} stands twice in [service.{name}]"))
                    .label("leave one of them out")
            } else {
                Problem::error(
                    place.clone(),
                    format!("requests for {what} lead to two services, {owner} and {name}"),
                )
                .label("taken already")
                .help("give one of them another `host`, or a `path` of its own")
            };
            top.report.add(problem.related((*there).clone(), "first written here"));
        }
    }
}

fn addresses(config: &Config, top: &Section<'_>) {
    let listen = top.inner("listen");
    let admin = top.inner("admin");
    let mut taken: Vec<(&str, SocketAddr, Option<Place>)> = Vec::new();
    let all = [
        ("listen.http", &config.listen.http, listen.place_of("http")),
        ("listen.https", &config.listen.https, listen.place_of("https")),
        ("admin.listen", &config.admin.listen, admin.place_of("listen")),
    ];
    for (name, addresses, place) in all {
        for address in addresses {
            let clash = taken.iter().find(|(_, other, _)| collide(*address, *other));
            if let Some((other_name, other, there)) = clash {
                let title = if address == other && *other_name == name {
                    format!("{address} stands twice in `{name}`")
                } else if address == other {
                    format!("`{other_name}` and `{name}` both listen on {address}")
                } else {
                    format!("{address} of `{name}` collides with {other} of `{other_name}`")
                };
                let at = place.clone().or_else(|| there.clone());
                let mut problem = Problem::error(at.unwrap_or_else(|| top.place.clone()), title)
                    .label("expected each address and port once");
                if let (Some(here), Some(there)) = (&place, there)
                    && here != there
                {
                    problem = problem.related(there.clone(), "taken here");
                }
                top.report.add(problem);
            }
            taken.push((name, *address, place.clone()));
        }
    }
}

/// Whether two addresses cannot both be listened on. Port 0 is any free port; the unspecified
/// address takes a port on all addresses of its family.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let same_family = a.is_ipv4() == b.is_ipv4();
    let overlap = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && same_family && overlap
}
