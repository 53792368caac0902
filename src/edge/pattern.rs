//! Text with stars: `*bot*`.

use std::fmt;

/// A pattern in which each `*` stands for any text, also none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    exact_case: bool,
}

impl Pattern {
    /// A pattern that tells `A` from `a`.
    #[must_use]
    pub fn exact_case(text: &str) -> Self {
        Self { text: text.to_owned(), exact_case: true }
    }

    /// A pattern that takes `A` for `a`.
    #[must_use]
    pub fn any_case(text: &str) -> Self {
        Self { text: text.to_owned(), exact_case: false }
    }

    /// Whether a text is of this pattern. Takes at most as many steps as the product of both lengths.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        let pattern = self.text.as_bytes();
        let same = |a: u8, b: u8| a == b || !self.exact_case && a.eq_ignore_ascii_case(&b);
        let (mut p, mut t) = (0, 0);
        // Where to go on when what follows the last star does not fit.
        let mut again: Option<(usize, usize)> = None;
        while t < text.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    again = Some((p + 1, t));
                    p += 1;
                }
                Some(byte) if same(*byte, text[t]) => {
                    p += 1;
                    t += 1;
                }
                _ => match again {
                    Some((after, from)) => {
                        again = Some((after, from + 1));
                        (p, t) = (after, from + 1);
                    }
                    None => return false,
                },
            }
        }
        pattern[p..].iter().all(|byte| *byte == b'*')
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("*", "x", true),
            ("", "", true),
            ("", "x", false),
            ("*bot*", "a robot here", true),
            ("*bot*", "boat", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b", false),
            ("*.php", "/x/y.php", true),
            ("*.php", "/x/y.php/z", false),
            ("ab", "abc", false),
            ("**a", "bba", true),
        ] {
            assert_eq!(
                Pattern::exact_case(pattern).matches(text.as_bytes()),
                fits,
                "{pattern} {text}"
            );
        }
        assert!(Pattern::any_case("*CURL*").matches(b"curl/8"));
        assert!(!Pattern::exact_case("*CURL*").matches(b"curl/8"));
    }

    #[test]
    fn a_hostile_text_costs_no_more_than_the_product() {
        let pattern = Pattern::exact_case(&"*a".repeat(30));
        assert!(!pattern.matches(&[b'b'; 8192]));
        assert!(pattern.matches(&[b'a'; 8192]));
    }
}
