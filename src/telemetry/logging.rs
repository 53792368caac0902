//! Log lines: text for people, one JSON object per line for machines; always to stderr, because
//! stdout carries data. The level of each module is set by a filter in the words of tracing's
//! `EnvFilter`, such as `info,switchback::proxy=debug`.
//!
//! Requests are not logged here; the access log has a format and a pace of its own.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people; in colour on a terminal.
    Text,
    /// One object per line.
    Json,
}

impl Format {
    /// Text when stderr is a terminal, JSON otherwise.
    #[must_use]
    pub fn by_terminal() -> Self {
        if std::io::stderr().is_terminal() { Self::Text } else { Self::Json }
    }
}

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter makes no sense.
    #[error(
        "{filter:?} is not a log filter: {why}; expected for example \"info\" or \"info,switchback::proxy=debug\""
    )]
    Filter {
        /// What was written.
        filter: String,
        /// What is wrong with it.
        why: String,
    },
    /// Somebody else logs in this process already.
    #[error("logging was begun twice")]
    Twice,
}

/// Begins to log, for the whole process, once.
pub fn init(format: Format, filter: &str) -> Result<(), LoggingError> {
    // https://no-color.org: set and not empty means no colour.
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = std::io::stderr().is_terminal() && !plain;
    tracing::subscriber::set_global_default(subscriber(format, filter, colour, std::io::stderr)?)
        .map_err(|_| LoggingError::Twice)
}

/// Checks a filter without using it.
pub fn check_filter(filter: &str) -> Result<(), LoggingError> {
    parse_filter(filter).map(|_| ())
}

fn parse_filter(filter: &str) -> Result<EnvFilter, LoggingError> {
    EnvFilter::builder()
        .parse(filter)
        .map_err(|error| LoggingError::Filter { filter: filter.to_owned(), why: error.to_string() })
}

/// A subscriber that writes to `writer`.
fn subscriber<W>(
    format: Format,
    filter: &str,
    colour: bool,
    writer: W,
) -> Result<Box<dyn tracing::Subscriber + Send + Sync>, LoggingError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parse_filter(filter)?)
        // A closed stderr must not be reported on stderr.
        .log_internal_errors(false)
        .with_writer(writer);
    Ok(match format {
        Format::Text => Box::new(builder.with_ansi(colour).with_target(false).finish()),
        Format::Json => Box::new(
            builder.json().flatten_event(true).with_span_list(false).with_ansi(false).finish(),
        ),
    })
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("unpoisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, filter: &str) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber =
            subscriber(format, filter, false, move || writer.clone()).expect("a filter");
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(service = "web", step = 2, "the canary has 25%");
            tracing::debug!("a detail");
        });
        let bytes = lines.0.lock().expect("unpoisoned").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn json_is_one_object_per_line() {
        let text = logged(Format::Json, "info");
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).expect("one object");
        assert_eq!(line["message"], "the canary has 25%");
        assert_eq!(line["service"], "web");
        assert_eq!(line["step"], 2);
        assert_eq!(line["level"], "INFO");
        assert!(line["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')));
    }

    #[test]
    fn text_is_for_people_and_the_filter_holds() {
        let text = logged(Format::Text, "info");
        assert!(text.contains("INFO the canary has 25% service=\"web\" step=2"), "{text}");
        assert!(!text.contains("a detail") && !text.contains('\u{1b}'));
        assert!(logged(Format::Text, "debug").contains("a detail"));
        assert!(logged(Format::Text, "off").is_empty());
    }

    #[test]
    fn a_bad_filter_is_refused() {
        assert!(check_filter("info,switchback::proxy=debug").is_ok());
        let said = check_filter("info,switchback=lowd").expect_err("no such level").to_string();
        assert!(said.starts_with("\"info,switchback=lowd\" is not a log filter"), "{said}");
    }
}
