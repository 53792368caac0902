//! What is wrong with a configuration, said where it was written.
//!
//! A [`Problem`] is one sentence, a place, what was expected there, and perhaps what to do.
//! [`Problems`] are all that were found, with the texts they point into, so that they can be drawn
//! with the source line and a caret. A problem about a secret is drawn without its line.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde::Serialize;

/// A range of bytes in one of the texts that were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Which text: an index into [`Problems::sources`].
    pub source: usize,
    /// Which bytes of it.
    pub span: Range<usize>,
}

/// A text that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What it is called: the path as it was given, `environment`, `command line`.
    pub name: String,
    /// What it says.
    pub text: String,
}

impl Source {
    /// Line and column of a byte, counted from 1; the column counts characters.
    #[must_use]
    pub fn position(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It will run, but perhaps not as meant.
    Warning,
    /// It cannot run.
    Error,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Where; `None` when it is nowhere in particular.
    pub place: Option<Place>,
    /// What is wrong, in one sentence without a full stop.
    pub title: String,
    /// What was expected at the place.
    pub label: String,
    /// Another place that matters, and why.
    pub related: Option<(Place, String)>,
    /// What to do.
    pub help: Option<String>,
    /// The text at the place is a secret and must not be shown.
    pub concealed: bool,
}

impl Problem {
    /// Something that cannot run.
    #[must_use]
    pub fn error(place: Place, title: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            place: Some(place),
            title: title.into(),
            label: String::new(),
            related: None,
            help: None,
            concealed: false,
        }
    }

    /// Something that cannot run and stands nowhere in particular.
    #[must_use]
    pub fn nowhere(title: impl Into<String>) -> Self {
        Self { place: None, ..Self::error(Place { source: 0, span: 0..0 }, title) }
    }

    /// Something that may not be meant.
    #[must_use]
    pub fn warning(place: Option<Place>, title: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, place, ..Self::nowhere(title) }
    }

    /// Says what was expected at the place.
    #[must_use]
    pub fn label(self, label: impl Into<String>) -> Self {
        Self { label: label.into(), ..self }
    }

    /// Says what to do.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// Points at another place.
    #[must_use]
    pub fn related(self, place: Place, why: impl Into<String>) -> Self {
        Self { related: Some((place, why.into())), ..self }
    }

    /// Keeps the text at the place from being shown.
    #[must_use]
    pub fn concealed(self) -> Self {
        Self { concealed: true, ..self }
    }
}

/// All that was found, errors before warnings, each in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems {
    /// The texts that places point into. The file comes first.
    pub sources: Vec<Source>,
    /// What was found.
    pub list: Vec<Problem>,
}

/// One problem for a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The file, or `environment`, or `command line`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column in characters, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// One sentence.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Problems {
    /// Problems of one sentence that belong to no text.
    #[must_use]
    pub fn nowhere(title: impl Into<String>, help: Option<String>) -> Self {
        let problem = Problem { help, ..Problem::nowhere(title) };
        Self { sources: Vec::new(), list: vec![problem] }
    }

    /// How many errors there are.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.list.iter().filter(|problem| problem.severity == Severity::Error).count()
    }

    /// Puts errors first, then in the order in which they were written, and drops repetitions.
    pub(super) fn arrange(&mut self) {
        self.list.sort_by_key(|problem| {
            let place = problem.place.as_ref();
            let at = place.map(|place| (place.source, place.span.start));
            (problem.severity == Severity::Warning, at.unwrap_or((usize::MAX, 0)))
        });
        self.list.dedup();
    }

    /// The problems for a machine.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        self.list.iter().map(|problem| self.finding(problem)).collect()
    }

    fn finding(&self, problem: &Problem) -> Finding {
        let place = problem.place.as_ref();
        let source = place.and_then(|place| self.sources.get(place.source));
        let position = source.zip(place).map(|(text, place)| text.position(place.span.start));
        let message = if problem.label.is_empty() {
            problem.title.clone()
        } else {
            format!("{}: {}", problem.title, problem.label)
        };
        Finding {
            severity: problem.severity,
            file: source.map(|source| source.name.clone()),
            line: position.map(|(line, _)| line),
            column: position.map(|(_, column)| column),
            message,
            help: problem.help.clone(),
        }
    }

    /// The problems for a person, each with its source line and a caret; with ANSI colours if `styled`.
    #[must_use]
    pub fn render(&self, styled: bool) -> String {
        let renderer = if styled { Renderer::styled() } else { Renderer::plain() };
        let drawn: Vec<String> =
            self.list.iter().map(|problem| renderer.render(&[self.group(problem)])).collect();
        drawn.join("\n\n")
    }

    fn group<'a>(&'a self, problem: &'a Problem) -> Group<'a> {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = level.primary_title(problem.title.as_str()).elements([] as [Origin<'a>; 0]);
        if let Some(place) = &problem.place {
            group = self.draw(group, problem, place);
        }
        if let Some(help) = &problem.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        group
    }

    fn draw<'a>(&'a self, group: Group<'a>, problem: &'a Problem, place: &Place) -> Group<'a> {
        let Some(source) = self.sources.get(place.source) else { return group };
        if problem.concealed {
            let (line, column) = source.position(place.span.start);
            let origin = Origin::path(source.name.as_str()).line(line).char_column(column);
            return group.element(origin).element(Level::NOTE.message(problem.label.as_str()));
        }
        let caret = AnnotationKind::Primary.span(clamp(&place.span, &source.text));
        let mut snippet = Snippet::source(source.text.as_str())
            .path(source.name.as_str())
            .annotation(caret.label(problem.label.as_str()));
        match &problem.related {
            Some((other, why)) if other.source == place.source => {
                let mark = AnnotationKind::Context.span(clamp(&other.span, &source.text));
                snippet = snippet.annotation(mark.label(why.as_str()));
                group.element(snippet)
            }
            Some((other, why)) => {
                let group = group.element(snippet);
                let Some(source) = self.sources.get(other.source) else { return group };
                let mark = AnnotationKind::Context.span(clamp(&other.span, &source.text));
                group.element(
                    Snippet::source(source.text.as_str())
                        .path(source.name.as_str())
                        .annotation(mark.label(why.as_str())),
                )
            }
            None => group.element(snippet),
        }
    }
}

/// A span that lies in the text and, when it covers several lines, only the first of them.
fn clamp(span: &Range<usize>, text: &str) -> Range<usize> {
    let start = span.start.min(text.len());
    let end = span.end.clamp(start, text.len());
    let line = text.get(start..end).and_then(|part| part.find('\n'));
    start..line.map_or(end, |newline| start + newline)
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Problems {}
