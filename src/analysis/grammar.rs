//! The words of a limit: `errors > 1% or p95 > 1.5x or p99 > 500ms`. Text to [`Criteria`] and back.

use std::fmt;
use std::str::FromStr;

use super::criteria::{Bound, Criteria, Limit, Metric};

/// Why a text is not a list of limits. Each names the word at fault and says what would be allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCriteria {
    /// Nothing was written.
    #[error("no limit is given; write for example `errors > 1% or p95 > 1.5x`")]
    Empty,
    /// The first word of a limit is not a metric.
    #[error(
        "{0:?} cannot be measured; write `errors`, or a latency such as `p50`, `p95` or `p99.9`"
    )]
    Metric(String),
    /// What follows the metric is not `>`.
    #[error("{found:?} follows `{metric}` where `>` is expected, as in `{metric} > 1.5x`")]
    Comparison {
        /// The metric.
        metric: String,
        /// What follows it.
        found: String,
    },
    /// The bound does not fit the metric.
    #[error("{found:?} is no limit for `{metric}`; write {allowed}")]
    Bound {
        /// The metric.
        metric: String,
        /// The word.
        found: String,
        /// What would be allowed.
        allowed: &'static str,
    },
    /// A bound that nothing or everything exceeds.
    #[error("{found:?} cannot be a limit for `{metric}`: {reason}")]
    Range {
        /// The metric.
        metric: String,
        /// The word.
        found: String,
        /// Why not.
        reason: &'static str,
    },
    /// Two limits without `or` between them.
    #[error("{0:?} stands where `or` or the end is expected; limits are joined by `or`")]
    Join(String),
}

impl FromStr for Criteria {
    type Err = InvalidCriteria;

    fn from_str(text: &str) -> Result<Self, InvalidCriteria> {
        let spaced = text.replace('>', " > ");
        let mut words = spaced.split_whitespace().peekable();
        let mut limits = Vec::new();
        if words.peek().is_none() {
            return Err(InvalidCriteria::Empty);
        }
        loop {
            let word = words.next().unwrap_or("");
            let metric = parse_metric(word)?;
            let found = words.next().unwrap_or("");
            if found != ">" {
                return Err(InvalidCriteria::Comparison {
                    metric: metric.to_string(),
                    found: found.to_owned(),
                });
            }
            let mut bound = words.next().unwrap_or("").to_owned();
            // `500 ms` and `1 %` are as good as `500ms` and `1%`.
            if let Some(unit) = words.next_if(|word| matches!(*word, "%" | "x" | "us" | "ms" | "s"))
            {
                bound.push_str(unit);
            }
            limits.push(Limit { metric, bound: parse_bound(metric, &bound)? });
            match words.next() {
                None => return Ok(Self::of(limits)),
                Some("or") => {}
                Some(other) => return Err(InvalidCriteria::Join(other.to_owned())),
            }
        }
    }
}

fn parse_metric(word: &str) -> Result<Metric, InvalidCriteria> {
    let unknown = || InvalidCriteria::Metric(word.to_owned());
    if word == "errors" {
        return Ok(Metric::Errors);
    }
    let digits = word.strip_prefix('p').ok_or_else(unknown)?;
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(unknown());
    }
    let percent: f64 = digits.parse().map_err(|_| unknown())?;
    // Beyond p99.9 a quantile of a canary's few requests is its maximum.
    if (1.0..=99.9).contains(&percent) {
        Ok(Metric::Latency(percent / 100.0))
    } else {
        Err(unknown())
    }
}

fn parse_bound(metric: Metric, word: &str) -> Result<Bound, InvalidCriteria> {
    let allowed = match metric {
        Metric::Errors => "a percentage such as `1%` or a factor such as `2x`",
        Metric::Latency(_) => "a time such as `500ms` or `1.5s`, or a factor such as `1.5x`",
    };
    let wrong =
        || InvalidCriteria::Bound { metric: metric.to_string(), found: word.to_owned(), allowed };
    let range = |reason| {
        Err(InvalidCriteria::Range { metric: metric.to_string(), found: word.to_owned(), reason })
    };
    let split = word.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
    let (digits, unit) = word.split_at(split);
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    match (metric, unit) {
        (_, "x") if number <= 1.0 => range("a factor must be above 1x, which is stable itself"),
        (_, "x") => Ok(Bound::Ratio(number)),
        (Metric::Errors, "%") if number <= 0.0 => {
            range("one error would break it; the smallest useful limit is 0.01%")
        }
        (Metric::Errors, "%") if number >= 90.0 => range("it must be below 90%"),
        (Metric::Errors, "%") => Ok(Bound::Absolute(number / 100.0)),
        (Metric::Latency(_), "us" | "ms" | "s") if number <= 0.0 => {
            range("every answer takes longer than that")
        }
        (Metric::Latency(_), "us") => Ok(Bound::Absolute(number / 1e6)),
        (Metric::Latency(_), "ms") => Ok(Bound::Absolute(number / 1e3)),
        (Metric::Latency(_), "s") => Ok(Bound::Absolute(number)),
        _ => Err(wrong()),
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errors => f.write_str("errors"),
            Self::Latency(quantile) => write!(f, "p{}", tidy(quantile * 100.0)),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > ", self.metric)?;
        match (self.metric, self.bound) {
            (_, Bound::Ratio(ratio)) => write!(f, "{}x", tidy(ratio)),
            (Metric::Errors, Bound::Absolute(rate)) => write!(f, "{}%", tidy(rate * 100.0)),
            (Metric::Latency(_), Bound::Absolute(seconds)) if seconds < 1.0 => {
                write!(f, "{}ms", tidy(seconds * 1e3))
            }
            (Metric::Latency(_), Bound::Absolute(seconds)) => write!(f, "{}s", tidy(seconds)),
        }
    }
}

/// Prints the limits as they would be written.
impl fmt::Display for Criteria {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, limit) in self.limits.iter().enumerate() {
            if index > 0 {
                f.write_str(" or ")?;
            }
            write!(f, "{limit}")?;
        }
        Ok(())
    }
}

/// A number without the dust that binary fractions leave: 0.1 × 3 is 0.3.
fn tidy(number: f64) -> f64 {
    (number * 1e9).round() / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_printed_as_they_were_written() {
        for text in [
            "errors > 1% or p95 > 1.5x",
            "errors > 1% or p95 > 1.5x or p99 > 500ms or errors > 2x",
            "p99.9 > 1.5s",
            "errors > 0.07% or p50 > 0.25ms",
        ] {
            let criteria: Criteria = text.parse().expect("limits");
            assert_eq!(criteria.to_string(), text);
            assert_eq!(criteria.to_string().parse(), Ok(criteria));
        }
        assert_eq!("errors>1 % or  p95 >1.5x".parse(), Ok(Criteria::default()));
        assert_eq!(Criteria::default().to_string(), "errors > 1% or p95 > 1.5x");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, words) in [
            ("", "no limit"),
            ("latency > 3x", "\"latency\" cannot be measured; write `errors`"),
            ("p0 > 3x", "\"p0\" cannot"),
            ("p100 > 3x", "\"p100\" cannot"),
            ("pinf > 3x", "\"pinf\" cannot"),
            ("errors", "\"\" follows `errors` where `>`"),
            ("errors < 1%", "\"<\" follows `errors`"),
            ("errors > 1", "\"1\" is no limit for `errors`; write a percentage"),
            ("errors > 100ms", "\"100ms\" is no limit"),
            ("errors > 0%", "\"0%\" cannot be a limit"),
            ("errors > 0.9x", "must be above 1x"),
            ("p95 > 5%", "\"5%\" is no limit for `p95`; write a time"),
            ("p95 > 0ms", "every answer"),
            ("p95 > 1.2.3x", "\"1.2.3x\" is no limit"),
            ("errors > 1% and p95 > 2x", "\"and\" stands where `or`"),
            ("errors > 1% or", "\"\" cannot be measured"),
        ] {
            let error = text.parse::<Criteria>().expect_err(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
