//! Regular expressions that mean what stars can say.

/// What begins the stars of an expression that takes capitals for small letters.
const ANY_CASE: &str = "(?i)";

/// The stars that a location's expression means, and whether what lies below `/.well-known` is left out.
pub fn stars(kind: &str, expression: &str) -> Option<(Vec<String>, bool)> {
    let found = endings(expression).or_else(|| beginnings(expression)).map(|stars| (stars, false));
    let (mut stars, keeps) = found.or_else(|| {
        let (stars, keeps) = dotted(expression)?;
        Some((vec![stars], keeps))
    })?;
    if kind == "~*" {
        for one in &mut stars {
            one.insert_str(0, ANY_CASE);
        }
    }
    Some((stars, keeps))
}

/// The stars that a regular expression of file endings means: `\.(css|js)$`.
fn endings(expression: &str) -> Option<Vec<String>> {
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

/// Those of one of paths that begin like this: `^/(admin|internal)`, `^/api/v1/`, `^/status$`.
fn beginnings(expression: &str) -> Option<Vec<String>> {
    let rest = expression.strip_prefix('^')?;
    let kinds: [(&str, &[&str]); 7] = [
        ("(/|$)", &["", "/*"]),
        ("/?$", &["", "/"]),
        ("(.*)$", &["*"]),
        ("(.*)", &["*"]),
        (".*$", &["*"]),
        (".*", &["*"]),
        ("$", &[""]),
    ];
    let known = kinds.iter().find_map(|(end, stars)| Some((rest.strip_suffix(end)?, *stars)));
    let (rest, ends) = known.unwrap_or((rest, &["*"]));
    let (before, choices, after) = match rest.split_once('(') {
        Some((before, rest)) => {
            let (inner, after) = rest.split_once(')')?;
            (before, inner.strip_prefix("?:").unwrap_or(inner), after)
        }
        None => (rest, "", ""),
    };
    let plain = |text: &str| -> Option<String> {
        let text = text.replace("\\/", "/").replace("\\.", ".").replace("\\-", "-");
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_');
        // A dot that was not escaped stands for any character, and so takes in too little.
        let is_dotted = |c: char| c == '.';
        text.chars().all(|c| is_plain(c) || is_dotted(c)).then_some(text)
    };
    if before.replace("\\.", "").contains('.') || after.replace("\\.", "").contains('.') {
        return None;
    }
    let (before, after) = (plain(before)?, plain(after)?);
    let mut stars = Vec::new();
    for choice in choices.split('|') {
        if choice.replace("\\.", "").contains('.') {
            return None;
        }
        let path = format!("{before}{}{after}", plain(choice)?);
        if !path.starts_with('/') || path == "/" {
            return None;
        }
        stars.extend(ends.iter().map(|end| format!("{path}{end}")));
    }
    Some(stars)
}

/// Whether a place is about names that begin with a dot, of which files show none anyway: the stars that
/// it means, and whether `.well-known` is left out.
fn dotted(expression: &str) -> Option<(String, bool)> {
    let rest = expression.trim_start_matches('^').strip_prefix("/\\.")?;
    let rest = rest.trim_end_matches('$').trim_end_matches(".*");
    match rest {
        "" | "." => Some(("*/.*".to_owned(), false)),
        "(?!well-known)" | "(?!well-known\\/)" | "(?!well-known/)" => {
            Some(("*/.*".to_owned(), true))
        }
        name if name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') => {
            Some((format!("*/.{name}*"), false))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_stars() {
        for (expression, expected) in [
            (r"\.(css|js|woff2)$", &["*.css", "*.js", "*.woff2"][..]),
            (r"\.(?:png|jpg)$", &["*.png", "*.jpg"]),
            (r"\.php$", &["*.php"]),
            (r"^/(admin|internal)", &["/admin*", "/internal*"]),
            (r"^/(admin|internal)/", &["/admin/*", "/internal/*"]),
            (r"^/api/v1(/|$)", &["/api/v1", "/api/v1/*"]),
            (r"^/api/(.*)$", &["/api/*"]),
            (r"^/status$", &["/status"]),
            (r"^/(a|b)/x\.txt$", &["/a/x.txt", "/b/x.txt"]),
            (r"/\.", &["*/.*"]),
            (r"/\.ht", &["*/.ht*"]),
            (r"/\.git", &["*/.git*"]),
            (r"^/\.", &["/.*"]),
        ] {
            let found = stars("~", expression);
            assert_eq!(found, Some((expected.iter().map(|s| (*s).to_owned()).collect(), false)));
            let any = expected.iter().map(|s| format!("(?i){s}")).collect();
            assert_eq!(stars("~*", expression), Some((any, false)), "{expression}");
        }
        let kept = Some((vec!["*/.*".to_owned()], true));
        assert_eq!(stars("~", r"/\.(?!well-known).*"), kept);
        for unknown in [
            r"\.php",
            r"\.(a|b.c)$",
            r"^/api/(\d+)$",
            r"/\.(git|svn)",
            r"^/a.c",
            r"^/(a.c|d)",
            r"^/(a|b)(c|d)",
            r"^/[ab]",
            r"^/",
            r"admin",
        ] {
            assert_eq!(stars("~", unknown), None, "{unknown}");
        }
    }
}
