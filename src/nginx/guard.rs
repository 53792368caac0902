//! Who may come to a location, how often, and what its answers carry besides. nginx inherits these by
//! kind: a level that says anything of one says all of it.
//!
//! What guards something is never lost in silence: where it cannot be said here, it is named, or closed.

use super::convert::{Names, named};
use super::location::Place;
use super::sheet::{Sheet, listed, quoted};
use super::syntax::Directive;

/// What holds at a place: what stands there, and what holds there in all, outermost first.
#[derive(Debug, Clone, Copy)]
pub struct Level<'a> {
    /// What stands there.
    pub own: &'a [Directive],
    /// With what is inherited.
    pub all: &'a [Directive],
}

/// Lines of a table: keys with TOML.
pub type Lines = Vec<(String, String)>;

impl<'a> Level<'a> {
    /// The directives of these names that hold.
    pub fn of(&self, names: &[&str]) -> Vec<&'a Directive> {
        let find = |list: &'a [Directive]| -> Vec<&'a Directive> {
            list.iter().filter(|one| names.contains(&one.name.as_str())).collect()
        };
        let own = find(self.own);
        if own.is_empty() { find(self.all) } else { own }
    }

    /// Who may come, how often, by which methods, and who is asked.
    pub fn guards(&self, place: &Place, names: &Names, sheet: &mut Sheet) -> Lines {
        let mut lines = self.access(sheet);
        lines.extend(self.users());
        lines.extend(self.limits(names, sheet));
        let mut methods: Option<Vec<String>> = None;
        for more in self.all.iter().filter_map(methods_of) {
            // Both hold.
            methods = Some(match methods {
                None => more,
                Some(known) => known.into_iter().filter(|one| more.contains(one)).collect(),
            });
        }
        match methods {
            None => {}
            Some(none) if none.is_empty() => {
                lines.retain(|(key, _)| key != "deny");
                lines.push(("deny".to_owned(), listed(&["0.0.0.0/0", "::/0"])));
            }
            Some(methods) => lines.push(("methods".to_owned(), listed(&methods))),
        }
        let asked = self.of(&["auth_request"]);
        if let Some(url) = asked.last().and_then(|one| place.askers.get(one.word(0))) {
            lines.push(("forward_auth".to_owned(), quoted(url)));
        }
        lines
    }

    /// Whether a directive is one of those.
    pub fn is_guard(&self, one: &Directive, place: &Place) -> bool {
        match one.name.as_str() {
            "allow"
            | "deny"
            | "auth_basic"
            | "auth_basic_user_file"
            | "limit_req"
            | "limit_conn" => true,
            "limit_except" | "if" => methods_of(one).is_some(),
            "auth_request" => one.word(0) == "off" || place.askers.contains_key(one.word(0)),
            _ => false,
        }
    }

    /// Who may come.
    fn access(&self, sheet: &mut Sheet) -> Lines {
        let (mut allow, mut deny, mut is_closed) = (Vec::new(), Vec::new(), false);
        let all = self.of(&["allow", "deny"]);
        for one in &all {
            match (one.name.as_str(), one.word(0)) {
                ("allow", "all") => break,
                ("deny", "all") => {
                    is_closed = true;
                    break;
                }
                (_, "unix:") => {}
                ("allow", network) => allow.push(network),
                (_, network) => deny.push(network),
            }
        }
        if is_closed && allow.is_empty() {
            deny = vec!["0.0.0.0/0", "::/0"];
        } else if !is_closed && !allow.is_empty() && !deny.is_empty() {
            let line = all.first().map_or(0, |one| one.line);
            sheet.leave(line, "`allow` before `deny`: of what is denied nothing is excepted");
        }
        if !is_closed {
            allow.clear();
        }
        let lists = [("allow", allow), ("deny", deny)].into_iter();
        lists
            .filter(|(_, networks)| !networks.is_empty())
            .map(|(key, networks)| (key.to_owned(), listed(&networks)))
            .collect()
    }

    /// Who has a password.
    fn users(&self) -> Lines {
        let last = |name: &str| self.of(&[name]).last().copied();
        let realm = last("auth_basic").filter(|one| one.word(0) != "off");
        let Some((realm, file)) = realm.zip(last("auth_basic_user_file")) else {
            return Lines::new();
        };
        vec![
            ("basic_auth".to_owned(), quoted(file.word(0))),
            ("realm".to_owned(), quoted(realm.word(0))),
        ]
    }

    /// How much may come.
    fn limits(&self, names: &Names, sheet: &mut Sheet) -> Lines {
        let mut lines = Lines::new();
        for (directive, key) in [("limit_req", "rate_limit"), ("limit_conn", "max_in_flight")] {
            let mut texts = Vec::new();
            for one in self.of(&[directive]) {
                match limit(one, names) {
                    Some(text) => texts.push(text),
                    None => {
                        sheet.leave(one.line, &format!("`{directive} {}`", one.words.join(" ")));
                    }
                }
            }
            if !texts.is_empty() {
                lines.push((key.to_owned(), listed(&texts)));
            }
        }
        lines
    }

    /// What answers carry besides; `more` are fields and their values.
    pub fn fields(&self, more: Vec<(String, String)>) -> Lines {
        let own = self.of(&["add_header"]).into_iter();
        let mut fields: Vec<(String, String)> = own
            .filter(|one| !one.word(0).eq_ignore_ascii_case("content-type"))
            .map(|one| (one.word(0).to_owned(), one.word(1).to_owned()))
            .collect();
        for (name, value) in more {
            match fields.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(&name)) {
                // Two fields of a list are one with a comma.
                Some((_, known)) => *known = format!("{value}, {known}"),
                None => fields.push((name, value)),
            }
        }
        if fields.is_empty() {
            return Lines::new();
        }
        let fields: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{} = {}", key(name), quoted(value)))
            .collect();
        vec![("headers.set".to_owned(), format!("{{ {} }}", fields.join(", ")))]
    }
}

/// The keys that keep somebody out.
const GUARDS: [&str; 7] =
    ["allow", "deny", "basic_auth", "forward_auth", "methods", "rate_limit", "max_in_flight"];

/// Whether lines of a table keep somebody out.
pub fn is_guarded(lines: &[(String, String)]) -> bool {
    lines.iter().any(|(key, _)| GUARDS.contains(&key.as_str()))
}

/// The methods that a directive lets pass, where that is all that it says.
fn methods_of(one: &Directive) -> Option<Vec<String>> {
    let ends = |inner: &Directive| {
        inner.name == "deny" && inner.word(0) == "all"
            || inner.name == "return" && matches!(inner.word(0), "403" | "405" | "444")
    };
    let words: Vec<String> = match one.name.as_str() {
        "limit_except" => one.words.clone(),
        "if" => {
            let said = one.words.join(" ");
            let said = said.strip_prefix('(')?.strip_suffix(')')?.trim();
            let said = said.strip_prefix("$request_method !~ ^(")?;
            said.strip_suffix(")$")?.split('|').map(str::to_owned).collect()
        }
        _ => return None,
    };
    let is_method =
        |word: &String| !word.is_empty() && word.bytes().all(|b| b.is_ascii_uppercase());
    if !matches!(one.inner(), [inner] if ends(inner)) || !words.iter().all(is_method) {
        return None;
    }
    let mut all = words;
    // To nginx a HEAD is allowed where a GET is.
    if one.name == "limit_except" && all.iter().any(|word| word == "GET") {
        all.push("HEAD".to_owned());
    }
    all.dedup();
    Some(all)
}

/// A name as a key of TOML.
pub fn key(name: &str) -> String {
    let is_bare = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if is_bare && !name.is_empty() { name.to_owned() } else { quoted(name) }
}

/// A `limit_req` or `limit_conn` in our words; `None` when its zone is not known.
pub fn limit(one: &Directive, names: &Names) -> Option<String> {
    let by = |key: &str| match key {
        "$binary_remote_addr" | "$remote_addr" => "by client-address".to_owned(),
        "$server_name" | "$host" => "by everyone".to_owned(),
        key => match key.strip_prefix("$http_") {
            Some(name) => format!("by header:{}", name.replace('_', "-")),
            None => format!("by {key}"),
        },
    };
    if one.name == "limit_conn" {
        let key = names.counts.get(one.word(0))?;
        return Some(format!("{} {}", one.word(1), by(key)));
    }
    let (key, rate) = names.rates.get(named(one, "zone="))?;
    let burst = named(one, "burst=");
    let burst = if burst.is_empty() { String::new() } else { format!(" burst {burst}") };
    Some(format!("{}{burst} {}", rate.replace("r/", "/"), by(key)))
}

#[cfg(test)]
mod tests {
    use super::super::syntax::parse;
    use super::*;

    fn access(own: &str, all: &str) -> (Lines, bool) {
        let (own, outer) = (parse(own).expect("good"), parse(all).expect("good"));
        let all = [outer, own.clone()].concat();
        let mut sheet = Sheet::default();
        let lines = Level { own: &own, all: &all }.access(&mut sheet);
        (lines, !sheet.finish().left.is_empty())
    }

    #[test]
    fn who_may_come_is_never_more_than_was_said() {
        let line = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let nobody = vec![line("deny", "[\"0.0.0.0/0\", \"::/0\"]")];
        for (own, all, lines, is_left) in [
            ("", "", vec![], false),
            ("deny all;", "", nobody.clone(), false),
            ("", "deny all;", nobody, false),
            ("allow 10.0.0.0/8; deny all;", "", vec![line("allow", "\"10.0.0.0/8\"")], false),
            (
                "deny 10.0.0.1; allow 10.0.0.0/8; deny all;",
                "",
                vec![line("allow", "\"10.0.0.0/8\""), line("deny", "\"10.0.0.1\"")],
                false,
            ),
            ("deny 1.2.3.4;", "", vec![line("deny", "\"1.2.3.4\"")], false),
            ("allow all;", "allow 10.0.0.0/8; deny all;", vec![], false),
            ("deny 1.2.3.4; allow all;", "", vec![line("deny", "\"1.2.3.4\"")], false),
            ("allow 1.2.3.4; deny 1.2.3.0/24;", "", vec![line("deny", "\"1.2.3.0/24\"")], true),
            (
                "allow 192.168.0.0/16; deny all;",
                "allow 10.0.0.0/8; deny all;",
                vec![line("allow", "\"192.168.0.0/16\"")],
                false,
            ),
        ] {
            assert_eq!(access(own, all), (lines, is_left), "{own} in {all}");
        }
    }
}
