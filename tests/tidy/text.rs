//! Rust as text: what is code, what is a comment, what is a test, who imports whom.

/// The same text with comments, strings and characters blanked out, so that what is left is code.
/// Lines keep their numbers.
pub(super) fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = match literal(bytes, at) {
            Some(end) => end,
            None => {
                out.push(if bytes[at].is_ascii() { char::from(bytes[at]) } else { ' ' });
                at += 1;
                continue;
            }
        };
        let blank = |byte: &u8| if *byte == b'\n' { '\n' } else { ' ' };
        out.extend(bytes[at..end].iter().map(blank));
        at = end;
    }
    out
}

/// Where the comment, string or character that begins here ends; `None` when none does.
fn literal(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let is_word_before = at > 0 && is_word(bytes[at - 1]);
    let until = |needle: &[u8], from: usize| {
        let found = rest[from..].windows(needle.len()).position(|window| window == needle);
        found.map_or(bytes.len(), |found| at + from + found + needle.len())
    };
    match rest {
        [b'/', b'/', ..] => Some(until(b"\n", 2) - usize::from(until(b"\n", 2) < bytes.len())),
        [b'/', b'*', ..] => {
            let (mut depth, mut here) = (1, 2);
            while depth > 0 && here < rest.len() {
                let step = match &rest[here..] {
                    [b'/', b'*', ..] => (2, 1),
                    [b'*', b'/', ..] => (2, -1),
                    _ => (1, 0),
                };
                here += step.0;
                depth += step.1;
            }
            Some(at + here)
        }
        [b'r', b'"' | b'#', ..] if !is_word_before => {
            let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
            (rest.get(1 + hashes) == Some(&b'"')).then(|| {
                let close: Vec<u8> =
                    std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
                until(&close, 2 + hashes)
            })
        }
        [b'"', ..] => Some(at + quoted(rest, b'"')),
        // A lifetime is no character: 'a' closes at once or begins with a backslash.
        [b'\'', b'\\', ..] => Some(at + quoted(rest, b'\'')),
        [b'\'', first, ..] => {
            let width = match first {
                0..0x80 => 1,
                0x80..0xe0 => 2,
                0xe0..0xf0 => 3,
                _ => 4,
            };
            (rest.get(1 + width) == Some(&b'\'')).then_some(at + width + 2)
        }
        _ => None,
    }
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut here = 1;
    while here < rest.len() && rest[here] != quote {
        here += 1 + usize::from(rest[here] == b'\\');
    }
    (here + 1).min(rest.len())
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Code without its `#[cfg(test)]` items, and the names of the test modules that it declares.
pub(super) fn without_tests(code: &str) -> (String, Vec<String>) {
    let mut out = code.to_owned();
    let mut modules = Vec::new();
    let mut from = 0;
    while let Some(found) = out[from..].find("#[cfg(") {
        let begin = from + found;
        from = begin + 1;
        let Some(close) = out[begin..].find(")]").map(|close| begin + close + 2) else { break };
        let mut words = out[begin..close].split(|c: char| !c.is_alphanumeric() && c != '_');
        if !words.any(|word| word == "test") {
            continue;
        }
        let Some(open) = out[close..].find(['{', ';']).map(|open| close + open) else { break };
        let item = out[close..open].trim();
        let end = if out.as_bytes()[open] == b';' {
            if let Some((_, name)) = item.rsplit_once("mod ") {
                modules.push(name.trim().to_owned());
            }
            open + 1
        } else {
            closing(&out, open)
        };
        let blank: String =
            out[begin..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(begin..end, &blank);
    }
    (out, modules)
}

/// One past the brace that closes the one at `open`.
fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return at + 1,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// The line of a place in a text, counted from 1.
pub(super) fn line(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Every place where `word` stands by itself, as a path's first segment or alone.
pub(super) fn places(code: &str, word: &str) -> Vec<usize> {
    let bytes = code.as_bytes();
    let stands_alone = |at: usize| {
        let before = at.checked_sub(1).map(|before| bytes[before]);
        let after = bytes.get(at + word.len());
        let is_path = at >= 2 && &bytes[at - 2..at] == b"::";
        !is_path && !before.is_some_and(is_word) && !after.copied().is_some_and(is_word)
    };
    code.match_indices(word).map(|(at, _)| at).filter(|at| stands_alone(*at)).collect()
}

/// All paths that begin with `crate`, and with as many `super` as lead to the crate's root, each
/// without that beginning: `crate::{a::B, c}` is `a::B` and `c`. `depth` is how deep the module lies.
pub(super) fn own_paths(code: &str, depth: usize) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in places(code, "crate") {
        if let Some(rest) = code[at + "crate".len()..].strip_prefix("::") {
            expand(rest, "", &mut |path| found.push((at, path)));
        }
    }
    let root = vec!["super"; depth].join("::");
    for at in places(code, &root) {
        if depth > 0
            && let Some(rest) = code[at + root.len()..].strip_prefix("::")
        {
            expand(rest, "", &mut |path| found.push((at, path)));
        }
    }
    found
}

/// Reads a use-tree, or a path, up to where it ends; returns what is left.
fn expand<'a>(text: &'a str, before: &str, tell: &mut impl FnMut(String)) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = expand(rest, before, tell).trim_start();
            match rest.strip_prefix(',') {
                Some(more) if !more.trim_start().starts_with('}') => rest = more,
                Some(more) => return more.trim_start().strip_prefix('}').unwrap_or(more),
                None => return rest.strip_prefix('}').unwrap_or(rest),
            }
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let path = if before.is_empty() { name.to_owned() } else { format!("{before}::{name}") };
    match rest.strip_prefix("::") {
        Some(deeper) => expand(deeper, &path, tell),
        None => {
            tell(path);
            match rest.trim_start().strip_prefix("as ") {
                Some(renamed) => {
                    let renamed = renamed.trim_start();
                    let end = renamed.find(|c: char| !c.is_alphanumeric() && c != '_');
                    &renamed[end.unwrap_or(renamed.len())..]
                }
                None => rest.strip_prefix('*').unwrap_or(rest),
            }
        }
    }
}

/// The names of structs, enums, traits, functions and modules that are defined here.
pub(super) fn definitions(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for keyword in ["struct", "enum", "trait", "fn", "mod"] {
        for at in places(code, keyword) {
            let rest = code[at + keyword.len()..].trim_start();
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            if end > 0 {
                found.push((at, rest[..end].to_owned()));
            }
        }
    }
    found
}

/// `RoutingTable` and `routing_table` are both `routing`, `table`.
pub(super) fn segments(name: &str) -> Vec<String> {
    let mut segments: Vec<String> = vec![String::new()];
    for c in name.chars() {
        if c == '_' || c.is_uppercase() {
            segments.push(String::new());
        }
        if let Some(last) = segments.last_mut()
            && c != '_'
        {
            last.extend(c.to_lowercase());
        }
    }
    segments.retain(|segment| !segment.is_empty());
    segments
}

#[test]
fn only_code_is_left() {
    let text =
        "let a = \"crate::x // no\"; // crate::y\n/* /* */ fn */ let c = '\"'; &'a str r#\"\"#";
    let left = code(text);
    assert_eq!(left.len(), text.len());
    assert_eq!(left.matches('\n').count(), 1);
    for gone in ["crate", "fn", "no", "\""] {
        assert!(!left.contains(gone), "{gone}: {left}");
    }
    assert!(left.contains("&'a str") && left.contains("let c ="), "{left}");
}

#[test]
fn tests_are_set_aside() {
    let (left, modules) = without_tests(
        "use a;\n#[cfg(test)]\nmod tests {\n fn x() { {} }\n}\n#[cfg(test)] mod far;\nfn y() {}",
    );
    assert!(left.contains("use a;") && left.contains("fn y") && !left.contains("fn x"), "{left}");
    assert_eq!(modules, ["far"]);
    assert_eq!(left.matches('\n').count(), 6);
}

#[test]
fn use_trees_are_read() {
    let paths = |code: &str| -> Vec<String> {
        own_paths(code, 2).into_iter().map(|(_, path)| path).collect()
    };
    assert_eq!(paths("use crate::a::B;"), ["a::B"]);
    assert_eq!(paths("use crate::{a::{b, c as d,}, e::*};"), ["a::b", "a::c", "e::"]);
    assert_eq!(paths("let x = crate::a::b::c(1);"), ["a::b::c"]);
    assert_eq!(paths("use super::super::proxy::X; use super::near;"), ["proxy::X"]);
    assert_eq!(paths("$crate; xcrate::y; pub(crate) fn f()"), Vec::<String>::new());
}

#[test]
fn names_are_cut_into_words() {
    assert_eq!(segments("RoutingTable"), ["routing", "table"]);
    assert_eq!(segments("begin_step"), ["begin", "step"]);
}
