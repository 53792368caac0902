//! Where errors are: counts by route, for people. Decides nothing.
//!
//! A route is here the first two parts of a path, with what looks like a name of one thing (a number,
//! an identifier) left out, so that `/orders/4711/lines` and `/orders/8150` are one.

use std::collections::BTreeMap;

/// Routes that are told apart; more are counted together.
const MOST: usize = 64;
/// What stands for the routes beyond that.
const ELSEWHERE: &str = "elsewhere";
/// Parts of a path that make a route.
const PARTS: usize = 2;
/// A part that is longer is no word.
const LONGEST: usize = 32;

/// Errors by route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Troubled {
    routes: BTreeMap<String, u64>,
}

impl Troubled {
    /// Counts an error on a path.
    pub fn add(&mut self, path: &str) {
        let route = route(path);
        self.count(&route, 1);
    }

    fn count(&mut self, route: &str, errors: u64) {
        let is_known = self.routes.contains_key(route);
        let route = if is_known || self.routes.len() < MOST { route } else { ELSEWHERE };
        *self.routes.entry(route.to_owned()).or_default() += errors;
    }

    /// Adds the errors of another.
    pub fn merge(&mut self, other: &Self) {
        for (route, errors) in &other.routes {
            self.count(route, *errors);
        }
    }

    /// Errors on one route.
    #[must_use]
    pub fn on(&self, route: &str) -> u64 {
        self.routes.get(route).copied().unwrap_or(0)
    }

    /// So many routes with the most errors, the worst first.
    #[must_use]
    pub fn worst(&self, most: usize) -> Vec<(String, u64)> {
        let mut all: Vec<(String, u64)> = self.routes.clone().into_iter().collect();
        all.sort_by_key(|(_, errors)| std::cmp::Reverse(*errors));
        all.truncate(most);
        all
    }
}

/// The route of a path.
fn route(path: &str) -> String {
    let path = path.split(['?', '#']).next().unwrap_or(path);
    let mut route = String::new();
    for part in path.split('/').filter(|part| !part.is_empty()).take(PARTS) {
        route.push('/');
        route.push_str(if is_word(part) { part } else { "*" });
    }
    if route.is_empty() { "/".to_owned() } else { route }
}

/// Whether a part names a kind of thing: short, and not mostly digits (`v2` is a word, `4711` is not).
fn is_word(part: &str) -> bool {
    let digits = part.bytes().filter(u8::is_ascii_digit).count();
    let plain = part.bytes().all(|byte| byte.is_ascii_graphic());
    plain && part.len() <= LONGEST && digits <= 2 && digits < part.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_leave_out_names_of_single_things() {
        for (path, expected) in [
            ("/", "/"),
            ("/?a=b", "/"),
            ("/checkout", "/checkout"),
            ("/api/v2/users", "/api/v2"),
            ("/orders/4711/lines?x=1", "/orders/*"),
            ("/u/3f2b8c1e-77aa-4d5e-9f00-a1b2c3d4e5f6", "/u/*"),
            ("//a//b", "/a/b"),
        ] {
            assert_eq!(route(path), expected, "{path}");
        }
    }

    #[test]
    fn many_routes_are_counted_together() {
        let mut troubled = Troubled::default();
        for n in 0..500_u32 {
            let letters = [n / 26 / 26, n / 26 % 26, n % 26].map(|i| char::from(b'a' + i as u8));
            let letters = String::from_iter(letters);
            troubled.add(&format!("/{letters}"));
        }
        for _ in 0..3 {
            troubled.add("/aaa");
        }
        assert!(troubled.routes.len() <= MOST + 1);
        assert_eq!(troubled.on("/aaa"), 4);
        assert_eq!(troubled.worst(1), [("elsewhere".to_owned(), 500 - MOST as u64)]);
        let mut both = Troubled::default();
        both.merge(&troubled);
        both.merge(&troubled);
        assert_eq!(both.on("/aaa"), 8);
    }
}
