//! What no table can know alone: routes that collide, addresses that are taken twice.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::problem::{Place, Problem};
use super::reader::Section;
use super::service::Read;
use super::tls::Challenge;
use super::{Announced, Config};
use crate::edge::rules::RouteSpec;
use crate::model::id::ServiceName;
use crate::routing::table::{HostPattern, Route};

/// Checks the whole.
pub(super) fn check(config: &Config, top: &Section<'_>, services: &[Read]) {
    routes(top, services);
    leads(top, services);
    addresses(config, top, services);
    certificates(config, top, services);
    super::group::check(top, services);
    for problem in super::affinity::check(services) {
        top.report.add(problem);
    }
    if services.is_empty() && top.lacks("service") && top.lacks("tcp") && !config.runtime.labels {
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

/// What certificates need beyond their own tables.
fn certificates(config: &Config, top: &Section<'_>, services: &[Read]) {
    let asks = config.tls.as_ref().is_some_and(|tls| tls.client.is_some());
    for read in services.iter().filter(|_| !asks) {
        let by_route = |route: &RouteSpec| route.rules.access.certificate;
        if read.service.settings.client_certificate
            || read.service.policy.routes.iter().any(by_route)
        {
            let title = format!(
                "[service.{}] requires client certificates, and nobody is asked for one",
                read.service.name
            );
            let place = read.route_places.first().unwrap_or(&top.place).clone();
            let help = "add client_auth = \"optional\" and client_ca below [tls]";
            top.report.add(Problem::error(place, title).help(help));
        }
    }
    let Some(acme) = &config.acme else { return };
    let section = top.inner("acme");
    let missing = match acme.challenge {
        Challenge::Http if config.listen.http.is_empty() => Some("http"),
        Challenge::TlsAlpn if config.listen.https.is_empty() => Some("https"),
        _ => None,
    };
    if let (Some(listener), Some(place)) = (missing, section.place_of("challenge")) {
        let title = format!("this challenge is answered on `listen.{listener}`, which is off");
        let expected = "open it, or choose another challenge";
        section.wrong("challenge", &place, title, expected);
    }
    let is_named = |route: &Route| route.host != HostPattern::Any;
    let mut routes = services.iter().flat_map(|read| &read.service.routes);
    if acme.hosts.is_empty() && acme.ask.is_none() && !routes.any(is_named) {
        let title = "there is no name to have a certificate for";
        let problem = Problem::warning(Some(section.place.clone()), title);
        top.report.add(problem.help("name them in the `host` of a service, or below [acme]"));
    }
    let is_wild = |route: &Route| matches!(route.host, HostPattern::Below(_));
    for read in services.iter().filter(|_| acme.dns_hook.is_empty()) {
        if let Some(at) = read.service.routes.iter().position(is_wild) {
            let place = read.route_places.get(at).unwrap_or(&top.place).clone();
            let title = "a certificate for all names below one takes a `dns_hook` in [acme]";
            let problem = Problem::warning(Some(place), title);
            top.report.add(problem.help("without it, these names are served by HTTPS only as far as [tls] has a certificate, or `ask` allows one"));
        }
    }
}

/// Where connections begin with a PROXY protocol header must be listened on.
fn announced(config: &Config, listen: &Section<'_>, services: &[Read]) {
    let Announced::On(addresses) = &config.listen.proxy_protocol else { return };
    let own = config.listen.http.iter().chain(&config.listen.https);
    let all: Vec<&SocketAddr> =
        own.chain(services.iter().flat_map(|read| &read.service.listen)).collect();
    let strange = addresses.iter().find(|address| !all.contains(address));
    if let (Some(address), Some(place)) = (strange, listen.place_of("proxy_protocol")) {
        let title = format!("{address} of `proxy_protocol` is not listened on");
        let expected = "expected addresses as they stand in `http`, `https` or [tcp], or \"all\"";
        listen.wrong("proxy_protocol", &place, title, expected);
    }
}

fn addresses(config: &Config, top: &Section<'_>, services: &[Read]) {
    let listen = top.inner("listen");
    let admin = top.inner("admin");
    let mut taken: Vec<(&str, SocketAddr, Option<Place>)> = Vec::new();
    let all = [
        ("listen.http", &config.listen.http, listen.place_of("http")),
        ("listen.https", &config.listen.https, listen.place_of("https")),
        ("admin.listen", &config.admin.listen, admin.place_of("listen")),
    ];
    let tcp: Vec<(String, &Vec<SocketAddr>, Option<Place>)> = services
        .iter()
        .filter(|read| !read.service.listen.is_empty())
        .map(|read| {
            let name = format!("tcp.{}.listen", read.service.name);
            (name, &read.service.listen, Some(read.place.clone()))
        })
        .collect();
    let all = all
        .into_iter()
        .chain(tcp.iter().map(|(name, list, at)| (name.as_str(), *list, at.clone())));
    announced(config, &listen, services);
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
