//! What this program stands on is newer than what is known to be broken in it; and the tables that say
//! where each of other people's mistakes is tried name tests that there are.

use std::collections::BTreeMap;
use std::path::Path;

/// A crate, and the first version that is good. `None` is none at all: it has no good one, or nobody
/// looks after it.
const GOOD: [(&str, Option<[u64; 3]>); 19] = [
    ("aws-lc-sys", Some([0, 39, 0])),
    ("axum-core", Some([0, 3, 0])),
    ("bytes", Some([1, 11, 1])),
    ("crossbeam-channel", Some([0, 5, 15])),
    ("h2", Some([0, 4, 17])),
    ("hickory-proto", None),
    ("hyper", Some([1, 11, 0])),
    ("idna", Some([1, 0, 0])),
    ("mio", Some([0, 8, 11])),
    ("quinn-proto", Some([0, 11, 15])),
    ("ring", Some([0, 17, 12])),
    ("rustls", Some([0, 23, 18])),
    ("rustls-pemfile", None),
    ("rustls-webpki", Some([0, 103, 13])),
    ("slab", Some([0, 4, 11])),
    ("tokio", Some([1, 44, 2])),
    ("tonic", Some([0, 12, 3])),
    ("tungstenite", Some([0, 20, 1])),
    ("webpki", None),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All versions of each crate in the lock file.
fn locked() -> BTreeMap<String, Vec<[u64; 3]>> {
    let text = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let mut found: BTreeMap<String, Vec<_>> = BTreeMap::new();
    let value = |line: &str, key| {
        line.strip_prefix(key).map(|rest: &str| rest.trim_matches('"').to_owned())
    };
    let mut name = String::new();
    for line in text.lines() {
        if let Some(one) = value(line, "name = ") {
            name = one;
        } else if let Some(version) = value(line, "version = ")
            && !name.is_empty()
        {
            let plain = version.split(['-', '+']).next().unwrap_or_default();
            let numbers: Vec<u64> = plain.split('.').map(|part| part.parse().unwrap()).collect();
            let version = numbers.try_into().unwrap_or_else(|_| panic!("{name} {version}"));
            found.entry(std::mem::take(&mut name)).or_default().push(version);
        }
    }
    found
}

#[test]
fn what_this_stands_on_is_new_enough() {
    let locked = locked();
    assert!(locked.len() > 100, "{} crates", locked.len());
    for must in ["h2", "hyper", "rustls", "rustls-webpki", "tokio", "bytes", "aws-lc-sys"] {
        assert!(locked.contains_key(must), "{must} is not in the lock file");
    }
    for (name, good) in GOOD {
        for version in locked.get(name).into_iter().flatten() {
            let is_good = good.is_some_and(|good| *version >= good);
            assert!(is_good, "{name} {version:?} is known to be broken; good is {good:?}");
        }
    }
}

/// Every Rust file below a directory, in one text.
fn sources(directory: &Path, all: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_advisory_limit_and_rule_has_its_test() {
    let mut all = String::new();
    sources(&root().join("src"), &mut all);
    sources(&root().join("tests"), &mut all);
    let tables = std::fs::read_to_string(root().join("tests/suites/ADVISORIES.md")).unwrap();
    let rows: Vec<_> = tables
        .lines()
        .filter(|line| line.starts_with("| ") && !line.ends_with("| shown by |"))
        .collect();
    assert!(rows.len() > 60, "{} rows", rows.len());
    for row in rows {
        let last = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        let tests: Vec<_> =
            last.split('`').skip(1).step_by(2).filter(|name| !name.contains('/')).collect();
        assert!(!tests.is_empty(), "shown by nothing: {row}");
        for test in tests {
            let is_there = all.contains(&format!("fn {test}()"));
            assert!(is_there, "there is no test {test}: {row}");
        }
    }
}
