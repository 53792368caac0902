//! `switchback logs`: what instances have written, in the order in which it was written, and with `-f`
//! what they write.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::client::Client;
use super::console::{Console, Line, Look};
use super::exit::Exit;
use super::trouble::{self, Trouble};
use super::watch::Patience;
use crate::controller::status::InstanceLogs;

/// Two screens.
pub const DEFAULT_LINES: usize = 50;
/// How often new lines are looked for, and how many there may be in between.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const LOOK_LINES: usize = 2_000;
/// As many as a daemon hands out.
const ALL_LINES: usize = 10_000;

/// Whose output, and how much of it.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The service; may be left out where there is one.
    pub service: Option<String>,
    /// The revision; the stable one where nothing is said.
    pub revision: Option<u32>,
    /// Every revision that has instances.
    pub all: bool,
    /// Not before.
    pub since: Option<String>,
    /// With the time of each line.
    pub times: bool,
    /// Only instances whose name holds this.
    pub instance: Option<String>,
    /// Only lines that hold this.
    pub grep: Option<String>,
    /// Lines per instance.
    pub lines: Option<usize>,
    /// Go on until interrupted.
    pub follow: bool,
    /// As JSON.
    pub json: bool,
}

/// One line of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Said<'a> {
    /// Empty where that is not known.
    at: &'a str,
    revision: u32,
    instance: &'a str,
    line: &'a str,
}

impl Options {
    /// What of some output is wanted.
    fn wanted(&self, logs: &mut Vec<InstanceLogs>) {
        if let Some(part) = &self.instance {
            logs.retain(|one| one.instance.contains(part.as_str()));
        }
        if let Some(part) = &self.grep {
            for one in logs {
                let keep: Vec<bool> =
                    one.lines.iter().map(|line| line.contains(part.as_str())).collect();
                let mut kept = keep.iter();
                one.lines.retain(|_| kept.next().is_some_and(|keep| *keep));
                let mut kept = keep.iter();
                one.times.retain(|_| kept.next().is_some_and(|keep| *keep));
            }
        }
    }

    fn query(&self, lines: usize, since: bool) -> Vec<(&'static str, String)> {
        let mut query = vec![("lines", lines.to_string()), ("times", "true".to_owned())];
        query.extend(self.revision.map(|revision| ("revision", revision.to_string())));
        if self.all {
            query.push(("all", "true".to_owned()));
        }
        query.extend(self.since.clone().filter(|_| since).map(|since| ("since", since)));
        query
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
    let most = if options.since.is_some() { ALL_LINES } else { DEFAULT_LINES };
    let most = options.lines.unwrap_or(most);
    // What a filter leaves out does not count.
    let count = if options.grep.is_some() { ALL_LINES } else { most };
    let mut logs = client.logs(&service, &options.query(count, true)).await?;
    // Where the following begins: with what is there now, wanted or not.
    let before = match options.follow {
        true => client.logs(&service, &options.query(LOOK_LINES, false)).await?,
        false => Vec::new(),
    };
    options.wanted(&mut logs);
    for one in &mut logs {
        let from = one.lines.len().saturating_sub(most);
        one.lines.drain(..from);
        one.times.drain(..from.min(one.times.len()));
    }
    if options.json && !options.follow {
        console.json(&logs);
        return Ok(Exit::Done);
    }
    say(console, options, &logs);
    if options.follow {
        return follow(client, console, options, &service, before).await;
    }
    if logs.iter().all(|one| one.lines.is_empty()) {
        let revision = match options.revision {
            Some(revision) => format!("revision {revision}"),
            None if options.all => "no revision".to_owned(),
            None => "the stable revision".to_owned(),
        };
        let verb = if options.all { "has" } else { "has no" };
        let filtered = options.grep.is_some() || options.since.is_some();
        let what = if filtered { "such output" } else { "output that is kept" };
        console.talk(format!("{service}: {revision} {verb} {what}"));
    }
    Ok(Exit::Done)
}

/// Says lines in the order in which they were written, each with its instance where there are several.
fn say(console: &mut Console, options: &Options, logs: &[InstanceLogs]) {
    let several = logs.len() > 1;
    let revisions = logs.iter().any(|one| one.revision != logs[0].revision);
    for said in in_order(logs) {
        if options.json {
            console.json(&said);
            continue;
        }
        let mut line = Line::new();
        if options.times {
            // As long whatever is known.
            line = line.and(Look::Faint, &format!("{:<27}  ", said.at));
        }
        if revisions {
            line = line.and(Look::Strong, &format!("{}  ", said.revision));
        }
        if several {
            line = line.and(Look::Faint, short(said.instance)).plain("  ");
        }
        console.data(line.plain(said.line));
    }
}

/// What people call an instance.
fn short(instance: &str) -> &str {
    let is_digest = instance.len() == 64 && instance.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest { &instance[..12] } else { instance }
}

/// All lines by the time at which they were written. One whose time is not known stays behind the one
/// before it.
fn in_order(logs: &[InstanceLogs]) -> Vec<Said<'_>> {
    let mut all: Vec<(&str, Said<'_>)> = Vec::new();
    for one in logs {
        let mut last = "";
        for (n, line) in one.lines.iter().enumerate() {
            let at = one.times.get(n).map_or("", String::as_str);
            last = if at > last { at } else { last };
            let (revision, instance) = (one.revision, one.instance.as_str());
            all.push((last, Said { at, revision, instance, line }));
        }
    }
    // Stable: lines of one instance stay as they are.
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, said)| said).collect()
}

/// Looks for new lines again and again. Instances that come are followed too.
async fn follow(
    client: &Client,
    console: &mut Console,
    options: &Options,
    service: &str,
    before: Vec<InstanceLogs>,
) -> Result<Exit, Trouble> {
    let mut seen: BTreeMap<String, InstanceLogs> =
        before.into_iter().map(|one| (one.instance.clone(), one)).collect();
    let mut patience = Patience::default();
    while !console.is_closed() {
        tokio::time::sleep(LOOK_EVERY).await;
        let logs = match client.logs(service, &options.query(LOOK_LINES, false)).await {
            Ok(logs) => logs,
            // Between two revisions there may be no instance for a moment.
            Err(trouble) if trouble.status == Some(404) => continue,
            Err(trouble) => {
                patience.wait(console, trouble).await?;
                continue;
            }
        };
        patience.over(console);
        let mut news = Vec::new();
        for one in logs {
            let mut new = one.clone();
            if let Some(before) = seen.get(&one.instance) {
                let known = overlap(before, &one);
                new.lines.drain(..known);
                new.times.drain(..known.min(new.times.len()));
            }
            news.push(new);
            seen.insert(one.instance.clone(), one);
        }
        options.wanted(&mut news);
        say(console, options, &news);
    }
    Ok(Exit::Done)
}

/// How many lines of the later output were in the earlier one: as many as the one ends with and the
/// other begins with, by text and time.
fn overlap(before: &InstanceLogs, after: &InstanceLogs) -> usize {
    let (b, a) = (&before.lines, &after.lines);
    let most = b.len().min(a.len());
    let same = |count: &usize| {
        let from = b.len() - count;
        let times = match (before.times.get(from..), after.times.get(..*count)) {
            (Some(before), Some(after)) => before == after,
            _ => true,
        };
        times && b[from..] == a[..*count]
    };
    (0..=most).rev().find(same).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(instance: &str, lines: &[(&str, &str)]) -> InstanceLogs {
        InstanceLogs {
            instance: instance.to_owned(),
            revision: 1,
            lines: lines.iter().map(|(_, line)| (*line).to_owned()).collect(),
            times: lines.iter().map(|(at, _)| (*at).to_owned()).collect(),
        }
    }

    #[test]
    fn new_lines_are_those_behind_what_was_seen() {
        let of = |text: &str| one("web", &text.split(' ').map(|l| ("", l)).collect::<Vec<_>>());
        assert_eq!(overlap(&of("a b c"), &of("a b c")), 3);
        assert_eq!(overlap(&of("a b c"), &of("b c d e")), 2);
        assert_eq!(overlap(&of("a b c"), &of("x y")), 0);
        assert_eq!(overlap(&one("web", &[]), &of("x")), 0);
        // The same words, said again.
        let (first, again) = (one("web", &[("1", "a")]), one("web", &[("2", "a")]));
        assert_eq!(overlap(&first, &again), 0);
    }

    #[test]
    fn filters_leave_what_is_wanted() {
        let both = [("1", "GET / 200"), ("2", "error: no")];
        let mut logs = vec![one("web-1", &both), one("web-2", &both)];
        let options = Options {
            instance: Some("-2".to_owned()),
            grep: Some("error".to_owned()),
            ..Options::default()
        };
        options.wanted(&mut logs);
        assert_eq!(logs, [one("web-2", &[("2", "error: no")])]);
    }

    #[test]
    fn lines_of_several_come_in_one_order() {
        let logs = [
            one("web-1", &[("3", "c"), ("", "d"), ("6", "f")]),
            one("web-2", &[("1", "a"), ("2", "b"), ("5", "e")]),
        ];
        let said: Vec<&str> = in_order(&logs).into_iter().map(|said| said.line).collect();
        assert_eq!(said, ["a", "b", "c", "d", "e", "f"]);
        // Nothing is known: instance by instance.
        let logs = [one("web-1", &[("", "z")]), one("web-2", &[("", "a")])];
        let said: Vec<&str> = in_order(&logs).into_iter().map(|said| said.line).collect();
        assert_eq!(said, ["z", "a"]);
    }
}
