//! Writes the Prometheus text format (version 0.0.4).
//!
//! Knows the grammar and no metric. Invariants: a family is opened once, all its series follow it
//! directly, and label values are escaped.

use std::fmt::{Display, Write};

/// The media type of a page.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page of metrics.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
}

/// A metric of the page, to which series are added.
#[derive(Debug)]
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

/// Names and values that tell one series of a family from another.
pub(super) type Labels<'a> = &'a [(&'static str, &'a str)];

impl Page {
    /// Opens a family: `counter`, `gauge` or `histogram`.
    pub(super) fn family(
        &mut self,
        name: &'static str,
        kind: &'static str,
        help: &'static str,
    ) -> Family<'_> {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { text: &mut self.text, name }
    }

    /// The page.
    pub(super) fn into_text(self) -> String {
        self.text
    }
}

impl Family<'_> {
    /// Adds a series.
    pub(super) fn series(&mut self, labels: Labels<'_>, value: impl Display) {
        self.write("", labels, None, value);
    }

    /// Adds a histogram: cumulative counts by upper bound in seconds, then the count of all and their sum.
    pub(super) fn histogram(
        &mut self,
        labels: Labels<'_>,
        cumulative: impl Iterator<Item = (f64, u64)>,
        count: u64,
        sum: f64,
    ) {
        for (bound, below) in cumulative {
            self.write("_bucket", labels, Some(&bound.to_string()), below);
        }
        self.write("_bucket", labels, Some("+Inf"), count);
        self.write("_sum", labels, None, sum);
        self.write("_count", labels, None, count);
    }

    fn write(&mut self, suffix: &str, labels: Labels<'_>, le: Option<&str>, value: impl Display) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        let all = labels.iter().copied().chain(le.map(|le| ("le", le)));
        for (n, (name, value)) in all.enumerate() {
            self.text.push(if n == 0 { '{' } else { ',' });
            self.text.push_str(name);
            self.text.push_str("=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() || le.is_some() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_histograms_are_whole() {
        let mut page = Page::default();
        let mut family = page.family("a_seconds", "histogram", "How long.");
        family.histogram(&[("x", "q\"\\\n")], [(0.5, 1)].into_iter(), 2, 1.25);
        page.family("b", "gauge", "Nothing.").series(&[], 3);
        let expected = "# HELP a_seconds How long.\n# TYPE a_seconds histogram\n\
            a_seconds_bucket{x=\"q\\\"\\\\\\n\",le=\"0.5\"} 1\n\
            a_seconds_bucket{x=\"q\\\"\\\\\\n\",le=\"+Inf\"} 2\n\
            a_seconds_sum{x=\"q\\\"\\\\\\n\"} 1.25\na_seconds_count{x=\"q\\\"\\\\\\n\"} 2\n\
            # HELP b Nothing.\n# TYPE b gauge\nb 3\n";
        assert_eq!(page.into_text(), expected);
    }
}
