//! Which answer comes first. nginx asks its locations by rank; here the first route that fits decides.

use super::answers::{Answer, Kind, Taker};
use super::convert::Names;
use super::guard::{Lines, is_guarded};
use super::location::Place;
use super::sheet::{Sheet, listed, quoted};

/// Gives each answer to a service.
pub fn place_all(names: &mut Names, sheet: &mut Sheet) {
    let mut answers = std::mem::take(&mut names.answers);
    // The first route that fits decides: other hosts come first, and then, as nginx has it, exact paths,
    // prefixes that no expression is asked about, expressions, and prefixes, longer ones first.
    let firsts: Vec<Place> =
        answers.iter().filter(|one| one.place.first).map(|one| one.place.clone()).collect();
    answers.sort_by_key(|answer| {
        let place = &answer.place;
        let is_prefix = place.globs.is_empty();
        let is_first =
            |first: &Place| first.hosts == place.hosts && leads(&first.path, &place.path);
        let rank = match (place.exact, is_prefix) {
            (true, _) => 0,
            (_, true) if firsts.iter().any(is_first) => 1,
            (_, false) => 2,
            (_, true) => 3,
        };
        let is_own = names.takers.iter().any(|taker| taker.hosts == place.hosts);
        (answer.kind == Kind::Upgrade, is_own, rank, std::cmp::Reverse(place.path.len()))
    });
    let hosts_of = |wanted: &dyn Fn(&&Answer) -> bool| -> Vec<Vec<String>> {
        answers.iter().filter(|a| wanted(a)).map(|answer| answer.place.hosts.clone()).collect()
    };
    let shown = hosts_of(&|answer| answer.kind == Kind::Plain);
    let whole = hosts_of(&|answer| {
        let Place { path, exact, globs, .. } = &answer.place;
        let is_all = path.trim_end_matches('/').is_empty() && !exact && globs.is_empty();
        is_all && !matches!(answer.kind, Kind::Closed | Kind::Pass { .. })
    });
    let mut alone: Vec<String> = Vec::new();
    // Services that come to paths of which nobody said what is there.
    let mut widened: Vec<String> = Vec::new();
    let mut routes = Routes::default();
    for answer in answers {
        let place = &answer.place;
        if let Kind::Pass { header, whole } = &answer.kind {
            routes.pass(header, whole, &answer, names);
            continue;
        }
        let is_met = |host: &String| names.takers.iter().any(|taker| taker.hosts.contains(host));
        let is_known = place.hosts.iter().all(|host| host == "*" || is_met(host));
        if answer.kind == Kind::Upgrade
            && is_known
            && !names.takers.is_empty()
            && sheet.has_certificate()
        {
            // That is done anyway.
            continue;
        }
        let same = |taker: &&Taker| taker.hosts == place.hosts;
        // Another service may answer for these hosts only if nothing of theirs is left to its app.
        let is_whole = |taker: &&Taker| {
            taker.path.is_empty()
                && place.hosts != ["*"]
                && whole.contains(&place.hosts)
                && !alone.contains(&taker.header)
        };
        let takers = &names.takers;
        let longest = takers.iter().filter(same).filter(|taker| leads(&taker.path, &place.path));
        let found = longest
            .max_by_key(|taker| taker.path.len())
            .or_else(|| takers.iter().find(same))
            .or_else(|| takers.iter().find(is_whole));
        let is_here = names.takers.iter().any(|taker| taker.hosts == place.hosts);
        if answer.kind == Kind::Closed && !is_here && !shown.contains(&place.hosts) {
            // Nothing of these hosts is shown anyway.
            continue;
        }
        let asks_app =
            answer.lines.iter().any(|(key, value)| key == "missing" && value == "\"app\"");
        if found.is_none() && asks_app {
            sheet.leave(answer.line, &answer.otherwise);
            continue;
        }
        let taker = match found {
            Some(taker) => taker,
            None => {
                // Nothing need run for it.
                let host = place.hosts.first().map_or("web", String::as_str).to_owned();
                let key = format!("answers {}", place.hosts.join(" "));
                let header = format!("service.{}", names.service(&host, &key));
                for host in &place.hosts {
                    sheet.gather(&header, "host", host, answer.line);
                }
                alone.push(header.clone());
                let taker = Taker { header, hosts: place.hosts.clone(), path: String::new() };
                names.takers.push(taker);
                &names.takers[names.takers.len() - 1]
            }
        };
        let header = taker.header.clone();
        if place.certificate {
            sheet.set(&header, "client_certificate", "\"required\"", answer.line);
        }
        let mut lines = Vec::new();
        if taker.hosts != place.hosts {
            for host in &place.hosts {
                sheet.gather(&header, "host", host, answer.line);
            }
            lines.push(("host".to_owned(), listed(&place.hosts)));
        } else if !leads(&taker.path, &place.path) && answer.kind != Kind::Closed {
            let path = if place.path.is_empty() { "/" } else { &place.path };
            if !place.globs.is_empty() {
                widened.push(header.clone());
            }
            sheet.gather(&header, "path", path, 0);
        }
        let mut matcher = matcher(place, answer.is_guarded());
        if matcher.is_empty() && lines.is_empty() {
            matcher.push(("path".to_owned(), quoted("/")));
        }
        lines.extend(matcher);
        let has_own = |key: &str| answer.lines.iter().any(|(name, _)| name == key);
        for inherited in ["strip_prefix", "add_prefix"] {
            if has_own("files") && !has_own(inherited) && sheet.has(&header, inherited) {
                lines.push((inherited.to_owned(), quoted("/")));
            }
        }
        let said = answer.lines.iter().cloned();
        lines.extend(said.filter(|(key, _)| key != "compress" || !sheet.has(&header, key)));
        // What nobody may see is at no service of these hosts.
        let mut headers = vec![header];
        if answer.kind == Kind::Closed && !place.globs.is_empty() {
            let others = names.takers.iter().filter(|taker| taker.hosts == place.hosts);
            for other in others {
                if !headers.contains(&other.header) {
                    headers.push(other.header.clone());
                }
            }
        }
        for header in headers {
            if place.keeps_well_known && !alone.contains(&header) {
                let kept = ("path".to_owned(), quoted("/.well-known"));
                routes.push(&header, vec![kept], false);
            }
            routes.push(&header, lines.clone(), false);
        }
    }
    for header in &alone {
        if !routes.answer_all(header) {
            routes.close(header);
        }
    }
    for header in &widened {
        let is_all = names.takers.iter().any(|one| one.header == *header && one.path.is_empty());
        if !is_all && !routes.answer_all(header) {
            routes.close(header);
        }
    }
    routes.write(sheet);
}

/// Routes of services, in order.
#[derive(Debug, Default)]
struct Routes {
    /// The table of the service, the lines, and whether they say no more than that its app answers.
    all: Vec<(String, Lines, bool)>,
}

impl Routes {
    fn push(&mut self, header: &str, lines: Lines, is_bare: bool) {
        let route = (header.to_owned(), lines, is_bare);
        if !self.all.contains(&route) {
            self.all.push(route);
        }
    }

    /// What goes to an app.
    fn pass(&mut self, header: &str, whole: &[(String, String)], answer: &Answer, names: &Names) {
        let place = &answer.place;
        let mut lines = matcher(place, answer.is_guarded());
        if lines.is_empty() {
            lines.push(("path".to_owned(), quoted("/")));
        }
        lines.extend(answer.lines.iter().cloned());
        self.push(header, lines, answer.lines.is_empty());
        let parent = names.takers.iter().filter(|taker| taker.hosts == place.hosts);
        let parent = parent
            .filter(|taker| taker.header != header && leads(&taker.path, &place.path))
            .max_by_key(|taker| taker.path.len());
        let name = header.split_once('.').map_or(header, |(_, name)| name);
        // To nginx `/admin` is the beginning of `/administrator` too.
        if let Some(parent) = parent.filter(|_| is_guarded(whole) && is_open_ended(place)) {
            let mut lines = matcher(place, true);
            lines.extend(whole.iter().cloned());
            lines.push(("service".to_owned(), quoted(name)));
            self.push(&parent.header, lines, false);
        }
    }

    /// Nobody said what else is there.
    fn close(&mut self, header: &str) {
        let rest = [("path", "\"/\""), ("status", "404")];
        let rest = rest.map(|(key, value)| (key.to_owned(), value.to_owned()));
        self.push(header, rest.to_vec(), false);
    }

    /// Whether a service has a route for all paths, of whatever host.
    fn answer_all(&self, header: &str) -> bool {
        let all = ("path".to_owned(), "\"/\"".to_owned());
        self.all.iter().any(|(of, lines, _)| {
            of == header && lines.contains(&all) && !lines.iter().any(|(key, _)| key == "host")
        })
    }

    /// All of them, but for those that change nothing: the app answers anyway what no route takes.
    fn write(self, sheet: &mut Sheet) {
        for (at, (header, lines, is_bare)) in self.all.iter().enumerate() {
            let matters = |(of, _, is_bare): &(String, Lines, bool)| of == header && !is_bare;
            if !is_bare || self.all[at + 1..].iter().any(matters) {
                sheet.route(header, lines.clone());
            }
        }
    }
}

/// Whether a path is meant with all that begins with it, as nginx means it.
fn is_open_ended(place: &Place) -> bool {
    !place.exact && place.globs.is_empty() && !place.path.is_empty() && !place.path.ends_with('/')
}

/// What a route is for; nothing is everything. What is guarded is so as far as nginx means it.
fn matcher(place: &Place, is_guarded: bool) -> Vec<(String, String)> {
    let path = place.path.trim_end_matches('/');
    let (key, value) = match place {
        Place { exact: true, path, .. } => ("exact", quoted(path)),
        Place { globs, .. } if !globs.is_empty() => ("glob", listed(globs)),
        _ if path.is_empty() => return Vec::new(),
        place if is_guarded && is_open_ended(place) => ("glob", quoted(&format!("{path}*"))),
        _ => ("path", quoted(path)),
    };
    vec![(key.to_owned(), value)]
}

/// Whether what leads to the first path leads to the second too.
fn leads(prefix: &str, path: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
