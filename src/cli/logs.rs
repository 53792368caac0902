//! `switchback logs`: the last output of a revision's instances, and with `-f` what they say.

use std::collections::BTreeMap;
use std::time::Duration;

use super::client::Client;
use super::console::{Console, Line, Look};
use super::exit::Exit;
use super::trouble::{self, Trouble};
use super::watch::Patience;
use crate::controller::status::InstanceLogs;

/// Two screens.
pub const DEFAULT_LINES: usize = 100;
/// How often new lines are looked for, and how many there may be in between.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const LOOK_LINES: usize = 2_000;

/// Whose output, and how much of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// The service; may be left out where there is one.
    pub service: Option<String>,
    /// The revision; the stable one where nothing is said.
    pub revision: Option<u32>,
    /// Only instances whose name holds this.
    pub instance: Option<String>,
    /// Only lines that hold this.
    pub grep: Option<String>,
    /// Lines per instance.
    pub lines: usize,
    /// Go on until interrupted.
    pub follow: bool,
    /// As JSON.
    pub json: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            service: None,
            revision: None,
            instance: None,
            grep: None,
            lines: DEFAULT_LINES,
            follow: false,
            json: false,
        }
    }
}

impl Options {
    /// What of some output is wanted.
    fn wanted(&self, logs: &mut Vec<InstanceLogs>) {
        if let Some(part) = &self.instance {
            logs.retain(|one| one.instance.contains(part.as_str()));
        }
        if let Some(part) = &self.grep {
            for one in logs {
                one.lines.retain(|line| line.contains(part.as_str()));
            }
        }
    }
}

/// Shows output.
pub async fn run(client: &Client, console: &mut Console, options: Options) -> Exit {
    tokio::select! {
        shown = show(client, console, &options) => trouble::ended(console, shown),
        // Ctrl-C is how a person ends what goes on for ever.
        _ = tokio::signal::ctrl_c(), if options.follow => Exit::Done,
    }
}

async fn show(client: &Client, console: &mut Console, options: &Options) -> Result<Exit, Trouble> {
    let service = client.service(options.service.as_deref()).await?.service;
    // What a filter leaves out does not count.
    let count = if options.grep.is_some() { LOOK_LINES.max(options.lines) } else { options.lines };
    let mut logs = client.logs(&service, options.revision, count).await?;
    let before = logs.clone();
    options.wanted(&mut logs);
    for one in &mut logs {
        one.lines.drain(..one.lines.len().saturating_sub(options.lines));
    }
    if options.follow {
        let several = before.len() > 1;
        for one in &logs {
            say(console, one, several);
        }
        return follow(client, console, options, &service, before).await;
    }
    if options.json {
        console.json(&logs);
        return Ok(Exit::Done);
    }
    if logs.iter().all(|one| one.lines.is_empty()) {
        let revision = match options.revision {
            Some(revision) => format!("revision {revision}"),
            None => "the stable revision".to_owned(),
        };
        console.talk(format!("{service}: {revision} has no output that is kept"));
    }
    // Which of several said it; of one there is nothing to tell.
    let several = logs.len() > 1;
    for one in &logs {
        for text in &one.lines {
            let mut line = Line::new();
            if several {
                line = line.and(Look::Faint, &one.instance).plain("  ");
            }
            console.data(line.plain(text));
        }
    }
    Ok(Exit::Done)
}

/// Says lines as they come, each with its instance where there are several.
fn say(console: &mut Console, one: &InstanceLogs, several: bool) {
    for line in &one.lines {
        let head = if several { format!("{}  ", one.instance) } else { String::new() };
        console.data(Line::new().and(Look::Faint, &head).plain(line));
    }
}

/// Looks for new lines again and again. Instances that come are followed too.
async fn follow(
    client: &Client,
    console: &mut Console,
    options: &Options,
    service: &str,
    before: Vec<InstanceLogs>,
) -> Result<Exit, Trouble> {
    let mut seen: BTreeMap<String, Vec<String>> =
        before.into_iter().map(|one| (one.instance, one.lines)).collect();
    let mut patience = Patience::default();
    while !console.is_closed() {
        tokio::time::sleep(LOOK_EVERY).await;
        let logs = match client.logs(service, options.revision, LOOK_LINES).await {
            Ok(logs) => logs,
            // Between two revisions there may be no instance for a moment.
            Err(trouble) if trouble.status == Some(404) => continue,
            Err(trouble) => {
                patience.wait(console, trouble).await?;
                continue;
            }
        };
        patience.over(console);
        let several = logs.len() > 1;
        for one in logs {
            let new = match seen.get(&one.instance) {
                Some(before) => one.lines[overlap(before, &one.lines)..].to_vec(),
                None => one.lines.clone(),
            };
            let mut news = vec![InstanceLogs { instance: one.instance.clone(), lines: new }];
            options.wanted(&mut news);
            for one in &news {
                say(console, one, several);
            }
            seen.insert(one.instance, one.lines);
        }
    }
    Ok(Exit::Done)
}

/// How many lines of the later output were in the earlier one: as many as the one ends with and the
/// other begins with.
fn overlap(before: &[String], after: &[String]) -> usize {
    let most = before.len().min(after.len());
    (0..=most).rev().find(|count| before[before.len() - count..] == after[..*count]).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_lines_are_those_behind_what_was_seen() {
        let of = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(overlap(&of("a b c"), &of("a b c")), 3);
        assert_eq!(overlap(&of("a b c"), &of("b c d e")), 2);
        assert_eq!(overlap(&of("a b c"), &of("x y")), 0);
        assert_eq!(overlap(&[], &of("x")), 0);
    }

    #[test]
    fn filters_leave_what_is_wanted() {
        let one = |name: &str| InstanceLogs {
            instance: name.to_owned(),
            lines: vec!["GET / 200".to_owned(), "error: no".to_owned()],
        };
        let mut logs = vec![one("web-1"), one("web-2")];
        let options = Options {
            instance: Some("-2".to_owned()),
            grep: Some("error".to_owned()),
            ..Options::default()
        };
        options.wanted(&mut logs);
        assert_eq!(logs, [InstanceLogs { lines: vec!["error: no".to_owned()], ..one("web-2") }]);
    }
}
