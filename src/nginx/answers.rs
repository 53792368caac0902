//! Answers that need no instance: redirects, fixed answers, files. With nginx they stand in servers and
//! locations of their own; here they are routes of a service that the same visitors come to.

use super::convert::Names;
use super::guard::Level;
use super::location::Place;
use super::sheet::{Sheet, listed, quoted};
use super::syntax::Directive;

/// An answer that waits for its service: those may stand below it in the file.
#[derive(Debug)]
pub struct Answer {
    place: Place,
    lines: Vec<(String, String)>,
    line: usize,
    /// What is said when there is no service for it.
    otherwise: String,
    kind: Kind,
}

/// What kind of answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// What the file says.
    Plain,
    /// Nothing is shown. Needed beside something that could be shown.
    Closed,
    /// It only leads to https.
    Upgrade,
}

/// Where a `return` that only leads to https leads.
const UPGRADES: [&str; 3] = [
    "https://$host$request_uri",
    "https://$server_name$request_uri",
    "https://$http_host$request_uri",
];

/// A service that takes requests, with all that leads to it.
#[derive(Debug)]
pub struct Taker {
    /// `service.NAME`
    pub header: String,
    /// Its hosts.
    pub hosts: Vec<String>,
    /// Its path prefix; empty for all.
    pub path: String,
}

/// nginx's variables in our words; `None` when one has none.
fn template(text: &str, place: &Place) -> Option<String> {
    let host = place.hosts.first().map_or("", String::as_str);
    let mut said = text.replace("$uri$is_args$args", "{uri}").replace("${", "$");
    said = said.replace('}', "");
    for (theirs, ours) in [
        ("$request_uri", "{uri}"),
        ("$http_host", "{host}"),
        ("$host", "{host}"),
        ("$scheme", "{scheme}"),
        ("$server_name", host),
        ("$remote_addr", "{client}"),
        ("$request_id", "{request_id}"),
        ("$uri", "{path}"),
        ("$args", "{query}"),
    ] {
        said = said.replace(theirs, ours);
    }
    (!said.contains('$')).then_some(said)
}

/// Whether this is where a `return` leads that only leads to https.
pub fn is_upgrade(said: &str) -> bool {
    UPGRADES.contains(&said)
}

/// A `return`.
pub fn returned(
    place: &Place,
    answer: &Directive,
    level: Level<'_>,
    names: &mut Names,
    sheet: &mut Sheet,
) {
    let (status, said) = match answer.words.as_slice() {
        [one] if one.contains("://") => ("302", one.as_str()),
        [status] => (status.as_str(), ""),
        [status, said, ..] => (status.as_str(), said.as_str()),
        [] => return,
    };
    let hosts = place.hosts.join(", ");
    let otherwise = format!("`return {}` for {hosts}{}", answer.words.join(" "), place.path);
    let is_redirect = matches!(status, "301" | "302" | "303" | "307" | "308");
    let kind = if is_redirect && is_upgrade(said) { Kind::Upgrade } else { Kind::Plain };
    if status == "444" && place.hosts == ["*"] {
        // Whoever asks for a host that is not known gets a 404.
        return;
    }
    let mut lines = Vec::new();
    match template(said, place) {
        Some(to) if is_redirect && !to.is_empty() => {
            let to = if to.contains("://") || to.starts_with(['/', '{']) {
                to
            } else {
                format!("/{to}")
            };
            lines.push(("redirect".to_owned(), quoted(&to)));
            lines.push(("status".to_owned(), status.to_owned()));
        }
        Some(text) if !is_redirect && status != "444" => {
            if !text.is_empty() {
                // What is no place of a template stands as it is.
                lines.push(("respond".to_owned(), quoted(&said.replace("\\n", "\n"))));
                let add = level.own.iter().filter(|one| one.name == "add_header");
                let mut kinds = level.all.iter().filter(|one| one.name == "default_type");
                let of = add.filter(|one| one.word(0).eq_ignore_ascii_case("content-type"));
                let kind = of.map(|one| one.word(1)).next_back();
                if let Some(kind) = kind.or_else(|| kinds.next_back().map(|one| one.word(0))) {
                    lines.push(("content_type".to_owned(), quoted(kind)));
                }
            }
            if status != "200" || text.is_empty() {
                lines.push(("status".to_owned(), status.to_owned()));
            }
        }
        _ => return sheet.leave(answer.line, &otherwise),
    }
    // Who may come, and how often, is looked at after this.
    lines.extend(level.fields(Vec::new()));
    let line = answer.line;
    names.answers.push(Answer { place: place.clone(), lines, line, otherwise, kind });
}

/// Files, where nothing is passed on. What is tried is not inherited.
pub fn files(place: &Place, level: Level<'_>, names: &mut Names, sheet: &mut Sheet) {
    let find = |name: &str| level.all.iter().rev().find(|one| one.name == name);
    let (root, alias) = (find("root"), find("alias"));
    let Some(directory) = alias.or(root) else { return };
    let line = directory.line;
    let mut lines = vec![("files".to_owned(), quoted(directory.word(0).trim_end_matches('/')))];
    if directory.word(0).contains('$') {
        return sheet.leave(line, &format!("`{} {}`", directory.name, directory.word(0)));
    }
    if alias.is_some() && place.path.len() > 1 {
        lines.push(("strip_prefix".to_owned(), quoted(place.path.trim_end_matches('/'))));
    }
    if let Some(index) = find("index") {
        let shown = index.words.iter().find(|name| !is_program(name));
        match shown.map(String::as_str) {
            Some("index.html") => {}
            Some(name) => lines.push(("index".to_owned(), quoted(name))),
            None => sheet.leave(index.line, &format!("`index {}`", index.words.join(" "))),
        }
    }
    if let Some(tried) = level.own.iter().find(|one| one.name == "try_files") {
        let last = tried.words.last().map_or("", String::as_str);
        let last = last.split('?').next().unwrap_or("").trim_end_matches("$is_args$args");
        match last {
            "=404" => {}
            last if last.starts_with('@') => {
                lines.push(("missing".to_owned(), quoted("app")));
            }
            last if last.starts_with('/') && !last.contains('$') && !is_program(last) => {
                lines.push(("missing".to_owned(), quoted(last)));
            }
            _ => sheet.leave(tried.line, &format!("`try_files {}`", tried.words.join(" "))),
        }
    }
    if let Some(listing) = find("autoindex").filter(|one| one.word(0) == "on") {
        sheet.leave(listing.line, "`autoindex`: directories are not listed");
    }
    lines.extend(level.access(sheet));
    lines.extend(level.users());
    lines.extend(level.limits(names, sheet));
    let age = find("expires").and_then(|one| seconds(one.word(0)));
    let age = age.map(|age| ("Cache-Control".to_owned(), format!("max-age={age}")));
    lines.extend(level.fields(age.into_iter().collect()));
    if find("gzip").is_some_and(|one| one.word(0) == "on") {
        lines.push(("compress".to_owned(), "true".to_owned()));
    }
    let otherwise =
        format!("`{} {}`: there is no service beside it", directory.name, directory.word(0));
    let place = place.clone();
    names.answers.push(Answer { place, lines, line, otherwise, kind: Kind::Plain });
}

/// Whether a file is a program of a language whose server is elsewhere: shown, it would tell its source.
fn is_program(name: &str) -> bool {
    const ENDINGS: [&str; 7] = [".php", ".phtml", ".py", ".rb", ".pl", ".cgi", ".fcgi"];
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// What must not be shown: what another kind of server would answer, or nobody.
pub fn closed(place: &Place, status: u16, line: usize, names: &mut Names) {
    let lines = vec![("status".to_owned(), status.to_string())];
    let (place, otherwise) = (place.clone(), String::new());
    names.answers.push(Answer { place, lines, line, otherwise, kind: Kind::Closed });
}

/// A redirect that only leads to https.
pub fn upgraded(place: &Place, line: usize, names: &mut Names) {
    let lines = vec![("redirect".to_owned(), quoted("https://{host}{uri}"))];
    let (place, otherwise) = (place.clone(), String::new());
    names.answers.push(Answer { place, lines, line, otherwise, kind: Kind::Upgrade });
}

/// Seconds of a time as nginx writes it.
fn seconds(text: &str) -> Option<u64> {
    if text == "max" {
        return Some(315_360_000);
    }
    let unit = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..unit].parse().ok()?;
    let factor = match &text[unit..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        "M" => 2_592_000,
        "y" => 31_536_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// The stars that a regular expression of file endings means: `\.(css|js)$`.
pub fn endings(expression: &str) -> Option<Vec<String>> {
    let inner = expression.trim_start_matches("^.+").trim_start_matches(".*");
    let inner = inner.strip_prefix("\\.")?.strip_suffix('$')?;
    let inner = inner.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(inner);
    let inner = inner.strip_prefix("?:").unwrap_or(inner);
    let is_plain = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let all: Vec<&str> = inner.split('|').collect();
    all.iter().all(|one| is_plain(one)).then(|| all.iter().map(|one| format!("*.{one}")).collect())
}

/// Gives each answer to a service.
pub fn place_all(names: &mut Names, sheet: &mut Sheet) {
    let mut answers = std::mem::take(&mut names.answers);
    // Whether something leads to https anyway is known when the rest is done.
    // The first route that fits decides: other hosts come first, and then, as nginx has it, exact paths
    // and endings before prefixes, and longer ones before shorter ones.
    answers.sort_by_key(|answer| {
        let place = &answer.place;
        let rank = if place.exact { 0 } else { 1 + u32::from(place.globs.is_empty()) };
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
        is_all && answer.kind != Kind::Closed
    });
    let mut alone: Vec<String> = Vec::new();
    for answer in answers {
        let place = &answer.place;
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
        let mut lines = Vec::new();
        if taker.hosts != place.hosts {
            for host in &place.hosts {
                sheet.gather(&header, "host", host, answer.line);
            }
            lines.push(("host".to_owned(), listed(&place.hosts)));
        } else if !leads(&taker.path, &place.path) {
            // Its own requests first, if they lie below.
            if leads(&place.path, &taker.path) {
                sheet.route(&header, vec![("path".to_owned(), quoted(&taker.path))]);
            }
            sheet.gather(&header, "path", if place.path.is_empty() { "/" } else { &place.path }, 0);
        }
        let path = place.path.trim_end_matches('/');
        if place.exact {
            lines.push(("exact".to_owned(), quoted(&place.path)));
        } else if !place.globs.is_empty() {
            lines.push(("glob".to_owned(), listed(&place.globs)));
        } else if !path.is_empty() || lines.is_empty() {
            lines.push(("path".to_owned(), quoted(if path.is_empty() { "/" } else { path })));
        }
        let has_own = |key: &str| answer.lines.iter().any(|(name, _)| name == key);
        for inherited in ["strip_prefix", "add_prefix"] {
            if has_own("files") && !has_own(inherited) && sheet.has(&header, inherited) {
                lines.push((inherited.to_owned(), quoted("/")));
            }
        }
        let said = answer.lines.into_iter();
        lines.extend(said.filter(|(key, _)| key != "compress" || !sheet.has(&header, key)));
        if place.keeps_well_known && !alone.contains(&header) {
            let kept = ("path".to_owned(), quoted("/.well-known"));
            sheet.route(&header, vec![kept]);
        }
        sheet.route(&header, lines);
    }
    for header in alone {
        if !sheet.answers_all(&header) {
            let rest = [("path", "\"/\""), ("status", "404")];
            let rest = rest.map(|(key, value)| (key.to_owned(), value.to_owned()));
            sheet.route(&header, rest.to_vec());
        }
    }
}

/// Whether what leads to the first path leads to the second too.
fn leads(prefix: &str, path: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_stars() {
        for (expression, expected) in [
            (r"\.(css|js|woff2)$", Some(vec!["*.css", "*.js", "*.woff2"])),
            (r"\.(?:png|jpg)$", Some(vec!["*.png", "*.jpg"])),
            (r"\.php$", Some(vec!["*.php"])),
            (r"\.php", None),
            (r"\.(a|b.c)$", None),
            (r"^/api/(\d+)$", None),
        ] {
            let found = endings(expression);
            let found =
                found.as_ref().map(|all| all.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(found, expected, "{expression}");
        }
        for (text, expected) in
            [("30d", Some(2_592_000)), ("60", Some(60)), ("max", Some(315_360_000)), ("off", None)]
        {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
