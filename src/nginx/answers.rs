//! Answers that need no instance: redirects, fixed answers, files. With nginx they stand in servers and
//! locations of their own; here they are routes of a service that the same visitors come to.

use super::convert::Names;
use super::guard::{self, Level};
use super::location::Place;
use super::sheet::{Sheet, quoted};
use super::syntax::Directive;

/// An answer that waits for its service: those may stand below it in the file.
#[derive(Debug)]
pub struct Answer {
    /// To which requests.
    pub place: Place,
    /// The lines of its route.
    pub lines: Vec<(String, String)>,
    /// Where it stands in the file.
    pub line: usize,
    /// What is said when there is no service for it.
    pub otherwise: String,
    /// What kind of answer.
    pub kind: Kind,
}

impl Answer {
    /// Whether not everybody may have it.
    pub fn is_guarded(&self) -> bool {
        // With an alias what is behind the prefix is another file's name.
        let is_moved = self.lines.iter().any(|(key, _)| key == "files")
            && self.lines.iter().any(|(key, _)| key == "strip_prefix");
        self.kind == Kind::Closed || guard::is_guarded(&self.lines) && !is_moved
    }
}

/// What kind of answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// What the file says.
    Plain,
    /// An app's.
    Pass {
        /// The table of its service.
        header: String,
        /// All that is said of such requests, also what holds for the whole service.
        whole: Vec<(String, String)>,
    },
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
pub fn template(text: &str, place: &Place) -> Option<String> {
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
        ("$remote_user", "{user}"),
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
                let mut of = add.filter(|one| one.word(0).eq_ignore_ascii_case("content-type"));
                let kind = of.next_back().map(|one| one.word(1));
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
    lines.extend(level.guards(place, names, sheet));
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
pub fn seconds(text: &str) -> Option<u64> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds() {
        for (text, expected) in
            [("30d", Some(2_592_000)), ("60", Some(60)), ("max", Some(315_360_000)), ("off", None)]
        {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
