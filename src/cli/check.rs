//! `check`: reads the configuration without starting anything.
//!
//! Beyond what the file says in itself, it looks whether certificates and keys can be read. It asks
//! no engine and binds no address: what is true of this moment belongs to `run`.

use std::path::Path;

use serde::Serialize;

use super::args::offline::Check;
use super::exit::{Exit, Failure};
use super::output::{self, GOOD, Table};
use crate::config::load::{environment, load, locate};
use crate::config::problem::{Finding, Problem, Problems};
use crate::config::{Config, Parsed};
use crate::model::revision::Source;
use crate::telemetry::logging::check_filter;

#[derive(Serialize)]
struct Answer {
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    services: Vec<String>,
    problems: Vec<Finding>,
}

/// Runs the verb.
pub fn run(args: &Check) -> Result<Exit, Failure> {
    let variables = environment();
    let located = locate(args.source.config.as_deref(), &variables);
    let file = located.as_ref().ok().map(|path| path.display().to_string());
    let read = located.and_then(|path| load(&path, &variables, &args.source.settings));
    let read = read.and_then(|parsed| look(&parsed.config).map(|()| parsed));
    if args.output.is_json() {
        let exit = if read.is_ok() { Exit::Done } else { Exit::Invalid };
        output::json(&answer(file, &read))?;
        return Ok(exit);
    }
    let parsed = read.map_err(|problems| said(&problems))?;
    if !parsed.warnings.list.is_empty() {
        output::talk(&parsed.warnings.render(true));
    }
    let keys = parsed.config.tls.iter().flat_map(|tls| &tls.certificates);
    for note in keys.filter_map(|one| crate::certificates::loose(&one.key)) {
        output::talk(&format!("warning: {note}"));
    }
    let file = file.unwrap_or_default();
    output::data(&format!("{GOOD}{file} is valid{GOOD:#}\n{}", summary(&parsed.config)))?;
    Ok(Exit::Done)
}

fn answer(file: Option<String>, read: &Result<Parsed, Problems>) -> Answer {
    match read {
        Ok(parsed) => Answer {
            valid: true,
            file,
            services: parsed.config.services.iter().map(|s| s.name.to_string()).collect(),
            problems: parsed.warnings.findings(),
        },
        Err(problems) => {
            Answer { valid: false, file, services: Vec::new(), problems: problems.findings() }
        }
    }
}

/// The problems, and how many there are when they do not fit on a glance.
fn said(problems: &Problems) -> Failure {
    let mut text = problems.render(true);
    let errors = problems.errors();
    if errors > 1 {
        text.push_str(&format!("\n\n{errors} errors"));
    }
    Failure { exit: Exit::Invalid, said: text }
}

/// Looks at what the configuration names.
fn look(config: &Config) -> Result<(), Problems> {
    let mut problems = Problems::default();
    let files = config.tls.iter().flat_map(|tls| &tls.certificates);
    for (what, path) in files.flat_map(|c| [("certificate", &c.cert), ("key", &c.key)]) {
        if let Err(why) = readable(path) {
            let title = format!("the {what} {} cannot be read: {why}", path.display());
            problems.list.push(Problem::nowhere(title));
        }
    }
    if let Err(error) = check_filter(&config.log.filter) {
        problems.list.push(Problem::nowhere(error.to_string()));
    }
    if problems.list.is_empty() { Ok(()) } else { Err(problems) }
}

fn readable(path: &Path) -> Result<(), String> {
    crate::config::load::read(path).map(|_| ())
}

fn summary(config: &Config) -> String {
    let joined = |addresses: &[std::net::SocketAddr]| {
        let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        if texts.is_empty() { "off".to_owned() } else { texts.join(", ") }
    };
    let mut text = format!(
        "http {}  https {}  admin {}\n",
        joined(&config.listen.http),
        joined(&config.listen.https),
        joined(&config.admin.listen),
    );
    let mut table = Table::new(&["service", "routes", "runtime", "source", "steps"]);
    for service in &config.services {
        let runtime = match service.template.source {
            Source::Image(_) => "docker",
            Source::Command(_) => "process",
            Source::Endpoints(_) if service.answers_alone() => "-",
            Source::Endpoints(_) => "static",
        };
        let listen = service.listen.iter().map(|address| format!("tcp://{address}"));
        let routes: Vec<String> =
            service.routes.iter().map(ToString::to_string).chain(listen).collect();
        table.row([
            service.name.to_string(),
            routes.join(","),
            runtime.to_owned(),
            service.template.source.to_string(),
            service.plan.steps.to_string(),
        ]);
    }
    if !config.services.is_empty() {
        text.push_str(&table.render());
    }
    text
}
